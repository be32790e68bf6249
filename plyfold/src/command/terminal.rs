//! Where results go: text or one JSON document on standard output, everything else on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result, printable};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use serde_json::json;

use super::global::Global;

/// Output settings: text or JSON, verbosity, bars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Whether the result is JSON.
    pub(crate) json: bool,
    pub(crate) loudness: Loudness,
}

/// Verbosity.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Loudness {
    /// Warnings and errors.
    Quiet,
    /// What is done.
    Normal,
    /// What did not have to be done, too.
    Verbose,
}

impl Terminal {
    pub(crate) fn new(global: &Global) -> Self {
        let loudness = match global {
            Global { verbose: true, .. } => Loudness::Verbose,
            Global { quiet: true, .. } => Loudness::Quiet,
            _ => Loudness::Normal,
        };
        Self { json: global.json, loudness }
    }

    /// Whether bars can be drawn.
    pub(crate) fn draws(self) -> bool {
        !self.json && self.loudness >= Loudness::Normal && io::stderr().is_terminal()
    }

    /// Says something beside the result, with a word for what it is: `warning`, `note`. As JSON it is an event.
    pub(crate) fn say(self, level: &str, message: &str) {
        if self.json {
            tell(&format!("{}\n", json!({ "event": level, "message": message })));
        } else {
            tell(&format!("{level}: {}\n", printable(message)));
        }
    }

    /// Writes the result: `document` as JSON, or `text`, which ends in a line feed.
    pub(crate) fn show(self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            let mut json = serde_json::to_vec_pretty(document)
                .map_err(|e| Error::new(crate::ErrorKind::Internal, "writing JSON").with_source(e))?;
            json.push(b'\n');
            return write(&json);
        }
        write(text().as_bytes())
    }
}

/// Columns of the terminal that results go to, if they go to one.
pub(crate) fn columns() -> Option<usize> {
    let columns = tcgetwinsize(io::stdout()).ok().map(|terminal| usize::from(terminal.ws_col));
    columns.filter(|columns| *columns > 0)
}

/// Writes bytes to standard output. A closed pipe is not a failure.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// What became of writing to standard output.
pub(crate) fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("writing to standard output", e)),
        _ => Ok(()),
    }
}

/// The bars on the terminal, if there are any.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How many bars are on the terminal.
static DRAWN: AtomicUsize = AtomicUsize::new(0);

/// Puts a bar on the terminal, above another if there is one.
pub(crate) fn draw(bar: ProgressBar, above: Option<&ProgressBar>) -> ProgressBar {
    let bar = match above {
        Some(other) => BARS.insert_before(other, bar),
        None => BARS.add(bar),
    };
    if !bar.is_hidden() {
        DRAWN.fetch_add(1, Ordering::Relaxed);
    }
    // At once: a bar that is counted and not yet drawn would make `erase_typed` go up from below no bar.
    bar.force_draw();
    bar
}

/// Takes a bar off the terminal; one that is not on it is left as it is.
pub(crate) fn erase(bar: &ProgressBar) {
    if !bar.is_hidden() && !bar.is_finished() {
        DRAWN.fetch_sub(1, Ordering::Relaxed);
    }
    bar.finish_and_clear();
}

/// Erases the `^C` that a terminal shows when it is typed, which the bars do not account for.
///
/// The cursor stands behind the last column of the last bar, or behind the `^C` in the line below. One more character
/// brings it into the line below in both cases; from there it goes back.
pub(crate) fn erase_typed() {
    if DRAWN.load(Ordering::Relaxed) > 0 {
        // A failed write is ignored.
        let _ = io::stderr().lock().write_all(b" \r\x1b[K\x1b[1A");
    }
}

/// Writes to standard error, above the bars. A failed write is ignored.
pub(crate) fn tell(text: &str) {
    if BARS.clear().is_err() {
        // The terminal has gone: `suspend` would panic, and what is not written is held in memory.
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
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
        let cells = widths.iter().zip(cells).map(|(width, cell)| format!("{cell:<width$}  "));
        let line = cells.collect::<Vec<_>>().concat();
        format!("{}\n", line.trim_end())
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    line(head) + &rows.collect::<String>()
}

/// The same on a terminal of so many columns: what is too long of the first column is left out of its middle.
pub(crate) fn table_within<const N: usize>(
    columns: Option<usize>,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    /// Names are not cut below this width.
    const LEAST: usize = 16;
    let text = table(head, rows);
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let over = columns.map_or(0, |columns| widest.saturating_sub(columns));
    if over == 0 {
        return text;
    }
    let first = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    let room = first.saturating_sub(over).max(LEAST);
    let shorter = rows.iter().map(|row| {
        let mut row = row.clone();
        row[0] = without_middle(&row[0], room);
        row
    });
    table(head, &shorter.collect::<Vec<_>>())
}

/// At most so many characters: `registry.lan:5000/…/app:1.2`.
fn without_middle(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let end = (room - 1) / 2;
    let (start, end) = (room - 1 - end, count - end);
    text.chars().take(start).chain(['…']).chain(text.chars().skip(end)).collect()
}

/// The start of a line, where a terminal has no more columns.
pub(crate) fn cut(line: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if line.chars().count() > columns => {
            line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal() {
        let rows = [
            ["registry.lan:5000/team/of/many/app:1.2.3".to_owned(), "x".repeat(40)],
            ["alpine:3".to_owned(), "y".to_owned()],
        ];
        let narrow = table_within(Some(72), ["IMAGE", "WHAT"], &rows);
        assert_eq!(narrow.lines().map(|line| line.chars().count()).max(), Some(72));
        assert!(narrow.contains("registry.lan:5…y/app:1.2.3") || narrow.contains('…'), "{narrow}");
        assert!(narrow.contains("\nalpine:3  "), "{narrow}");
        assert_eq!(table_within(None, ["IMAGE", "WHAT"], &rows), table(["IMAGE", "WHAT"], &rows));
        assert_eq!(without_middle("abcdefghij", 5), "ab…ij");
        assert_eq!((cut("abcdef", Some(4)).as_str(), cut("abcdef", None).as_str()), ("abc…", "abcdef"));
    }
}
