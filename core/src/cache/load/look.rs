//! What a load brings: looked for, and found complete, before anything is stored.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::future::BoxFuture;

use super::options::LoadOptions;
use crate::beside::{ReferrerCount, is_beside};
use crate::cache::{CacheProvider, MissingBlob, content};
use crate::copy::Platforms;
use crate::copy::ends::Ends;
use crate::copy::rewrite::{EntryKey, key};
use crate::copy::subset;
use crate::manifest::{Document, RawManifest, is_document, is_foreign, limits};
use crate::progress::Event;
use crate::registry::PushSession;
use crate::{
    Advice, BlobRange, Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, Size, platform,
    reference, referrers, select,
};

/// Bytes of documents that a load keeps in memory; others are read again.
const KEPT: u64 = 64 << 20;

/// How much of what is missing a message names.
const NAMED: usize = 20;

/// Everything that is neither in an archive nor in the cache: the detail of the error of a load.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingContent(pub Vec<Descriptor>);

/// What a load brings.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The images, by the names that they are asked for.
    pub(super) names: Vec<Reference>,
    /// The names that are set.
    pub(super) tops: Vec<(Reference, Descriptor)>,
    /// Children before what lists them.
    pub(super) documents: Vec<FoundDocument>,
    /// Each with the place of its image.
    pub(super) blobs: Vec<(usize, Descriptor)>,
}

/// A manifest or an index.
#[derive(Debug)]
pub(super) struct FoundDocument {
    /// The place of its image.
    pub(super) place: usize,
    pub(super) descriptor: Descriptor,
    /// Itself, if it is kept in memory.
    pub(super) raw: Option<RawManifest>,
}

impl Found {
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        let documents = self.documents.iter().map(|document| &document.descriptor);
        documents.chain(self.blobs.iter().map(|(_, blob)| blob)).map(|found| found.digest().clone())
    }

    /// The documents that are kept in memory, each with the name of its image.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Reference, &RawManifest)> {
        let documents = self.documents.iter();
        documents.filter_map(|document| Some((&self.names[document.place], document.raw.as_ref()?)))
    }
}

