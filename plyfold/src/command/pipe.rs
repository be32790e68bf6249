//! Standard output as a file that is written piece by piece.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use super::terminal::Terminal;
use crate::blocking::Stop;
use crate::{Error, RangeWrite, Result};

/// Whether a tar is to go to standard output, which is `-`: not to a terminal, and not beside a document.
pub(crate) fn is_meant(out: &Path, terminal: Terminal) -> Result<bool> {
    if out != Path::new("-") {
        return Ok(false);
    }
    if terminal.json {
        return Err(Error::config("--json and --out - both write to standard output"));
    }
    if io::stdout().is_terminal() {
        let error = Error::config("refusing to write a tar to a terminal");
        return Err(error.with_hint("write it to a file by --out FILE.tar, or to a pipe"));
    }
    Ok(true)
}

/// Standard output, until the work is cancelled.
pub(crate) struct Pipe {
    stop: Stop,
    /// The reader has closed the pipe, which is not a failure.
    is_closed: bool,
}

impl Pipe {
    pub(crate) fn new(stop: &Stop) -> Self {
        Self { stop: stop.clone(), is_closed: false }
    }

    /// What became of the work: nothing failed if its reader has closed the pipe.
    pub(crate) fn outcome(&self, outcome: Result<()>) -> Result<()> {
        if self.is_closed { Ok(()) } else { outcome }
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let written = io::stdout().lock().write(buf);
        self.is_closed |= written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = io::stdout().lock().flush();
        self.is_closed |= flushed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        flushed
    }
}

impl RangeWrite for Pipe {}
