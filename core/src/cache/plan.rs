//! What is kept, what is removed, and disk usage.

use std::collections::HashSet;
use std::time::SystemTime;

use super::inventory::{Held, Inventory, Reach, blob, content};
use super::{ImageUsage, Missed, Usage};
use crate::{Descriptor, Digest, Reference, Result};

/// What is removed, and how many bytes that frees.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Names to remove, least recently used first. They are removed before any content.
    pub evicted: Vec<Reference>,
    /// Entries without a name that are removed: referrers, together with their subject.
    pub nameless: HashSet<Digest>,
    /// Blobs that go, sorted. One that has changed since must stay.
    pub blobs: Vec<(Digest, Held)>,
    /// Artifacts that go, by their place in [`Holdings`](super::Holdings).
    pub artifacts: Vec<usize>,
    /// Bytes of blobs and artifacts that go.
    pub freed: u64,
    /// Bytes of blobs and artifacts that stay.
    pub kept: u64,
    /// By how much the budget is missed, and why.
    pub missed: Option<Missed>,
}

/// One name, with everything it stands for: hostile input lets a name stand twice.
struct Name<'a> {
    reference: &'a Reference,
    reaches: &'a [usize],
    used: Option<SystemTime>,
}

impl Inventory {
    /// Decides what is removed; see [`CacheProvider::collect`](super::CacheProvider::collect).
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when a document is damaged that says what is needed, and others that
    /// made it unreadable.
    pub fn plan(mut self, budget: Option<u64>) -> Result<Plan> {
        if let Some((failed, name)) = self.failing() {
            let name = name.cloned();
            let error = self.failed.swap_remove(failed);
            return Err(match name {
                Some(name) => error.with_image(name),
                None => error,
            });
        }
        let mut tally = Tally::fixed(&self);
        let leased: HashSet<usize> = self.leased().collect();
        let (lasting, others): (Vec<Name>, Vec<Name>) =
            self.names().into_iter().partition(|name| self.is_lasting(name, &leased));
        let (lists, mut others): (Vec<Name>, Vec<Name>) =
            others.into_iter().partition(|name| self.lists.contains_key(name.reference));
        lasting.iter().flat_map(|name| name.reaches).for_each(|reach| tally.add(&self.reaches[*reach]));
        // Removing a name frees nothing if all its content is needed by other names.
        others.retain(|name| {
            let frees = name.reaches.iter().any(|reach| tally.lacks(&self.reaches[*reach]));
            if !frees {
                name.reaches.iter().for_each(|reach| tally.add(&self.reaches[*reach]));
            }
            frees
        });
        others.iter().flat_map(|name| name.reaches).for_each(|reach| tally.add(&self.reaches[*reach]));
        others.sort_by_key(|name| name.used);
        let mut evicted = Vec::new();
        for name in others {
            if budget.is_none_or(|budget| tally.kept <= u128::from(budget)) {
                break;
            }
            name.reaches.iter().for_each(|reach| tally.remove(&self.reaches[*reach]));
            evicted.push(name.reference.clone());
        }
        // A list stays as long as its subject does, which has the list, and what is in it, in its own reach.
        for list in lists {
            if self.lists.get(list.reference).is_some_and(|subject| tally.needed[*subject] > 0) {
                list.reaches.iter().for_each(|reach| tally.add(&self.reaches[*reach]));
            } else {
                evicted.push(list.reference.clone());
            }
        }
        let beyond =
            budget.and_then(|budget| tally.kept.checked_sub(budget.into())).filter(|beyond| *beyond > 0);
        let missed = beyond.map(|beyond| self.missed(beyond, &leased));
        Ok(Plan { missed, ..self.outcome(&tally, evicted) })
    }

