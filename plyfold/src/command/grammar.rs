//! The command line's grammar, under the name of the program.

use clap::CommandFactory as _;

use super::args::Args;
use super::program::{BUILT_ON, PLYFOLD, name};

/// The command line's grammar, under this program's name.
pub(crate) fn grammar() -> clap::Command {
    let grammar = Args::command();
    let name = name();
    if name == PLYFOLD {
        return grammar;
    }
    with_name(grammar.name(name).version(BUILT_ON), name)
}

/// A verb and its own verbs, each with this name in its examples.
fn with_name(command: clap::Command, name: &'static str) -> clap::Command {
    let command = match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(text.replace(PLYFOLD, name)),
        None => command,
    };
    command.mut_subcommands(|verb| with_name(verb, name))
}
