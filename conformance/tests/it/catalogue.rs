//! The macros run exactly the rules of the tables, and where a rule is judged that is in none.

use std::collections::BTreeSet;
use std::path::Path;

use plyfold_conformance::{hostile, rules};

/// Rules that only a judge from outside can decide: the kernel, a tracer, another tool. For each its name, the file
/// of the tests that judge it, and these.
const ELSEWHERE: &[(&str, &str, &str, &[&str])] = &[
    (
        "D 127",
        "kill_at_every_syscall_leaves_openable_store",
        "backends/layout/tests/oracles/main.rs",
        &["kill_at_every_syscall_leaves_openable_store"],
    ),
    (
        "D 129",
        "visible_blob_is_always_whole_after_power_cut",
        "backends/layout/tests/oracles/main.rs",
        &[
            "every_name_comes_after_what_it_needs",
            "power_cut_on_ext4_loses_nothing",
            "power_cut_on_xfs_loses_nothing",
        ],
    ),
    (
        "D 132",
        "enospc_eio_short_write_clean_fail",
        "backends/layout/tests/oracles/main.rs",
        &["enospc_eio_short_write_clean_fail", "a_full_disk_leaves_no_trace"],
    ),
];

#[test]
fn what_the_suite_does_not_judge_is_judged_where_the_table_says() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (id, name, file, tests) in ELSEWHERE {
        let text = std::fs::read_to_string(top.join(file)).unwrap();
        for test in *tests {
            assert!(text.contains(&format!("    {test} needs [")), "{id} {name}: no {test} in {file}");
        }
    }
}

#[test]
fn no_rule_about_caches_is_missing() {
    let suites = rules::cache().map(|rule| rule.id).chain(rules::layout().map(|rule| rule.id));
    let judged: Vec<_> = suites.chain(ELSEWHERE.iter().map(|row| row.0)).collect();
    let catalogue = [("C", 40..=75), ("K", 117..=126), ("D", 127..=133)];
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
