//! `completions`: scripts for shells, which ask this program for the names of images.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::CommandFactory as _;
use clap_complete::Shell;
use plyfold::{Images, Result};

use super::args::Args;
use super::screen::write;
use super::session::default_store;

/// Verbs whose words are images of the store.
const NAMING: [&str; 13] = [
    "delete",
    "export",
    "inspect",
    "materialize",
    "pin",
    "pull",
    "push",
    "remove",
    "rm",
    "rmi",
    "tag",
    "unpin",
    "verify",
];

/// Writes the completion script of a shell.
pub(crate) fn script(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "plyfold", &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => format!("{script}{BASH}"),
        Shell::Fish => format!("{script}{}", fish()),
        // The helper stands before what runs when the file is loaded.
        Shell::Zsh => script
            .replacen("\n_plyfold() {", &format!("{ZSH}\n_plyfold() {{"), 1)
            .replace(" -- Which image:_default'", " -- Which image:_plyfold_images'"),
        _ => script.into_owned(),
    };
    write(script.as_bytes())
}

/// Writes the names that complete the last of the words of a command line, one a line. Whatever is wrong, a shell
/// that asks in the middle of a line is told nothing.
pub(crate) async fn names(words: &[OsString]) -> Result<()> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let Some((last, before)) = words.split_last() else { return Ok(()) };
    if last.starts_with('-') || !before.iter().any(|word| NAMING.contains(word)) {
        return Ok(());
    }
    let after = |option: &&str| *option == "--store";
    let given = before.iter().position(after).and_then(|at| before.get(at + 1)).map(Into::into);
    let given =
        given.or_else(|| before.iter().find_map(|word| word.strip_prefix("--store=")).map(Into::into));
    let Some(store) = given.or_else(|| default_store().ok()).filter(|store| store.is_dir()) else {
        return Ok(());
    };
    let Ok(images) = Images::open(store).await else { return Ok(()) };
    let mut names = BTreeSet::new();
    for (name, _) in images.list_cached().await.unwrap_or_default() {
        // As people write it, and as it is.
        names.extend([super::kept::familiar(&name), name.whole()]);
    }
    let names = names.iter().filter(|name| name.starts_with(last));
    write(names.map(|name| format!("{name}\n")).collect::<Vec<_>>().concat().as_bytes())
}

/// A colon ends a word for bash: what stands before the last one is on the line already.
const BASH: &str = r#"
_plyfold_with_images() {
    _plyfold "$@"
    local line="${COMP_LINE:0:COMP_POINT}" word name colon=""
    word="${line##*[[:space:]]}"
    [[ $word == -* ]] && return 0
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        colon="${word%"${word##*:}"}"
    fi
    local kept=()
    for name in "${COMPREPLY[@]}"; do
        [[ $name == "<"* || $name == "["* ]] || kept+=("$name")
    done
    COMPREPLY=("${kept[@]}")
    while IFS= read -r name; do
        COMPREPLY+=("${name#"$colon"}")
    done < <(read -ra words <<< "$line"; [[ $line == *[[:space:]] ]] && words+=("");
        "${words[0]}" names-for-completion -- "${words[@]:1}" 2> /dev/null)
}

complete -F _plyfold_with_images -o bashdefault -o default plyfold
"#;

const ZSH: &str = r#"
_plyfold_images() {
    local -a names
    names=(${(f)"$(plyfold names-for-completion -- "${words[@]}" 2> /dev/null)"})
    compadd -a names
    _files
}
"#;

fn fish() -> String {
    let line = |verb: &str| {
        format!(
            "complete -c plyfold -n \"__fish_plyfold_using_subcommand {verb}\" -a \
             '(plyfold names-for-completion -- (commandline -opc)[2..] (commandline -ct) 2> /dev/null)'\n"
        )
    };
    NAMING.iter().map(|verb| line(verb)).collect()
}
