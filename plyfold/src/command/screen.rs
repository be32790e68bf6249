//! Where results go: text or one JSON document on standard output, everything else on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::LazyLock;

use indicatif::MultiProgress;
use plyfold::{Error, Result};
use serde::Serialize;

use super::args::Global;

/// How to talk to the user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    json: bool,
    loudness: Loudness,
}

/// How much to say besides the result.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Loudness {
    /// Errors.
    Silent,
    /// Warnings and errors.
    Quiet,
    /// What is done.
    Normal,
    /// What did not have to be done, too.
    Verbose,
}

impl Screen {
    pub(crate) fn new(global: &Global) -> Self {
        let loudness = match global {
            Global { verbose: true, .. } => Loudness::Verbose,
            // What standard error holds is to be one document, too.
            Global { json: true, .. } => Loudness::Silent,
            Global { quiet: true, .. } => Loudness::Quiet,
            _ => Loudness::Normal,
        };
        Self { json: global.json, loudness }
    }

    /// Whether the result is JSON.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    pub(crate) fn loudness(self) -> Loudness {
        self.loudness
    }

    /// Whether bars can be drawn.
    pub(crate) fn draws(self) -> bool {
        !self.json && self.loudness >= Loudness::Normal && io::stderr().is_terminal()
    }

    /// Writes the result: `document` as JSON, or `text`, which ends in a line feed.
    pub(crate) fn show(self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            let mut json = serde_json::to_vec_pretty(document)
                .map_err(|e| Error::new(plyfold::ErrorKind::Internal, "writing JSON").with_source(e))?;
            json.push(b'\n');
            return write(&json);
        }
        write(text().as_bytes())
    }
}

/// Writes bytes to standard output. A reader that has seen enough and closed it is no failure.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("writing to standard output", e)),
        _ => Ok(()),
    }
}

/// The bars on the terminal, if there are any.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes to standard error, above the bars. A failure to do so has nowhere to be told.
pub(crate) fn tell(text: &str) {
    let _ = BARS.suspend(|| io::stderr().lock().write_all(text.as_bytes()));
}

/// Rows as aligned columns, two spaces apart.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        format!("{}\n", line.trim_end())
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    line(head) + &rows.collect::<String>()
}
