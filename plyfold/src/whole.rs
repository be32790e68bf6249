//! Files that appear whole or not at all, and work on threads that ends when nobody waits for it any more.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plyfold_core::{Error, ErrorKind, Output, Result};
use tempfile::NamedTempFile;

/// Runs blocking work on a thread. When the returned future is dropped, the [`Stop`] that the work holds says so.
///
/// # Errors
/// Those of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stop = Stop::default();
    let guard = StopOnDrop(stop.clone());
    let outcome = tokio::task::spawn_blocking(move || work(&stop)).await;
    drop(guard);
    outcome.map_err(|e| Error::new(ErrorKind::Internal, "a working thread broke").with_source(e))?
}

/// Whether work on a thread should end early. Clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// An error as soon as nobody waits for the work.
    ///
    /// # Errors
    /// [`Cancelled`](plyfold_core::ErrorKind::Cancelled).
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the work was given up"));
        }
        Ok(())
    }

    /// A reader that ends in an error when the work should.
    pub fn reader<R: Read>(&self, reader: R) -> StoppableReader<R> {
        StoppableReader { stop: self.clone(), reader }
    }
}

/// Made by [`Stop::reader`].
#[derive(Debug)]
pub struct StoppableReader<R> {
    stop: Stop,
    reader: R,
}

impl<R: Read> Read for StoppableReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.reader.read(buf)
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A file being written under another name beside its own. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct WholeFile {
    file: NamedTempFile,
    target: PathBuf,
    stop: Stop,
}

impl WholeFile {
    /// Begins a file that will appear at `target`, in place of a file that may be there.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when `target` is something else than a file, such as a
    /// directory or a device; [`NotFound`](plyfold_core::ErrorKind::NotFound) when its directory does not exist;
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn create(target: &Path, stop: &Stop) -> Result<Self> {
        let at = |e: Error| e.with_context("path", target.display());
        if std::fs::symlink_metadata(target).is_ok_and(|there| !there.is_file()) {
            let hint = "choose the name of a file; devices and links are never written through";
            return Err(at(Error::config("the output is not a regular file").with_hint(hint)));
        }
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        // As any new file: the user's umask decides.
        builder.prefix(".plyfold-").permissions(Permissions::from_mode(0o666));
        let file = builder.tempfile_in(directory).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => at(Error::not_found("the output's directory does not exist")
                .with_hint(format!("`mkdir -p {}` makes it", directory.display()))),
            _ => at(Error::io("creating the output", e)),
        })?;
        Ok(Self { file, target: target.to_owned(), stop: stop.clone() })
    }

    /// Where the file will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The file itself, for calls that need a descriptor.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Takes the content of a finished file: as a clone that shares its blocks, else as a hard link to it, else as
    /// a copy. Nothing may be written afterwards.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io), [`Cancelled`](plyfold_core::ErrorKind::Cancelled).
    pub fn fill_from(&mut self, source: &Path) -> Result<()> {
        let at = |e| Error::io("copying into the output", e).with_context("path", self.target.display());
        let mut content = File::open(source).map_err(at)?;
        if rustix::fs::ioctl_ficlone(self.file.as_file(), &content).is_ok() {
            return Ok(());
        }
        let beside = self.file.path().parent().unwrap_or(Path::new("."));
        // `make_in` tries other names while one is taken.
        let link = tempfile::Builder::new().prefix(".plyfold-").make_in(beside, |path| {
            std::fs::hard_link(source, path)?;
            File::open(path)
        });
        if let Ok(link) = link {
            self.file = link;
            return Ok(());
        }
        let mut content = self.stop.reader(&mut content);
        io::copy(&mut content, self.file.as_file_mut()).map_err(at)?;
        Ok(())
    }

    /// Its size in bytes so far.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn size(&self) -> Result<u64> {
        let metadata = self.file.as_file().metadata();
        let metadata = metadata.map_err(|e| Error::io("looking at the output", e));
        Ok(metadata.map_err(|e| e.with_context("path", self.target.display()))?.len())
    }

    /// Refuses to take the place of a disk that may hold what a guest has written: of one that differs from this one in
    /// length or in its first block, whose superblock changes with the first mount of an ext4 (`s_mtime`, `s_mnt_count`,
    /// offsets 44 and 52).
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config).
    pub fn replaces_no_used_disk(&self) -> Result<()> {
        let Ok(there) = File::open(&self.target) else { return Ok(()) };
        let head = |file: &File| {
            let mut head = [0; 4096];
            file.read_exact_at(&mut head, 0).and_then(|()| Ok((file.metadata()?.len(), head)))
        };
        match (head(self.file()), head(&there)) {
            (Ok(new), Ok(there)) if new == there => Ok(()),
            _ => Err(Error::config("there is a disk of another size, or one that has been written to")
                .with_context("path", self.target.display())
                .with_hint("remove it if nobody needs it any more, or choose another place")),
        }
    }

    /// Makes the file visible and yields its size in bytes.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io), [`Cancelled`](plyfold_core::ErrorKind::Cancelled): nothing is visible.
    pub fn publish(self) -> Result<u64> {
        self.stop.check()?;
        let size = self.size()?;
        let Self { file, target, .. } = self;
        let at = |e| Error::io("publishing the output", e).with_context("path", target.display());
        let temporary = file.path().to_owned();
        file.persist(&target).map_err(|e| at(e.error))?;
        // rename(2) does nothing when both names are links to one file already.
        let _ = std::fs::remove_file(temporary);
        Ok(size)
    }
}

impl Read for WholeFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.as_file_mut().read(buf)
    }
}

impl Write for WholeFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let written = self.file.as_file_mut().write(buf);
        // Whoever writes also reads, and must not be the one that is named.
        written.map_err(|e| {
            Error::io("writing the output", e).with_context("path", self.target.display()).into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

impl Output for WholeFile {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.as_file().set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_visible_before_publish() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        std::fs::write(&target, "old").unwrap();
        let stop = Stop::default();
        let mut file = WholeFile::create(&target, &stop).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        drop(file);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);

        let mut file = WholeFile::create(&target, &stop).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(file.publish().unwrap(), 5);
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn only_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for target in [dir.path(), Path::new("/dev/null"), &link] {
            let error = WholeFile::create(target, &stop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{}", target.display());
        }
        let error = WholeFile::create(&dir.path().join("no/out"), &stop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let (started, is_started) = tokio::sync::oneshot::channel();
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let work = blocking(move |stop| {
            let _ = started.send(());
            let mut sink = io::sink();
            let outcome = io::copy(&mut stop.reader(io::repeat(0)), &mut sink);
            let _ = ended.send(outcome.map_err(Error::from));
            Ok(())
        });
        tokio::select! {
            outcome = work => panic!("endless work ended by itself: {outcome:?}"),
            _ = is_started => {}
        }
        let error = has_ended.await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Cancelled);
    }
}
