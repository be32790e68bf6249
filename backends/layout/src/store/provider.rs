//! The store as a cache.

use std::collections::HashSet;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::blocking;
use plyfold_core::cache::{MissingBlob, Needs, find_among};
use plyfold_core::manifest::is_index;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Collect, Collected, Descriptor,
    Digest, Error, ErrorKind, Ingest, Lease, NameChange, Reference, Result, Usage, Verified, Verify, digest,
    reference,
};

use super::handle::Store;
use super::index::{change_locked, check_present};
use super::queue::NAMES;
use super::{artifact, collect, ingest, paths, quarantine, verify, xxh3};
use crate::durable;
use crate::files;

#[async_trait]
impl CacheProvider for Store {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let digest = digest.clone();
        // Anything but a regular file is not a blob: the next pull replaces it.
        self.work(move |root| root.blob_size(&digest)).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let start = range.resolve(blob.size())?.start;
        let wanted = blob.clone();
        let opened = self.work(move |root| {
            let wanted = &wanted;
            let mut file = match root.open_blob(wanted) {
                // Layouts without names may be one image themselves, as the OCI image spec allows.
                Err(e) if *e.kind() == ErrorKind::NotFound && is_index(wanted.media_type()) => {
                    return Blob::from_bytes(wanted, range, &root.index_as_image(wanted.digest())?.ok_or(e)?);
                }
                opened => opened?,
            };
            file.seek(SeekFrom::Start(start)).map_err(|e| Error::io("seeking in a blob", e))?;
            // Callers may use the bytes where they lie.
            let same = file.try_clone().map_err(|e| Error::io("opening a blob", e))?;
            let xxh3 = xxh3::of(&same);
            Ok(Blob::from_reader(wanted, range, file)?.with_file(same).with_xxh3(xxh3))
        });
        opened.await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        digest::supported(blob.digest())?;
        let (wanted, name) = (blob.clone(), paths::name_of(blob.digest()));
        let queued = Arc::new(self.queues.queue(&name).await);
        self.poll(&self.in_progress(&name), move |root| ingest::begin(root, &wanted, &queued)).await
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        digest::supported(digest)?;
        let path = self.in_progress(&paths::name_of(digest));
        self.work(move |_| Ok(files::look(&path)?.map_or(0, |found| found.len()))).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        digest::supported(digest)?;
        let digest = digest.clone();
        self.work(move |root| quarantine::quarantine(root, &digest)).await
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let by_digest = reference::digest_of(name)?.is_some();
        let names = self.work(|root| root.index()).await?;
        if by_digest {
            let known = [names.0.names(), names.0.by_digest()].concat();
            return find_among(self, &known, name).await;
        }
        names.0.find(name).map_err(|e| e.with_endpoint(self))
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.work(|root| Ok(root.index()?.0.names())).await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        let names = self.work(|root| root.index()).await?;
        let mut pins: Vec<Reference> = names.0.pins().cloned().collect();
        pins.sort_by_cached_key(Reference::whole);
        Ok(pins)
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        let (root, changes) = (self.root.clone(), changes.to_vec());
        // At most one thread waits for the lock: its holder may need the other threads.
        let turn = self.queues.queue(NAMES).await;
        let updated = blocking(move |stop| {
            let _turn = turn;
            let _lock = durable::lock(&root, NAMES)?;
            // Its lease is dropped with the caller, so the content may have been removed.
            stop.check()?;
            change_locked(&root, |index| {
                check_present(&root, &changes)?;
                for change in &changes {
                    match change {
                        NameChange::Pin(name) if !index.pin(name, true) => {
                            return Err(Error::not_found("not in the store").with_image(name));
                        }
                        NameChange::Pin(_) | NameChange::Require(_) => {}
                        NameChange::Unpin(name) => _ = index.pin(name, false),
                        NameChange::Remove(name) => drop(index.remove(name)),
                        NameChange::Set(name, descriptor) => index.set(name, descriptor, root.private),
                    }
                }
                Ok(())
            })
        });
        updated.await.map_err(|e| e.with_endpoint(self))
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        let wanted = artifact::ArtifactPath::of(key)?;
        let name = wanted.temp();
        let queued = Arc::new(self.queues.queue(&name).await);
        self.poll(&self.in_progress(&name), move |root| artifact::begin(root, &wanted, &queued)).await
    }

    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        let wanted = artifact::ArtifactPath::of(key)?;
        self.work(move |root| artifact::find(root, &wanted)).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.take_lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.hold_work(work).await
    }

    async fn usage(&self) -> Result<Usage> {
        collect::usage(self).await.map_err(|e| e.with_endpoint(self))
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        collect::run(self, policy).await.map_err(|e| e.with_endpoint(self))
    }

    async fn free(&self) -> Result<Option<u64>> {
        self.work(|root| root.free()).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        let operation = what.progress.operation();
        let what = Verify { progress: operation.progress().clone(), ..what.clone() };
        operation.end(verify::verify(self, &what).await.map_err(|e| e.with_endpoint(self)))
    }

    fn layout(&self) -> Option<&Path> {
        Some(self.root.path())
    }

    fn scratch(&self) -> Option<PathBuf> {
        if self.root.is_read_only() {
            return None;
        }
        durable::folder(&self.root, &["ingest"], self.root.private).ok()
    }

    fn is_read_only(&self) -> bool {
        self.root.is_read_only()
    }
}

