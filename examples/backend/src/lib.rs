//! A third party's backend: images in a plain folder. The file `DIR/HOST/REPOSITORY/TAG` holds the digest that the
//! name stands for (a port's colon is a slash, too), and content is in the file `DIR/DIGEST`.
//!
//! A program that depends on this crate opens such URIs; nothing else has to know about it.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use async_trait::async_trait;
use plyfold_core::manifest::limits;
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Error, ImageRegistry, Opened, RawManifest, Reference,
    Result, digest, reference,
};

plyfold_core::register!(Backend {
    schemes: &["folder"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images in a plain folder",
    syntax: "folder:DIR[:NAME]",
    options: "",
    capabilities: Capabilities::READ,
    takes_credentials: false,
    open: |request| Box::pin(async move {
        request.options.refuse()?;
        let (path, image) = request.location.path_and_image();
        Ok(Opened {
            registry: Box::new(Folder(path.into())),
            reference: image.map(reference::parse).transpose()?,
        })
    }),
});

/// A folder of images.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

#[async_trait]
impl ImageRegistry for Folder {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let digest = match reference::digest_of(reference)? {
            Some(digest) => digest,
            None => {
                digest::parse(&String::from_utf8_lossy(&self.read(&reference.whole().replace(':', "/"))?))?
            }
        };
        RawManifest::read(self.open(digest.as_ref())?, None, &digest)
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let mut file = self.open(blob.digest().as_ref())?;
        let start = range.resolve(blob.size())?.start;
        file.seek(SeekFrom::Start(start)).map_err(|e| Error::io("reading a blob", e))?;
        Blob::from_reader(blob, range, file)
    }
}

impl Folder {
    fn open(&self, name: &str) -> Result<File> {
        let opened = File::open(self.0.join(name)).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::not_found("no such file"),
            _ => Error::io("opening a file", e),
        });
        opened.map_err(|e| e.with_endpoint(self).with_context("file", name))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(limits::MANIFEST + 1).read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|e| Error::io("reading a file", e))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder:{}", self.0.display())
    }
}
