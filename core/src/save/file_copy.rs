//! Blobs that are files: one thread copies a blob, and another one hashes it. Where a checksum is known, that is compared while
//! the blob is copied.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use crate::blocking::Stop;
use crate::digest::Hasher;
use crate::page_buffer::PageBuffer;
use crate::xxh3::Xxh3;
use crate::{Descriptor, Error, ErrorKind, Mismatch, Result};

/// Bytes that are read and written at once: smaller ones cost more in threads that wake each other. Writes end at its multiples
/// in the output: a page that two writes share costs both.
const PIECE: usize = 512 << 10;
/// The same where one thread does both: it stays in the cache of the processor.
const KNOWN_PIECE: usize = 128 << 10;
/// Pieces that wait to be hashed.
const IN_FLIGHT: usize = 8;

/// What copies a blob. The bytes that are written are those that are hashed: a file may change while it is read.
pub(super) struct FileCopy {
    file: Arc<File>,
    size: u64,
    /// Takes pieces to the thread that hashes, and brings them back.
    to_check: SyncSender<Piece>,
    checked: Receiver<Piece>,
}

/// Copies a blob whose checksum is known behind the `written` bytes of `out`. Where the checksum is another one, the digest
/// decides.
pub(super) fn copy_known(
    blob: &Descriptor,
    file: &File,
    checksum: u64,
    (out, written): (&mut (impl Write + ?Sized), u64),
    stop: &Stop,
) -> Result<()> {
    let (mut sum, mut piece) = (Xxh3::default(), PageBuffer::new(KNOWN_PIECE));
    let mut at = 0;
    while at < blob.size() {
        stop.check()?;
        let length =
            (KNOWN_PIECE as u64 - (written + at) % KNOWN_PIECE as u64).min(blob.size() - at) as usize;
        let piece = &mut piece[..length];
        match file.read_exact_at(piece, at) {
            // One that is too short is damaged: its digest says so.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read.map_err(|e| Error::io("reading a blob", e))?,
        }
        sum.update(piece);
        out.write_all(piece).map_err(|e| Error::io("writing the tar", e))?;
        at += length as u64;
    }
    let size = file.metadata().map_err(|e| Error::io("reading the size of a blob", e))?.len();
    let written = sum.finish();
    if (at, size, written) == (blob.size(), blob.size(), checksum) {
        return Ok(());
    }
    let mut check =
        Check { file, blob, hasher: Hasher::like(blob.digest())?, at: 0, sum: Some(Xxh3::default()) };
    check.rest(stop)?;
    let (of_file, held) = (check.sum.take().map(|sum| sum.finish()), check.at);
    check.end()?;
    // The file is right, and was another one while it was copied.
    if of_file == Some(written) { Ok(()) } else { Err(Mismatch::of(blob, None, held).into()) }
}

/// The thread that hashes it.
pub(super) struct FileCheck(JoinHandle<Result<()>>);

impl FileCopy {
    /// The copy of a blob, which is all of `file`, and its check, which has begun.
    pub(super) fn new(blob: &Descriptor, file: File, stop: &Stop) -> Result<(Self, FileCheck)> {
        let (file, size) = (Arc::new(file), blob.size());
        let start = Hasher::like(blob.digest())?;
        let (to_check, pieces) = mpsc::sync_channel::<Piece>(IN_FLIGHT);
        let (back, checked) = mpsc::channel::<Piece>();
        let (blob, stop, of_check) = (blob.clone(), stop.clone(), Arc::clone(&file));
        let check = move || {
            let mut check = Check { file: &of_check, blob: &blob, hasher: start, at: 0, sum: None };
            for piece in pieces {
                check.take(piece.bytes());
                // The copy may have ended.
                let _ = back.send(piece);
            }
            check.rest(&stop)?;
            check.end()
        };
        let thread = thread::Builder::new().name("plyfold-check".to_owned()).spawn(check);
        let thread = thread.map_err(|e| Error::io("starting a thread", e))?;
        Ok((Self { file, size, to_check, checked }, FileCheck(thread)))
    }

    /// Copies the blob behind the `written` bytes of `out`.
    pub(super) fn write(self, out: &mut (impl Write + ?Sized), written: u64, stop: &Stop) -> Result<()> {
        let mut at = 0;
        while at < self.size {
            stop.check()?;
            let mut piece = self.checked.try_recv().unwrap_or_else(|_| Piece::new());
            let length = PIECE as u64 - (written + at) % PIECE as u64;
            piece.length = length.min(self.size - at) as usize;
            let read = self.file.read_exact_at(&mut piece.buffer[..piece.length], at);
            read.map_err(|e| Error::io("reading a blob", e))?;
            out.write_all(piece.bytes()).map_err(|e| Error::io("writing the tar", e))?;
            at += piece.length as u64;
            // A check that has ended says why.
            drop(self.to_check.send(piece));
        }
        Ok(())
    }
}

/// Bytes of a blob on their way to its check.
struct Piece {
    buffer: PageBuffer,
    length: usize,
}

impl Piece {
    fn new() -> Self {
        Self { buffer: PageBuffer::new(PIECE), length: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl FileCheck {
    /// Waits for the check: whether the file is what the blob's descriptor says.
    pub(super) fn outcome(self) -> Result<()> {
        self.0.join().map_err(|_| Error::new(ErrorKind::Internal, "a thread that hashed a blob panicked"))?
    }
}

struct Check<'a> {
    file: &'a File,
    blob: &'a Descriptor,
    hasher: Hasher,
    at: u64,
    /// Where the checksum of the file is asked for, too.
    sum: Option<Xxh3>,
}

impl Check<'_> {
    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.sum.iter_mut().for_each(|sum| sum.update(bytes));
        self.at += bytes.len() as u64;
    }

