//! Images of an archive or a layout into a cache: all of them or none.

mod list;
mod look;
mod options;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::ready;
use futures_util::{StreamExt as _, stream};

use self::look::{Found, Look};
use super::target::CacheTarget;
use super::{CacheProvider, Lease, NameChange, attach, content};
use crate::backend::Opened;
use crate::copy::CopyOptions;
use crate::copy::ends::{Counts, Ends, REPAIRS};
use crate::manifest::{RawManifest, limits};
use crate::progress::Event;
use crate::registry::PushSession;
use crate::{Blob, BlobRange, Descriptor, ErrorKind, Reference, Result, reference, select};

pub use self::list::{ListedImage, list_images};
pub use self::look::MissingContent;
pub use self::options::{LoadOptions, Loaded};

/// The body of `image_load`.
pub(super) async fn load(
    cache: &dyn CacheProvider,
    from: &Opened,
    options: &LoadOptions,
) -> Result<Vec<Loaded>> {
    let operation = options.progress.operation();
    let copying = CopyOptions {
        concurrency: options.concurrency,
        progress: operation.progress().clone(),
        retry: options.retry,
        ..CopyOptions::default()
    };
    operation.end(Box::pin(loading(cache, from, options, &copying)).await)
}

async fn loading(
    cache: &dyn CacheProvider,
    from: &Opened,
    options: &LoadOptions,
    copying: &CopyOptions,
) -> Result<Vec<Loaded>> {
    let names = wanted(from, options).await?;
    let Some(first) = names.first() else { return Err(from.nameless()) };
    let target = CacheTarget(dyn_clone::clone_box(cache));
    let session = PushSession::begin(&target, first)?;
    let counts = Counts::default();
    let ends = Ends {
        from: &*from.registry,
        image: first,
        to: &target,
        target: first,
        session: &session,
        options: copying,
        counts: &counts,
    };
    let is_whole = from.reference.is_none() && options.images.is_empty();
    let mut look = Look::new(cache, ends, options, !is_whole);
    for name in &names {
        look.image(name).await?;
    }
    let found = look.finish().await?;
    session.protect(found.digests().collect()).await?;
    let size = found.blobs.iter().map(|(_, blob)| blob.size()).fold(0, u64::saturating_add);
    copying.progress.emit(Event::Planned { size });
    let loading = Loading { cache, ends, options, found: &found };
    let loaded = loading.run().await?;
    let lease = session.into_lease();
    Ok(loaded.into_iter().map(|loaded| Loaded { lease: lease.clone(), ..loaded }).collect())
}

/// The names of what is loaded, each once: those that have a tag, then images without a name.
async fn wanted(from: &Opened, options: &LoadOptions) -> Result<Vec<Reference>> {
    let mut names = match &from.reference {
        _ if !options.images.is_empty() => options.images.clone(),
        Some(reference) => vec![reference.clone()],
        None => from.images().await?,
    };
    let mut known = HashSet::new();
    names.retain(|name| known.insert(name.whole()));
    Ok(names)
}

struct Loading<'a> {
    cache: &'a dyn CacheProvider,
    ends: Ends<'a>,
    options: &'a LoadOptions,
    found: &'a Found,
}

impl Loading<'_> {
    async fn run(&self) -> Result<Vec<Loaded>> {
        for repairs in 0.. {
            self.blobs().await?;
            self.documents().await?;
            let (loaded, changes) = self.names().await?;
            let listed: Vec<_> = self.found.kept().filter(|(_, raw)| raw.subject().is_some()).collect();
            match attach::set(self.cache, &listed, &changes).await {
                // A repair of the cache has moved damaged content away since it was found or stored there.
                Err(e) if *e.kind() == ErrorKind::NotFound && repairs < REPAIRS => {}
                outcome => return outcome.map(|()| loaded),
            }
        }
        Ok(Vec::new())
    }

    /// Stores the blobs. An error is returned when all that were begun have ended: one that is dropped would still remove its
    /// temporary file then.
    async fn blobs(&self) -> Result<()> {
        let has_failed = &AtomicBool::new(false);
        let of = |(place, blob): &(usize, Descriptor)| {
            let (ends, blob) = (Ends { image: &self.found.names[*place], ..self.ends }, blob.clone());
            async move {
                if has_failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let outcome = ends.blob(&blob).await;
                has_failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            }
        };
        let jobs: Vec<_> = self.found.blobs.iter().map(of).collect();
        let concurrency = self.options.concurrency.min(self.ends.from.concurrency()).max(1);
        let ended = stream::iter(jobs).buffer_unordered(concurrency);
        ended.fold(Ok(()), |all: Result<()>, one| ready(all.and(one))).await
    }

    /// Stores the documents, children before what lists them. Those that were not kept in memory are read again, and listed
    /// at once where they refer to others.
    async fn documents(&self) -> Result<()> {
        for document in &self.found.documents {
            let name = &self.found.names[document.place];
            let read = match &document.raw {
                Some(_) => None,
                None => Some(self.read(name, &document.descriptor).await?),
            };
            let Some(raw) = document.raw.as_ref().or(read.as_ref()) else { continue };
            let blob = Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes())?;
            content::put(self.cache, blob).await?;
            if let Some(raw) = read.as_ref().filter(|raw| raw.subject().is_some()) {
                attach::list(self.cache, name, std::slice::from_ref(raw)).await?;
            }
        }
        Ok(())
    }

    async fn read(&self, name: &Reference, document: &Descriptor) -> Result<RawManifest> {
        match self.ends.retrying("manifest", || select::child(self.ends.from, name, document)).await {
            Err(e) if *e.kind() == ErrorKind::NotFound => {
                let here = content::read(self.cache, document, limits::MANIFEST).await;
                RawManifest::described(here.map_err(|_| e)?, document)
            }
            read => read,
        }
    }

    /// What each name becomes, and the changes that make it so.
    async fn names(&self) -> Result<(Vec<Loaded>, Vec<NameChange>)> {
        let documents = self.found.documents.iter().map(|document| document.descriptor.clone());
        let mut changes: Vec<_> = documents.map(NameChange::Require).collect();
        let mut loaded = Vec::with_capacity(self.found.tops.len());
        for (name, top) in &self.found.tops {
            let before = match name.digest() {
                Some(_) => None,
                None => self.cache.find_descriptor(name).await?,
            };
            let other = before.filter(|before| before.digest() != top.digest());
            let (replaced, kept) = if self.options.keep_names { (None, other) } else { (other, None) };
            let own = match (&kept, reference::digest_of(name)?) {
                // A pull by digest keeps the digest alone, and so does a load.
                (_, Some(digest)) => reference::by_digest(name, &digest),
                (Some(_), None) => reference::by_digest(name, top.digest()),
                (None, None) => name.clone(),
            };
            changes.push(NameChange::Set(own, top.clone()));
            let reference = name.clone();
            loaded.push(Loaded { reference, descriptor: top.clone(), replaced, kept, lease: Lease::none() });
        }
        Ok((loaded, changes))
    }
}
