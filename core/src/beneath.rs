//! Files that a document names: opened within a folder, whatever the document says.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

/// A folder in which files are opened by paths that come from outside. No symbolic link is followed at any step, and
/// only regular files are opened: a path leads to a file within this folder, or is refused.
#[derive(Debug)]
pub struct Beneath(OwnedFd);

/// Why a path leads to no regular file of the folder; in an [`io::Error`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is {0}")]
pub struct Irregular(&'static str);

impl Irregular {
    /// Whether this is why opening a file failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Beneath {
    /// The folder at a path, which may be a link to it; the empty path is the current folder.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, folder, flags, Mode::empty())?))
    }

    /// Opens a regular file to read; `None` when there is none.
    ///
    /// # Errors
    /// An [`Irregular`] for anything else, and for a path that leads out of the folder; those of looking and opening.
    pub fn open(&self, path: &Path) -> io::Result<Option<File>> {
        let Some((folder, name, _)) = self.find(path)? else { return Ok(None) };
        let folder = folder.as_ref().unwrap_or(&self.0);
        // Something else may stand there by now: a link is not followed, and a pipe not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(irregular(FileType::Symlink)),
            Err(e) => return Err(e.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(irregular(FileType::Unknown));
        }
        Ok(Some(file))
    }

    /// The bytes of a regular file, which is not opened; `None` when there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.find(path)?.map(|(_, _, size)| size))
    }

    /// The [parent](Self::parent) and the name of a regular file, and its bytes; `None` when there is none.
    fn find<'a>(&self, path: &'a Path) -> io::Result<Option<(Option<OwnedFd>, &'a Path, u64)>> {
        let found = self.parent(path).and_then(|(folder, name)| {
            let from = folder.as_ref().unwrap_or(&self.0);
            let found = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((folder, name, found))
        });
        match found {
            Ok((folder, name, found)) => match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => Ok(Some((folder, name, u64::try_from(found.st_size).unwrap_or(0)))),
                other => Err(irregular(other)),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The folder that a path leads to, if it is not this one, and the name in it. Each step is opened by itself, and none is
    /// `..` or a link, so no path leads out, also on kernels without `openat2`.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Option<OwnedFd>, &'a Path)> {
        let (mut folder, mut name) = (None::<OwnedFd>, None::<&Path>);
        for part in path.components() {
            let part: &Path = match part {
                Component::CurDir => continue,
                Component::Normal(part) => part.as_ref(),
                _ => return Err(io::Error::other(Irregular("outside of the folder"))),
            };
            if let Some(name) = name.replace(part) {
                let from = folder.as_ref().unwrap_or(&self.0).as_fd();
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let next = rustix::fs::openat(from, name, flags, Mode::empty());
                let is_link = || {
                    let found = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW);
                    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
                };
                folder = match next {
                    Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) if is_link() => {
                        return Err(io::Error::other(Irregular("behind a symbolic link")));
                    }
                    next => Some(next?),
                };
            }
        }
        name.map(|name| (folder, name)).ok_or_else(|| irregular(FileType::Directory))
    }
}

fn irregular(kind: FileType) -> io::Error {
    io::Error::other(Irregular(match kind {
        FileType::Symlink => "a symbolic link, and not a regular file",
        FileType::Directory => "a directory, and not a regular file",
        FileType::Fifo => "a pipe, and not a regular file",
        FileType::Socket => "a socket, and not a regular file",
        FileType::BlockDevice | FileType::CharacterDevice => "a device, and not a regular file",
        _ => "not a regular file",
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_leads_to_a_file_of_the_folder_or_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let (outside, folder) = (place.path(), place.path().join("in"));
        fs::create_dir_all(folder.join("d/e")).unwrap();
        fs::write(outside.join("secret"), "no").unwrap();
        fs::write(folder.join("d/e/f"), "yes").unwrap();
        symlink("../secret", folder.join("link")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("d", folder.join("inner")).unwrap();
        symlink("f", folder.join("d/e/beside")).unwrap();
        rustix::fs::mkfifoat(CWD, folder.join("pipe"), Mode::RUSR).unwrap();
        let beneath = Beneath::new(&folder).unwrap();
        for path in ["d/e/f", "./d//e/./f"] {
            let file = beneath.open(path.as_ref()).unwrap().unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), "yes", "{path}");
            assert_eq!(beneath.size(path.as_ref()).unwrap(), Some(3));
        }
        for path in ["none", "d/none/f"] {
            assert!(beneath.open(path.as_ref()).unwrap().is_none(), "{path}");
        }
        let secret = outside.join("secret");
        for (path, why) in [
            ("link", "a symbolic link, and not a regular file"),
            ("d/e/beside", "a symbolic link, and not a regular file"),
            ("up/secret", "behind a symbolic link"),
            ("inner/e/f", "behind a symbolic link"),
            ("../secret", "outside of the folder"),
            ("d/../../secret", "outside of the folder"),
            (secret.to_str().unwrap(), "outside of the folder"),
            ("d/e", "a directory, and not a regular file"),
            (".", "a directory, and not a regular file"),
            ("", "a directory, and not a regular file"),
            ("pipe", "a pipe, and not a regular file"),
        ] {
            let error = beneath.open(path.as_ref()).unwrap_err();
            assert_eq!(Irregular::of(&error), Some(&Irregular(why)), "{path}: {error}");
            assert_eq!(beneath.size(path.as_ref()).unwrap_err().to_string(), error.to_string());
        }
        assert!(Irregular::of(&beneath.open("d/e/f/g".as_ref()).unwrap_err()).is_none());
    }
}