/// A look at all that is to be loaded.
pub(super) struct Look<'a> {
    cache: &'a dyn CacheProvider,
    ends: Ends<'a>,
    options: &'a LoadOptions,
    /// Whether cosign's tags are looked for: otherwise they are among the names.
    cosign: bool,
    found: Found,
    /// Bytes of documents that are kept.
    kept: u64,
    /// Bytes of blobs that the cache lacks.
    needed: u64,
    documents: HashSet<Digest>,
    /// What indexes list, with how many of its own children are there.
    listed: HashMap<EntryKey, Option<usize>>,
    blobs: HashSet<Digest>,
    /// Documents that came because they refer to others.
    came: HashSet<Digest>,
    /// Documents that are still to be asked for what refers to them.
    subjects: VecDeque<Digest>,
    missing: Vec<Descriptor>,
    /// How much of that belongs to the images themselves.
    missing_of_images: usize,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        cache: &'a dyn CacheProvider,
        ends: Ends<'a>,
        options: &'a LoadOptions,
        cosign: bool,
    ) -> Self {
        Self {
            cache,
            ends,
            options,
            cosign,
            found: Found::default(),
            kept: 0,
            needed: 0,
            documents: HashSet::new(),
            listed: HashMap::new(),
            blobs: HashSet::new(),
            came: HashSet::new(),
            subjects: VecDeque::new(),
            missing: Vec::new(),
            missing_of_images: 0,
        }
    }

    /// One image with all that is loaded of it.
    pub(super) async fn image(&mut self, name: &'a Reference) -> Result<()> {
        self.ends.image = name;
        let digest = reference::digest_of(name)?;
        if name.tag().is_none() && digest.is_some_and(|digest| self.came.contains(&digest)) {
            // It came with its subject, and is kept and removed with it.
            return Ok(());
        }
        let (from, at) = (self.ends.from, |e: Error| e.with_image(name));
        let raw = self.ends.retrying("manifest", || select::raw(from, name)).await.map_err(at)?;
        let is_left_out = !self.options.referrers
            && (reference::is_about_images(name) || is_beside(from, name, &raw).await.map_err(at)?);
        // What was chosen by its name comes all the same.
        if is_left_out && !self.cosign {
            return Ok(());
        }
        let chosen = match &self.options.platforms {
            Platforms::All => None,
            Platforms::Some(platforms) => Some(self.chosen(&raw, platforms).await.map_err(at)?),
            Platforms::One(platform) => {
                Some(self.chosen(&raw, std::slice::from_ref(platform)).await.map_err(at)?)
            }
        };
        self.found.names.push(name.clone());
        let outcome = self.document(&raw, chosen.as_ref(), limits::NESTING).await.map_err(at)?;
        if let (0, Some(absent)) = outcome {
            let message = "none of the images of the index is there";
            return Err(lacking(message, &[absent]).with_image(name).with_endpoint(from));
        }
        let top = self.top(name, &raw).await?;
        self.found.tops.push((name.clone(), top));
        self.missing_of_images = self.missing.len();
        if self.options.referrers && from.capabilities().referrers {
            self.referrers().await.map_err(at)
        } else {
            Ok(())
        }
    }

    /// What of an image is for these platforms.
    async fn chosen(&self, raw: &RawManifest, platforms: &[Platform]) -> Result<HashSet<Digest>> {
        let chosen = subset::chosen(self.ends.from, self.ends.image, raw, platforms).await;
        let (Err(e), Document::Index(index)) = (&chosen, raw.document()) else { return chosen };
        let of = |platform| platform::candidates(index.manifests(), platform).into_iter().next();
        match platforms.iter().find_map(of) {
            Some(listed) if *e.kind() == ErrorKind::NotFound => {
                let listed = std::slice::from_ref(listed);
                Err(lacking("an image is listed for the platform and is not there", listed)
                    .with_endpoint(self.ends.from))
            }
            _ => chosen,
        }
    }

    /// What the name of an image stands for. What no document in the cache says of its platform stays with the name.
    async fn top(&self, name: &Reference, raw: &RawManifest) -> Result<Descriptor> {
        let mut top = raw.descriptor().clone();
        if let (Some(platform), Document::Manifest(manifest)) = (raw.platform(), raw.document()) {
            let config = select::read_config(self.ends.from, name, manifest).await;
            if config.is_ok_and(|config| config.platform().is_none()) {
                top.set_platform(Some(platform.clone()));
            }
        }
        Ok(top)
    }

    /// A document and what it leads to: how many of its children are there, and the first of those that are not.
    fn document<'s>(
        &'s mut self,
        raw: &'s RawManifest,
        chosen: Option<&'s HashSet<Digest>>,
        depth: usize,
    ) -> BoxFuture<'s, Result<(usize, Option<Descriptor>)>> {
        Box::pin(async move {
            let (mut there, mut absent) = (0, None);
            if !self.documents.insert(raw.digest().clone()) {
                return Ok((1, None));
            }
            self.check_count()?;
            match raw.document() {
                Document::Manifest(_) => {
                    for blob in raw.references() {
                        self.blob(&blob).await?;
                    }
                    there += 1;
                }
                Document::Index(_) if depth == 0 => {
                    return Err(Error::limit(format!(
                        "indexes are nested more than {} deep",
                        limits::NESTING
                    )));
                }
                Document::Index(index) => {
                    for child in index.manifests() {
                        if chosen.is_some_and(|chosen| !chosen.contains(child.digest())) {
                            continue;
                        }
                        if !is_document(child.media_type()) {
                            there += usize::from(self.other(child).await?);
                            continue;
                        }
                        match self.entry(child, chosen, depth - 1).await? {
                            Some(count) => there += count,
                            None => absent = absent.or_else(|| Some(child.clone())),
                        }
                    }
                }
            }
            self.keep(raw);
            Ok((there, absent))
        })
    }

    /// What an index lists, if it is there, and how many of its own children are.
    async fn entry(
        &mut self,
        listed: &Descriptor,
        chosen: Option<&HashSet<Digest>>,
        depth: usize,
    ) -> Result<Option<usize>> {
        // Hostile input lists one document many times, and in each of those another.
        let key = key(listed);
        if let Some(known) = self.listed.get(&key) {
            return Ok(*known);
        }
        let there = match self.child(listed).await? {
            Some(child) => Some(self.document(&child, chosen, depth).await?.0),
            None => None,
        };
        self.listed.insert(key, there);
        Ok(there)
    }

    /// The child of an index, if it is there.
    async fn child(&self, child: &Descriptor) -> Result<Option<RawManifest>> {
        let read = || select::child(self.ends.from, self.ends.image, child);
        Error::found(self.ends.retrying("manifest", read).await)
    }

    /// What an index lists and is no document; whether it is there.
    async fn other(&mut self, child: &Descriptor) -> Result<bool> {
        let is_here = self.cache.stat(child.digest()).await? == Some(child.size());
        if !is_here && !self.is_there(child).await? {
            return Ok(false);
        }
        self.blob(child).await.map(|()| true)
    }

    fn keep(&mut self, raw: &RawManifest) {
        let size = raw.descriptor().size();
        let is_kept = self.kept + size <= KEPT;
        if is_kept {
            self.kept += size;
        }
        self.subjects.push_back(raw.digest().clone());
        self.found.documents.push(FoundDocument {
            place: self.found.names.len() - 1,
            descriptor: raw.descriptor().clone(),
            raw: is_kept.then(|| raw.clone()),
        });
    }

    async fn blob(&mut self, blob: &Descriptor) -> Result<()> {
        if !self.blobs.insert(blob.digest().clone()) {
            return Ok(());
        }
        self.check_count()?;
        let plain = Descriptor::new(blob.media_type().clone(), blob.size(), blob.digest().clone());
        let is_here = self.cache.stat(blob.digest()).await? == Some(blob.size());
        if !is_here && !self.is_there(blob).await? {
            if is_foreign(blob.media_type()) {
                let message = format!("{} may not be redistributed and is not in the archive", blob.digest());
                self.ends.options.progress.emit(Event::Warning { message });
            } else {
                self.missing.push(plain);
            }
            return Ok(());
        }
        if !is_here {
            let begun = self.cache.partial(blob.digest()).await?;
            self.needed = self.needed.saturating_add(blob.size().saturating_sub(begun));
        }
        // Without its URLs: what is there comes from there.
        self.found.blobs.push((self.found.names.len() - 1, plain));
        Ok(())
    }

    /// Whether a blob is in the archive. Nothing of it is read where the backend can tell.
    async fn is_there(&self, blob: &Descriptor) -> Result<bool> {
        let (from, image) = (self.ends.from, self.ends.image);
        let there = self.ends.retrying(blob.digest().as_ref(), || async {
            if from.has_blob(image, blob).await? {
                return Ok(true);
            }
            Ok(Error::found(select::blob(from, image, blob, BlobRange::FULL).await)?.is_some())
        });
        there.await
    }

    /// What refers to the documents that were found, and what refers to that.
    async fn referrers(&mut self) -> Result<()> {
        let mut count = ReferrerCount::default();
        while let Some(subject) = self.subjects.pop_front() {
            let (from, image) = (self.ends.from, self.ends.image);
            let list = || from.referrers(image, &subject, None);
            let listed = self.ends.retrying("referrers", list).await;
            for referrer in self.there(listed)?.unwrap_or_default() {
                count.add()?;
                self.referrer(&referrer, &subject).await?;
            }
            let cosign = self.cosign;
            for tag in reference::cosign_tags(&subject).filter(|_| cosign) {
                let tagged = self.ends.tagged(&tag).await;
                let Some(raw) = self.there(tagged)?.flatten() else { continue };
                self.document(&raw, None, limits::NESTING).await?;
                self.found.tops.push((reference::tagged(image, tag), raw.descriptor().clone()));
            }
        }
        Ok(())
    }

    /// What is not missing. What is is noted.
    fn there<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(e) if *e.kind() == ErrorKind::NotFound => match e.detail::<MissingBlob>() {
                Some(MissingBlob(digest)) => {
                    if self.documents.insert(digest.clone()) {
                        self.missing.push(unsized_blob(digest));
                    }
                    Ok(None)
                }
                None => Err(e),
            },
            outcome => outcome.map(Some),
        }
    }

    async fn referrer(&mut self, referrer: &Descriptor, subject: &Digest) -> Result<()> {
        self.came.insert(referrer.digest().clone());
        if self.documents.contains(referrer.digest()) {
            return Ok(());
        }
        let raw = match self.child(referrer).await? {
            Some(raw) => raw,
            None if self.cache.stat(referrer.digest()).await? == Some(referrer.size()) => {
                let here = content::read(self.cache, referrer, limits::MANIFEST).await?;
                RawManifest::described(here, referrer)?
            }
            None => {
                self.documents.insert(referrer.digest().clone());
                self.missing.push(referrer.clone());
                return Ok(());
            }
        };
        referrers::check_subject(&raw, subject)
            .map_err(|e| e.with_endpoint(self.ends.from).with_advice(Advice::LeaveReferrers))?;
        let before = self.found.documents.len();
        self.document(&raw, None, limits::NESTING).await?;
        let came = self.found.documents[before..].iter();
        self.came.extend(came.map(|document| document.descriptor.digest().clone()));
        Ok(())
    }

    fn check_count(&self) -> Result<()> {
        if self.documents.len() + self.blobs.len() > PushSession::LIMIT {
            let message = format!("the images have more than {} blobs and manifests", PushSession::LIMIT);
            return Err(Error::limit(message).with_endpoint(self.ends.from));
        }
        Ok(())
    }

    /// All that was found, if nothing is missing and the cache has room.
    pub(super) async fn finish(self) -> Result<Found> {
        let from = self.ends.from;
        if !self.missing.is_empty() {
            let error = lacking("content is neither in the archive nor in the store", &self.missing)
                .with_endpoint(from);
            // What is missing is the error, also where its reason cannot be read.
            let bases = from.bases().await.unwrap_or_default();
            return Err(match self.missing_of_images {
                _ if !bases.is_empty() => error.with_advice(Advice::LoadBase { bases }),
                0 => error.with_advice(Advice::LeaveReferrers),
                _ => error,
            });
        }
        content::check_room(self.cache, self.needed, "the images need").await?;
        Ok(self.found)
    }
}

/// A blob of which only the digest is known.
fn unsized_blob(digest: &Digest) -> Descriptor {
    Descriptor::new("application/octet-stream".into(), 0, digest.clone())
}

/// The error that these are not there: all of them as its detail, the first ones in its message.
fn lacking(what: &str, missing: &[Descriptor]) -> Error {
    let list: Vec<&str> = missing.iter().map(|blob| blob.digest().as_ref()).take(NAMED).collect();
    let more = match missing.len() - list.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let bytes = missing.iter().map(Descriptor::size).fold(0, u64::saturating_add);
    let error = Error::not_found(format!("{what}: {}{more}, {} in all", list.join(", "), Size(bytes)));
    let error = match missing.first() {
        Some(first) => {
            error.with_context("blob", first.digest()).with_detail(MissingBlob(first.digest().clone()))
        }
        None => error,
    };
    error.with_detail(MissingContent(missing.to_vec()))
}