    /// Reads what it was not given, and one byte more than the blob has: it shows a file that is longer.
    fn rest(&mut self, stop: &Stop) -> Result<()> {
        let most = self.blob.size().saturating_add(1);
        let mut piece = PageBuffer::new((most - self.at).min(PIECE as u64) as usize);
        while self.at < most {
            stop.check()?;
            let length = (most - self.at).min(PIECE as u64) as usize;
            match self.file.read_at(&mut piece[..length], self.at) {
                Ok(0) => break,
                Ok(count) => self.take(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading a blob", e)),
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let actual = (self.at == self.blob.size()).then(|| self.hasher.finish());
        if actual.as_ref() == Some(self.blob.digest()) {
            return Ok(());
        }
        Err(Mismatch::of(self.blob, actual, self.at).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    fn copied(content: &[u8], blob: &Descriptor) -> (Result<Vec<u8>>, Result<()>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let stop = Stop::default();
        let (copy, check) = FileCopy::new(blob, file, &stop).unwrap();
        let mut out = Vec::new();
        let written = copy.write(&mut out, 512, &stop);
        (written.map(|()| out), check.outcome())
    }

    #[test]
    fn a_file_is_copied_and_checked() {
        let sizes = [0, 1, PIECE - 512, PIECE, PIECE * (IN_FLIGHT + 4) + 1];
        for size in sizes {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let blob = Descriptor::new("text/plain".into(), size as u64, sha256(&content));
            let (bytes, outcome) = copied(&content, &blob);
            outcome.unwrap();
            assert!(bytes.unwrap() == content);
            // Other bytes, a byte more, and one less.
            let other = Descriptor::new("text/plain".into(), size as u64, sha256(b"other"));
            assert_eq!(*copied(&content, &other).1.unwrap_err().kind(), ErrorKind::Corrupt);
            let longer = [&*content, b"+"].concat();
            assert_eq!(*copied(&longer, &blob).1.unwrap_err().kind(), ErrorKind::Corrupt);
            if size > 0 {
                let (bytes, outcome) = copied(&content[1..], &blob);
                assert_eq!(*bytes.unwrap_err().kind(), ErrorKind::Io);
                assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
    }

    /// An output that changes the file behind each piece that it takes.
    struct Changing(File, Vec<u8>);

    impl Write for Changing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            self.0.write_all_at(b"changed", self.1.len() as u64 + 1000)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_copied_is_an_error() {
        let content = vec![7; PIECE * 40];
        let blob = Descriptor::new("text/plain".into(), content.len() as u64, sha256(&content));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let stop = Stop::default();
        let mut out = Changing(file.try_clone().unwrap(), Vec::new());
        let (copy, check) = FileCopy::new(&blob, file, &stop).unwrap();
        // A check that read the file itself would be ahead by now.
        thread::sleep(std::time::Duration::from_millis(100));
        copy.write(&mut out, 0, &stop).unwrap();
        assert!(out.1 != content);
        assert_eq!(*check.outcome().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    fn copied_known(content: &[u8], blob: &Descriptor, xxh3: u64) -> (Vec<u8>, Result<()>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let mut out = Vec::new();
        let outcome = copy_known(blob, &file, xxh3, (&mut out, 512), &Stop::default());
        (out, outcome)
    }

    #[test]
    fn a_known_checksum_is_compared_and_the_digest_decides() {
        for size in [0, 1, KNOWN_PIECE - 512, KNOWN_PIECE, KNOWN_PIECE * 4 + 1] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let blob = Descriptor::new("text/plain".into(), size as u64, sha256(&content));
            let mut sum = Xxh3::default();
            sum.update(&content);
            for xxh3 in [sum.finish(), sum.finish() + 1] {
                let (bytes, outcome) = copied_known(&content, &blob, xxh3);
                outcome.unwrap();
                assert!(bytes == content);
                let mut others = vec![[&*content, b"+"].concat()];
                if let Some((last, rest)) = content.split_last() {
                    others.extend([rest.to_vec(), [rest, &[last ^ 1]].concat()]);
                }
                for other in others {
                    let outcome = copied_known(&other, &blob, xxh3).1;
                    assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Corrupt, "{size}");
                }
            }
        }
        // The file is right again when its digest is computed; what was written is not.
        let content = vec![7; KNOWN_PIECE * 8];
        let blob = Descriptor::new("text/plain".into(), content.len() as u64, sha256(&content));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        file.write_all_at(b"changed", 100).unwrap();
        let mut out = Mending(file.try_clone().unwrap(), Vec::new());
        let outcome = copy_known(&blob, &file, 0, (&mut out, 0), &Stop::default());
        assert!(out.1 != content);
        assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// An output that mends the file when it has taken the damaged bytes.
    struct Mending(File, Vec<u8>);

    impl Write for Mending {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            self.0.write_all_at(&[7; 7], 100)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_fails_leaves_the_check_to_its_end() {
        let content = vec![7; PIECE * (IN_FLIGHT + 4)];
        let blob = Descriptor::new("text/plain".into(), content.len() as u64, sha256(&content));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let stop = Stop::default();
        let (copy, check) = FileCopy::new(&blob, file, &stop).unwrap();
        let mut out = io::Cursor::new([0; 1000]);
        assert_eq!(*copy.write(&mut out, 0, &stop).unwrap_err().kind(), ErrorKind::Io);
        check.outcome().unwrap();
    }
}
