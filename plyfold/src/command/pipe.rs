//! Standard output as a file that is written piece by piece.

use std::io::{self, Write};

use crate::Result;
use crate::blocking::Stop;

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
