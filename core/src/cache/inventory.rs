//! What a cache holds, and which content refers to which.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{CacheProvider, Collect, Needs, PartialBlob};
use crate::manifest::{RawManifest, is_document, limits};
use crate::{Advice, Descriptor, Digest, Error, Reference, Result, reference};

/// What a cache holds, as it lists it.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Every name and what it stands for.
    pub names: Vec<(Reference, Descriptor)>,
    /// The names that are never evicted.
    pub pins: HashSet<Reference>,
    /// What is kept without a name. A referrer among these goes with its subject.
    pub nameless: Vec<Descriptor>,
    /// What is kept whatever else goes.
    pub roots: Vec<Descriptor>,
    /// What leases protect.
    pub leased: HashSet<Digest>,
    /// Every blob.
    pub blobs: HashMap<Digest, Held>,
    /// Every artifact.
    pub artifacts: Vec<HeldArtifact>,
    /// Every partial download.
    pub partials: Vec<PartialBlob>,
}

/// A blob that is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Bytes.
    pub size: u64,
    /// When it was stored or used last.
    pub used: SystemTime,
}

/// An artifact that is held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldArtifact {
    /// What it was made from: the `diff_id` of a layer, or the ChainID of an image.
    pub content: Digest,
    /// Its size, and when it was made.
    pub held: Held,
}

/// A manifest or an index that was found by scanning and is not referenced.
#[derive(Clone, Debug)]
pub struct Head {
    descriptor: Descriptor,
    subject: Option<Digest>,
}

impl Head {
    /// The bytes after which [`Head::may_be`] knows.
    pub const PEEK: usize = 64;

    /// Whether content that begins like this can be a document and has to be read: most small blobs are compressed.
    pub fn may_be(start: &[u8]) -> bool {
        start.iter().find(|c| !c.is_ascii_whitespace()).is_none_or(|first| *first == b'{')
    }

    /// `None` for content that is no such document, or not what its digest says.
    pub fn of(digest: &Digest, content: Bytes) -> Option<Self> {
        if !Self::may_be(&content) {
            return None;
        }
        let raw = RawManifest::verified(content, None, digest).ok()?;
        let subject = raw.subject().map(|subject| subject.digest().clone());
        Some(Self { descriptor: raw.descriptor().clone(), subject })
    }
}

/// What a cache holds, with what it leads to: all that is needed to [plan](Self::plan) a collection, and to tell
/// the [usage](Self::usage).
#[derive(Debug)]
pub struct Inventory {
    pub(super) holdings: Holdings,
    /// Digests as small numbers.
    pub(super) numbers: HashMap<Digest, usize>,
    /// What tops lead to, referrers included.
    pub(super) reaches: Vec<Reach>,
    /// For each name its reach.
    pub(super) names: Vec<usize>,
    /// The names that are lists of referrers, each with the [blob] that they refer to.
    pub(super) lists: HashMap<Reference, usize>,
    /// Reaches that are kept whatever else goes.
    pub(super) kept: Vec<usize>,
    /// What cannot be followed to its end.
    pub(super) failed: Vec<Error>,
    /// When it was looked at; what was used within the grace before that is recent.
    pub(super) now: SystemTime,
    pub(super) grace: Duration,
}

/// What one top leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// [Blobs](blob) and what artifacts are made from ([`content`]).
    pub(super) items: Vec<usize>,
    /// Its error in [`Inventory::failed`].
    pub(super) failed: Option<usize>,
}

/// The blob of a digest by its number, as an item of a [`Reach`].
pub(super) fn blob(number: usize) -> usize {
    2 * number
}

/// The artifacts that are made from what has a digest, by its number, as an item of a [`Reach`].
pub(super) fn content(number: usize) -> usize {
    2 * number + 1
}

impl Inventory {
    /// Follows everything that a cache holds, as far as `policy` has to know it. `heads` reads those of the given
    /// blobs that are documents, by [`Head::of`].
    ///
    /// # Errors
    /// Those of `heads`. What cannot be followed fails the [plan](Self::plan), and only if it counts there.
    pub async fn of<R: Future<Output = Result<Vec<Head>>> + Send>(
        cache: &dyn CacheProvider,
        holdings: Holdings,
        policy: &Collect,
        heads: impl FnOnce(Vec<Digest>) -> R + Send,
    ) -> Result<Self> {
        let mut walk = Walk::new(cache, holdings, policy);
        let names = walk.inventory.holdings.names.iter().map(|(_, top)| top.clone()).collect();
        walk.inventory.names = walk.follow(names).await;
        let nameless = walk.follow(walk.inventory.holdings.nameless.clone()).await;
        let roots = walk.follow(walk.inventory.holdings.roots.clone()).await;
        let unread = walk.unread();
        for head in heads(unread).await? {
            walk.note_document(&head.descriptor, head.subject);
        }
        let protected = walk.follow(walk.protected()).await;
        let listed = walk.inventory.holdings.nameless.iter().zip(nameless);
        let listed = listed.filter(|(top, _)| !walk.referrers.contains_key(top.digest()));
        walk.inventory.kept = listed.map(|(_, reach)| reach).chain(roots).chain(protected).collect();
        let mut referrers = walk.follow_referrers().await;
        let mut inventory = walk.inventory;
        inventory.note_lists(&mut referrers);
        inventory.close(&referrers);
        Ok(inventory)
    }

