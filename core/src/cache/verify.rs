//! Verification: read the content again and compare digests and sizes.

use std::collections::HashMap;

use super::{CacheProvider, CacheProviderExt, Need, Needs};
use crate::progress::{Event, Progress};
use crate::{Descriptor, Digest, Error, ErrorKind, Reference, Result};

/// What of a cache is verified.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    /// The images whose content is read; `None` reads everything that is here, named or not, and every artifact.
    pub images: Option<Vec<Reference>>,
    /// Quarantine damaged content, so that the next pull fetches it again.
    pub repair: bool,
    /// Where events go.
    pub progress: Progress,
}

/// What a verification has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Blobs and artifacts read.
    pub checked: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// What killed writers have left behind. It is not damage. Partial downloads are not counted.
    pub remains: Remains,
}

/// Temporary files of killed processes, incomplete block devices and the like: what a kill or a power cut leaves of
/// unfinished work. [`Verify::repair`] and a [collection](CacheProvider::collect) remove it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Remains {
    /// How many there are.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many of them were removed.
    pub removed: u64,
}

impl std::ops::AddAssign for Remains {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.removed += other.removed;
    }
}

/// One damaged item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// What it is.
    pub part: Part,
    /// What is wrong with it, in one line.
    pub reason: String,
    /// Names that need it.
    pub images: Vec<Reference>,
    /// Whether it was quarantined.
    pub repaired: bool,
}

/// Which part of a cache.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// A file made from a layer or an image: its format as text, and what it was made from.
    Artifact(String, Digest),
    /// Content that is there but not what its digest says.
    Blob(Digest),
    /// Content that an image needs and that is not there.
    Missing(Digest),
    /// The list of names itself.
    Names,
}

/// The body of [`CacheProvider::verify`] for caches that cannot list their content: everything that names need.
pub(super) async fn by_names<C: CacheProvider + ?Sized>(cache: &C, what: &Verify) -> Result<Verified> {
    let operation = what.progress.operation();
    let what = Verify { progress: operation.progress().clone(), ..what.clone() };
    operation.end(read_by_names(cache, &what).await)
}

async fn read_by_names<C: CacheProvider + ?Sized>(cache: &C, what: &Verify) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut wanted: Vec<_> = needed(cache, what.images.as_deref()).await?.into_iter().collect();
    wanted.sort_by_cached_key(|(digest, _)| digest.to_string());
    let total = wanted.iter().map(|(_, (need, _))| need.descriptor.size()).fold(0, u64::saturating_add);
    let mut read = 0_u64;
    for (digest, (need, images)) in wanted {
        read = read.saturating_add(need.descriptor.size());
        what.progress.emit(Event::VerifyProgress { read, total });
        let (part, error) = match cache.verify_blob(&need.descriptor).await {
            Ok(()) => {
                verified.checked += 1;
                verified.bytes += need.descriptor.size();
                continue;
            }
            Err(e) if *e.kind() == ErrorKind::NotFound && !need.required => continue,
            Err(e) if *e.kind() == ErrorKind::NotFound => (Part::Missing(digest.clone()), e),
            Err(e) if *e.kind() == ErrorKind::Corrupt => (Part::Blob(digest.clone()), e),
            Err(e) => return Err(e),
        };
        verified.checked += 1;
        let repaired =
            what.repair && matches!(part, Part::Blob(_)) && set_aside(cache, &need.descriptor).await?;
        verified.damage.push(Damage { part, reason: error.message().to_owned(), images, repaired });
    }
    Ok(verified)
}

/// Quarantines a blob in which damage was found; returns whether it was still damaged. Content that has been stored in
/// its place since stays, and so does content with the right digest and another size than `blob` says.
pub(crate) async fn set_aside<C: CacheProvider + ?Sized>(cache: &C, blob: &Descriptor) -> Result<bool> {
    // Of several tasks that found the damage, one at a time reads the blob again.
    let _turn = cache.turn(&format!("set aside {}", blob.digest())).await?;
    let Some(held) = as_held(cache, blob).await? else { return Ok(false) };
    match cache.verify_blob(&held).await {
        Err(e) if *e.kind() == ErrorKind::Corrupt => {
            cache.quarantine(blob.digest()).await?;
            Ok(true)
        }
        Err(e) if *e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(false),
    }
}

/// The descriptor of a blob with the size that it has here; `None` when it is not here.
pub(super) async fn as_held<C: CacheProvider + ?Sized>(
    cache: &C,
    blob: &Descriptor,
) -> Result<Option<Descriptor>> {
    let size = cache.stat(blob.digest()).await?;
    Ok(size.map(|size| Descriptor::new(blob.media_type().clone(), size, blob.digest().clone())))
}

/// Every blob that these images need, all images if none are given, with the names that need it.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for an image that is not here; otherwise as [`Needs::of`].
pub async fn needed<C: CacheProvider + ?Sized>(
    cache: &C,
    images: Option<&[Reference]>,
) -> Result<HashMap<Digest, (Need, Vec<Reference>)>> {
    let mut needed: HashMap<Digest, (Need, Vec<Reference>)> = HashMap::new();
    for (name, top) in selected(cache, images).await? {
        let needs = Needs::of(cache, &top).await.map_err(|e| e.with_image(&name))?;
        for (digest, need) in needs.blobs {
            let (known, names) = needed.entry(digest).or_insert_with(|| (need.clone(), Vec::new()));
            known.required |= need.required;
            names.push(name.clone());
        }
    }
    Ok(needed)
}

async fn selected<C: CacheProvider + ?Sized>(
    cache: &C,
    images: Option<&[Reference]>,
) -> Result<Vec<(Reference, Descriptor)>> {
    let Some(images) = images else { return cache.list().await };
    let mut selected = Vec::with_capacity(images.len());
    for image in images {
        let found = cache.find_descriptor(image).await?;
        let missing = || Error::not_found("not in the store").with_image(image).with_endpoint(cache);
        selected.push((image.clone(), found.ok_or_else(missing)?));
    }
    Ok(selected)
}
