//! What each linked backend and format says of itself, against what it does.

use std::collections::BTreeSet;

use plyfold::{Backends, Capabilities, ErrorKind, Materializers, OptionFault, Options, Result};

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
    let (_, keys) = why.split_once("no-such-option`, ").unwrap();
    keys.split('`').skip(1).step_by(2).map(str::to_owned).collect()
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
                "registry" | "docker" => "registry.invalid/app:1".to_owned(),
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
