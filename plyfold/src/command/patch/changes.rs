//! Single files and names as the tar of a layer, made while it is read.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::disk_file::open_error;
use crate::layer::ImagePath;
use crate::shell::quoted;
use crate::{Error, Result};
use tar::{Builder, EntryType, Header};

use super::super::disk_args::Added;

const BLOCK: u64 = 512;
/// Permission bits that a file keeps: a file of root's gets no more rights than its owner's had.
const PERMISSIONS: u32 = 0o777;

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
}

/// The bytes of a file that are still to be read.
struct Content {
    file: File,
    left: u64,
    /// Zeros behind them.
    padding: u64,
    path: PathBuf,
}

impl Changes {
    pub(super) fn new(removed: Vec<ImagePath>, added: Vec<Added>) -> Self {
        Self { removed, added, next: 0, bytes: Cursor::default(), content: None }
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
            self.bytes = Cursor::new(header(&whiteout, 0, "0", 0)?);
        } else if let Some(Added { path, file }) = self.added.get(number - removed) {
            let (bytes, content) = open(path, file).map_err(|e| e.with_context("file", file.display()))?;
            (self.bytes, self.content) = (Cursor::new(bytes), Some(content));
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

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let count = self.padding.min(buffer.len() as u64);
            self.padding -= count;
            buffer[..count as usize].fill(0);
            return Ok(count as usize);
        }
        let wanted = self.left.min(buffer.len() as u64) as usize;
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 {
            let error = Error::io("reading a file to add", io::ErrorKind::UnexpectedEof.into());
            return Err(error.with_context("file", self.path.display()).into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The header of a file, and its content.
fn open(path: &ImagePath, source: &Path) -> Result<(Vec<u8>, Content)> {
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
    let (seconds, nanos) = (found.mtime(), found.mtime_nsec());
    let bytes = header(path.as_bytes(), found.mode() & PERMISSIONS, &decimal(seconds, nanos), found.len())?;
    let padding = found.len().next_multiple_of(BLOCK) - found.len();
    Ok((bytes, Content { file, left: found.len(), padding, path: source.to_owned() }))
}

/// The error for a directory in the place of a file.
pub(super) fn directory(path: &Path) -> Error {
    let hint = format!("pack it: tar -C {} -c . | plyfold patch FILE.erofs --tar -", quoted(path));
    Error::config("it is a directory, and not a file").with_hint(hint)
}

fn opening(error: io::Error) -> Error {
    open_error("opening a file to add", error)
}

/// An entry's headers: of root, with a name of any length and a time of any resolution.
fn header(path: &[u8], mode: u32, mtime: &str, size: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::io("making a tar", e);
    let mut tar = Builder::new(Vec::new());
    let records = [("path", path), ("mtime", mtime.as_bytes())];
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
    use super::*;
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
        let changes = Changes::new(vec![path(b"a"), path(b"b/c")], added.to_vec());
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
            let error = Changes::new(Vec::new(), added(file)).read(&mut [0; 512]).unwrap_err();
            assert!(Error::io("", error).message().contains(text));
        }
    }
}
