//! `completions`: scripts for shells, which ask this program for the names of images.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::{Images, Result, reference};
use clap::Arg;
use clap_complete::Shell;

use super::store_place::StorePlace;
use super::terminal::write;
use super::{grammar, program, store_admin};

/// Whether the words of a verb are images of the store.
fn is_of_images(verb: &clap::Command) -> bool {
    let is_image = |word: &Arg| ["image", "images"].contains(&word.get_id().as_str()) && !word.is_hide_set();
    verb.get_positionals().any(is_image)
}

/// Whether a verb has words that are images of the store, itself or one of its own verbs.
fn has_images(verb: &clap::Command) -> bool {
    is_of_images(verb) || verb.get_subcommands().any(is_of_images)
}

/// The verb that these words name, with its own verb if it has such.
fn verb_of<'a>(grammar: &'a clap::Command, words: &[&str]) -> &'a clap::Command {
    words.iter().fold(grammar, |verb, word| verb.find_subcommand(word).unwrap_or(verb))
}

/// Writes the completion script of a shell.
pub(crate) fn script(shell: Shell) -> Result<()> {
    let (name, mut script) = (program::name(), Vec::new());
    let generated = if shell == Shell::Bash { function(name) } else { name.to_owned() };
    clap_complete::generate(shell, &mut grammar::grammar(), generated, &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => {
            let registered = |name: &str| format!(" -o default {name}\n");
            script.replace(&registered(&function(name)), &registered(name)) + &bash(name)
        }
        Shell::Fish => format!("{script}{}", fish(name)),
        Shell::Zsh => zsh(&script, name),
        _ => script.into_owned(),
    };
    write(script.as_bytes())
}

/// What the scripts call this program with before the words of a line. It is not a documented verb.
const ASKED: &str = "names-for-completion";

/// The words of a line that a shell wants completed, the last one as far as it is written.
pub(crate) fn asked() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    let is_asked = arguments.next()? == ASKED && arguments.next()? == "--";
    is_asked.then(|| arguments.collect())
}

/// Answers a shell.
pub(crate) fn answer(words: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answered = runtime.is_ok_and(|runtime| runtime.block_on(names(words)).is_ok());
    if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the names that complete the last of the words of a command line, one a line. Errors are not
/// shown: they would disturb the line that is being typed.
async fn names(words: &[OsString]) -> Result<()> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let Some((last, before)) = words.split_last() else { return Ok(()) };
    let write_of = |names: &[String], begun: &str| {
        let names = names.iter().filter(|name| name.starts_with(begun));
        write(names.flat_map(|name| [name.as_str(), "\n"]).collect::<String>().as_bytes())
    };
    if let Some((values, begun)) = values(last, before) {
        return write_of(&values, begun);
    }
    let grammar = grammar::grammar();
    if last.starts_with('-') || !is_of_images(verb_of(&grammar, before)) {
        return Ok(());
    }
    let after = |option: &&str| *option == "--store";
    let given = before.iter().position(after).and_then(|at| before.get(at + 1)).map(Path::new);
    let given = given.or_else(|| before.iter().find_map(|word| word.strip_prefix("--store=")).map(Path::new));
    let place = given.map_or_else(StorePlace::by_default, |given: &Path| Ok(StorePlace::parse(given)));
    // No request is made while a line is typed.
    let Ok(StorePlace::Directory(store)) = place else { return Ok(()) };
    if !store.is_dir() {
        return Ok(());
    }
    let Ok(images) = Images::open(store).await else { return Ok(()) };
    let mut names = BTreeSet::new();
    let names_of = images.list_cached().await.unwrap_or_default();
    // A list of what refers to an image is no image.
    for (name, _) in names_of.into_iter().filter(|(name, _)| !reference::is_list_of_referrers(name)) {
        // The short form and the full form.
        names.extend([store_admin::familiar(&name), name.whole()]);
    }
    write_of(&names.into_iter().collect::<Vec<_>>(), last)
}