impl Store {
    /// Lets names stand for images, all platforms of them, that are here whole but for what is `absent`: all of the names or
    /// none. The images stay complete meanwhile: a collection sees first the lease and then the names.
    pub(crate) async fn name_whole(
        &self,
        names: &[(Reference, Descriptor)],
        absent: &[Digest],
    ) -> Result<()> {
        let _lease = self.whole(names, absent).await?;
        let set = |(name, top): &(Reference, Descriptor)| NameChange::Set(name.clone(), top.clone());
        self.update(&names.iter().map(set).collect::<Vec<_>>()).await
    }

    /// Leases images, all platforms of them, that are here whole but for what is `absent`: by one lease, which is an open file.
    async fn whole(&self, names: &[(Reference, Descriptor)], absent: &[Digest]) -> Result<Lease> {
        let (mut needs, mut known) = (Needs::default(), HashSet::new());
        for (name, top) in names.iter().filter(|(_, top)| known.insert((top.digest(), top.size()))) {
            needs.include(self, top).await.map_err(|e| e.with_image(name))?;
        }
        let lease = self.lease(&needs.digests().collect::<Vec<_>>()).await?;
        // Content may have been removed before the lease was taken. Check again now that the lease is held.
        if let Some(damaged) = needs.damaged.iter().next() {
            let error = Error::corrupt(format!("{damaged} is damaged")).with_context("blob", damaged);
            return Err(self.of_one(names, damaged, error).await);
        }
        let mut missing = needs.missing_of_all(self).await?;
        missing.retain(|digest| !absent.contains(digest));
        if let Some(first) = missing.first() {
            let list: Vec<&str> = missing.iter().map(AsRef::as_ref).take(20).collect();
            let error = Error::not_found(format!("content is not in the layout: {}", list.join(", ")));
            let error =
                error.with_context("blob", first).with_endpoint(self).with_detail(MissingBlob(first.clone()));
            let error = error.with_hint("push blobs before manifests, and manifests before their index");
            return Err(self.of_one(names, first, error).await);
        }
        Ok(lease)
    }

    /// The error with the first image that needs this content.
    async fn of_one(&self, names: &[(Reference, Descriptor)], content: &Digest, error: Error) -> Error {
        for (name, top) in names {
            if Needs::of(self, top).await.is_ok_and(|needs| needs.contains(content)) {
                return error.with_image(name);
            }
        }
        error
    }
}
