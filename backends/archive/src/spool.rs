//! The archive as one plain file that can be read at any offset: a pipe is written to a file without a name first, and
//! so is what a compressed archive expands to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use liblzma::stream::{CONCATENATED, Stream};
use plyfold_core::blocking::Stop;
use plyfold_core::{Advice, Error, Result, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer, WriteBuf};
use zstd::stream::zio;
use zstd::zstd_safe::{DCtx, DParameter, get_error_name};

use crate::Config;

/// Bytes that a decoder may use: room for the windows of `zstd --ultra` and `xz -9`. Larger windows are
/// refused.
const MEMORY: u64 = 128 << 20;
/// The logarithm of the largest window of zstd, by the same measure.
const WINDOW: u32 = 27;
/// How long one wait for a pipe takes, in nanoseconds, before cancellation is checked.
const PAUSE: i64 = 100_000_000;
/// How long a pipe may have no writer.
const WRITER: Duration = Duration::from_secs(3);
/// The path of standard input.
const STDIN: [&str; 4] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "/proc/thread-self/fd/0"];

/// The path that images without a name are named after: the archive's. A descriptor has no path.
pub(crate) fn place(path: &Path) -> PathBuf {
    let is_descriptor =
        ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.parent() == Some(Path::new(folder)));
    if is_descriptor { "stdin".into() } else { path.to_owned() }
}

/// Whether the archive can be read once only.
pub(crate) fn is_stream(path: &Path) -> bool {
    if is_stdin(path) {
        return !stdin().and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_file());
    }
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Whether a file is compressed as a whole.
pub(crate) fn is_packed(path: &Path) -> Result<bool> {
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(6).read_to_end(&mut magic));
    read.map_err(|e| Error::io("reading the archive", e).with_context("path", path.display()))?;
    Ok(Packing::of(&magic).is_some())
}

/// How an archive is compressed as a whole.
enum Packing {
    Bzip2,
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    fn of(magic: &[u8]) -> Option<Self> {
        match *magic {
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The tar itself.
///
/// # Errors
/// `NotFound`; `Corrupt` for what is no file, or damaged; `Limit` for what expands to more than the configuration
/// allows, or needs more memory than there is for a decoder; `Cancelled` when the caller has been dropped; `Io`.
pub(crate) fn plain(path: &Path, config: &Config, stop: &Stop) -> Result<File> {
    file_of(path, config, stop, &ARCHIVE)
}

/// The tar as the layer of an image: as it is, but expanded where it is compressed as no layer may be.
///
/// # Errors
/// As [`plain`].
pub(crate) fn layer(path: &Path, config: &Config, stop: &Stop) -> Result<File> {
    file_of(path, config, stop, &TAR)
}

/// What is read: how it is called, and how it may be compressed.
struct Wanted {
    name: &'static str,
    /// The hints for a directory and for a device.
    directory: &'static str,
    device: &'static str,
    stays: fn(&Packing) -> bool,
}

const ARCHIVE: Wanted = Wanted {
    name: "archive",
    directory: "a layout directory opens as oci:DIR",
    device: "name the file that `docker save` or `skopeo copy` has written",
    stays: |_| false,
};
const TAR: Wanted = Wanted {
    name: "tar",
    directory: "`tar -C DIR -cf FILE .` makes the tar of a directory",
    device: "name the tar of a root file system",
    stays: |packing| matches!(packing, Packing::Gzip | Packing::Zstd),
};

/// A regular file with the content of a file or a pipe, expanded unless it may stay compressed.
fn file_of(path: &Path, config: &Config, stop: &Stop, wanted: &Wanted) -> Result<File> {
    let reading = |e| Error::io("reading the archive", e);
    let (mut file, is_stream) = open(path, wanted)?;
    let mut input = Input { file: file.try_clone().map_err(reading)?, is_stream, has_writer: false, stop };
    let mut magic = Vec::new();
    input.by_ref().take(6).read_to_end(&mut magic).map_err(reading)?;
    let whole = io::Cursor::new(magic.clone()).chain(input);
    let packing = Packing::of(&magic).filter(|packing| !(wanted.stays)(packing));
    if packing.is_none() && !is_stream {
        file.seek(SeekFrom::Start(0)).map_err(reading)?;
        return Ok(file);
    }
    let expanding = expanding(packing.as_ref(), whole)?;
    let mut spool = tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))?;
    let mut limited = expanding.take(config.spool_limit.saturating_add(1));
    let size = io::copy(&mut limited, &mut spool).map_err(broken)?;
    if size > config.spool_limit {
        let message = format!("the archive expands to more than {}", Size(config.spool_limit));
        return Err(Error::limit(message)
            .with_advice(Advice::options("raise it with {}", [("spool-limit", "BYTES")])));
    }
    spool.seek(SeekFrom::Start(0)).map_err(reading)?;
    Ok(spool)
}

/// What `docker load` reads, also several compressed files one after the other.
fn expanding<'a>(packing: Option<&Packing>, whole: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Some(Packing::Bzip2) => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Some(Packing::Xz) => {
            let decoder = Stream::new_stream_decoder(MEMORY, CONCATENATED).map_err(|e| broken(e.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(whole, decoder))
        }
        Some(Packing::Zstd) => {
            let mut context = DCtx::create();
            let limited = context.set_parameter(DParameter::WindowLogMax(WINDOW));
            limited.map_err(|code| broken(zstd_error(code)))?;
            Box::new(zio::Reader::new(BufReader::new(whole), Frames(context)))
        }
        None => Box::new(whole),
    })
}

