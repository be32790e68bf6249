//! What broken layout directories misread of other tools, and what these would misread of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::{BlobWriter, Descriptor, Digest, Error, Reference, Result};
use serde_json::Value;

use super::LayoutFault;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn index(directory: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(directory.join("index.json")).ok()?).ok()
}

fn entries(directory: &Path) -> Vec<Value> {
    index(directory).and_then(|index| index["manifests"].as_array().cloned()).unwrap_or_default()
}

fn edit(directory: &Path, edit: impl FnMut(&mut Value)) {
    let mut index = index(directory).unwrap();
    index["manifests"].as_array_mut().unwrap().iter_mut().for_each(edit);
    let beside = directory.join("index.json.new");
    fs::write(&beside, index.to_string()).unwrap();
    fs::rename(beside, directory.join("index.json")).unwrap();
}

/// Layouts that are turned away.
pub(super) fn refuse(fault: LayoutFault, directory: &Path) -> Option<Error> {
    let index = index(directory)?;
    let refused = match fault {
        LayoutFault::NullRefused => index["manifests"].is_null(),
        LayoutFault::UntypedRefused => index["mediaType"].is_null(),
        _ => false,
    };
    refused.then(|| Error::corrupt("no index.json"))
}

pub(super) fn before_opening(fault: LayoutFault, directory: &Path) {
    let marker = directory.join("oci-layout");
    let is_damaged = || fs::read(&marker).is_ok_and(|text| serde_json::from_slice::<Value>(&text).is_err());
    if fault == LayoutFault::OverwritesCorruptVersion && is_damaged() {
        fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

pub(super) fn after_opening(fault: LayoutFault, directory: &Path) {
    match fault {
        LayoutFault::ForeignFilesSwept => {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let is_ours = ["index.json", "oci-layout"].iter().any(|ours| *ours == entry.file_name());
                if !is_ours && entry.file_type().unwrap().is_file() {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        LayoutFault::NotesOpening => fs::write(directory.join("locks/opened"), "now").unwrap(),
        LayoutFault::VersionOfItsOwn => {
            fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.1.0"}"#).unwrap();
        }
        _ => {}
    }
}

/// What is found in place of what is there; `None` where nothing is misread.
pub(super) fn misread(
    fault: LayoutFault,
    directory: &Path,
    name: &Reference,
) -> Option<Result<Option<Descriptor>>> {
    let is_local = name.registry() == "localhost";
    let nameless = || entries(directory).iter().all(|entry| entry["annotations"][REF_NAME].is_null());
    match fault {
        LayoutFault::NamelessUnknown if is_local && nameless() => Some(Ok(None)),
        LayoutFault::PortsCutOff if name.registry().contains(':') => Some(Ok(None)),
        LayoutFault::TagsAlone if !is_local => {
            let tag = name.tag()?;
            let entries = entries(directory);
            let found = entries.iter().find(|entry| entry["annotations"][REF_NAME] == tag)?;
            Some(Ok(serde_json::from_value(found.clone()).ok()))
        }
        _ => None,
    }
}

pub(super) fn after_naming(fault: LayoutFault, directory: &Path) {
    match fault {
        LayoutFault::RefNamesUnwritten => edit(directory, |entry| {
            entry["annotations"].as_object_mut().unwrap().remove(REF_NAME);
        }),
        LayoutFault::SizesUnknown => edit(directory, |entry| entry["size"] = 0.into()),
        LayoutFault::TempsAmongBlobs => {
            fs::write(directory.join("blobs/sha256/.tmp-4711"), "half").unwrap();
        }
        _ => {}
    }
}

pub(super) fn note_use(directory: &Path, digest: &Digest) {
    File::open(blob_path(directory, digest)).unwrap().set_modified(SystemTime::now()).unwrap();
}

pub(super) fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
}

/// A writer of blobs whose names have capital letters, as on a file system that keeps no letter case.
#[derive(Debug)]
pub(super) struct RenamingWriter {
    pub(super) inner: Box<dyn BlobWriter>,
    pub(super) path: PathBuf,
}

#[async_trait]
impl BlobWriter for RenamingWriter {
    fn offset(&self) -> u64 {
        self.inner.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.inner.write(bytes).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.inner.restart().await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, path } = *self;
        inner.commit().await?;
        let name = path.file_name().unwrap().to_str().unwrap().to_uppercase();
        fs::rename(&path, path.with_file_name(name)).unwrap();
        Ok(())
    }

    async fn suspend(self: Box<Self>) -> Result<()> {
        self.inner.suspend().await
    }
}
