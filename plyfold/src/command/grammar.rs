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
    let examples = move |command: clap::Command| match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(text.replace(PLYFOLD, name)),
        None => command,
    };
    let examples = move |command| examples(command).mut_subcommands(examples);
    examples(grammar.name(name).version(BUILT_ON).mut_subcommands(examples))
}
