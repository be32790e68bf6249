//! The tables of rules: none is missing, and none stands twice.

use std::collections::BTreeSet;

use plyfold_conformance::{durability, rules};

#[test]
fn no_rule_about_caches_is_missing() {
    let suites = rules::cache().map(|rule| rule.id).chain(rules::layout().map(|rule| rule.id));
    let durability: BTreeSet<_> = durability::tests().map(|test| test.id).collect();
    let judged: Vec<_> = suites.chain(durability).collect();
    let catalogue = [
        ("C", 40..=75),
        ("K", 117..=126),
        ("D", 127..=133),
        ("K", 180..=182),
        ("C", 183..=193),
        ("K", 194..=194),
        ("C", 200..=200),
        ("C", 207..=207),
        ("K", 208..=208),
        ("C", 210..=210),
        ("C", 220..=222),
        ("C", 230..=230),
    ];
    let catalogue = catalogue.into_iter().flat_map(|(group, numbers)| numbers.map(move |n| (group, n)));
    let catalogue: BTreeSet<_> = catalogue.map(|(group, number)| format!("{group} {number}")).collect();
    assert_eq!(judged.len(), catalogue.len(), "each is judged in one place");
    assert_eq!(judged.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), catalogue);
}

#[test]
fn no_table_is_left_out_of_its_suite() {
    let (mut registry, mut cache, mut http) = (Vec::new(), Vec::new(), Vec::new());
    plyfold_conformance::__registry_tables! { __push (registry) }
    plyfold_conformance::__cache_tables! { __push (cache) }
    plyfold_conformance::__http_tables! { __push (http) }
    assert_eq!(registry, rules::registry().map(|rule| rule.name).collect::<Vec<_>>());
    assert_eq!(cache, rules::cache().map(|rule| rule.name).collect::<Vec<_>>());
    assert_eq!(http, rules::http().map(|rule| rule.name).collect::<Vec<_>>());
}

#[test]
fn ids_and_texts_are_unique() {
    let registry = rules::registry().map(|rule| (rule.id, rule.text));
    let cache = rules::cache().map(|rule| (rule.id, rule.text));
    let cache = cache.chain(rules::layout().map(|rule| (rule.id, rule.text)));
    let materializer = rules::materializer().map(|rule| (rule.id, rule.text));
    let http = rules::http().map(|rule| (rule.id, rule.text));
    let all: Vec<_> = registry.chain(cache).chain(http).chain(materializer).collect();
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
    let texts: BTreeSet<_> = all.iter().map(|(_, text)| text).collect();
    assert_eq!((ids.len(), texts.len()), (all.len(), all.len()));
}
