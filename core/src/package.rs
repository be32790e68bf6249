//! Packages: names of images that are derived from what the images are built from.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha1_smol::{Digest, Sha1};

use crate::blocking::blocking;
use crate::{Error, ErrorKind, Result, digest, reference};

/// What makes the name of an image out of a template, such as `@pkg:./dir`. Any closure from a text to a name is one.
#[async_trait]
pub trait PackageResolver: Send + Sync + 'static {
    /// The name that `text` stands for, with its tag; `None` when it is no template, but a name as it is.
    ///
    /// # Errors
    /// Those of the resolver: for a template that it knows and cannot resolve.
    async fn resolve(&self, text: &str) -> Result<Option<String>>;
}

#[async_trait]
impl<F: Fn(&str) -> Result<Option<String>> + Send + Sync + 'static> PackageResolver for F {
    async fn resolve(&self, text: &str) -> Result<Option<String>> {
        self(text)
    }
}

/// Directories as packages: an image is tagged with the hash that git gives to the tree of its directory, so the tag
/// changes when a file does.
///
/// | template | stands for |
/// |---|---|
/// | `@pkg:DIR` | the pattern `{name}:{hash}` |
/// | `PATTERN@pkg:DIR` | the pattern: `{hash}` is the hash of DIR, `{name}` its last component as a repository's name |
/// | `PATTERN` with `{name}` or `{hash}` | the same for the base directory, to which each DIR is relative |
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use plyfold_core::package::GitTree;
///
/// let base = tempfile::tempdir()?;
/// std::fs::create_dir(base.path().join("init"))?;
/// std::fs::write(base.path().join("init/run.sh"), "exec true\n")?;
/// let name = GitTree::new(base.path()).name("ghcr.io/org/{name}:{hash}@pkg:./init")?;
/// assert_eq!(name.as_deref(), Some("ghcr.io/org/init:b6414047ec9a0c4841e6b1e8922402d824047dc4"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GitTree {
    base: PathBuf,
}

impl GitTree {
    /// Packages by paths relative to `base`.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// As [`PackageResolver::resolve`], on the calling thread.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for an unknown `{…}` or no directory, and those of [`tree_hash`].
    pub fn name(&self, text: &str) -> Result<Option<String>> {
        let (pattern, dir) = match text.split_once("@pkg:") {
            Some(("", dir)) => ("{name}:{hash}", self.base.join(dir)),
            Some((pattern, dir)) => (pattern, self.base.join(dir)),
            None if text.contains("{name}") || text.contains("{hash}") => (text, self.base.clone()),
            None => return Ok(None),
        };
        if text.ends_with("@pkg:") {
            return Err(Error::config("no directory of a package is given").with_hint(HINT));
        }
        let hash = tree_hash(&dir)?;
        let named = reference::local(&dir, &hash)?;
        let repository = named.repository();
        let name = pattern.replace("{name}", repository).replace("{hash}", &hash);
        if name.contains(['{', '}']) {
            return Err(Error::config(format!("invalid pattern {pattern:?} of a package"))
                .with_hint("a pattern has {name} and {hash}, as in ghcr.io/org/{name}:{hash}"));
        }
        Ok(Some(name))
    }
}

#[async_trait]
impl PackageResolver for GitTree {
    async fn resolve(&self, text: &str) -> Result<Option<String>> {
        let (packages, text) = (self.clone(), text.to_owned());
        blocking(move |_| packages.name(&text)).await
    }
}

/// The hash of git's tree object of a directory, as `git add --all --force` and `git write-tree` make it: in hexadecimal
/// digits.
///
/// What counts is what is on the disk: `.gitignore` and `.gitattributes` are not read, and nothing has to be committed.
/// As in git, `.git` and directories without files are left out, and of a file's permissions only whether its owner may
/// execute it counts.
///
/// # Errors
/// [`Config`](ErrorKind::Config) for what is no directory; [`NotFound`](ErrorKind::NotFound) and [`Io`](ErrorKind::Io)
/// for what cannot be read;
/// [`Unsupported`](ErrorKind::Unsupported) for what git's trees do not hold: devices, sockets and pipes, and git
/// repositories within, of which git records a commit.
pub fn tree_hash(dir: &Path) -> Result<String> {
    Ok(tree(dir)?.unwrap_or_else(|| object("tree", b"")).to_string())
}

/// The tree of a directory; `None` if there are no files in it.
fn tree(dir: &Path) -> Result<Option<Digest>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| unread(dir, e))? {
        let entry = entry.map_err(|e| unread(dir, e))?;
        let (name, path) = (entry.file_name().as_bytes().to_vec(), entry.path());
        if name == b".git" {
            continue;
        }
        let metadata = entry.metadata().map_err(|e| unread(&path, e))?;
        let kind = metadata.file_type();
        let (mode, hash) = if kind.is_dir() {
            if path.join(".git").symlink_metadata().is_ok() {
                return Err(refused(&path, "it is a git repository within a package")
                    .with_hint("git records the commit of such a directory, and not its files"));
            }
            match tree(&path)? {
                Some(hash) => ("40000", hash),
                None => continue,
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| unread(&path, e))?;
            ("120000", object("blob", target.as_os_str().as_bytes()))
        } else if kind.is_file() {
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            (if is_executable { "100755" } else { "100644" }, file(&path, &metadata)?)
        } else {
            return Err(refused(&path, "a package holds files, directories and symbolic links alone"));
        };
        entries.push((name, mode, hash));
    }
    // A directory stands where its name with a slash would.
    entries.sort_by_cached_key(|(name, mode, _)| {
        let end: &[u8] = if *mode == "40000" { b"/" } else { b"" };
        [name, end].concat()
    });
    let mut content = Vec::new();
    for (name, mode, hash) in &entries {
        content.extend_from_slice(&[mode.as_bytes(), b" ", name, b"\0", &hash.bytes()].concat());
    }
    Ok((!entries.is_empty()).then(|| object("tree", &content)))
}

fn object(kind: &str, content: &[u8]) -> Digest {
    let mut hash = Sha1::from(format!("{kind} {}\0", content.len()));
    hash.update(content);
    hash.digest()
}

fn file(path: &Path, metadata: &Metadata) -> Result<Digest> {
    let mut hash = Sha1::from(format!("blob {}\0", metadata.len()));
    let content = File::open(path).map_err(|e| unread(path, e))?.take(metadata.len() + 1);
    let size = digest::read_all(content, |chunk| hash.update(chunk)).map_err(|e| unread(path, e))?;
    if size != metadata.len() {
        let message = "a file of the package changes while it is read";
        return Err(Error::new(ErrorKind::Io, message).with_context("path", path.display()));
    }
    Ok(hash.digest())
}

const HINT: &str = "`@pkg:` is followed by a directory";

fn unread(path: &Path, error: io::Error) -> Error {
    let error = match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found("there is no such package").with_hint(HINT).with_source(error)
        }
        io::ErrorKind::NotADirectory => Error::config("a package is not a directory").with_hint(HINT),
        _ => Error::io("reading a package", error),
    };
    error.with_context("path", path.display())
}

fn refused(path: &Path, why: &str) -> Error {
    Error::unsupported(why).with_context("path", path.display())
}
