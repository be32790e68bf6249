//! What `inspect` shows: a document, and the same as text.

use std::fmt::Display;

use crate::{Result, printable};
use serde_json::{Value, json};

/// A document, and the same as lines of a name and a value, with a table and with parts behind them.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) document: Value,
    pub(crate) lines: Vec<(&'static str, String)>,
    pub(crate) table: String,
    pub(crate) parts: Vec<Self>,
}

impl Shown {
    /// Adds a field of the document, and the line of it.
    pub(crate) fn set(&mut self, key: &str, name: &'static str, value: impl Into<Value>, text: impl Display) {
        self.document[key] = value.into();
        self.lines.push((name, text.to_string()));
    }

    /// Adds the disk that is in it, or why that is not read.
    pub(crate) fn with_disk(mut self, disk: Result<Self>) -> Self {
        match disk {
            Ok(mut disk) => {
                self.document["disk"] = disk.document.take();
                disk.lines.insert(0, ("disk", "what a guest reads".to_owned()));
                self.parts.push(disk);
            }
            Err(e) => {
                self.document["disk"] = Value::Null;
                self.document["disk_error"] = json!(e.to_string());
                self.lines.push(("disk", format!("not read: {e}")));
            }
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.lines.iter().map(|(name, value)| format!("{name:<12}  {}\n", printable(value)));
        let parts = self.parts.iter().map(|part| format!("\n{}", part.text()));
        lines.chain([self.table.clone()]).chain(parts).collect()
    }
}

pub(crate) fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