/// A decoder of zstd frames: zstd's own reader has errors of text alone.
struct Frames(DCtx<'static>);

impl Operation for Frames {
    fn run<C: WriteBuf + ?Sized>(
        &mut self,
        input: &mut InBuffer<'_>,
        output: &mut OutBuffer<'_, C>,
    ) -> io::Result<usize> {
        self.0.decompress_stream(output, input).map_err(zstd_error)
    }

    fn finish<C: WriteBuf + ?Sized>(
        &mut self,
        _: &mut OutBuffer<'_, C>,
        is_whole: bool,
    ) -> io::Result<usize> {
        if is_whole { Ok(0) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame")) }
    }
}

fn zstd_error(code: usize) -> io::Error {
    /// `ZSTD_error_frameParameter_windowTooLarge` of `zstd_errors.h`.
    const WINDOW_TOO_LARGE: usize = 16;
    let is_window = code.wrapping_neg() == WINDOW_TOO_LARGE;
    let kind = if is_window { io::ErrorKind::OutOfMemory } else { io::ErrorKind::Other };
    io::Error::new(kind, get_error_name(code))
}

/// The error of writing an archive to a file.
fn broken(e: io::Error) -> Error {
    if e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
        || e.raw_os_error().is_some()
    {
        return Error::io("writing the archive to the temporary directory", e);
    }
    if needs_memory(&e) {
        let message = format!("the compressed archive needs more than {} of memory", Size(MEMORY));
        return Error::limit(message).with_hint("expand it by the program that compressed it").with_source(e);
    }
    Error::corrupt("the compressed archive is damaged").with_source(e)
}

/// Opens a file or a pipe, and says whether it is one.
fn open(path: &Path, wanted: &Wanted) -> Result<(File, bool)> {
    let name = wanted.name;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = if is_stdin(path) {
        stdin()
    } else {
        // A pipe without a writer would hang the thread.
        OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
    };
    let file = opened.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("no such {name}")).with_source(e),
        _ => Error::io("opening the archive", e),
    })?;
    let metadata = file.metadata().map_err(|e| Error::io("reading the archive's kind", e))?;
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok((file, false));
    }
    if kind.is_fifo() || kind.is_socket() {
        return Ok((file, true));
    }
    if kind.is_dir() {
        let message = format!("the {name} is a directory, and neither a file nor a pipe");
        return Err(Error::corrupt(message).with_hint(wanted.directory));
    }
    let message = format!("the {name} is a device, and neither a file nor a pipe");
    Err(Error::config(message).with_hint(wanted.device))
}

fn is_stdin(path: &Path) -> bool {
    STDIN.iter().any(|name| path == Path::new(name))
}

/// Standard input itself: to open it once more takes rights that the process may not have, and sockets cannot be
/// opened.
fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// Reads a file, or a pipe that may never send, until the caller is dropped.
struct Input<'a> {
    file: File,
    is_stream: bool,
    /// Whether a writer was seen: only then is an empty pipe without a writer at its end.
    has_writer: bool,
    stop: &'a Stop,
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE };
        let start = Instant::now();
        loop {
            self.stop.check()?;
            if !self.is_stream || poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&pause))? > 0 {
                self.has_writer = true;
                return self.file.read(buf);
            }
            if !self.has_writer && is_nonblocking(&self.file) {
                match self.file.read(buf) {
                    // No writer, or not yet.
                    Ok(0) if start.elapsed() > WRITER => return Err(io::Error::other(without_writer())),
                    Ok(0) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.has_writer = true,
                    read => return read,
                }
            }
        }
    }
}

/// Whether this is a pipe that was opened here, as opposed to standard input.
fn is_nonblocking(pipe: &File) -> bool {
    rustix::fs::fcntl_getfl(pipe).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}

fn without_writer() -> Error {
    Error::corrupt("the pipe has no writer").with_hint("start the program that writes the archive first")
}

/// Whether a decoder has refused for the memory that it would need.
fn needs_memory(e: &io::Error) -> bool {
    let xz = e.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
    xz == Some(&liblzma::stream::Error::MemLimit) || e.kind() == io::ErrorKind::OutOfMemory
}
