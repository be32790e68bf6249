//! Words that are paths: what is written without a scheme and looks like a file or a directory.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::disk_file::format_of;
use crate::{Backends, Error, Result, printable, reference};
use tar::Header;

/// How the file names of archives end, before a tag.
const ARCHIVES: [&str; 9] = ["tar", "tar.gz", "tgz", "tar.zst", "tzst", "tar.xz", "txz", "tar.bz2", "tbz2"];

/// How the names of files end that no image is in, before a tag.
const FILES: [&str; 14] = [
    "erofs", "ext4", "gz", "img", "iso", "json", "oci", "qcow2", "raw", "sif", "squashfs", "vmdk", "xz",
    "zip",
];

const LAYOUT: &str =
    "write oci:DIRECTORY:TAG for a layout directory, docker-archive:FILE or oci-archive:FILE for a tar";

/// Refuses what begins with the transport of another tool, and says what to write in its place.
pub(crate) fn refuse_foreign(word: &str, is_target: bool) -> Result<()> {
    let Some((scheme, rest)) = word.split_once(':') else { return Ok(()) };
    // What to write here to read from there, and to write to it.
    let (source, target) = match scheme {
        "file" | "oci-layout" | "ostree" | "sif" => (LAYOUT, LAYOUT),
        "tarball" => ("write tar:FILE for the tar of a root file system", LAYOUT),
        "containers-storage" | "podman" => (
            "`podman save --format oci-archive -o FILE.tar NAME` writes an archive, which plyfold reads as FILE.tar",
            "`plyfold save IMAGE --out FILE` writes an archive, which `podman load` reads",
        ),
        "containerd" => (
            "`ctr image export FILE.tar NAME` writes an archive, which plyfold reads as FILE.tar",
            "`plyfold save IMAGE --out FILE` writes an archive, which `ctr image import` reads",
        ),
        "docker-image" => ("write docker://NAME", "write docker://NAME"),
        "http" | "https" | "oci+http" | "oci+https" => ("", ""),
        _ => return Ok(()),
    };
    // A file of that name that is here is meant.
    if Path::new(word).exists() {
        return Ok(());
    }
    let rest = rest.trim_start_matches('/');
    let name = reference::parse(word).map(|name| format!("; registry:{name} is the name in a registry"));
    let hint = match if is_target { target } else { source } {
        "" => format!(
            "write {}, without a scheme; -o plain-http=HOST is for registries without TLS",
            printable(rest)
        ),
        hint => format!("{hint}{}", name.unwrap_or_default()),
    };
    Err(Error::config(format!("there is no transport {scheme}: here"))
        .with_image(printable(word))
        .with_hint(hint))
}

/// Refuses a name that promises a compressed file, which is not what is written.
pub(crate) fn refuse_compressed(out: &Path, hint: &'static str) -> Result<()> {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if ARCHIVES[1..].iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
        let error =
            Error::config("the tar is written without compression").with_context("path", out.display());
        return Err(error.with_hint(hint));
    }
    Ok(())
}

/// A path, and the name of an image in it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Written<'a> {
    word: &'a str,
    path: &'a str,
    image: Option<&'a str>,
}

impl<'a> Written<'a> {
    /// `PATH` or `PATH:IMAGE`. An existing path decides; otherwise an image's name has no slash.
    fn split(word: &'a str) -> Self {
        let whole = Self { word, path: word, image: None };
        if Path::new(word).exists() {
            return whole;
        }
        match word.split_once(':') {
            Some((path, image)) if Path::new(path).exists() || !image.contains('/') => {
                Self { word, path, image: Some(image).filter(|image| !image.is_empty()) }
            }
            _ => whole,
        }
    }

    /// Arguments that cannot be a name in a registry.
    pub(crate) fn certain(word: &'a str) -> Option<Self> {
        let written = Self::split(word);
        let begins = written.begins_as_path();
        let is_file = written.is_called(&ARCHIVES) || written.is_called(&FILES);
        (begins || is_file || written.is_folder()).then_some(written)
    }

    /// Whether it can only be a path, whatever is here.
    pub(crate) fn is_path(word: &str) -> bool {
        let whole = Written { word, path: word, image: None };
        let path = word.split_once(':').map_or(word, |(path, _)| path);
        whole.begins_as_path()
            || word.ends_with('/')
            || Written { word, path, image: None }.is_called(&ARCHIVES)
    }

    fn begins_as_path(&self) -> bool {
        self.path.starts_with(['/', '.', '~']) || self.path.contains("/./") || self.path.contains("/../")
    }

