//! What is said of each wrong option of each linked format and backend.

use std::collections::BTreeMap;

use plyfold::{Backends, Error, ErrorKind, Materializers, Options};

use super::baseline;

/// What a user of the command has never heard of.
const WORDS: [&str; 17] = [
    "serde",
    "field",
    "variant",
    "expected",
    "invalid type",
    "invalid value",
    "invalid length",
    "integer",
    "struct",
    "enum",
    "untagged",
    "sequence",
    " map",
    "unit",
    "u8",
    "u32",
    "i64",
];

/// Values that few options take: a text, a list, a document, a number that is too large, another that is too small.
const VALUES: [&str; 6] = ["?!", "[1,2]", "{\"a\":1}", "99999999999", "-7", ""];

/// What a wrong option is, and one that is the path of no file.
const PLAIN_KINDS: [ErrorKind; 2] = [ErrorKind::Config, ErrorKind::NotFound];

/// The keys of `align=BYTES, depth=NUMBER`.
fn keys(options: &'static str) -> impl Iterator<Item = &'static str> {
    options.split(", ").filter_map(|option| Some(option.split_once('=')?.0))
}

/// A line for a wrong option. What is not plain in it goes to `faults`.
fn line(of: &str, option: &str, opened: Result<(), Error>, faults: &mut Vec<String>) -> String {
    let Err(error) = opened else { return format!("{of} {option}\n    is taken\n") };
    let hint = error.hint().map(|hint| format!("    hint: {hint}\n")).unwrap_or_default();
    let said = format!("{of} {option}\n    {}\n{hint}", error.message());
    let text = format!("{} {}", error.message(), hint);
    faults.extend(
        WORDS.iter().filter(|word| text.contains(*word)).map(|word| format!("{word:?} is in: {said}")),
    );
    if !PLAIN_KINDS.contains(error.kind()) {
        faults.push(format!("{:?} is the kind of: {said}", error.kind()));
    }
    // Of several options it has to be plain which one is wrong.
    let (key, _) = option.split_once('=').unwrap();
    let small = text.to_lowercase();
    if !key.split('-').any(|part| small.contains(part)) && error.context("option") != Some(key) {
        faults.push(format!("no option is named by: {said}"));
    }
    said
}

#[test]
fn formats_say_in_plain_words_what_is_wrong_with_an_option() {
    let formats = Materializers::linked().unwrap();
    let open =
        |name: &str, option: &str| formats.open(name, &Options::parse(option.split(' ')).unwrap()).map(drop);
    let mut takers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in formats.iter() {
        keys(entry.options).for_each(|key| takers.entry(key).or_default().push(entry.name));
    }
    let (mut said, mut faults) = (String::new(), Vec::new());
    for entry in formats.iter() {
        said += &line(entry.name, "depth=3", open(entry.name, "depth=3"), &mut faults);
        for (key, takers) in &takers {
            let wrong = |value: &str| format!("{key}={value}");
            if takers.contains(&entry.name) {
                let all = VALUES.iter().map(|value| {
                    line(entry.name, &wrong(value), open(entry.name, &wrong(value)), &mut faults)
                });
                said.extend(all);
                let twice = format!("{} {}", wrong("1"), wrong("2"));
                said += &line(entry.name, &twice, open(entry.name, &twice), &mut faults);
                continue;
            }
            // Another format's: those that take it are named.
            let error = open(entry.name, &wrong("1")).unwrap_err();
            let text = line(entry.name, &wrong("1"), Err(error), &mut faults);
            let hint = text.split("hint: ").nth(1).unwrap_or_else(|| panic!("no hint: {text}"));
            let is_named = |name: &&str| {
                hint.split(|c: char| c != '-' && !c.is_alphanumeric()).any(|word| word == *name)
            };
            // What is made of compressed files is for the format that makes one disk of them to say.
            assert!(*key == "compress" || takers.iter().all(is_named), "{text}");
            assert!(*key != "compress" || takers.iter().any(is_named), "{text}");
            said += &text;
        }
    }
    assert!(faults.is_empty(), "{}", faults.concat());
    baseline::check("plyfold/tests/it/runs/wrong_format_options.txt", said.as_bytes());
}

#[tokio::test]
async fn backends_say_in_plain_words_what_is_wrong_with_an_option() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Backends::linked().unwrap();
    let (mut said, mut faults) = (String::new(), Vec::new());
    for backend in backends.iter() {
        let scheme = backend.schemes[0];
        let rest = match scheme {
            "docker-daemon" | "registry" => "registry.invalid/app:1".to_owned(),
            _ => dir.path().join("none").display().to_string(),
        };
        let open = async |option: &str| {
            let options = Options::parse(option.split(' ')).unwrap();
            backends.open(&format!("{scheme}:{rest}"), &options).await.map(drop)
        };
        said += &line(scheme, "depth=3", open("depth=3").await, &mut faults);
        for key in keys(backend.options) {
            for value in VALUES {
                let option = format!("{key}={value}");
                said += &line(scheme, &option, open(&option).await, &mut faults);
            }
            let twice = format!("{key}=1 {key}=2");
            said += &line(scheme, &twice, open(&twice).await, &mut faults);
        }
    }
    assert!(faults.is_empty(), "{}", faults.concat());
    let said = said.replace(dir.path().to_str().unwrap(), "DIR");
    baseline::check("plyfold/tests/it/runs/wrong_backend_options.txt", said.as_bytes());
}
