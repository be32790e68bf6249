//! A backend of one's own: images in a plain folder. The file `DIR/HOST/REPOSITORY/TAG` holds the digest that the
//! name stands for, and content is in the file `DIR/DIGEST`.
//!
//! A program that depends on this crate opens such URIs; nothing else has to know about it.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use async_trait::async_trait;
use plyfold_core::manifest::limits;
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Error, ImageRegistry, Location, Opened, Options,
    RawManifest, Reference, Result, digest, reference,
};

plyfold_core::register!(Backend {
    schemes: &["folder"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images in a plain folder",
    syntax: "folder:DIR[:NAME]",
    capabilities: Capabilities::READ,
    open: |location, options| Box::pin(async move { open(&location, &options) }),
});

fn open(location: &Location, _: &Options) -> Result<Opened> {
    let (path, image) = location.path_and_image();
    let reference = image.map(reference::parse).transpose()?;
    Ok(Opened { registry: Box::new(Folder(path.into())), reference })
}

/// A folder of images.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    fn file(&self, name: &str) -> Result<File> {
        let path = self.0.join(name);
        let opened = File::open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::not_found("no such file"),
            _ => Error::io("opening a file", e),
        });
        opened.map_err(|e| e.with_endpoint(self).with_context("path", path.display()))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file(name)?.take(limits::MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("reading a file", e))?;
        Ok(bytes)
    }
}

#[async_trait]
impl ImageRegistry for Folder {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let digest = match (reference::digest_of(reference)?, reference.tag()) {
            (Some(digest), _) => digest,
            (None, tag) => {
                let name = format!("{}/{}", reference::repository_of(reference), tag.unwrap_or("latest"));
                digest::parse(String::from_utf8_lossy(&self.read(&name)?).trim())?
            }
        };
        RawManifest::verified(self.read(digest.as_ref())?, None, &digest)
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let mut file = self.file(blob.digest().as_ref())?;
        let start = range.resolve(blob.size())?.start;
        file.seek(SeekFrom::Start(start)).map_err(|e| Error::io("reading a blob", e))?;
        Blob::from_reader(blob, range, file)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder:{}", self.0.display())
    }
}
