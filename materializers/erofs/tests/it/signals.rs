//! Calls that a signal cuts off.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::{Materializer as _, Output, RangeWrite, Sink};
use plyfold_erofs::ErofsLayer;

/// A file of which every other call is cut off before it has done anything.
struct Interrupted {
    file: File,
    calls: u64,
}

impl Interrupted {
    fn signal(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.calls % 2 == 1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Write for Interrupted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.signal()?;
        self.file.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.signal()?;
        self.file.write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Interrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.signal()?;
        self.file.read(buffer)
    }
}

impl Seek for Interrupted {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl RangeWrite for Interrupted {}

impl Output for Interrupted {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

#[test]
fn a_call_that_a_signal_cuts_off_is_made_again() {
    let large = vec![7; 3 << 20];
    let tar = LayerBuilder::new().file("small", 0o644, b"small").file("large", 0o644, &large).finish();
    let write = |out: &mut dyn Sink| {
        let mut tar = LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()).unwrap();
        ErofsLayer::default().layer(&mut tar, out)
    };
    let bytes = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let mut plain = tempfile::tempfile().unwrap();
    write(&mut plain).unwrap();
    let mut out = Interrupted { file: tempfile::tempfile().unwrap(), calls: 0 };
    write(&mut out).unwrap();
    assert!(bytes(&mut out.file) == bytes(&mut plain));
}
