//! Why options do not fit a configuration, in plain words: the texts of serde are for programmers.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

/// A reason, as the end of "invalid option `key`: …".
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) String);

impl de::Error for Refusal {
    fn custom<T: Display>(why: T) -> Self {
        Self(why.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("{} is not {}", shown(found), wanted(expected)))
    }

    /// Of the right type: numbers are out of the range of theirs, which has a name that is Rust's.
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(0) => Self("0 is too small".to_owned()),
            Unexpected::Signed(number) if number <= 0 => Self(format!("{number} is too small")),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => Self(format!("{} is too large", shown(found))),
            other => Self(format!("{} is not {}", shown(other), wanted(expected))),
        }
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self(format!("a list of {length} is not {}", wanted(expected)))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self(format!("{found:?} is not {}", listed(known, "or")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self(match known {
            [] => "there are none".to_owned(),
            [one] => format!("there is `{one}`"),
            many => format!("there are {}", listed(many, "and")),
        })
    }

    fn missing_field(name: &'static str) -> Self {
        Self(format!("`{name}` is missing"))
    }
}

/// What a value has to be: serde calls it as Rust does.
fn wanted(expected: &dyn Expected) -> String {
    match expected.to_string() {
        name if name == "a map" || name.starts_with("struct ") => "a JSON object".to_owned(),
        name if name == "a sequence" => "a list".to_owned(),
        name if name == "a string" || name == "path string" => "a text".to_owned(),
        name => name,
    }
}

/// `a`, `b` and `c`.
fn listed(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, start)) => format!("{} {last} {end}", start.join(", ")),
        None => "anything".to_owned(),
    }
}

/// A value as it was written, or what it is.
fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Map => "a JSON object".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        _ => "this".to_owned(),
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}
