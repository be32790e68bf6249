//! Single files and names as the tar of a layer, made while it is read.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use crate::blocking::Stop;
use crate::data_from;
use crate::disk_file::open_error;
use crate::layer::{DataExtent, ImagePath};
use crate::shell::quoted;
use crate::{Error, Result, Size};
use tar::{Builder, EntryType, Header};

use super::super::disk_args::Added;
use super::super::layer::Input;

const BLOCK: u64 = 512;
/// Permission bits that a file keeps: a file of root's gets no more rights than its owner's had.
const PERMISSIONS: u32 = 0o777;
/// Files up to this size are read before their header is made: those of `/proc` say that they have no byte, those of
/// `/sys` that they have a page.
const SMALL: u64 = 64 << 10;
/// What such a file has at most: it is held in memory.
const SMALL_MAX: u64 = 16 << 20;
/// The shortest hole that is not read.
const HOLE_MIN: u64 = 1 << 20;
/// The most runs of data of a file: holes behind them are read as zeros.
const RUNS_MAX: usize = 1 << 16;

/// Names that are removed, and then files that are added.
pub(super) struct Changes {
    removed: Vec<ImagePath>,
    added: Vec<Added>,
    /// The number of the next one.
    next: usize,
    /// What comes first of the current one.
    bytes: Cursor<Vec<u8>>,
    /// And then.
    content: Option<Content>,
    stop: Stop,
}

/// The bytes of a file that are still to be read.
struct Content {
    file: Input,
    /// Bytes of the present run.
    left: u64,
    /// The runs behind it.
    runs: IntoIter<DataExtent>,
    /// The file's size when its header was made, until that is checked.
    size: Option<u64>,
    /// Zeros behind them.
    padding: u64,
    path: PathBuf,
}

impl Changes {
    pub(super) fn new(removed: Vec<ImagePath>, added: Vec<Added>, stop: &Stop) -> Self {
        let bytes = Cursor::default();
        Self { removed, added, next: 0, bytes, content: None, stop: stop.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    pub(super) fn removed(&self) -> &[ImagePath] {
        &self.removed
    }

    pub(super) fn added(&self) -> &[Added] {
        &self.added
    }

    /// Begins the next entry, or the end of the tar; whether there is more.
    fn begin(&mut self) -> Result<bool> {
        let (removed, number) = (self.removed.len(), self.next);
        self.next += 1;
        if let Some(path) = self.removed.get(number) {
            let mut whiteout = path.as_bytes().to_vec();
            let name = whiteout.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            whiteout.splice(name..name, *b".wh.");
            self.bytes = Cursor::new(header(&whiteout, 0, "0", 0, None)?);
        } else if let Some(Added { path, file }) = self.added.get(number - removed) {
            let (bytes, content) =
                open(path, file, &self.stop).map_err(|e| e.with_context("file", file.display()))?;
            (self.bytes, self.content) = (Cursor::new(bytes), content);
        } else if number == removed + self.added.len() {
            self.bytes = Cursor::new(vec![0; 2 * BLOCK as usize]);
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

impl Read for Changes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.bytes.read(buffer)? {
                0 if buffer.is_empty() => return Ok(0),
                0 => {}
                count => return Ok(count),
            }
            if let Some(content) = &mut self.content {
                match content.read(buffer)? {
                    0 => self.content = None,
                    count => return Ok(count),
                }
            }
            if !self.begin()? {
                return Ok(0);
            }
        }
    }
}

impl Content {
    fn fault(&self, error: Error) -> io::Error {
        error.with_context("file", self.path.display()).into()
    }

    /// Begins the next run, or checks that the file has not grown; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        if let Some(run) = self.runs.next() {
            self.file.seek(SeekFrom::Start(run.offset))?;
            self.left = run.length;
            return Ok(true);
        }
        if let Some(size) = self.size.take() {
            self.file.seek(SeekFrom::Start(size))?;
            if self.file.read(&mut [0])? > 0 {
                let grown = format!("the file has become longer than {} while it was read", Size(size));
                return Err(self.fault(Error::config(grown).with_hint("add a copy of it")));
            }
        }
        Ok(false)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.begin()? {
            let count = self.padding.min(buffer.len() as u64);
            self.padding -= count;
            buffer[..count as usize].fill(0);
            return Ok(count as usize);
        }
        let wanted = self.left.min(buffer.len() as u64) as usize;
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(self.fault(Error::io("reading a file to add", io::ErrorKind::UnexpectedEof.into())));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The headers of a file, and its content, unless that stands behind them already.
fn open(path: &ImagePath, source: &Path, stop: &Stop) -> Result<(Vec<u8>, Option<Content>)> {
    // A pipe would wait for a writer.
    let found = source.metadata().map_err(opening)?;
    if found.is_dir() {
        return Err(directory(source));
    }
    if !found.is_file() {
        return Err(Error::config("it is not a regular file"));
    }
    let file = File::open(source).map_err(opening)?;
    let found = file.metadata().map_err(opening)?;
    let mtime = decimal(found.mtime(), found.mtime_nsec());
    let header = |size, real| header(path.as_bytes(), found.mode() & PERMISSIONS, &mtime, size, real);
    if found.len() <= SMALL {
        let content = small(Input::of(file, stop))?;
        let mut bytes = header(content.len() as u64, None)?;
        bytes.extend_from_slice(&content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        return Ok((bytes, None));
    }
    let runs = runs(&file, found.len()).map_err(|e| Error::io("looking for the holes of a file", e))?;
    let length = runs.iter().map(|run| run.length).sum::<u64>();
    let bytes = if length == found.len() {
        header(length, None)?
    } else {
        let map = map(&runs, found.len());
        let mut bytes = header(map.len() as u64 + length, Some(found.len()))?;
        bytes.extend_from_slice(&map);
        bytes
    };
    let content = Content {
        file: Input::of(file, stop),
        left: 0,
        runs: runs.into_iter(),
        size: Some(found.len()),
        padding: length.next_multiple_of(BLOCK) - length,
        path: source.to_owned(),
    };
    Ok((bytes, Some(content)))
}

/// All bytes of a file, whatever size it says to have.
fn small(file: Input) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = file.take(SMALL_MAX + 1).read_to_end(&mut content);
    read.map_err(|e| Error::io("reading a file to add", e))?;
    if content.len() as u64 > SMALL_MAX {
        let grown = format!("the file has more than {}, and says that it has fewer", Size(SMALL_MAX));
        return Err(Error::config(grown).with_hint("add a copy of it"));
    }
    Ok(content)
}

/// The runs of data of a file, with its short holes.
fn runs(file: &File, size: u64) -> io::Result<Vec<DataExtent>> {
    let mut runs: Vec<DataExtent> = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(start) = data_from(file, at)?.filter(|start| *start < size) else { break };
        let end = match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)) {
            Ok(end) if end > start && runs.len() < RUNS_MAX => end.min(size),
            _ => size,
        };
        match runs.last_mut() {
            Some(last) if start - (last.offset + last.length) < HOLE_MIN => last.length = end - last.offset,
            _ => runs.push(DataExtent { offset: start, length: end - start }),
        }
        at = end;
    }
    Ok(runs)
}