    /// What is here under this path, an image by its looks, and may be meant as a name as well.
    pub(crate) fn possible(word: &'a str) -> Option<Self> {
        let written = Self::split(word);
        let path = Path::new(written.path);
        (path.is_file() || path.join("oci-layout").is_file()).then_some(written)
    }

    /// A directory that is here, or what is in one, and may be meant as a name as well.
    pub(crate) fn directory(word: &'a str) -> Option<Self> {
        let written = Self::split(word);
        let is_directory = |path: &str| Path::new(path).is_dir();
        let folder = written.path.rsplit_once('/').map(|(folder, _)| folder);
        let is_in_one = folder.is_some_and(|folder| !is_host(folder) && is_directory(folder));
        (is_in_one || is_directory(written.path)).then_some(written)
    }

    /// Whether it is called as such files are. `host.example/app.tar` is in a registry, unless there is such a
    /// directory.
    fn is_called(&self, endings: &[&str]) -> bool {
        let lower = self.path.to_ascii_lowercase();
        let ends = |ending: &&str| lower.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.'));
        let folder = self.path.rsplit_once('/').map(|(folder, _)| folder);
        endings.iter().any(ends) && folder.is_none_or(|folder| !is_host(folder) || Path::new(folder).is_dir())
    }

    /// `name/`: an image's name never ends with a slash, a registry's does.
    fn is_folder(&self) -> bool {
        let Some(path) = self.path.strip_suffix('/') else { return false };
        path.contains('/') || Path::new(path).is_dir() || !(path == "localhost" || path.contains(['.', ':']))
    }

    /// The URI of what is read.
    pub(crate) fn source(&self) -> Result<String> {
        self.check()?;
        let path = Path::new(self.path);
        match (path.is_dir(), path.exists(), self.image) {
            (true, _, image) => Ok(self.layout(image)),
            (false, true, None) => {
                self.check_archive(path)?;
                Ok(format!("docker-archive:{}", self.path))
            }
            (false, true, Some(image)) => {
                let error = self.refused("the form of the archive is not known");
                let hint = format!(
                    "write docker-archive:{path}:NAME[:TAG] or oci-archive:{path}:TAG; {image:?} may be either",
                    path = self.path
                );
                Err(error.with_hint(hint))
            }
            (false, false, _) => Err(self.absent()),
        }
    }

    /// Refuses a disk, and a file that does not begin as a tar, compressed or not. What cannot be read here is left to
    /// the backend.
    fn check_archive(&self, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Ok(());
        }
        if matches!(format_of(path), Ok(Some(_))) {
            let error = self.refused("the file is a disk, and not an archive of images");
            return Err(error.with_hint("`plyfold ls`, `plyfold cat` and `plyfold inspect` read disks"));
        }
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEADER as u64).read_to_end(&mut head));
        if read.is_err() || head.is_empty() || is_archive(&head) {
            return Ok(());
        }
        let error = self.refused("the file is neither an archive of images nor a disk");
        Err(error.with_hint("archives of images are tars, as docker save, podman save and skopeo write them"))
    }

    /// The URI of what is written to.
    pub(crate) fn target(&self) -> Result<String> {
        self.check()?;
        if self.is_called(&ARCHIVES) || Path::new(self.path).is_file() {
            return match self.image {
                Some(image) => Ok(format!("oci-archive:{}:{image}", self.path)),
                None => Err(self
                    .refused("the target has no tag")
                    .with_hint(format!("write oci-archive:{}:TAG, with a tag of your choice", self.path))),
            };
        }
        if self.is_called(&FILES) {
            let error = self.refused(format!("{} looks like the name of a file", printable(self.path)));
            let name = reference::parse(self.word).map(|_| format!(", registry:{} for the name", self.word));
            let hint = format!("write oci:DIRECTORY:TAG for a layout{}", name.unwrap_or_default());
            return Err(error.with_hint(hint));
        }
        match self.image {
            Some(image) => Ok(self.layout(Some(image))),
            None => Err(self
                .refused("the target has no tag")
                .with_hint(format!("write {}, with a tag of your choice", self.layout(Some("TAG"))))),
        }
    }

    /// The error for what is a path and may be a name.
    pub(crate) fn or_name(&self) -> Error {
        let path = Path::new(self.path);
        let is_layout = path.is_dir() || !path.exists();
        let uri = if is_layout { self.layout(self.image) } else { format!("docker-archive:{}", self.word) };
        let name = reference::parse(self.word).map(|name| name.whole());
        let name = name.unwrap_or_else(|_| format!("registry:{}", self.word));
        self.refused(format!("{} is a path here, and may be a name", printable(self.path)))
            .with_hint(format!("write {uri} for the path, or {name} for the name"))
    }

    /// The URI of an archive or a layout as a place for several images, if a word is the path of such.
    pub(crate) fn place(word: &'a str) -> Result<Option<String>> {
        let written = Self { word, path: word, image: None };
        let path = Path::new(word);
        let is_archive = written.is_called(&ARCHIVES) || path.is_file();
        // `HOST/PREFIX/` is in a registry.
        let is_folder = written.is_folder() && !is_host(word);
        let is_layout = path.is_dir() || word.starts_with(['/', '.', '~']) || is_folder;
        if !is_archive && !is_layout {
            if !word.contains('/') && written.is_called(&FILES) {
                let error = written.refused("the target looks like the name of a file");
                return Err(
                    error.with_hint("write FILE.tar for an archive, DIR/ for a layout, HOST/ for a registry")
                );
            }
            return Ok(None);
        }
        written.check()?;
        if is_archive && !path.exists() && !written.is_called(&ARCHIVES[..1]) {
            let error = written.refused("an archive is not compressed: its layers are");
            return Err(error.with_hint("name it FILE.tar"));
        }
        Ok(Some(if is_archive { format!("oci-archive:{word}") } else { written.layout(None) }))
    }

    fn layout(&self, image: Option<&str>) -> String {
        let path = self.path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(self.path);
        image.map_or_else(|| format!("oci:{path}"), |image| format!("oci:{path}:{image}"))
    }

    /// Paths that a URI cannot express, or that the shell did not expand.
    fn check(&self) -> Result<()> {
        if self.path.starts_with('~') {
            let error = self.refused("the shell has not expanded the ~ of a path");
            return Err(error.with_hint("write the whole path"));
        }
        if self.path.contains(':') {
            let error = self.refused("a path with a colon cannot be written for an image");
            return Err(error.with_hint("rename it, or make a link to it"));
        }
        Ok(())
    }

    fn refused(&self, why: impl Into<String>) -> Error {
        Error::config(why).with_image(printable(self.word))
    }

    fn absent(&self) -> Error {
        let error = Error::not_found(format!("there is no file or directory {}", printable(self.path)));
        let error = error.with_image(printable(self.word));
        match reference::parse(self.word) {
            Ok(name) => error.with_hint(format!("write registry:{name} for a name in a registry")),
            Err(_) => error,
        }
    }
}

