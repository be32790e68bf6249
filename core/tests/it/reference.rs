//! The parser of references beside that of `oci-spec`, which follows Docker's grammar by a pattern.

use oci_spec::distribution::Reference;
use plyfold_core::reference;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pattern_and_the_parser_agree(text in written()) {
        agree(&text)?;
    }

    #[test]
    fn they_agree_on_noise(text in "[a-zA-Z0-9:/@._\\-\\[\\]é\n]{0,24}") {
        agree(&text)?;
    }

    #[test]
    fn what_is_written_reads_back(text in written()) {
        if let Ok(parsed) = reference::parse(&text) {
            prop_assert_eq!(reference::parse(&parsed.whole()).unwrap(), parsed);
        }
    }
}

fn agree(text: &str) -> Result<(), TestCaseError> {
    match (reference::parse(text), Reference::try_from(text)) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
        (Ok(ours), Err(theirs)) => prop_assert!(is_address(ours.registry()), "{text:?}: {theirs}"),
        (Err(ours), Ok(theirs)) => prop_assert!(is_meaningless(&theirs), "{text:?}: {ours}"),
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

/// Docker's grammar has addresses in brackets, the pattern has not.
fn is_address(registry: &str) -> bool {
    registry.starts_with('[')
}

/// What the pattern lets through: upper case, hosts that are none, and digests in upper case.
fn is_meaningless(reference: &Reference) -> bool {
    let (host, port) = reference.registry().split_once(':').unwrap_or((reference.registry(), "0"));
    let odd_host = host.split('.').any(|label| {
        label.is_empty() || label.contains('_') || label.starts_with('-') || label.ends_with('-')
    });
    let upper = |text: &str| text.bytes().any(|c| c.is_ascii_uppercase());
    odd_host
        || port.parse::<u16>().is_err()
        || upper(reference.repository())
        || reference.digest().is_some_and(upper)
        || reference.tag().is_some_and(|tag| !tag.is_ascii())
}

/// Text that is nearly always close to a reference.
fn written() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just(String::new()),
        Just("localhost/".to_owned()),
        Just("index.docker.io/".to_owned()),
        Just("[::1]:5000/".to_owned()),
        "[a-zA-Z0-9-]{1,4}(\\.[a-z0-9_-]{1,3}){0,2}(:[0-9]{1,6})?/",
    ];
    let path = "[a-zA-Z0-9]{1,3}([._/-]{0,3}[a-z0-9]{1,2}){0,3}";
    let tag = prop_oneof![Just(String::new()), ":[A-Za-z0-9_.-]{0,4}", Just(format!(":{}", "t".repeat(129)))];
    let digest = prop_oneof![
        4 => Just(String::new()),
        1 => "@sha256:[0-9a-f]{64}",
        1 => "@sha512:[0-9a-f]{128}",
        1 => "@sha256:[0-9a-fA-F]{63,65}",
        1 => "@[a-z]{3}:[0-9a-f]{32}",
    ];
    (host, path, tag, digest).prop_map(|(host, path, tag, digest)| format!("{host}{path}{tag}{digest}"))
}

#[test]
fn places_whose_names_differ_have_images_that_differ() {
    let local = |path: &str| reference::local(path.as_ref(), "v1").unwrap().whole();
    for (path, whole) in [
        ("/mnt/alpine-3.19", "localhost/alpine-3-19:v1"),
        ("/mnt/alpine-3.20/", "localhost/alpine-3-20:v1"),
        ("alpine-3.20.tar", "localhost/alpine-3-20:v1"),
        ("images.oci.tar.zst", "localhost/images:v1"),
        ("my dir/Bücher & Co.", "localhost/b-cher-co:v1"),
        ("/mnt/.tar", "localhost/image:v1"),
        ("/", "localhost/image:v1"),
    ] {
        assert_eq!(local(path), whole, "{path}");
    }
    let here = std::env::current_dir().unwrap();
    assert_eq!(local("."), local(here.to_str().unwrap()));
    assert_eq!(local("src/.."), local("."));
    assert_eq!(local("./"), local("."));
}
