//! Names: changed in both tiers, and listed from both.

use std::collections::{BTreeMap, HashSet};

use crate::cache::{CacheProvider, CachedNames, NameChange, content};
use crate::manifest::{RawManifest, is_document, limits};
use crate::registry::Page;
use crate::{Descriptor, Error, Reference, Result};

use super::tiers::{Tiered, is_missing};

/// How often content that a name needs is sent that others remove meanwhile.
const ATTEMPTS: u32 = 8;

/// A name and what it stands for.
type Named = (Reference, Descriptor);

impl Tiered {
    /// Changes names in the far tier, then in the near one. For who asks this cache nothing has changed before the near tier has.
    pub(super) async fn change_names(&self, changes: &[NameChange]) -> Result<()> {
        let is_published = self.publish(changes).await?;
        let near = self.near_changes(changes, is_published).await?;
        match self.near.update(&near).await {
            Err(e) if is_missing(&e) => {
                let reduced = self.without_content(&near, is_published, e).await?;
                self.near.update(&reduced).await
            }
            outcome => outcome,
        }
    }

    /// Changes names in the far tier; whether it has them now.
    async fn publish(&self, changes: &[NameChange]) -> Result<bool> {
        if changes.iter().all(|change| matches!(change, NameChange::Require(_))) {
            return Ok(false);
        }
        let Some(far) = self.far.writable().await? else { return Ok(false) };
        let Some(wanted) = self.far.answer(self.far_changes(far, changes).await)? else { return Ok(false) };
        if wanted.iter().all(|change| matches!(change, NameChange::Require(_))) {
            return Ok(true);
        }
        for _ in 0..ATTEMPTS {
            let missing = match far.update(&wanted).await {
                Err(e) if is_missing(&e) => e,
                // A cache that is opened when it is asked tells it only now.
                Err(_) if far.is_read_only() => return Ok(false),
                outcome => return Ok(self.far.answer(outcome)?.is_some()),
            };
            match self.far.answer(self.send_missing(far, &wanted).await)? {
                None => return Ok(false),
                Some(0) => return Err(missing),
                Some(_) => {}
            }
        }
        Ok(self.far.answer(far.update(&wanted).await)?.is_some())
    }

    /// What is to change in the far tier: not what it says already. A name that is pinned, and that the near tier alone has,
    /// is set there, too.
    async fn far_changes(&self, far: &dyn CacheProvider, changes: &[NameChange]) -> Result<Vec<NameChange>> {
        let set = names_set(changes);
        let mut wanted = Vec::new();
        for change in changes {
            match change {
                NameChange::Set(name, top) if far.find_descriptor(name).await?.as_ref() == Some(top) => {}
                NameChange::Pin(name)
                    if !set.contains(&name.whole()) && far.find_descriptor(name).await?.is_none() =>
                {
                    let here = self.near.find_descriptor(name).await?;
                    wanted.extend(here.map(|top| NameChange::Set(name.clone(), top)));
                    wanted.push(change.clone());
                }
                _ => wanted.push(change.clone()),
            }
        }
        Ok(wanted)
    }

