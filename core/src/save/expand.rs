//! Layers without their compression.

use std::fs::File;
use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::gather::SaveImage;
use super::options::SaveOptions;
use crate::blocking::Stop;
use crate::durable::temporary_file;
use crate::layer::{LayerForm, LayerOptions, LayerTar};
use crate::pull::Row;
use crate::{Blob, BlobRange, Descriptor, Digest, Error, Result, select};

/// A layer's tar in a file without a name, verified: a tar has the size of a member before its content.
pub(super) fn expanded(
    image: &SaveImage,
    layer: &Descriptor,
    diff_id: &Digest,
    options: &SaveOptions,
    (runtime, stop): (&Handle, &Stop),
) -> Result<File> {
    let folder = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let mut row = Row::default();
    loop {
        let file = temporary_file(&folder)?;
        let opened = select::blob(&*image.registry, &image.image, layer, BlobRange::FULL);
        let written = stop.wait(runtime, opened).and_then(|blob| {
            let reader = Chunks { blob, left: Bytes::new(), runtime: runtime.clone(), stop: stop.clone() };
            let options = LayerOptions {
                diff_id: Some(diff_id.clone()),
                form: LayerForm::of(layer)?,
                ..LayerOptions::default()
            };
            let mut tar = LayerTar::new(reader, options)?;
            tar.copy_to(file.try_clone().map_err(|e| Error::io("opening a temporary file", e))?)?;
            tar.finish()
        });
        match written {
            Ok(_) => return Ok(file),
            Err(e) => {
                let pause = options.retry.pause(&mut row, e, layer.digest().as_ref(), &options.progress);
                stop.wait(runtime, pause)?;
            }
        }
    }
}

/// A blob as a reader of a thread, which ends when the work is cancelled, also while the blob's source sends nothing.
struct Chunks {
    blob: Blob,
    left: Bytes,
    runtime: Handle,
    stop: Stop,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            self.left = self.stop.wait(&self.runtime, self.blob.chunk())?.unwrap_or_default();
        }
        let count = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