/// The values that the option may have which the last word is for, as far as they are fixed, and what is written of
/// one; `None` for a word that is no value.
fn values<'a>(last: &'a str, before: &[&str]) -> Option<(Vec<String>, &'a str)> {
    let (option, begun) = match last.split_once('=').filter(|_| last.starts_with("--")) {
        Some((option, begun)) => (option, begun),
        None => (*before.last()?, last),
    };
    let mut command = grammar::grammar();
    command.build();
    let verb = verb_of(&command, before);
    let is_it = |argument: &&Arg| match (option.strip_prefix("--"), option.strip_prefix('-')) {
        (Some(long), _) => argument.get_long() == Some(long),
        // Short options may be written together, of which the last one may have a value.
        (None, Some(shorts)) => argument.get_short().is_some_and(|short| shorts.ends_with(short)),
        (None, None) => false,
    };
    let argument =
        verb.get_arguments().find(is_it).filter(|argument| argument.get_action().takes_values())?;
    let values = argument.get_possible_values();
    let shown = values.iter().filter(|value| !value.is_hide_set());
    Some((shown.map(|value| value.get_name().to_owned()).collect(), begun))
}

/// A colon ends a word for bash, and so does an equals sign: what stands before the last one is on the line already.
const BASH: &str = r#"
_plyfold_with_images() {
    _plyfold "$@"
    local line="${COMP_LINE:0:COMP_POINT}" word name colon=""
    word="${line##*[[:space:]]}"
    if [[ $word == --*=* ]]; then
        COMPREPLY=()
        [[ $COMP_WORDBREAKS == *=* ]] || colon="${word%%=*}="
    elif [[ $word == -* ]]; then
        return 0
    elif [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        colon="${word%"${word##*:}"}"
    fi
    local kept=()
    for name in "${COMPREPLY[@]}"; do
        [[ $name == [-\<\[]* ]] || kept+=("$name")
    done
    COMPREPLY=("${kept[@]}")
    while IFS= read -r name; do
        name="${name#"$colon"}"
        [[ $word == --*=* && $COMP_WORDBREAKS != *=* ]] && name="$colon$name"
        [[ " ${COMPREPLY[*]} " == *" $name "* ]] || COMPREPLY+=("$name")
    done < <(read -ra words <<< "$line"; [[ $line == *[[:space:]] ]] && words+=("");
        "${words[0]}" names-for-completion -- "${words[@]:1}" 2> /dev/null)
}

complete -F _plyfold_with_images -o bashdefault -o default PROGRAM
"#;

/// The name as `clap_complete` can write it for bash: a name with a dash it writes in two ways, so that no verb is found.
fn function(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

/// What completes the program's name by that script, and by the names of images.
fn bash(name: &str) -> String {
    BASH.replace("_plyfold", &format!("_{}", function(name))).replace("PROGRAM", name)
}

const ZSH: &str = r#"
_plyfold_images() {
    local -a names
    names=(${(f)"$(PROGRAM names-for-completion -- "${words[@]}" 2> /dev/null)"})
    compadd -a names
    _files
}
"#;

/// The words of verbs that are images are completed by their names; the helper stands before what runs when the file is
/// loaded.
fn zsh(script: &str, name: &str) -> String {
    let helper = format!(":_{name}_images'");
    let images = ["':image -- ", "'*::images -- ", "'::image -- "];
    let line = |line: &str| {
        let is_image = images.iter().any(|image| line.contains(image));
        if is_image { line.replace(":_default'", &helper) } else { line.to_owned() }
    };
    let script: Vec<String> = script.split_inclusive('\n').map(line).collect();
    let (main, images) =
        (format!("\n_{name}() {{"), ZSH.replace("_plyfold", &format!("_{name}")).replace("PROGRAM", name));
    script.concat().replacen(&main, &format!("{images}{main}"), 1)
}

fn fish(name: &str) -> String {
    // As clap_complete calls its functions.
    let function = name.replace('-', "_");
    let line = |verb: &str| {
        format!(
            "complete -c {name} -n \"__fish_{function}_using_subcommand {verb}\" -a \
             '({name} names-for-completion -- (commandline -opc)[2..] (commandline -ct) 2> /dev/null)'\n"
        )
    };
    let verbs = grammar::grammar();
    let verbs = verbs.get_subcommands().filter(|verb| has_images(verb));
    verbs.flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_all_aliases())).map(line).collect()
}