    /// What takes how much room. Damaged images count as far as they can be followed.
    pub fn usage(&self) -> Usage {
        let mut by_names = Tally::new(self);
        for reach in &self.names {
            by_names.add(&self.reaches[*reach]);
        }
        let images = self.holdings.names.iter().zip(&self.names).map(|((reference, descriptor), reach)| {
            let reach = &self.reaches[*reach];
            ImageUsage {
                reference: reference.clone(),
                descriptor: descriptor.clone(),
                size: by_names.sum(reach, |_| true),
                unique: by_names.sum(reach, |needed| needed == 1),
                pinned: self.holdings.pins.contains(reference),
                used: self.holdings.blobs.get(descriptor.digest()).map(|held| held.used),
            }
        });
        let images = images.collect();
        let blobs = sum(self.holdings.blobs.values().map(|held| held.size));
        let artifacts = sum(self.holdings.artifacts.iter().map(|artifact| artifact.held.size));
        let mut tally = Tally::fixed(self);
        self.names.iter().for_each(|reach| tally.add(&self.reaches[*reach]));
        let unused = if self.failing().is_some() { 0 } else { blobs + artifacts - tally.kept };
        let mut partials = self.holdings.partials.clone();
        partials.sort_by(|a, b| a.digest.as_ref().cmp(b.digest.as_ref()));
        let (blobs, artifacts) = (clamped(blobs), clamped(artifacts));
        Usage { images, blobs, artifacts, unused: clamped(unused), partials }
    }

    /// The first of what is kept that cannot be followed, and its name.
    fn failing(&self) -> Option<(usize, Option<&Reference>)> {
        let failed = |reach: &usize| self.reaches[*reach].failed;
        let mut pairs = self.holdings.names.iter().zip(&self.names);
        let named = pairs.find_map(|((name, _), reach)| Some((failed(reach)?, Some(name))));
        named.or_else(|| self.kept.iter().find_map(failed).map(|failed| (failed, None)))
    }

    fn names(&self) -> Vec<Name<'_>> {
        let mut names = Vec::new();
        let mut start = 0;
        for same in self.holdings.names.chunk_by(|(name, _), (next, _)| name == next) {
            let used = |digest| self.holdings.blobs.get(digest).map(|held| held.used);
            names.push(Name {
                reference: &same[0].0,
                reaches: &self.names[start..start + same.len()],
                used: same.iter().filter_map(|(_, top)| used(top.digest())).max(),
            });
            start += same.len();
        }
        names
    }

    /// Whether a name is not evicted, whatever the budget.
    fn is_lasting(&self, name: &Name<'_>, leased: &HashSet<usize>) -> bool {
        self.holdings.pins.contains(name.reference)
            || name.used.is_some_and(|used| self.is_recent(used))
            || name
                .reaches
                .iter()
                .any(|reach| self.reaches[*reach].items.iter().any(|it| leased.contains(it)))
    }

    /// What leases protect: blobs, and artifacts of contents.
    fn leased(&self) -> impl Iterator<Item = usize> {
        let numbers = self.holdings.leased.iter().filter_map(|digest| self.numbers.get(digest));
        numbers.flat_map(|number| [blob(*number), content(*number)])
    }

    /// What a budget that is missed by so many bytes is missed for.
    fn missed(&self, bytes: u128, leased: &HashSet<usize>) -> Missed {
        let named = self.names();
        let of = |reach: usize| &self.reaches[reach];
        let tops = || self.names.iter().chain(&self.kept).map(|reach| of(*reach));
        let needed = |reaches: Vec<&Reach>| {
            let mut tally = Tally::new(self);
            for reach in reaches {
                tally.add(reach);
            }
            clamped(tally.kept)
        };
        let pinned = named.iter().filter(|name| self.holdings.pins.contains(name.reference));
        let pinned = pinned.flat_map(|name| name.reaches).map(|reach| of(*reach)).collect();
        let is_leased = |reach: &&Reach| reach.items.iter().any(|it| leased.contains(it));
        let by_itself = Reach { items: leased.iter().copied().collect(), failed: None };
        let recent = Tally::recent(self);
        let is_recent = |reach: &&Reach| reach.items.iter().any(|it| recent.items.contains(it));
        Missed {
            bytes: clamped(bytes),
            pinned: needed(pinned),
            leased: needed(tops().filter(is_leased).chain([&by_itself]).collect()),
            recent: needed(tops().filter(is_recent).chain([&recent]).collect()),
        }
    }

    fn outcome(self, tally: &Tally, evicted: Vec<Reference>) -> Plan {
        let is_kept = |item: fn(usize) -> usize, digest: &Digest| {
            self.numbers.get(digest).is_some_and(|number| tally.needed[item(*number)] > 0)
        };
        let nameless = self.holdings.nameless.iter().map(Descriptor::digest);
        let nameless = nameless.filter(|digest| !is_kept(blob, digest)).cloned().collect();
        let artifacts = self.holdings.artifacts.iter().enumerate();
        let artifacts: Vec<usize> = artifacts
            .filter(|(_, artifact)| !is_kept(content, &artifact.content))
            .map(|(place, _)| place)
            .collect();
        let blobs = self.holdings.blobs.iter().filter(|(digest, _)| !is_kept(blob, digest));
        let mut blobs: Vec<(Digest, Held)> = blobs.map(|(digest, held)| (digest.clone(), *held)).collect();
        blobs.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        let freed = sum(blobs.iter().map(|(_, held)| held.size))
            + sum(artifacts.iter().map(|place| self.holdings.artifacts[*place].held.size));
        Plan {
            evicted,
            nameless,
            blobs,
            artifacts,
            freed: clamped(freed),
            kept: clamped(tally.kept),
            missed: None,
        }
    }
}

