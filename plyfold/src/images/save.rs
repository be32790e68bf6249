//! Images as an archive.

use std::path::Path;

use plyfold_core::cache::with_platforms_here;
use plyfold_core::save::{Contents, SaveBase, SaveImage, SaveOptions, TarReader, content_of};
use plyfold_core::{CacheProviderExt as _, Opened, Reference, Result, digest};

use super::Images;
use crate::atomic_file::{AtomicFile, FileOptions};
use crate::blocking::blocking;

/// An archive that was written to a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Saved {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the blobs that were [left out](SaveOptions::since), because the receiver has them.
    pub left_out: u64,
}

impl Images {
    /// Images as one archive, which is written while it is read: what `docker load`, `podman load` and
    /// [`Images::load`] read. Each is a name of the cache, or the URI of another place. Nothing is pulled.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a name that is not in the cache; otherwise those of [`Backends::open`](crate::Backends::open)
    /// and [`Contents::of`]; those of the images' blobs come as the last item of the reader.
    pub async fn save(&self, images: &[&str], options: &SaveOptions) -> Result<TarReader> {
        self.contents(images, options).await?.into_reader()
    }

    /// As [`save`](Self::save), to a file, which appears complete or not at all.
    ///
    /// # Errors
    /// As [`save`](Self::save) and [`Contents::write`]; [`Io`](crate::ErrorKind::Io).
    pub async fn save_to(
        &self,
        images: &[&str],
        options: &SaveOptions,
        path: &Path,
        file: FileOptions,
    ) -> Result<Saved> {
        let (contents, path) = (self.contents(images, options).await?, path.to_owned());
        let left_out = contents.left_out();
        let size = blocking(move |stop| {
            let mut out = AtomicFile::replace(&path, file, stop)?;
            contents.write(&mut out, stop)?;
            out.publish()
        });
        Ok(Saved { size: size.await?, left_out })
    }

    /// What an archive may [leave out](SaveOptions::since): all blobs that an image leads to, or, of a place without a name in
    /// it, those of all its images. `base` is written as for [`save`](Self::save).
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub async fn save_base(&self, base: &str) -> Result<SaveBase> {
        if let Some(name) = self.cached_name(base).await? {
            let top = self.cache.find_descriptor(&name).await?;
            let image = self.cache.save_image(&name).await?;
            let named = top.map(|top| format!("{}@{}", name.whole(), top.digest()));
            return of_base(vec![image], named.ok_or(name.whole())).await;
        }
        let Opened { registry, reference } = self.opened(base, None).await?;
        let image = |name: Reference| SaveImage::new(registry.clone(), name);
        if let Some(reference) = reference {
            let top = registry.resolve(&reference).await.map_err(|e| e.with_image(&reference))?;
            let named = format!("{}@{}", reference.whole(), top.digest());
            return of_base(vec![image(reference)], Ok(named)).await;
        }
        let mut names = Opened { registry: registry.clone(), reference: None }.references().await?;
        names.extend(registry.untagged().await?);
        of_base(names.into_iter().map(image).collect(), Err(registry.to_string())).await
    }

    async fn contents(&self, images: &[&str], options: &SaveOptions) -> Result<Contents> {
        let operation = options.progress.operation();
        let mut found = Vec::with_capacity(images.len());
        for image in images {
            let saved = if let Some(name) = self.cached_name(image).await? {
                self.cache.save_image(&name).await?
            } else {
                let opened = self.opened(image, None).await?;
                let name = opened.reference().await?;
                SaveImage::new(opened.registry, name)
            };
            found.push(saved);
        }
        let scratch = options.scratch.clone().or_else(|| Some(self.temporary()));
        let options = SaveOptions { scratch, ..options.clone() };
        operation.hand_over();
        match (Contents::of(found, &options).await, images) {
            (Err(e), [only]) => match self.cached_name(only).await? {
                Some(name) => Err(with_platforms_here(&*self.cache, &name, e).await),
                None => Err(e),
            },
            (contents, _) => contents,
        }
    }

    /// The name in the cache that `image` is, unless it is a URI.
    async fn cached_name(&self, image: &str) -> Result<Option<Reference>> {
        Ok(self.qualified(&self.resolved(image).await?))
    }
}

/// A base with its name, or with one that is made of its content and of where that is.
async fn of_base(images: Vec<SaveImage>, name: std::result::Result<String, String>) -> Result<SaveBase> {
    let content = content_of(&images, &SaveOptions::default()).await?;
    let name = name.unwrap_or_else(|place| {
        let mut digests: Vec<&str> = content.iter().map(AsRef::as_ref).collect();
        digests.sort_unstable();
        // Its path says nothing where the archive goes.
        let place = place.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
        format!("{place} (content {})", digest::sha256(digests.join("\n").as_bytes()))
    });
    Ok(SaveBase::new(name, content))
}
