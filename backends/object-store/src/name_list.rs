//! Listings of names, page by page, and what is found by them.

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use plyfold_core::cache::{CachedNames, find_among};
use plyfold_core::{CacheProvider, Descriptor, Page, Reference, Result, reference};

use crate::bucket::{Bucket, is_gone};
use crate::name::{self, Entry, Image};

/// Names that are read at the same time.
const PARALLEL: usize = 16;

/// What a name stands for, as a listing has it.
pub(crate) type Listed = (Reference, Image);

/// A part of the names, in their order.
#[derive(Debug, Default)]
pub(crate) struct NamePage {
    pub(crate) names: Vec<Listed>,
    /// The last name that was looked at; `None` when there are no more.
    pub(crate) next: Option<String>,
}

/// At most `limit` names behind `after`, and before `until`.
pub(crate) async fn page(
    bucket: &Bucket,
    after: Option<&str>,
    until: Option<&str>,
    limit: usize,
) -> Result<NamePage> {
    let after = after.map(|after| name::path(bucket, after)).transpose()?;
    let until = until.map(|until| name::path(bucket, until)).transpose()?;
    let objects = bucket.list("names", after.as_ref())?;
    let objects = objects.try_take_while(|object| {
        let is_before = until.as_ref().is_none_or(|until| object.location < *until);
        std::future::ready(Ok(is_before))
    });
    let objects = objects.try_filter(|object| std::future::ready(!is_gone(object.size)));
    let of_names = objects.try_filter_map(|object| {
        let of = name::of_path(bucket, &object.location);
        std::future::ready(Ok(of.map(|of| (object.location, of))))
    });
    let read = of_names.map(|found| async {
        let (path, of) = found?;
        let image = read(bucket, &path, of).await?;
        Ok::<_, plyfold_core::Error>((path, image))
    });
    let mut read = Box::pin(read.buffered(PARALLEL.min(limit.max(1))));
    let (mut page, mut last, mut before) = (NamePage::default(), None, None);
    while let Some((path, listed)) = read.try_next().await? {
        if before.is_some_and(|before| before >= path) {
            let message = "the service does not list objects in the order of their names";
            return Err(plyfold_core::Error::unsupported(message).with_endpoint(bucket));
        }
        if page.names.len() == limit {
            page.next = last;
            break;
        }
        last = bucket.below("names", &path).map(str::to_owned);
        before = Some(path);
        page.names.extend(listed);
    }
    Ok(page)
}

async fn read(bucket: &Bucket, path: &Path, of: Reference) -> Result<Option<Listed>> {
    let entry = Entry::settled(bucket, path).await.map_err(|e| e.with_image(&of))?;
    Ok(entry.image.map(|image| (of, image)))
}

/// All names with their pins.
pub(crate) async fn all(bucket: &Bucket) -> Result<Vec<Listed>> {
    Ok(page(bucket, None, None, usize::MAX).await?.names)
}

/// A page of names, as a cache lists them.
pub(crate) async fn cached(bucket: &Bucket, wanted: &Page) -> Result<CachedNames> {
    let limit = wanted.limit.unwrap_or(usize::MAX);
    let page = page(bucket, wanted.after.as_deref(), None, limit).await?;
    Ok(CachedNames::new(described(page.names), page.next))
}

pub(crate) fn described(names: Vec<Listed>) -> Vec<(Reference, Descriptor)> {
    names.into_iter().map(|(name, image)| (name, image.descriptor)).collect()
}

/// What a name stands for: by one request for a tag, by the names of one repository for a digest.
pub(crate) async fn find(
    cache: &dyn CacheProvider,
    bucket: &Bucket,
    wanted: &Reference,
) -> Result<Option<Descriptor>> {
    let at = |e: plyfold_core::Error| e.with_image(wanted);
    if reference::digest_of(wanted)?.is_none() {
        let entry = Entry::settled(bucket, &name::path(bucket, &wanted.whole())?).await.map_err(at)?;
        return Ok(entry.image.map(|image| image.descriptor));
    }
    // Behind a repository stand `:` and a tag or `@` and a digest.
    let repository = reference::repository_of(wanted);
    let (first, end) = (format!("{repository}:"), format!("{repository}A"));
    let names = page(bucket, Some(&first), Some(&end), usize::MAX).await?.names;
    find_among(cache, &described(names), wanted).await
}
