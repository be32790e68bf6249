//! Images that are ready to be written as one archive.

use std::collections::HashSet;

use tokio::runtime::Handle;

pub use super::gather::SaveImage;
use super::gather::gather;
use super::member::{Member, Members};
use super::options::{ArchiveForm, SaveOptions};
use super::stream::TarReader;
use super::writer::Writer;
use super::{docker, oci};
use crate::blocking::Stop;
use crate::progress::{Event, Operation};
use crate::range_write::RangeWrite;
use crate::{Descriptor, Digest, Result};

/// All that an archive of some images has: their documents are read, their blobs are read when it is written.
///
/// ```
/// use plyfold_core::blocking::blocking;
/// use plyfold_core::save::{Contents, SaveOptions};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let contents = Contents::of(Vec::new(), &SaveOptions::default()).await?;
/// let mut file = tempfile::tempfile()?;
/// let file = blocking(move |stop| contents.write(&mut file, stop).map(|()| file)).await?;
/// assert!(file.metadata()?.len() >= 4 * 512);
/// # Ok::<(), plyfold_core::Error>(())
/// # })?;
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Contents {
    images: Vec<SaveImage>,
    members: Members,
    options: SaveOptions,
    runtime: Handle,
    /// Ends when all is written.
    operation: Operation,
    names: usize,
    /// Bytes of the blobs that are written for each image.
    sizes: Vec<u64>,
    left_out: u64,
}

impl Contents {
    /// Reads the manifests and indexes of images. To be called within a tokio runtime, which the blobs are read by.
    ///
    /// # Errors
    /// Those of the images' registries; [`SaveFault`](super::SaveFault) as details.
    pub async fn of(images: Vec<SaveImage>, options: &SaveOptions) -> Result<Self> {
        let operation = options.progress.operation();
        let options = SaveOptions { progress: operation.progress().clone(), ..options.clone() };
        let gathered = gather(&images, &options).await?;
        let members = match options.form {
            ArchiveForm::Docker => docker::members(&gathered, &images, &options).await?,
            ArchiveForm::Oci => oci::members(&gathered, &options)?,
        };
        let names = gathered.names.len();
        let mut sizes = vec![0_u64; images.len()];
        for (blob, at) in gathered.blobs.values() {
            sizes[*at] = sizes[*at].saturating_add(blob.size());
        }
        let left_out = gathered.absent.values().map(Descriptor::size).fold(0, u64::saturating_add);
        Ok(Self { images, members, options, runtime: Handle::current(), operation, names, sizes, left_out })
    }

    /// How many names and images without one the archive has.
    pub fn names(&self) -> usize {
        self.names
    }

    /// Bytes of the blobs that are written.
    pub fn size(&self) -> u64 {
        self.members.values().map(Member::size).fold(0, u64::saturating_add)
    }

    /// Bytes of configs and layers that are written for each image, in their order; a blob of several counts for the first.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// Bytes of the blobs that are left out, because the receiver [has](SaveOptions::since) them.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The archive as a stream, which is written by a thread of its own while it is read.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the system has no thread left; those of [`write`](Self::write) come as the last item
    /// of the stream.
    pub fn into_reader(self) -> Result<TarReader> {
        TarReader::of("save", move |out, stop| {
            let (writer, operation) = self.into_writer();
            let written = writer.write(out, stop);
            operation.end(written)
        })
    }

    /// Writes the archive to what stands at its beginning; blobs that are files are hashed by other threads. After an error it
    /// is no complete tar. For a thread that may block.
    ///
    /// # Errors
    /// Those of the images' registries; [`Corrupt`](crate::ErrorKind::Corrupt) when a blob is not what its descriptor says;
    /// [`Io`](crate::ErrorKind::Io) of `out`.
    pub fn write(self, out: &mut dyn RangeWrite, stop: &Stop) -> Result<()> {
        let (writer, operation) = self.into_writer();
        let written = writer.write(out, stop);
        operation.end(written)
    }

    fn into_writer(self) -> (Writer, Operation) {
        self.options.progress.emit(Event::Planned { size: self.size() });
        let Self { images, members, options, runtime, operation, .. } = self;
        (Writer { images, members, options, runtime }, operation)
    }
}

/// The blobs that images lead to, as far as they are there, and of a delta archive all of them: what a
/// [`SaveBase`](super::SaveBase) is made of.
///
/// # Errors
/// Those of the images' registries.
pub async fn content_of(images: &[SaveImage], options: &SaveOptions) -> Result<HashSet<Digest>> {
    let gathered = gather(images, options).await?;
    let mut there = HashSet::new();
    let mut is_delta = Vec::with_capacity(images.len());
    for image in images {
        is_delta.push(!image.registry.bases().await.map_err(|e| e.with_image(&image.image))?.is_empty());
    }
    for (blob, at) in gathered.blobs.into_values() {
        let image = &images[at];
        // What has loaded a delta archive had the rest before.
        if is_delta[at] {
            there.insert(blob.digest().clone());
            continue;
        }
        // That it can be opened says that it is there.
        let range = crate::BlobRange::new(0, blob.size().min(1));
        let opened = image.registry.blob(&image.image, &blob, range).await;
        if crate::Error::found(opened).map_err(|e| e.with_image(&image.image))?.is_some() {
            there.insert(blob.digest().clone());
        }
    }
    Ok(there)
}
