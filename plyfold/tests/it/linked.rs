//! What each linked backend and format says of itself, against what it does.

use std::collections::BTreeSet;
use std::fs;

use plyfold::{Backends, Capabilities, ErrorKind, FormatEntry, Materializers, OptionFault, Options, Result};

use super::baseline;

/// The keys of `align=BYTES, depth=NUMBER`.
fn listed(options: &str) -> BTreeSet<String> {
    let options = options.split(", ").filter(|option| !option.is_empty());
    options.map(|option| option.split_once('=').expect(option).0.to_owned()).collect()
}

/// The keys that an error about an unknown one lists.
fn known<T: std::fmt::Debug>(opened: Result<T>) -> BTreeSet<String> {
    let error = opened.unwrap_err();
    assert_eq!(
        (error.kind(), error.context("option")),
        (&ErrorKind::Config, Some("no-such-option")),
        "{error}"
    );
    let Some(OptionFault::Unknown(_, why)) = error.detail() else { panic!("{error}") };
    why.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The table of the manual has each option of each format, and no other.
#[test]
fn the_manual_has_the_options_of_each_format() {
    let page = fs::read_to_string(baseline::root().join("core/src/manual/command.md")).unwrap();
    let (_, table) = page.split_once("| option | of | means | without it |\n|---|---|---|---|\n").unwrap();
    let words =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut described = BTreeSet::new();
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        for format in words(cells[2]) {
            let keys =
                words(cells[1]).into_iter().filter_map(|word| Some(word.split_once('=')?.0.to_owned()));
            described.extend(keys.map(|key| (format.clone(), key)));
        }
    }
    let formats = Materializers::linked().unwrap();
    let of = |entry: &FormatEntry| listed(entry.options).into_iter().map(|key| (entry.name.to_owned(), key));
    let taken: BTreeSet<(String, String)> = formats.iter().flat_map(of).collect();
    assert_eq!(described, taken);
}

fn unknown() -> Options {
    Options::parse(["no-such-option=1"]).unwrap()
}

#[tokio::test]
async fn backends_list_their_options_and_can_do_no_more_than_they_register() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Backends::linked().unwrap();
    for backend in backends.iter() {
        for scheme in backend.schemes {
            let rest = match *scheme {
                "registry" | "docker" | "docker-daemon" => "registry.invalid/app:1".to_owned(),
                _ => dir.path().join("none").display().to_string(),
            };
            let uri = format!("{scheme}:{rest}");
            let keys = known(backends.open(&uri, &unknown()).await);
            assert_eq!(keys, listed(backend.options), "{scheme}");
            let opened = backends.open(&uri, &Options::default()).await.unwrap();
            assert_eq!(within(opened.registry.capabilities(), backend.capabilities), "", "{scheme}");
        }
    }
    assert!(backends.iter().count() >= 5);
}

/// What one can and the other cannot.
fn within(opened: Capabilities, registered: Capabilities) -> String {
    let yes = |can: Capabilities| match serde_json::to_value(can).unwrap() {
        serde_json::Value::Object(fields) => {
            fields.into_iter().filter(|(_, can)| *can == true).map(|(name, _)| name).collect::<BTreeSet<_>>()
        }
        other => panic!("{other}"),
    };
    let more: Vec<String> = yes(opened).difference(&yes(registered)).cloned().collect();
    more.join(", ")
}

#[test]
fn formats_list_their_options() {
    let formats = Materializers::linked().unwrap();
    for entry in formats.iter() {
        assert_eq!(known(formats.open(entry.name, &unknown())), listed(entry.options), "{}", entry.name);
    }
    assert!(formats.iter().count() >= 3);
}
