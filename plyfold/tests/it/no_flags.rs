//! What library crates say has no flag and no verb of the command in it: a program of another form would print it, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::baseline;

#[test]
fn no_library_names_a_flag_or_a_verb_of_the_command() {
    let words = Words::of_the_command();
    let mut found = Vec::new();
    for file in libraries() {
        let text = fs::read_to_string(&file).unwrap();
        for literal in literals(&text) {
            if let Some(word) = words.in_text(&literal) {
                found.push(format!("{}: {word:?} in {literal:?}", file.display()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "use a value of Advice, and word it in command/hints.rs:\n{}",
        found.join("\n")
    );
}

/// The command shows what the library says: a reader of it knows no items of Rust. Only advice is worded for each by itself.
#[test]
fn no_message_names_an_item_of_rust() {
    let mut found = Vec::new();
    for file in product().into_iter().filter(|file| !file.ends_with("core/src/advice.rs")) {
        let text = fs::read_to_string(&file).unwrap();
        let code: String =
            text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("#[")).collect();
        let named = literals(&code).into_iter().filter(|literal| names_an_item(literal));
        found.extend(named.map(|literal| format!("{}: {literal:?}", file.display())));
    }
    assert!(
        found.is_empty(),
        "use a value of Advice, and word it in command/hints.rs:\n{}",
        found.join("\n")
    );
}

/// Whether `Type::item`, or a field or function in backquotes, is in a text.
fn names_an_item(text: &str) -> bool {
    let is_item = |word: &str| {
        let snake = word.strip_suffix("()").unwrap_or(word);
        let is_snake = snake.contains('_') && snake.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_snake || word.starts_with("Some(")
    };
    let is_path = |(before, behind): (&str, &str)| {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        before
            .rsplit(|c| !is_word(c))
            .next()
            .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
            && behind.starts_with(is_word)
    };
    text.split_once("::").is_some_and(is_path) || text.split('`').skip(1).step_by(2).any(is_item)
}

/// The flags and verbs that the command has, out of its help.
struct Words {
    flags: BTreeSet<String>,
    verbs: BTreeSet<String>,
}

impl Words {
    fn of_the_command() -> Self {
        let help = fs::read_to_string(baseline::root().join("plyfold/tests/it/runs/help.txt")).unwrap();
        let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let flags: BTreeSet<String> = options.flat_map(long_flags).collect();
        let (_, commands) = help.split_once("\nCommands:\n").unwrap();
        let (commands, _) = commands.split_once("\n\n").unwrap();
        let verbs = commands.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        let verbs: BTreeSet<String> = verbs.collect();
        assert!(flags.contains("--store") && flags.contains("--max-metadata") && verbs.contains("gc"));
        Self { flags, verbs }
    }

    /// The first of them in a text.
    fn in_text(&self, text: &str) -> Option<String> {
        if let Some(flag) = long_flags(text).into_iter().find(|flag| self.flags.contains(flag)) {
            return Some(flag);
        }
        let key = |rest: &str| {
            let (key, _) = rest.split_once('=')?;
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            is_key.then(|| format!("-o {key}="))
        };
        if let Some(option) = text.split("-o ").skip(1).find_map(key) {
            return Some(option);
        }
        let verb = text.split("plyfold ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        let verb = verb.map(|verb| verb.trim_matches(|c: char| !c.is_ascii_lowercase()));
        verb.into_iter().find(|verb| self.verbs.contains(*verb)).map(|verb| format!("plyfold {verb}"))
    }
}

fn long_flags(text: &str) -> Vec<String> {
    let flag = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
        rest.starts_with(|c: char| c.is_ascii_lowercase()).then(|| format!("--{}", &rest[..end]))
    };
    text.split("--").skip(1).filter_map(flag).collect()
}

/// The source files of the library crates: all but the command.
pub(crate) fn libraries() -> Vec<PathBuf> {
    let mut files = product();
    files.retain(|file| !file.starts_with(baseline::root().join("plyfold/src/command")));
    files
}

/// The source files of the crates that users link or run.
pub(crate) fn product() -> Vec<PathBuf> {
    let root = baseline::root();
    let mut folders = vec![root.join("sha256/src"), root.join("core/src"), root.join("plyfold/src")];
    for crates in ["backends", "materializers"] {
        let crates = fs::read_dir(root.join(crates)).unwrap();
        folders.extend(crates.map(|one| one.unwrap().path().join("src")));
    }
    let files: Vec<PathBuf> = folders.iter().flat_map(|folder| rust_files(folder)).collect();
    assert!(files.iter().any(|file| file.ends_with(Path::new("core/src/error.rs"))), "{files:?}");
    files
}

/// The Rust files below a folder.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { rust_files(&path) } else { vec![path] };
    let files = entries.flat_map(below);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The string literals of a source file, without those of its tests.
fn literals(text: &str) -> Vec<String> {
    let text = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code);
    let (mut literals, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['"', '/', '\'', 'r']) {
        let here = &rest[at..];
        let before = rest[..at].chars().next_back();
        let skipped = if here.starts_with("//") {
            here.find('\n').unwrap_or(here.len())
        } else if let Some(raw) =
            raw_string(here).filter(|_| !before.is_some_and(|c| c.is_alphanumeric() || c == '_'))
        {
            literals.push(here[raw.0..raw.1].to_owned());
            raw.2
        } else if here.starts_with('"') {
            let end = string_end(here);
            literals.push(here[1..end].replace("\\\"", "\"").replace("\\\n", " "));
            end + 1
        } else if here.starts_with("'\"'") || here.starts_with("'\\\"'") {
            here[1..].find('\'').map_or(1, |end| end + 2)
        } else {
            1
        };
        rest = &here[skipped..];
    }
    literals
}

/// Where the string that begins here ends.
fn string_end(here: &str) -> usize {
    let mut escaped = false;
    let end = here.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        is_end
    });
    end.map_or(here.len(), |(at, _)| at)
}

/// Start and end of the text of a raw string that begins here, and where it ends.
fn raw_string(here: &str) -> Option<(usize, usize, usize)> {
    let hashes = here.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let start = 1 + hashes + 1;
    if here.as_bytes().get(start - 1) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = start + here[start..].find(&close)?;
    Some((start, end, end + close.len()))
}

#[test]
fn literals_are_found_and_comments_are_not() {
    let text = r##"
        /// `plyfold gc` in documentation
        let a = "one \"--copy\""; // "not this"
        let b = '"'; let c = r#"two "raw" --as"#; let quote = '\"'; for "three"
    "##;
    assert_eq!(literals(text), ["one \"--copy\"", "two \"raw\" --as", "three"]);
    let words = Words::of_the_command();
    assert_eq!(words.in_text("one --copy").as_deref(), Some("--copy"));
    assert_eq!(words.in_text("`plyfold gc` removes").as_deref(), Some("plyfold gc"));
    assert_eq!(words.in_text("raise it with -o spool-limit=BYTES").as_deref(), Some("-o spool-limit="));
    for other in [
        "losetup -r -f --show",
        "mount -t erofs -o ro",
        "mount -o \"lowerdir=a\"",
        "plyfold speaks TLS 1.2",
        "a--b",
    ] {
        assert_eq!(words.in_text(other), None, "{other}");
    }
}
