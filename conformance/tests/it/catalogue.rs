//! The macros run exactly the rules of the tables, and no rule is missing.

use std::collections::BTreeSet;

use plyfold_conformance::{durability, hostile, rules};

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
    ];
    let catalogue = catalogue.into_iter().flat_map(|(group, numbers)| numbers.map(move |n| (group, n)));
    let catalogue: BTreeSet<_> = catalogue.map(|(group, number)| format!("{group} {number}")).collect();
    assert_eq!(judged.len(), catalogue.len(), "each is judged in one place");
    assert_eq!(judged.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), catalogue);
}

#[test]
fn the_macros_name_every_rule() {
    let named = plyfold_conformance::__registry_rules! { __names () };
    let tables: Vec<_> = rules::registry().map(|rule| rule.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__cache_rules! { __names () };
    let tables: Vec<_> = rules::cache().map(|rule| rule.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__layout_rules! { __names () };
    let tables: Vec<_> = rules::layout().map(|rule| rule.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__durability_tests! { __names () };
    let tables: Vec<_> = durability::tests().map(|test| test.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__hostile_rows! { __names () };
    let tables: Vec<_> = hostile::rows().map(|row| row.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__http_rules! { __names () };
    let tables: Vec<_> = rules::http().map(|rule| rule.name).collect();
    assert_eq!(named.to_vec(), tables);
    let named = plyfold_conformance::__materializer_rules! { __names () };
    let tables: Vec<_> = rules::materializer().map(|rule| rule.name).collect();
    assert_eq!(named.to_vec(), tables);
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