    /// Sends what the far tier lacks of the content of names; how many blobs.
    async fn send_missing(&self, far: &dyn CacheProvider, changes: &[NameChange]) -> Result<usize> {
        let mut sent = 0;
        for blob in self.needs(changes).await? {
            let is_there = far.stat(blob.digest()).await? == Some(blob.size());
            if !is_there && self.near.stat(blob.digest()).await? == Some(blob.size()) {
                super::blob::publish(&*self.near, far, &blob).await?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    /// Everything that names need, as far as its documents are here.
    async fn needs(&self, changes: &[NameChange]) -> Result<Vec<Descriptor>> {
        let mut needs = Vec::new();
        for change in changes {
            let (NameChange::Set(_, top) | NameChange::Require(top)) = change else { continue };
            needs.extend(self.parts(top).await?.unwrap_or_default());
        }
        Ok(needs)
    }

    /// Content and what it requires, last what refers to the others; `None` when a document is in no tier.
    async fn parts(&self, top: &Descriptor) -> Result<Option<Vec<Descriptor>>> {
        if !is_document(top.media_type()) {
            return Ok(Some(vec![top.clone()]));
        }
        let Some(document) = Error::found(content::read(self, top, limits::MANIFEST).await)? else {
            return Ok(None);
        };
        let mut parts = RawManifest::described(document, top)?.requirements();
        parts.push(top.clone());
        Ok(Some(parts))
    }

    /// What is to change in the near tier: pins of names that it has.
    async fn near_changes(&self, changes: &[NameChange], is_published: bool) -> Result<Vec<NameChange>> {
        let set = names_set(changes);
        let mut near = Vec::new();
        for change in changes {
            if let NameChange::Pin(name) = change
                && is_published
                && !set.contains(&name.whole())
                && self.near.find_descriptor(name).await?.is_none()
            {
                continue;
            }
            near.push(change.clone());
        }
        Ok(near)
    }

    /// The changes without those for whose content the near tier is not needed: the far one has it. A name that cannot stand
    /// for content of the far tier here is removed, so that the far tier answers it.
    ///
    /// # Errors
    /// `missing` when content is in no tier.
    async fn without_content(
        &self,
        changes: &[NameChange],
        is_published: bool,
        missing: Error,
    ) -> Result<Vec<NameChange>> {
        let (mut reduced, mut away) = (Vec::new(), HashSet::new());
        for change in changes {
            match change {
                NameChange::Require(top) => {
                    if !self.is_complete(top, self).await? {
                        return Err(missing);
                    }
                }
                NameChange::Set(name, top) if !self.is_complete(top, &*self.near).await? => {
                    if !is_published {
                        return Err(missing);
                    }
                    away.insert(name.whole());
                    reduced.push(NameChange::Remove(name.clone()));
                }
                NameChange::Pin(name) if away.contains(&name.whole()) => {}
                _ => reduced.push(change.clone()),
            }
        }
        Ok(reduced)
    }

    /// Whether a tier has everything that a name needs.
    async fn is_complete(&self, top: &Descriptor, tier: &dyn CacheProvider) -> Result<bool> {
        let Some(parts) = self.parts(top).await? else { return Ok(false) };
        for part in parts {
            if tier.stat(part.digest()).await? != Some(part.size()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All names. What one stands for is said by the near tier.
    pub(super) async fn all_names(&self) -> Result<Vec<Named>> {
        let near = self.near.list().await?;
        let Some(far) = self.far.asked().await? else { return Ok(near) };
        let far = self.far.answer(far.list().await)?.unwrap_or_default();
        Ok(merged(near, far))
    }

    /// A page of them.
    pub(super) async fn page_of_names(&self, page: &Page) -> Result<CachedNames> {
        let near = self.near.list_page(page).await?;
        let Some(far) = self.far.asked().await? else { return Ok(near) };
        let Some(far) = self.far.answer(far.list_page(page).await)? else { return Ok(near) };
        // Behind the last name of a page that is followed by others, the tier may have further names.
        let ends = [&near, &far].into_iter().filter(|tier| tier.next.is_some());
        let end = ends.filter_map(|tier| tier.names.last()).map(|(name, _)| name.whole()).min();
        let has_more = end.is_some();
        let mut names = merged(near.names, far.names);
        let found = names.len();
        if let Some(end) = end {
            names.retain(|(name, _)| name.whole() <= end);
        }
        names.truncate(page.limit.unwrap_or(usize::MAX));
        let is_last = !has_more && names.len() == found;
        let next = names.last().filter(|_| !is_last).map(|(name, _)| name.whole());
        Ok(CachedNames::new(names, next))
    }

    /// The names that either tier has pinned.
    pub(super) async fn pins_of_both(&self) -> Result<Vec<Reference>> {
        let mut pins = self.near.pins().await?;
        if let Some(far) = self.far.asked().await? {
            pins.extend(self.far.answer(far.pins().await)?.unwrap_or_default());
        }
        let each: BTreeMap<_, _> = pins.into_iter().map(|name| (name.whole(), name)).collect();
        Ok(each.into_values().collect())
    }
}

/// The names that get content by these changes.
fn names_set(changes: &[NameChange]) -> HashSet<String> {
    let set = changes.iter().filter_map(|change| match change {
        NameChange::Set(name, _) => Some(name.whole()),
        _ => None,
    });
    set.collect()
}

/// Two sorted lists as one: a name of the first stands as it is there.
fn merged(first: Vec<Named>, second: Vec<Named>) -> Vec<Named> {
    let known: HashSet<String> = first.iter().map(|(name, _)| name.whole()).collect();
    let mut all = first;
    all.extend(second.into_iter().filter(|(name, _)| !known.contains(&name.whole())));
    all.sort_by_cached_key(|(name, _)| name.whole());
    all
}
