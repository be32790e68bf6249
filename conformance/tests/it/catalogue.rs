//! The tables of rules: none is missing, and none stands twice.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plyfold_conformance::hostile::{self, Outcome};
use plyfold_conformance::{durability, rules};

use super::samples::blessed;

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
        ("C", 267..=267),
        ("C", 280..=283),
        ("C", 290..=292),
        ("X", 104..=104),
        ("X", 107..=107),
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
    let materializer = materializer.chain(rules::disk().map(|rule| (rule.id, rule.text)));
    let http = rules::http().map(|rule| (rule.id, rule.text));
    let registry = registry.chain(rules::archive().map(|rule| (rule.id, rule.text)));
    let all: Vec<_> = registry.chain(cache).chain(http).chain(materializer).collect();
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
    let texts: BTreeSet<_> = all.iter().map(|(_, text)| text).collect();
    assert_eq!((ids.len(), texts.len()), (all.len(), all.len()));
}

/// Where a reader of the documentation finds the rule that a page or a message names.
#[test]
fn the_documentation_has_every_rule() {
    let mut rows = Vec::new();
    macro_rules! add {
        ($($suite:literal $rules:expr;)+) => {
            $(rows.extend($rules.map(|rule| (rule.id, rule.name, rule.text.to_owned(), $suite)));)+
        };
    }
    add! {
        "`registry_suite!`" rules::registry();
        "`archive_suite!`" rules::archive();
        "`http_suite!`" rules::http();
        "`cache_suite!`" rules::cache();
        "`layout_suite!`" rules::layout();
        "`durability`" durability::tests();
        "`materializer_suite!`" rules::materializer();
        "`disk_suite!`" rules::disk();
    }
    let number = |id: &str| id.split_once(' ').and_then(|(_, number)| number.parse::<u32>().ok()).unwrap();
    rows.sort_by_key(|(id, ..)| (id.chars().next(), number(id)));
    let mut text = "# Rules\n\n| id | name | what it demands | suite |\n|---|---|---|---|\n".to_owned();
    for (id, name, demands, suite) in rows {
        writeln!(text, "| {id} | `{name}` | {} | {suite} |", demands.replace('|', "\\|")).unwrap();
    }
    text.push_str("\n# Hostile inputs\n\n| input of `hostile_suite!` | what it must get |\n|---|---|\n");
    for row in hostile::rows() {
        let outcome = match row.outcome {
            Outcome::Image(platform) => format!("the image for {platform}, whole"),
            Outcome::Refused(kinds) => {
                kinds.iter().map(|kind| format!("`{kind:?}`")).collect::<Vec<_>>().join(" or ")
            }
            Outcome::WrongPlatform => "no image for the wanted platform".to_owned(),
        };
        writeln!(text, "| `{}` | {outcome} |", row.name).unwrap();
    }
    if blessed("../../src/rules/catalogue.md", &text) {
        return;
    }
    let expected = include_str!("../../src/rules/catalogue.md");
    assert!(text == expected, "`PLYFOLD_BLESS=1 cargo test -p plyfold-conformance` writes it anew: {text}");
}

/// `R 17`, `rules C 49 and C 200`: what the manual and the documentation of contracts cite is in the catalogue.
#[test]
fn every_rule_that_a_page_cites_is_there() {
    let ids: BTreeSet<&str> = rules::registry()
        .map(|rule| rule.id)
        .chain(rules::archive().map(|rule| rule.id))
        .chain(rules::http().map(|rule| rule.id))
        .chain(rules::cache().map(|rule| rule.id))
        .chain(rules::layout().map(|rule| rule.id))
        .chain(durability::tests().map(|rule| rule.id))
        .chain(rules::materializer().map(|rule| rule.id))
        .chain(rules::disk().map(|rule| rule.id))
        .collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src")];
    let mut cited = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let is_page = path.extension().is_some_and(|extension| extension == "md");
            let lines = text.lines().filter(|line| is_page || line.trim_start().starts_with("//"));
            let lines = lines.map(|line| line.trim_start_matches([' ', '/', '!']));
            let text = lines.collect::<Vec<_>>().join(" ");
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words.windows(2) {
                let group = pair[0].trim_start_matches('(');
                let number: String = pair[1].chars().take_while(char::is_ascii_digit).collect();
                if group.len() == 1
                    && group.starts_with(|c: char| "CDEHKMRSX".contains(c))
                    && !number.is_empty()
                {
                    let id = format!("{group} {number}");
                    assert!(ids.contains(id.as_str()), "{}: there is no rule {id}", path.display());
                    cited += 1;
                }
            }
        }
    }
    assert!(cited > 50, "{cited} rules are cited");
}
