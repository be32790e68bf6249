//! Plain words: the last column of CONTRIBUTING.md's table of words, some phrases, and names that were replaced are in
//! no document, comment, message or source.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::baseline;

/// Figures of speech.
const PHRASES: &[&str] = &[
    "behind its back",
    "breaks off",
    "cache's back",
    "dawdles",
    "goes for good",
    "in clothes",
    "in hand",
    "in vain",
    "is nothing for",
    "leads nowhere",
    "never mind",
    "newcomer",
    "newcomers",
    "nobody's business",
    "of one's own",
    "somebody else's",
    "stands still",
    "stranger",
    "under which name",
    "vouch",
    "vouches",
];

/// Names that were replaced, as identifiers.
const OLD_NAMES: &[&str] =
    &["Beside", "JudgedStage", "Patience", "Seal", "Stage", "Staged", "Turns", "WholeFile", "set_aside"];

/// What is read: folders and files of the workspace.
const TEXTS: &[&str] = &[
    ".ci",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "backends",
    "benches",
    "conformance",
    "core",
    "examples",
    "materializers",
    "plyfold",
];

#[test]
fn no_banned_word_is_used() {
    let banned = banned();
    assert!(banned.len() > PHRASES.len() + 20, "the table in CONTRIBUTING.md is not read: {banned:?}");
    let mut found = String::new();
    let files = files();
    assert!(files.len() > 400, "{} files", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let words = words(&path, &text);
        for at in 0..words.len() {
            for phrase in banned.iter().filter(|phrase| begins_with(&words[at..], phrase)) {
                let _ = writeln!(found, "{}:{}: {}", path.display(), words[at].0, phrase.join(" "));
            }
        }
        let code =
            |line: &&str| path.extension().is_some_and(|x| x == "rs") && !line.trim_start().starts_with("//");
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| code(line)) {
            let identifiers = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in identifiers.filter(|name| OLD_NAMES.contains(name)) {
                let _ = writeln!(found, "{}:{number}: {name}", path.display());
            }
        }
    }
    assert!(found.is_empty(), "see \"One word for one thing\" in CONTRIBUTING.md:\n{found}");
}

#[test]
fn banned_words_are_found() {
    let source = "fn f() {} // A file dies\nlet s = \"it\";\nlet dead = \"it is\n//! and it\n//! is whole.\n";
    let words = words(Path::new("core/src/f.rs"), source);
    let found = |phrase: &str| {
        let phrase: Vec<String> = phrase.split(' ').map(str::to_owned).collect();
        (0..words.len()).any(|at| begins_with(&words[at..], &phrase))
    };
    assert!(found("dies") && found("is whole"), "in comments, across lines: {words:?}");
    assert!(!found("dead"), "an identifier is no prose: {words:?}");
    assert!(banned().iter().any(|phrase| phrase == &["set", "aside"]));
}

/// Each phrase as its words in lower case: the table's last column, and [`PHRASES`].
fn banned() -> BTreeSet<Vec<String>> {
    let table = fs::read_to_string(baseline::root().join("CONTRIBUTING.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| **"));
    let listed: Vec<String> = rows.filter_map(|row| row.split('|').nth(3).map(str::to_owned)).collect();
    let listed =
        listed.iter().flat_map(|cell| cell.split(',').map(str::trim)).filter(|phrase| !phrase.is_empty());
    let phrases = listed.chain(PHRASES.iter().copied());
    phrases.map(|phrase| phrase.split(' ').map(str::to_owned).collect()).collect()
}

fn files() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = TEXTS.iter().map(|text| baseline::root().join(text)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            // `peers`: files of other projects.
            if !path.ends_with("peers") && !path.ends_with("target") {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if is_read(&path) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn is_read(path: &Path) -> bool {
    let is_source = path.extension().is_some_and(|extension| extension == "md" || extension == "rs");
    (is_source || path.parent().is_some_and(|folder| folder.file_name().is_some_and(|name| name == ".ci")))
        && !path.ends_with("it/words.rs")
}

/// The words of a text with their lines, without punctuation and in lower case: all of a document; of a source its
/// comments, and outside of tests its strings. An empty word stands between what does not belong together.
fn words(path: &Path, text: &str) -> Vec<(usize, String)> {
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let has_messages = path.components().any(|part| part.as_os_str() == "src");
    let mut words = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut add = |text: &str| {
            let cut = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
            words.extend(cut.map(|word| (number, word.to_lowercase())));
        };
        if !is_rust {
            // The column that lists the words is not prose.
            let is_row = path.ends_with("CONTRIBUTING.md") && line.starts_with("| **");
            add(if is_row { line.rsplitn(3, '|').last().unwrap_or(line) } else { line });
            continue;
        }
        if line.trim_start().starts_with("//") {
            add(line);
            continue;
        }
        add(" | ");
        let (code, comment) = line.split_once(" // ").unwrap_or((line, ""));
        add(comment);
        // A text of several lines looks like code on all but its first one; a text of one word is no prose.
        for text in code.split('"').skip(1).step_by(2).filter(|text| has_messages && text.contains(' ')) {
            add(" | ");
            add(text);
        }
    }
    words
}

fn begins_with(words: &[(usize, String)], phrase: &[String]) -> bool {
    words.len() >= phrase.len() && words.iter().zip(phrase).all(|((_, word), wanted)| word == wanted)
}
