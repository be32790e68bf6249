//! Where each member of an archive lies: one pass over the tar's headers.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use plyfold_core::save::DELTA;
use plyfold_core::{Error, Result, Size, printable};
use tar::EntryType;

/// Members of one archive. An image of 1,024 layers has about 3,000.
const MEMBERS: usize = 1 << 18;
/// Bytes of a member's name.
const NAME: usize = 4096;
/// Bytes of all names and links of one archive.
const NAMES: usize = 64 << 20;
/// Bytes of the headers before one member: long names, PAX records, sparse maps.
const HEADERS: u64 = 1 << 20;
/// Symbolic links that are followed to find a member, as the kernel's bound on paths.
const LINKS: usize = 40;

/// The documents an archive is read by: a second one of the same name would mean a second archive.
const DOCUMENTS: [&str; 5] = ["index.json", "manifest.json", "oci-layout", DELTA, "repositories"];

/// The members of an archive by name.
#[derive(Clone, Debug)]
pub(crate) struct Members(Arc<HashMap<String, MemberKind>>);

#[derive(Clone, Debug)]
pub(crate) enum MemberKind {
    /// The content.
    File(Member),
    /// A link to another member: a symbolic one from the member's folder, a hard one from the archive's root.
    Link { target: String, hard: bool },
    /// Anything else: a folder, a device.
    Other,
}

/// The content of one member: a range of the archive's file.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    file: Arc<File>,
    offset: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Members {
    /// Reads the headers of a tar.
    pub(crate) fn scan(file: File) -> Result<Self> {
        let file = Arc::new(file);
        let length = file.metadata().map_err(|e| Error::io("reading the archive's size", e))?.len();
        let mut map = HashMap::new();
        let headers = Headers::new(&file);
        let damaged = |e: io::Error| headers.verdict(e);
        let mut tar = tar::Archive::new(&headers);
        let mut names = 0;
        for entry in tar.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            headers.ended();
            let Some(name) = clean(&entry.path_bytes()) else { continue };
            let link = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            names += name.len() + link.as_ref().map_or(0, String::len);
            if map.len() == MEMBERS || names > NAMES {
                let names = Size(NAMES as u64);
                let message = format!("the archive has more than {MEMBERS} members, or {names} of names");
                return Err(Error::limit(message));
            }
            if map.contains_key(&name) && DOCUMENTS.contains(&name.as_str()) {
                return Err(Error::ambiguous(format!("the archive has two members {name}"))
                    .with_hint("readers would disagree about which one counts; make the archive again"));
            }
            let place = match (entry.header().entry_type(), link) {
                (EntryType::Regular | EntryType::Continuous, _) => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(size).is_none_or(|end| end > length) {
                        let message =
                            format!("the archive is truncated: {} ends beyond it", printable(&name));
                        return Err(Error::corrupt(message));
                    }
                    MemberKind::File(Member { file: file.clone(), offset, size })
                }
                (EntryType::Symlink, Some(target)) => MemberKind::Link { target, hard: false },
                (EntryType::Link, Some(target)) => MemberKind::Link { target, hard: true },
                _ => MemberKind::Other,
            };
            map.insert(name, place);
        }
        if map.is_empty() {
            return Err(Error::corrupt("not an image archive: it has no members"));
        }
        // Every writer ends a tar by blocks of zeros; a download that was cut between two members has none.
        if headers.read.get() == 0 {
            return Err(Error::corrupt("the archive is truncated: it has no end-of-archive blocks"));
        }
        Ok(Self(Arc::new(map)))
    }

    /// A member's content, through links inside the archive; `None` when it is not there, also when its name or
    /// a link leads out of the archive.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Member>> {
        let Some(mut at) = clean(name.as_bytes()).filter(|_| !name.starts_with('/')) else { return Ok(None) };
        for _ in 0..LINKS {
            match self.0.get(&at) {
                None => return Ok(None),
                Some(MemberKind::File(member)) => return Ok(Some(member.clone())),
                Some(MemberKind::Other) => {
                    return Err(Error::corrupt(format!(
                        "{} in the archive is not a regular file",
                        printable(&at)
                    )));
                }
                Some(MemberKind::Link { target, hard }) => {
                    let base = if *hard { "" } else { at.rsplit_once('/').map_or("", |(folder, _)| folder) };
                    let Some(next) = resolve(base, target) else { return Ok(None) };
                    at = next;
                }
            }
        }
        Err(Error::corrupt(format!("symbolic links in a circle at {} in the archive", printable(name))))
    }

    /// A small document's content.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let Some(member) = self.find(name)? else { return Ok(None) };
        member.document(name, limit).map(Some)
    }

    /// All of them, sorted by name, and hard links behind what they lead to: `tar -x` needs the file first.
    pub(crate) fn sorted(&self) -> Vec<(&str, &MemberKind)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, kind)| (name.as_str(), kind)).collect();
        all.sort_by_cached_key(|(name, _)| (self.hard_links(name), *name));
        all
    }

    /// How many hard links lead from a member to the file that it is.
    fn hard_links(&self, name: &str) -> usize {
        let mut at = self.0.get(name);
        let mut count = 0;
        while let Some(MemberKind::Link { target, hard: true }) = at
            && count < LINKS
        {
            at = resolve("", target).and_then(|target| self.0.get(&target));
            count += 1;
        }
        count
    }
}