/// Bytes of the header of a member of a tar.
const HEADER: usize = 512;
/// How compressed files begin: gzip, zstd, xz, bzip2.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];

/// Whether a file that begins so may be a tar, compressed or not: the header of its first member has its checksum, and a
/// tar without members is zeros.
fn is_archive(head: &[u8]) -> bool {
    if COMPRESSED.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    if head.len() < HEADER {
        return false;
    }
    let header = Header::from_byte_slice(head);
    let mut summed = header.clone();
    summed.set_cksum();
    header.cksum().is_ok_and(|sum| summed.cksum().is_ok_and(|right| sum == right))
        || head.iter().all(|&byte| byte == 0)
}

/// The URI of a place that is written by its scheme, as the path of what is here, or as `store:DIR`.
pub(crate) fn existing(word: &str, backends: &Backends) -> Option<String> {
    let path = Path::new(word);
    Some(match word.strip_prefix("store:") {
        Some(store) => format!("oci:{store}"),
        None if backends.knows(word) => word.to_owned(),
        None if path.is_dir() => format!("oci:{word}"),
        // The content of an archive decides its form, not the scheme.
        None if path.is_file() => format!("docker-archive:{word}"),
        None => return None,
    })
}

/// Whether a name with this before its last slash begins with the host of a registry.
pub(crate) fn is_host(folder: &str) -> bool {
    let first = folder.split('/').next().unwrap_or_default();
    first == "localhost" || first.contains(['.', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_one() {
        for (word, path, image) in [
            ("./big", "./big", None),
            ("../big:v1", "../big", Some("v1")),
            ("/srv/big:app:1", "/srv/big", Some("app:1")),
            ("~/big", "~/big", None),
            (".", ".", None),
            (".big", ".big", None),
            ("big/../other", "big/../other", None),
            ("o.tar", "o.tar", None),
            ("O.TAR.gz", "O.TAR.gz", None),
            ("out/o.tgz:v1", "out/o.tgz", Some("v1")),
            ("big/", "big/", None),
            ("a.b/c/", "a.b/c/", None),
        ] {
            assert_eq!(Written::certain(word), Some(Written { word, path, image }), "{word}");
        }
        for name in [
            "alpine",
            "alpine:3.20",
            "org/app",
            "ghcr.io/",
            "localhost:5000/",
            "localhost:5000/app:1",
            "registry.invalid/app.tar",
            "tar",
            "app@sha256:00",
        ] {
            assert_eq!(Written::certain(name), None, "{name}");
        }
    }
}