/// Files with holes may have more bytes together than any disk, and than a `u64` counts.
fn sum(sizes: impl Iterator<Item = u64>) -> u128 {
    sizes.map(u128::from).sum()
}

fn clamped(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The number of users of each [item](Reach::items), and the bytes of all content in use.
struct Tally {
    needed: Vec<u32>,
    sizes: Vec<u128>,
    kept: u128,
}

impl Tally {
    fn new(inventory: &Inventory) -> Self {
        let count = blob(inventory.numbers.len());
        let mut tally = Self { needed: vec![0; count], sizes: vec![0; count], kept: 0 };
        let blobs = inventory.holdings.blobs.iter().map(|(digest, held)| (blob as fn(_) -> _, digest, held));
        let artifacts = inventory.holdings.artifacts.iter();
        let artifacts = artifacts.map(|made| (content as fn(_) -> _, &made.content, &made.held));
        for (item, digest, held) in blobs.chain(artifacts) {
            if let Some(number) = inventory.numbers.get(digest) {
                tally.sizes[item(*number)] += u128::from(held.size);
            }
        }
        tally
    }

    /// What is kept whichever names are removed.
    fn fixed(inventory: &Inventory) -> Self {
        let mut tally = Self::new(inventory);
        inventory.kept.iter().for_each(|reach| tally.add(&inventory.reaches[*reach]));
        let mut protected = Self::recent(inventory);
        protected.items.extend(inventory.leased());
        tally.add(&protected);
        tally
    }

    /// What was stored or used within the grace.
    fn recent(inventory: &Inventory) -> Reach {
        let number = |digest| inventory.numbers.get(digest).copied();
        let blobs = inventory.holdings.blobs.iter().filter(|(_, held)| inventory.is_recent(held.used));
        let artifacts = inventory.holdings.artifacts.iter();
        let artifacts = artifacts.filter(|artifact| inventory.is_recent(artifact.held.used));
        let blobs = blobs.filter_map(|(digest, _)| number(digest).map(blob));
        let contents = artifacts.filter_map(|artifact| number(&artifact.content).map(content));
        Reach { items: blobs.chain(contents).collect(), failed: None }
    }

    fn add(&mut self, reach: &Reach) {
        for &item in &reach.items {
            self.kept += if self.needed[item] == 0 { self.sizes[item] } else { 0 };
            self.needed[item] += 1;
        }
    }

    fn remove(&mut self, reach: &Reach) {
        for &item in &reach.items {
            self.needed[item] -= 1;
            self.kept -= if self.needed[item] == 0 { self.sizes[item] } else { 0 };
        }
    }

    /// Whether this reach needs something in the cache that nothing needed before.
    fn lacks(&self, reach: &Reach) -> bool {
        reach.items.iter().any(|&item| self.needed[item] == 0 && self.sizes[item] > 0)
    }

    /// Bytes of a reach whose number of users is `counted`.
    fn sum(&self, reach: &Reach, counted: impl Fn(u32) -> bool) -> u64 {
        let counted = reach.items.iter().filter(|item| counted(self.needed[**item]));
        clamped(counted.map(|item| self.sizes[*item]).sum())
    }
}