    pub(super) fn is_recent(&self, used: SystemTime) -> bool {
        // A cut-off before the epoch counts everything as recent.
        let since = self.now.checked_sub(self.grace);
        !self.grace.is_zero() && since.is_none_or(|since| used > since)
    }

    fn number(&mut self, digest: &Digest) -> usize {
        if let Some(number) = self.numbers.get(digest) {
            return *number;
        }
        let number = self.numbers.len();
        self.numbers.insert(digest.clone(), number);
        number
    }

    /// Finds the names that are lists of referrers: a list is kept with its subject, as a referrer is. Where nothing here
    /// refers to the subject, the name is one as any other.
    fn note_lists(&mut self, referrers: &mut HashMap<usize, Vec<usize>>) {
        let subjects = self.numbers.iter().map(|(digest, number)| (digest, blob(*number)));
        let subjects = subjects.filter(|(_, subject)| referrers.contains_key(subject));
        let by_tag: HashMap<String, usize> =
            subjects.map(|(digest, subject)| (reference::tag_of_referrers(digest), subject)).collect();
        for ((name, _), reach) in self.holdings.names.iter().zip(&self.names) {
            if let Some(subject) = name.tag().and_then(|tag| by_tag.get(tag)) {
                referrers.entry(*subject).or_default().push(*reach);
                self.lists.insert(name.clone(), *subject);
            }
        }
    }

    /// Adds to each reach the reaches of its referrers, and of theirs.
    fn close(&mut self, referrers: &HashMap<usize, Vec<usize>>) {
        let closed = (0..self.reaches.len()).map(|top| {
            let (mut items, mut failed) = (HashSet::new(), None);
            let (mut seen, mut open) = (HashSet::from([top]), vec![top]);
            while let Some(next) = open.pop() {
                let reach = &self.reaches[next];
                failed = failed.or(reach.failed);
                for item in reach.items.iter().filter(|item| items.insert(**item)) {
                    let referrers = referrers.get(item).into_iter().flatten();
                    open.extend(referrers.filter(|referrer| seen.insert(**referrer)));
                }
            }
            Reach { items: items.into_iter().collect(), failed }
        });
        self.reaches = closed.collect();
    }
}

/// Distinguishes one walk from another.
type Top = (Digest, String, u64);

fn top_of(descriptor: &Descriptor) -> Top {
    (descriptor.digest().clone(), descriptor.media_type().to_string(), descriptor.size())
}

/// An inventory in the making.
struct Walk<'a> {
    cache: &'a dyn CacheProvider,
    inventory: Inventory,
    walked: HashMap<Top, usize>,
    /// Blobs whose media type is known from a descriptor.
    described: HashSet<usize>,
    /// Manifests and indexes that are here.
    documents: HashMap<Digest, Descriptor>,
    /// Those that have a subject, and the subject.
    referrers: HashMap<Digest, Digest>,
}

impl<'a> Walk<'a> {
    /// Documents read at the same time.
    const PARALLEL: usize = 8;

    fn new(cache: &'a dyn CacheProvider, mut holdings: Holdings, policy: &Collect) -> Self {
        holdings.names.sort_by_cached_key(|(name, top)| (name.whole(), top.digest().to_string()));
        holdings.names.dedup();
        let held = holdings.blobs.keys().chain(&holdings.leased);
        let held = held.chain(holdings.artifacts.iter().map(|artifact| &artifact.content));
        let held: HashSet<Digest> = held.cloned().collect();
        let inventory = Inventory {
            holdings,
            numbers: held.into_iter().enumerate().map(|(number, digest)| (digest, number)).collect(),
            reaches: Vec::new(),
            names: Vec::new(),
            lists: HashMap::new(),
            kept: Vec::new(),
            failed: Vec::new(),
            now: SystemTime::now(),
            grace: policy.grace,
        };
        Self {
            cache,
            inventory,
            walked: HashMap::new(),
            described: HashSet::new(),
            documents: HashMap::new(),
            referrers: HashMap::new(),
        }
    }

