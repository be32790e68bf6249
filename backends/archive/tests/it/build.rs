//! Archives written by hand, so that everything about them can be wrong.

use std::io::Write as _;
use std::path::PathBuf;

use plyfold_archive::{Archive, Config};
use plyfold_core::digest;
use serde_json::json;
use tempfile::TempDir;

/// A tar with any names.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let mut header = header(name, tar::EntryType::Regular);
        header.set_size(content.as_ref().len() as u64);
        header.set_cksum();
        self.0.append(&header, content.as_ref()).unwrap();
        self
    }

    /// A member of any type.
    pub(crate) fn raw(mut self, name: &str, kind: u8, content: &[u8]) -> Self {
        let mut header = header(name, tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.link_of(tar::EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link_of(tar::EntryType::Link, name, target)
    }

    fn link_of(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = header(name, kind);
        header.set_link_name_literal(target).unwrap();
        header.set_cksum();
        self.0.append(&header, std::io::empty()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A header whose name is written as it is: the `tar` crate's own setters refuse `..`.
fn header(name: &str, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header
}

/// A layer: a tar of one file.
pub(crate) fn layer() -> Vec<u8> {
    Tar::new().file("hello", "world").bytes()
}

/// A config for one layer.
pub(crate) fn config() -> Vec<u8> {
    let diff_ids = [digest::sha256(&layer()).to_string()];
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string().into_bytes()
}

/// `HEX.json`, the name a config should have.
pub(crate) fn config_name() -> String {
    format!("{}.json", digest::sha256(&config()).digest())
}

/// `manifest.json` of one image.
pub(crate) fn manifest(tags: &[&str], layer: &str) -> String {
    json!([{ "Config": config_name(), "RepoTags": tags, "Layers": [layer] }]).to_string()
}

/// A file, and the backend on it.
pub(crate) struct OnDisk {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl OnDisk {
    pub(crate) fn new(content: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("medium.tar");
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        Self { folder, path }
    }

    pub(crate) fn archive(&self) -> Archive {
        Archive::new(&self.path, Config::default())
    }
}
