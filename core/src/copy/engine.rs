//! One image of a copy: its content bottom up, and what refers to it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

use super::convert::Converter;
use super::documents::{Batch, Documents};
use super::ends::{Ends, of_child, of_source};
use super::options::{CopyFault, Platforms, Sparse};
use super::subset::{self, Part};
use crate::cache::MissingBlob;
use crate::manifest::{Document, RawManifest, limits};
use crate::progress::Event;
use crate::registry::ImageRegistryExt;
use crate::{
    Advice, Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, reference, referrers, select,
};

/// One image of a copy.
pub(super) struct Copier<'a> {
    pub(super) ends: Ends<'a>,
    documents: Mutex<Documents>,
    /// What indexes list and is not copied.
    left_out: HashSet<Digest>,
    /// Indexes that lead to what is copied, and are not in the target.
    behind: Vec<Digest>,
    /// What the source lacks of an index that is rewritten for that.
    lacking: Vec<Digest>,
    /// Indexes that list less than in the source, by their digests.
    rewritten: HashMap<Digest, RawManifest>,
    /// Whether tags of cosign wait for the names of the images, and those that do.
    names_last: bool,
    tags: Mutex<Vec<(Reference, RawManifest)>>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(ends: Ends<'a>, names_last: bool) -> Self {
        Self {
            ends,
            documents: Mutex::default(),
            left_out: HashSet::new(),
            behind: Vec::new(),
            lacking: Vec::new(),
            rewritten: HashMap::new(),
            names_last,
            tags: Mutex::default(),
        }
    }

    /// What the target's name is to stand for, when all that it needs is there; and what that was in the source.
    pub(super) async fn bring(&mut self) -> Result<(RawManifest, Descriptor)> {
        let raw = self.ends.retrying("manifest", || async {
            match &self.ends.options.platforms {
                Platforms::All | Platforms::Some(_) => {
                    Ok((self.ends.from.fetch_raw(self.ends.image).await?, Vec::new()))
                }
                Platforms::One(platform) => {
                    let found = select::find(self.ends.from, self.ends.image, platform).await?;
                    Ok((found.raw, found.indexes))
                }
            }
        });
        let (mut raw, indexes) = raw.await?;
        if let Some(warning) = subset::without_attestations(self.ends.image, &raw, &indexes) {
            self.ends.options.progress.emit(warning);
        }
        self.behind.extend(indexes.iter().map(|index| index.digest().clone()));
        let original = raw.descriptor().clone();
        match &self.ends.options.platforms {
            Platforms::Some(platforms) => raw = self.part(raw, platforms).await?,
            Platforms::All if self.ends.options.sparse == Sparse::Rewrite => {
                raw = self.part_there(raw).await?;
            }
            _ => {}
        }
        if let Some(conversion) = self.ends.options.conversion {
            let work = Converter::new(self.ends, conversion, std::mem::take(&mut self.rewritten));
            let converted = work.converted(&raw).await;
            (raw, self.rewritten) = converted.map_err(|e| e.with_image(self.ends.image))?;
        }
        if reference::digest_of(self.ends.target)?.is_some_and(|digest| digest != *raw.digest()) {
            let message = format!("the target's digest is not that of the image, {}", raw.digest());
            return Err(Error::config(message).with_image(self.ends.target));
        }
        self.content(&raw, limits::NESTING).await?;
        Ok((raw, original))
    }

    /// What is copied in place of an index, for some platforms of it.
    async fn part(&mut self, root: RawManifest, platforms: &[Platform]) -> Result<RawManifest> {
        let (from, image) = (self.ends.from, self.ends.image);
        let chosen = || async {
            let chosen = subset::chosen(from, image, &root, platforms).await?;
            subset::part(from, image, &root, &chosen).await
        };
        let part = self.ends.retrying("manifest", chosen).await.map_err(|e| e.with_image(image))?;
        match self.ends.options.sparse {
            _ if part.left_out.is_empty() => Ok(root),
            Sparse::Keep => self.leave_out(&part.left_out).map(|()| root),
            Sparse::Refuse => {
                Err(Error::from(CopyFault::Sparse).with_image(image).with_advice(Advice::RewriteIndex))
            }
            Sparse::Rewrite => Ok(self.take(&root, part)),
        }
    }

    /// What is copied in place of an index of which the source may lack some.
    async fn part_there(&mut self, root: RawManifest) -> Result<RawManifest> {
        let (from, image) = (self.ends.from, self.ends.image);
        let part = self.ends.retrying("manifest", || subset::there(from, image, &root)).await;
        let part = part.map_err(|e| e.with_image(image))?;
        if part.left_out.is_empty() {
            return Ok(root);
        }
        self.lacking.extend(part.left_out.iter().cloned());
        Ok(self.take(&root, part))
    }

    fn take(&mut self, root: &RawManifest, part: Part) -> RawManifest {
        self.behind.push(root.digest().clone());
        self.rewritten = part.rewritten;
        part.root
    }

    /// Leaves out what indexes list, where the target takes such indexes.
    pub(super) fn leave_out(&mut self, absent: &[Digest]) -> Result<()> {
        if !absent.is_empty() && !self.ends.to.capabilities().sparse {
            let error = self.ends.to.unsupported("store an index of which not all is there");
            return Err(error.with_image(self.ends.target).with_advice(Advice::RewriteIndex));
        }
        self.left_out.extend(absent.iter().cloned());
        self.ends.session.leave_out(absent);
        Ok(())
    }

    /// What indexes list and is not in the target.
    pub(super) fn left_out(&self) -> HashSet<Digest> {
        self.left_out.union(&self.documents().absent).cloned().collect()
    }

    /// Stores again what a document needs.
    pub(super) async fn repair(&self, raw: &RawManifest) -> Result<()> {
        self.ends.counts.doubt();
        if let Document::Index(index) = raw.document() {
            let stored = &mut self.documents().stored;
            index.manifests().iter().for_each(|child| _ = stored.remove(child.digest()));
        }
        self.content(raw, limits::NESTING).await
    }

    /// Notes a document as one to ask for what refers to it.
    pub(super) fn meet(&self, raw: &RawManifest) {
        self.documents().meet(raw.digest());
    }

    /// The tags of cosign that wait for the names of the images.
    pub(super) fn take_tags(&self) -> Vec<(Reference, RawManifest)> {
        std::mem::take(&mut *self.tags())
    }

    /// Copies what refers to the image, and names what of that is missing.
    pub(super) async fn all_referrers(&self) -> Result<()> {
        self.referrers().await?;
        self.warn_of_index().await?;
        let complete = self.documents().check_complete();
        let complete = complete.map_err(|e| e.with_image(self.ends.image).with_endpoint(self.ends.from));
        complete.map_err(|e| {
            if self.names_last {
                e.with_advice(Advice::LeaveReferrers)
            } else {
                e.with_hint("everything else is copied")
            }
        })
    }

    /// What refers to an index is not copied where that is not.
    async fn warn_of_index(&self) -> Result<()> {
        let mut count = 0;
        for index in &self.behind {
            let listed = || self.ends.from.referrers(self.ends.image, index, None);
            count += self.there(self.ends.retrying("referrers", listed).await)?.unwrap_or_default().len();
            for tag in reference::cosign_tags(index) {
                count += usize::from(self.ends.tagged(&tag).await?.is_some());
            }
        }
        if count > 0 {
            let image = self.ends.image;
            let message = format!(
                "{image}: not copied, because it refers to the index, which is not either: {count} documents"
            );
            self.ends.options.progress.emit(Event::Warning { message });
        }
        Ok(())
    }

    /// What the source does not have of what indexes list, and what refers to the image.
    pub(super) fn found(&self) -> (Vec<Digest>, Option<Vec<Digest>>) {
        let documents = self.documents();
        let sorted = |digests: &HashSet<Digest>| {
            let mut sorted: Vec<Digest> = digests.iter().cloned().collect();
            sorted.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
            sorted
        };
        let referrers = self.ends.options.referrers.then(|| sorted(&documents.referrers));
        let absent = documents.absent.iter().chain(&self.lacking).cloned().collect();
        (sorted(&absent), referrers)
    }

    /// Copies everything that `raw` refers to, bottom up.
    fn content<'s>(&'s self, raw: &'s RawManifest, depth: usize) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let Document::Index(index) = raw.document() else { return self.ends.blobs(raw).await };
            if depth == 0 {
                let message = format!("indexes are nested more than {} deep", limits::NESTING);
                return Err(Error::limit(message).with_image(self.ends.image));
            }
            let (mut batch, mut listed) = (Batch::default(), HashSet::new());
            let mut lacking = None;
            for child in index.manifests() {
                // Hostile input lists one document many times, and in each of those another.
                let is_known = self.documents().knows(child.digest());
                if is_known || self.left_out.contains(child.digest()) || !listed.insert(child.digest()) {
                    continue;
                }
                let Some(child) = self.there_or_left_out(child).await? else {
                    lacking = lacking.or(Some(child));
                    continue;
                };
                self.content(&child, depth - 1).await?;
                batch.add(child);
                if batch.is_full() {
                    self.store(std::mem::take(&mut batch)).await?;
                }
            }
            let is_here = |child: &Descriptor| self.documents().stored.contains(child.digest());
            if let Some(lacking) =
                lacking.filter(|_| batch.is_empty() && !index.manifests().iter().any(is_here))
            {
                let error = Error::not_found("none of the images of the index is in the source");
                return Err(of_source(error, lacking.digest()).with_image(self.ends.image));
            }
            self.store(batch).await
        })
    }

    /// The document of a child, but for one that the source does not have, where the index may be copied without it.
    async fn there_or_left_out(&self, child: &Descriptor) -> Result<Option<RawManifest>> {
        let error = match self.child(child).await {
            Err(e) if e.detail::<MissingBlob>().is_some() => of_child(e, child),
            read => return read.map(Some),
        };
        match self.ends.options.sparse {
            Sparse::Keep if self.ends.to.capabilities().sparse => {
                self.ends.session.leave_out(std::slice::from_ref(child.digest()));
                self.documents().absent.insert(child.digest().clone());
                Ok(None)
            }
            Sparse::Keep => {
                let unable = self.ends.to.unsupported("store an index of which not all is there");
                Err(unable.with_image(self.ends.target).with_context("missing", child.digest()))
            }
            Sparse::Refuse => Err(error.with_advice(Advice::ChoosePart)),
            Sparse::Rewrite => Err(error.with_hint("choose of the index what is there")),
        }
    }

    async fn child(&self, child: &Descriptor) -> Result<RawManifest> {
        if let Some(raw) = self.rewritten.get(child.digest()) {
            return Ok(raw.clone());
        }
        let read = || self.ends.from.fetch_child(self.ends.image, child);
        self.ends.retrying("manifest", read).await.map_err(|e| of_source(e, child.digest()))
    }

    /// Stores documents by their digests, those that have a subject together.
    async fn store(&self, batch: Batch) -> Result<()> {
        let (referrers, others): (Vec<_>, Vec<_>) =
            batch.documents.into_iter().partition(|raw| raw.subject().is_some());
        for raw in &others {
            self.push(&reference::by_digest(self.ends.target, raw.digest()), raw).await?;
        }
        if referrers.is_empty() {
            return Ok(());
        }
        self.storing(&referrers, || self.ends.session.put_referrers(&referrers)).await
    }

    async fn push(&self, name: &Reference, raw: &RawManifest) -> Result<()> {
        self.storing(std::slice::from_ref(raw), || self.ends.session.finish(name, raw)).await
    }

    /// Stores documents by `attempt`, and again what they need when that is gone.
    async fn storing<F>(&self, documents: &[RawManifest], attempt: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let repair = || async {
            for raw in documents {
                self.repair(raw).await?;
            }
            Ok(())
        };
        let at = |e: Error| e.with_image(self.ends.target).with_endpoint(self.ends.to);
        if !self.ends.options.dry_run {
            self.ends.repairing(attempt, repair, at).await?;
        }
        let mut known = self.documents();
        for raw in documents {
            known.store(raw.digest().clone());
        }
        Ok(())
    }

    /// Copies what refers to the documents that have been copied, and what refers to that.
    async fn referrers(&self) -> Result<()> {
        let (mut batch, mut depth) = (Batch::default(), 0);
        loop {
            let subjects = std::mem::take(&mut self.documents().subjects);
            if subjects.is_empty() {
                return self.store(batch).await;
            }
            if depth > limits::REFERRERS {
                let message = format!("referrers refer to referrers more than {} deep", limits::REFERRERS);
                return Err(Error::limit(message).with_image(self.ends.image).with_endpoint(self.ends.from));
            }
            depth += 1;
            for subject in subjects {
                self.referrers_of(&subject, &mut batch).await?;
            }
        }
    }

    async fn referrers_of(&self, subject: &Digest, batch: &mut Batch) -> Result<()> {
        let listed = self
            .ends
            .retrying("referrers", || self.ends.from.referrers(self.ends.image, subject, None))
            .await;
        for referrer in self.there(listed)?.unwrap_or_default() {
            // A list may lead back to what has led to it.
            if !self.documents().meet(referrer.digest()) {
                continue;
            }
            self.count_referrer()?;
            let Some(raw) = self.there(self.referrer(&referrer, subject).await)? else { continue };
            self.documents().referrers.insert(raw.digest().clone());
            batch.add(raw);
            if batch.is_full() {
                self.store(std::mem::take(batch)).await?;
            }
        }
        for tag in reference::cosign_tags(subject) {
            let Some(raw) = self.there(self.tagged(&tag).await)?.flatten() else { continue };
            self.count_referrer()?;
            self.documents().referrers.insert(raw.digest().clone());
            let name = reference::tagged(self.ends.target, tag);
            if self.names_last {
                self.meet(&raw);
                self.tags().push((name, raw));
            } else {
                self.push(&name, &raw).await?;
            }
        }
        Ok(())
    }

    fn count_referrer(&self) -> Result<()> {
        let counted = self.documents().referring.add();
        counted.map_err(|e| e.with_image(self.ends.image).with_endpoint(self.ends.from))
    }

    /// What is not missing. What is is noted: everything else is copied before the copy fails.
    fn there<T>(&self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(e) if *e.kind() == ErrorKind::NotFound && e.detail::<MissingBlob>().is_some() => {
                self.documents().miss(&e);
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// A document of a list, whose content is copied.
    async fn referrer(&self, referrer: &Descriptor, subject: &Digest) -> Result<RawManifest> {
        let raw =
            self.ends.retrying("referrer", || self.ends.from.fetch_child(self.ends.image, referrer)).await;
        let raw = raw.map_err(|e| of_source(e, referrer.digest()))?;
        referrers::check_subject(&raw, subject)
            .map_err(|e| e.with_image(self.ends.image).with_endpoint(self.ends.from))
            .map_err(|e| if self.names_last { e.with_advice(Advice::LeaveReferrers) } else { e })?;
        self.content(&raw, limits::NESTING).await?;
        Ok(raw)
    }

    /// The document of a tag that may be beside the image, whose content is copied.
    async fn tagged(&self, tag: &str) -> Result<Option<RawManifest>> {
        let Some(raw) = self.ends.tagged(tag).await? else { return Ok(None) };
        self.content(&raw, limits::NESTING).await?;
        Ok(Some(raw))
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        // Every change is one insertion, so a poisoned lock is consistent.
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tags(&self) -> MutexGuard<'_, Vec<(Reference, RawManifest)>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