    /// The reach of each of these.
    async fn follow(&mut self, tops: Vec<Descriptor>) -> Vec<usize> {
        let mut fresh: HashMap<Top, Descriptor> = tops.iter().map(|top| (top_of(top), top.clone())).collect();
        fresh.retain(|top, _| !self.walked.contains_key(top));
        let cache = self.cache;
        let walks = stream::iter(fresh).map(|(key, top)| async move {
            let needs = Needs::of(cache, &top).await;
            (key, top, needs)
        });
        let mut walks = walks.buffer_unordered(Self::PARALLEL);
        while let Some((key, top, needs)) = walks.next().await {
            let reach = self.note(&top, needs);
            self.walked.insert(key, reach);
        }
        tops.iter().filter_map(|top| self.walked.get(&top_of(top)).copied()).collect()
    }

    fn note(&mut self, top: &Descriptor, needs: Result<Needs>) -> usize {
        let mut reach = Reach::default();
        let needs = needs.unwrap_or_else(|e| {
            reach.failed = Some(self.fail(e));
            reach.items.push(blob(self.inventory.number(top.digest())));
            Needs::default()
        });
        if let Some(damaged) = needs.damaged.iter().min_by(|a, b| a.as_ref().cmp(b.as_ref())) {
            reach.failed = Some(self.fail(unknown(damaged)));
        }
        for (digest, need) in &needs.blobs {
            let number = self.inventory.number(digest);
            reach.items.push(blob(number));
            self.described.insert(number);
            let media_type = need.descriptor.media_type();
            if is_document(media_type) {
                self.note_document(&need.descriptor, needs.subjects.get(digest).cloned());
            }
        }
        reach.items.extend(needs.contents.iter().map(|digest| content(self.inventory.number(digest))));
        self.inventory.reaches.push(reach);
        self.inventory.reaches.len() - 1
    }

    fn fail(&mut self, error: Error) -> usize {
        self.inventory.failed.push(error);
        self.inventory.failed.len() - 1
    }

    fn note_document(&mut self, document: &Descriptor, subject: Option<Digest>) {
        let digest = document.digest();
        if self.inventory.holdings.blobs.contains_key(digest) {
            self.documents.entry(digest.clone()).or_insert_with(|| document.clone());
            self.referrers.extend(subject.map(|subject| (digest.clone(), subject)));
        }
    }

    /// Blobs that may be documents.
    fn unread(&self) -> Vec<Digest> {
        let Inventory { holdings, numbers, .. } = &self.inventory;
        let small = holdings.blobs.iter().filter(|(_, held)| held.size <= limits::MANIFEST);
        let known =
            |digest: &Digest| numbers.get(digest).is_some_and(|number| self.described.contains(number));
        small.map(|(digest, _)| digest).filter(|digest| !known(digest)).cloned().collect()
    }

    /// Documents whose content is protected with them.
    fn protected(&self) -> Vec<Descriptor> {
        let Holdings { blobs, leased, .. } = &self.inventory.holdings;
        let is_protected = |digest: &Digest| {
            leased.contains(digest)
                || blobs.get(digest).is_some_and(|held| self.inventory.is_recent(held.used))
        };
        self.documents.values().filter(|document| is_protected(document.digest())).cloned().collect()
    }

    /// The reaches of referrers, by the [blob] that is their subject. What they lead to may be referrers, too.
    async fn follow_referrers(&mut self) -> HashMap<usize, Vec<usize>> {
        let mut followed: HashMap<Digest, usize> = HashMap::new();
        loop {
            let fresh = self.referrers.keys().filter(|digest| !followed.contains_key(*digest));
            let fresh: Vec<Descriptor> =
                fresh.filter_map(|digest| self.documents.get(digest)).cloned().collect();
            if fresh.is_empty() {
                break;
            }
            let reaches = self.follow(fresh.clone()).await;
            followed.extend(fresh.iter().map(|document| document.digest().clone()).zip(reaches));
        }
        let mut by_subject: HashMap<usize, Vec<usize>> = HashMap::new();
        for (referrer, subject) in std::mem::take(&mut self.referrers) {
            let subject = blob(self.inventory.number(&subject));
            by_subject.entry(subject).or_default().extend(followed.get(&referrer));
        }
        by_subject
    }
}

fn unknown(damaged: &Digest) -> Error {
    Error::corrupt("a document is damaged, so its references are unknown; nothing was removed")
        .with_context("blob", damaged)
        .with_advice(Advice::RepairContent)
}
