//! Images out of archives and layout directories, and archives that come as a stream.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::pin::pin;

use plyfold_core::cache::list_images;
use plyfold_core::{
    CacheProviderExt as _, Digest, Error, ErrorKind, Lease, ListedImage, LoadOptions, Loaded, Platform,
    Platforms, PullOptions, PullPolicy, PulledImage, Reference, Result, reference,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Images, Place};
use crate::blocking::blocking;
use crate::durable::temporary_file;

/// Bytes that are read before they are written.
const PART: u64 = 1 << 20;

/// An image that was loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedImage {
    /// The name that the archive gives it; by its digest alone where it has no name there.
    pub reference: Reference,
    /// The digest of an index or of a manifest.
    pub digest: Digest,
    /// What the name stood for until now, if that was another image.
    pub replaced: Option<Digest>,
    /// What the name still stands for, if that is another image: [`LoadOptions::keep_names`]. The loaded image has its
    /// digest in the repository of the name, and no tag.
    pub kept: Option<Digest>,
    /// The image for the platform of the options, or for this machine; `None` where it is not for that.
    pub image: Option<PulledImage>,
    /// Keeps all that was loaded in the cache while this or a clone of it lives.
    pub lease: Lease,
}

impl Images {
    /// Brings images of an archive or a layout directory into the cache, all of them or, with an error, none: every one,
    /// or those that the URI or the options name.
    ///
    /// # Errors
    /// Those of [`Backends::open`](plyfold_core::Backends::open) and
    /// [`CacheProviderExt::image_load`](plyfold_core::CacheProviderExt::image_load).
    pub async fn load(&self, archive: &str, options: LoadOptions) -> Result<Vec<LoadedImage>> {
        let operation = options.progress.operation();
        let place = self.place()?;
        let opened = Box::pin(self.opened(archive, None)).await?;
        operation.hand_over();
        let platforms = match &options.platforms {
            Platforms::One(platform) => vec![platform.clone()],
            Platforms::Some(platforms) => platforms.clone(),
            _ => vec![Platform::host()],
        };
        let mut images = Vec::new();
        for loaded in self.cache.image_load(&opened, &options).await? {
            // On the heap: callers would carry all of its states in futures of their own.
            let image = Box::pin(self.loaded(&loaded, &platforms, &place)).await?;
            let digest = |descriptor: plyfold_core::Descriptor| descriptor.digest().clone();
            images.push(LoadedImage {
                reference: loaded.reference,
                digest: loaded.descriptor.digest().clone(),
                replaced: loaded.replaced.map(digest),
                kept: loaded.kept.map(digest),
                image,
                lease: loaded.lease,
            });
        }
        Ok(images)
    }

    /// The image of one of these platforms, out of the cache.
    async fn loaded(
        &self,
        loaded: &Loaded,
        platforms: &[Platform],
        place: &Place,
    ) -> Result<Option<PulledImage>> {
        let name = match loaded.kept {
            Some(_) => reference::by_digest(&loaded.reference, loaded.descriptor.digest()),
            None => loaded.reference.clone(),
        };
        if reference::is_about_images(&name) {
            return Ok(None);
        }
        // Nothing is asked under `Never`.
        let nothing = self.cache.as_registry();
        for platform in platforms {
            let options = PullOptions {
                platform: platform.clone(),
                policy: PullPolicy::Never,
                ..PullOptions::default()
            };
            match self.cache.image_pull(&nothing, &name, &options).await {
                Ok(result) => return self.pulled(result, platform, place).await.map(Some),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PlatformNotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The images of an archive or a layout directory, as a load would take them. Nothing is stored.
    ///
    /// # Errors
    /// Those of [`Backends::open`](plyfold_core::Backends::open) and [`list_images`].
    pub async fn list_images(&self, archive: &str) -> Result<Vec<ListedImage>> {
        list_images(&self.opened(archive, None).await?).await
    }

    /// As [`load`](Self::load), of an archive that comes from a socket, a pipe or a program. It is written to a file
    /// without a name first, in the [scratch folder](Self::with_scratch), the cache's own or that of the system, because the
    /// readers of archives need to seek; the room there is the only bound. Dropping the future ends it.
    ///
    /// # Errors
    /// As [`Images::load`]; [`Io`](crate::ErrorKind::Io) with the error of `archive`;
    /// [`Config`](crate::ErrorKind::Config) without the feature `archive`.
    pub async fn load_from(
        &self,
        archive: impl AsyncRead + Send,
        options: LoadOptions,
    ) -> Result<Vec<LoadedImage>> {
        let operation = options.progress.operation();
        let spooled = self.spooled(archive).await?;
        operation.hand_over();
        let loaded = self.load(&spooled.uri(), options).await;
        drop(spooled);
        loaded
    }

    /// All of an archive in a file without a name.
    pub(crate) async fn spooled(&self, archive: impl AsyncRead + Send) -> Result<Spooled> {
        spooled(archive, self.temporary()).await.map(Spooled)
    }

    /// The folder for files that other processes may share, if one is known.
    pub(crate) fn scratch(&self) -> Option<PathBuf> {
        self.scratch.clone().or_else(|| self.cache.scratch())
    }

    /// Where files without a name go: a cache that cannot be written has no folder of its own.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.scratch().unwrap_or_else(std::env::temp_dir)
    }
}

/// A file without a name, which is read while it is open here.
pub(crate) struct Spooled(pub(crate) File);

impl Spooled {
    pub(crate) fn uri(&self) -> String {
        format!("docker-archive:/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// All of a stream in a file without a name.
async fn spooled(archive: impl AsyncRead + Send, folder: PathBuf) -> Result<File> {
    let mut file = blocking(move |_| temporary_file(&folder)).await?;
    let (mut archive, mut part) = (pin!(archive), Vec::new());
    loop {
        let read = archive.as_mut().take(PART).read_to_end(&mut part).await;
        if read.map_err(|e| Error::io("reading the archive", e))? == 0 {
            return Ok(file);
        }
        (file, part) = blocking(move |_| {
            file.write_all(&part).map_err(|e| Error::io("writing the archive to a temporary file", e))?;
            part.clear();
            Ok((file, part))
        })
        .await?;
    }
}