impl Member {
    /// A range of a file.
    pub(crate) fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, offset, size }
    }

    /// Its file, and where in it the content begins.
    pub(crate) fn place(&self) -> (&File, u64) {
        (&self.file, self.offset)
    }

    /// The content of a document of this name.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Bytes> {
        if self.size > limit {
            let sizes = Size(self.size).beyond(Size(limit));
            return Err(Error::limit(format!("{} has {sizes}", printable(name))));
        }
        let mut content = Vec::new();
        self.reader(0).read_to_end(&mut content).map_err(|e| Error::io("reading the archive", e))?;
        Ok(content.into())
    }

    /// At most so many bytes of the content, from `start` on; none at its end.
    #[cfg(feature = "daemon")]
    pub(crate) fn chunk(&self, start: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; most.min(left)];
        self.file.read_exact_at(&mut chunk, self.offset + start)?;
        Ok(chunk.into())
    }

    /// The content from `start` on.
    pub(crate) fn reader(&self, start: u64) -> MemberReader {
        let start = start.min(self.size);
        MemberReader { file: self.file.clone(), at: self.offset + start, left: self.size - start }
    }
}

/// Reads one member, independently of all other readers of the archive.
pub(crate) struct MemberReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for MemberReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let count = self.file.read_at(&mut buf[..want], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The archive as the header pass reads it: content is passed over by seeking, so whatever is read is headers, and
/// the `tar` crate holds those of one member in memory.
pub(crate) struct Headers<'a> {
    file: &'a File,
    /// Bytes since the last member.
    read: Cell<u64>,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, read: Cell::new(0) }
    }

    /// Those of one member were read.
    pub(crate) fn ended(&self) {
        self.read.set(0);
    }

    /// `Corrupt` and `Limit` for what is no tar, else that of reading the file.
    pub(crate) fn verdict(&self, e: io::Error) -> Error {
        if self.read.get() > HEADERS {
            return Error::limit(format!("the headers of a member have more than {HEADERS} bytes"));
        }
        match e.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::corrupt("not a tar archive, or a damaged one").with_source(e)
            }
            _ => Error::io("reading the archive", e),
        }
    }
}

impl Read for &Headers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.read.get() > HEADERS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut file = self.file;
        let count = loop {
            match file.read(buf) {
                // The `tar` crate does not retry after EINTR.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

impl Seek for &Headers<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let mut file = self.file;
        file.seek(position)
    }
}

/// A member's name as a key, cleaned as the names in layers are. `None` for names that no document can mean: that
/// lead out of the archive, are not UTF-8, too long, or empty.
fn clean(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok().filter(|text| text.len() <= NAME)?;
    resolve("", text).filter(|key| !key.is_empty())
}

/// A link's target as a key; `None` when it leads out of the archive.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|key| key.len() <= NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(clean(b"./a//b/"), Some("a/b".to_owned()));
        assert_eq!(clean(b"x/../index.json"), Some("index.json".to_owned()));
        assert_eq!(clean(b"a/../../b"), None);
        assert_eq!(clean(b"\xff"), None);
        assert_eq!(resolve("x", "../y/layer.tar"), Some("y/layer.tar".to_owned()));
        assert_eq!(resolve("x", "../../y"), None);
        assert_eq!(resolve("x", "/y"), Some("y".to_owned()));
    }
}