/// The map of a sparse file as it stands in front of its data (GNU tar manual, "PAX Format, Version 1.0").
fn map(runs: &[DataExtent], size: u64) -> Vec<u8> {
    let end = DataExtent { offset: size, length: 0 };
    let lines = runs.iter().chain([&end]).map(|run| format!("{}\n{}\n", run.offset, run.length));
    let mut map = format!("{}\n{}", runs.len() + 1, lines.collect::<String>()).into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

/// The error for a directory in the place of a file.
pub(super) fn directory(path: &Path) -> Error {
    let hint = format!("pack it: tar -C {} -c . | plyfold patch FILE.erofs --tar -", quoted(path));
    Error::config("it is a directory, and not a file").with_hint(hint)
}

fn opening(error: io::Error) -> Error {
    open_error("opening a file to add", error)
}

/// An entry's headers: of root, with a name of any length and a time of any resolution. `real` is the size of a
/// sparse file, of which `size` bytes are stored, those of its map among them.
fn header(path: &[u8], mode: u32, mtime: &str, size: u64, real: Option<u64>) -> Result<Vec<u8>> {
    let failed = |e| Error::io("making a tar", e);
    let mut tar = Builder::new(Vec::new());
    let real = real.map(|real| real.to_string());
    let mut records = vec![("path", path), ("mtime", mtime.as_bytes())];
    if let Some(real) = &real {
        records.extend([
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", path),
            ("GNU.sparse.realsize", real.as_bytes()),
        ]);
    }
    tar.append_pax_extensions(records).map_err(failed)?;
    let mut header = Header::new_ustar();
    header.set_path("file").map_err(failed)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = tar.get_ref().clone();
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}

/// A time as PAX has it; `nanos` count on from `seconds`, also before 1970.
fn decimal(seconds: i64, nanos: i64) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::ErrorKind;
    use crate::layer::{EntryKind, FileKind, LayerOptions, LayerTar};

    #[test]
    fn times_are_those_of_the_file() {
        for (time, text) in
            [((0, 0), "0"), ((7, 5), "7.000000005"), ((-2, 500_000_000), "-1.500000000"), ((-3, 0), "-3")]
        {
            assert_eq!(decimal(time.0, time.1), text);
        }
    }

    #[test]
    fn changes_are_a_tar() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, vec![7; 1000]).unwrap();
        let long = [b'x'; 250];
        let path = |text: &[u8]| ImagePath::parse(text).unwrap();
        let added = [path(b"/etc/new\n"), path(&long)].map(|path| Added { path, file: file.clone() });
        let changes = Changes::new(vec![path(b"a"), path(b"b/c")], added.to_vec(), &Stop::default());
        let mut tar = LayerTar::new(changes, LayerOptions::default()).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = tar.next_entry().unwrap() {
            let EntryKind::Node(FileKind::File { size, .. }) = entry.kind else { panic!("{entry:?}") };
            let mut content = Vec::new();
            tar.copy_data(size, |bytes| {
                content.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
            assert!(content == vec![7; usize::try_from(size).unwrap()]);
            found.push((entry.path.as_bytes().to_vec(), size));
        }
        let expected = [(&b".wh.a"[..], 0), (b"b/.wh.c", 0), (b"etc/new\n", 1000), (&long, 1000)];
        assert_eq!(found, expected.map(|(path, size)| (path.to_vec(), size)));
        assert!(tar.finish().unwrap().warnings.is_empty());
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let added = |file: PathBuf| vec![Added { path: ImagePath::parse(b"x").unwrap(), file }];
        for (file, text) in [
            (folder.path().to_owned(), "a directory"),
            ("/dev/null".into(), "not a regular file"),
            (folder.path().join("none"), "no such file"),
        ] {
            let error =
                Changes::new(Vec::new(), added(file), &Stop::default()).read(&mut [0; 512]).unwrap_err();
            assert!(Error::io("", error).message().contains(text));
        }
    }

    fn of(file: &Path, stop: &Stop) -> Changes {
        let path = ImagePath::parse(b"x").unwrap();
        Changes::new(Vec::new(), vec![Added { path, file: file.to_owned() }], stop)
    }

    /// The only file of a tar: its size, its runs of data, and its bytes.
    fn read(changes: Changes) -> (u64, Option<Vec<DataExtent>>, Vec<u8>) {
        let mut tar = LayerTar::new(changes, LayerOptions::default()).unwrap();
        let entry = tar.next_entry().unwrap().unwrap();
        let EntryKind::Node(FileKind::File { size, content }) = entry.kind else { panic!("{entry:?}") };
        let stored = content.as_ref().map_or(size, |runs| runs.iter().map(|run| run.length).sum());
        let mut bytes = Vec::new();
        let add = |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        tar.copy_data(stored, add).unwrap();
        assert!(tar.next_entry().unwrap().is_none());
        (size, content, bytes)
    }

    #[test]
    fn holes_are_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for at in [3 << 30, 1 << 40] {
            file.as_file().write_all_at(b"data", at).unwrap();
        }
        file.as_file().set_len(5 << 40).unwrap();
        let (size, runs, bytes) = read(of(file.path(), &Stop::default()));
        let runs = runs.unwrap();
        assert_eq!((size, runs.len()), (5 << 40, 2));
        assert!(runs[0].offset <= 3 << 30 && runs[1].offset <= 1 << 40, "{runs:?}");
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 8);
        file.as_file().set_len(0).unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert_eq!(read(of(file.path(), &Stop::default())), (1 << 40, Some(Vec::new()), Vec::new()));
    }

    #[test]
    fn files_that_say_nothing_of_their_size_are_read_to_their_end() {
        let (size, _, bytes) = read(of(Path::new("/proc/self/status"), &Stop::default()));
        assert!(size > 0 && bytes.starts_with(b"Name:"), "{size}");
    }

    #[test]
    fn a_file_that_grows_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![7; 100_000], 0).unwrap();
        let mut changes = of(file.path(), &Stop::default());
        changes.read_exact(&mut [0; 512]).unwrap();
        file.as_file().write_all_at(b"more", 100_000).unwrap();
        let error = Error::io("", changes.read_to_end(&mut Vec::new()).unwrap_err());
        assert!(error.message().contains("has become longer"), "{error:?}");
    }

    #[test]
    fn a_file_is_not_read_on_when_the_work_is_cancelled() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![7; 100_000], 0).unwrap();
        let stop = Stop::default();
        let mut changes = of(file.path(), &stop);
        changes.read_exact(&mut [0; 512]).unwrap();
        stop.flag().store(true, Ordering::Relaxed);
        let error = Error::io("", changes.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(*error.kind(), ErrorKind::Cancelled);
    }
}
