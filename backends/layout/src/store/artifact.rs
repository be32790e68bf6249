//! Files made from layers.
//!
//! An artifact is present when its seal is there and tells its size. The seal is written last, so that nothing
//! is taken for whole that is not, and it has the digest that shows later damage. Until then its maker holds the
//! lock on it: one without a seal and without a lock was lost on the way.
//!
//! Artifacts are readable by all, in folders that are for the store's owner alone: what is put elsewhere may be a hard
//! link to one, whose mode is the same, and a virtual machine's monitor often runs as another user.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfold_core::digest::Hasher;
use plyfold_core::{Artifact, ArtifactKey, ArtifactWriter, Digest, Error, ErrorKind, Output, Result, digest};

use super::lease::Queued;
use crate::durable::{self, Temp};
use crate::root::Root;

/// Where an artifact belongs: under its format the folders that containerd's EROFS snapshotter looks in.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folders: [String; 4],
    file: String,
}

/// What is written beside an artifact when it is whole.
#[derive(serde::Deserialize, serde::Serialize)]
pub(super) struct Seal {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Place {
    pub(super) fn of(key: &ArtifactKey) -> Result<Self> {
        Self::new(&key.format.to_string(), &key.diff_id, key.format.extension)
    }

    pub(super) fn new(format: &str, diff_id: &Digest, extension: &str) -> Result<Self> {
        digest::supported(diff_id)?;
        let safe = |text: &str| {
            let known = |c: u8| c.is_ascii_alphanumeric() || b"-_.=+".contains(&c);
            !text.is_empty() && !text.starts_with('.') && text.bytes().all(known)
        };
        if !safe(format) || !safe(extension) {
            let message = format!("format {format:?} with extension {extension:?} is no file name");
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let (algorithm, hex) = (diff_id.algorithm().to_string(), diff_id.digest());
        let folders = ["artifacts".to_owned(), format.to_owned(), algorithm, hex[..2].to_owned()];
        Ok(Self { folders, file: format!("{hex}.{extension}") })
    }

    pub(super) fn path(&self, root: &Root) -> PathBuf {
        self.folders.iter().fold(root.path().to_owned(), |path, folder| path.join(folder)).join(&self.file)
    }

    /// The name of the temporary file. No blob's has the format in front.
    pub(super) fn temp(&self) -> String {
        let [_, format, algorithm, _] = &self.folders;
        format!("{format}-{algorithm}-{}", self.file)
    }
}

/// Begins to make an artifact; `None` while another maker is alive.
pub(super) fn begin(root: &Arc<Root>, place: &Place, queued: &Queued) -> Result<Option<Artifact>> {
    let path = place.path(root);
    if let Some(size) = sealed_size(&path)? {
        return Ok(Some(Artifact::Present(path, size)));
    }
    let Some(mut temp) = Temp::claim(root, &place.temp())? else { return Ok(None) };
    if let Some(size) = sealed_size(&path)? {
        return Ok(Some(Artifact::Present(path, size)));
    }
    temp.file().set_len(0).map_err(|e| Error::io("emptying a temporary file", e))?;
    let (root, place, queued) = (root.clone(), place.clone(), queued.clone());
    let writer = DiskArtifact { root, place, temp, queued };
    Ok(Some(Artifact::Vacant(Box::new(writer))))
}

/// The size of an artifact that is whole.
fn sealed_size(path: &Path) -> Result<Option<u64>> {
    let Some(found) = file(path)? else { return Ok(None) };
    let seal = seal(path)?;
    Ok(seal.filter(|seal| seal.size == found.len()).map(|seal| seal.size))
}

/// What the seal of an artifact says; `None` when there is none, or none that says anything. One that cannot be read
/// for another reason is an error: the artifact may be whole.
pub(super) fn seal(path: &Path) -> Result<Option<Seal>> {
    /// Much more than any seal has.
    const LIMIT: u64 = 4096;
    let seal = seal_path(path);
    if file(&seal)?.is_none() {
        return Ok(None);
    }
    let opened = match File::open(&seal) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("opening {}", seal.display()), e)),
    };
    let mut bytes = Vec::new();
    let read = opened.take(LIMIT).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("reading {}", seal.display()), e))?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// What is known of a regular file; `None` when there is none.
fn file(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found).filter(fs::Metadata::is_file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("looking at {}", path.display()), e)),
    }
}

/// Removes an artifact: its seal first, because what has none is taken for missing.
pub(super) fn remove(path: &Path) -> Result<()> {
    for path in [&seal_path(path), path] {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", path.display()), e));
            }
            _ => {}
        }
    }
    path.parent().map_or(Ok(()), durable::sync_dir)
}

pub(super) fn seal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".seal");
    name.into()
}

#[derive(Debug)]
struct DiskArtifact {
    root: Arc<Root>,
    place: Place,
    temp: Temp,
    /// Let go of after the file: the next one in the queue finds it gone.
    queued: Queued,
}

impl ArtifactWriter for DiskArtifact {
    fn output(&mut self) -> &mut dyn Output {
        self.temp.file()
    }

    fn commit(self: Box<Self>) -> Result<(PathBuf, u64)> {
        let Self { root, place, temp, queued: _queued } = *self;
        let path = place.path(&root);
        let folders = place.folders.each_ref().map(String::as_str);
        durable::folder(&root, &folders, root.private)?;
        // A seal that is there is of a file that was not whole or is gone: it must not vouch for this one.
        let stale = seal_path(&path);
        if fs::symlink_metadata(&stale).is_ok_and(|stale| stale.is_file()) {
            fs::remove_file(&stale).map_err(|e| Error::io(format!("removing {}", stale.display()), e))?;
        }
        // Hashing reads what is still in memory, while the disk takes it.
        let reader = temp.reader()?;
        let _in_the_making = temp.share()?;
        let (published, seal) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| seal_of(reader));
            (temp.for_all().publish(&path, 0o444), hashing.join())
        });
        published?;
        let broken = |_| Error::new(ErrorKind::Internal, "a hashing thread broke");
        let seal = seal.map_err(broken)?.inspect_err(|_| drop(fs::remove_file(&path)))?;
        let bytes = serde_json::to_vec(&seal)
            .map_err(|e| Error::new(ErrorKind::Internal, "writing a seal").with_source(e))?;
        let temp_name = format!("{}.seal", place.temp());
        let sealed = durable::write_document(&root, &temp_name, &seal_path(&path), 0o444, &bytes);
        sealed.inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok((path, seal.size))
    }
}

fn seal_of(mut file: File) -> Result<Seal> {
    let mut hasher = Hasher::sha256();
    let mut chunk = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => return Ok(Seal { digest: hasher.finish(), size }),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io("reading an artifact", e)),
        };
        hasher.update(&chunk[..count]);
        size += count as u64;
    }
}
