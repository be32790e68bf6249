//! The grammar of `append` and `config`.

use std::path::PathBuf;

use clap::Args as Group;

use super::copy_args::recompression;
use crate::Recompression;

/// Options of `append`.
#[derive(Debug, Group)]
pub(crate) struct Append {
    /// Which image of the store
    pub(crate) image: String,
    /// The layers, the lowest first; `-` is standard input
    #[arg(required = true, value_name = "LAYER.tar")]
    pub(crate) layers: Vec<PathBuf>,
    /// Compress layers that are not compressed so: zstd or gzip, with a level as in zstd:19
    #[arg(long, value_name = "KIND[:LEVEL]", value_parser = recompression)]
    pub(crate) compress: Option<Recompression>,
    /// The name of the result in the store, which is taken from another image if it has it
    #[arg(long, value_name = "NAME")]
    pub(crate) tag: String,
}

/// Options of `config`.
#[derive(Debug, Group)]
pub(crate) struct Config {
    /// Which image of the store
    pub(crate) image: String,
    /// The name of the result in the store, which is taken from another image if it has it
    #[arg(long, value_name = "NAME")]
    pub(crate) tag: String,
    /// Set an environment variable; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Remove an environment variable; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) unset_env: Vec<String>,
    /// The program that is run, with its first arguments
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<Words>,
    /// The arguments that are used when a run names none
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    pub(crate) cmd: Option<Words>,
    /// Set a label; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Remove a label; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) unset_label: Vec<String>,
    /// Set an annotation of the manifest; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Remove an annotation; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) unset_annotation: Vec<String>,
    /// The user that the program runs as, by name or number; an empty text removes it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// The directory that the program starts in; an empty text removes it
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The signal that asks the program to end; an empty text removes it
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Add a port that the program listens on; may be given several times
    #[arg(long, value_name = "PORT[/udp]")]
    pub(crate) expose: Vec<String>,
    /// Remove a port; may be given several times
    #[arg(long, value_name = "PORT[/udp]")]
    pub(crate) unset_expose: Vec<String>,
    /// Add a path that holds data of its own in each container; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) volume: Vec<String>,
    /// Remove such a path; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) unset_volume: Vec<String>,
}

/// The words of a command.
#[derive(Clone, Debug)]
pub(crate) struct Words(pub(crate) Vec<String>);

fn words(text: &str) -> Result<Words, String> {
    if text.trim_start().starts_with('[') {
        let words = serde_json::from_str(text).map_err(|e| format!("not a list of texts in JSON: {e}"))?;
        return Ok(Words(words));
    }
    shlex::split(text).map(Words).ok_or_else(|| "a quotation mark is not closed".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell_or_of_json() {
        let read = |text: &str| words(text).map(|Words(words)| words);
        assert_eq!(read("nginx -g 'daemon off;'").unwrap(), ["nginx", "-g", "daemon off;"]);
        assert_eq!(read(r#"["/bin/sh", "-c", "a b"]"#).unwrap(), ["/bin/sh", "-c", "a b"]);
        assert_eq!(read("").unwrap(), [""; 0]);
        assert!(read("it's").unwrap_err().contains("quotation mark"));
        assert!(read("[1]").unwrap_err().contains("JSON"));
        assert_eq!(pair("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }
}
