//! Names and pins as a value.

use std::collections::{BTreeMap, BTreeSet};

use super::NameChange;
use crate::{Descriptor, Error, Reference, Result};

/// The names of a cache and its pins, for caches that keep them as one value.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    /// By the whole name, which is the order of a [list](super::CacheProvider::list).
    names: BTreeMap<String, (Reference, Descriptor)>,
    pins: BTreeSet<String>,
}

impl NameTable {
    /// All names, sorted.
    pub fn list(&self) -> Vec<(Reference, Descriptor)> {
        self.names.values().cloned().collect()
    }

    /// The names that are pinned, sorted.
    pub fn pins(&self) -> Vec<Reference> {
        let pinned =
            self.names.values().map(|(name, _)| name).filter(|name| self.pins.contains(&name.whole()));
        pinned.cloned().collect()
    }

    /// Lets a name stand for content, which may be missing.
    pub fn set(&mut self, name: &Reference, descriptor: Descriptor) {
        self.names.insert(name.whole(), (name.clone(), descriptor));
    }

    /// Removes a name with its pin; one that is not there is no error.
    pub fn remove(&mut self, name: &Reference) {
        self.names.remove(&name.whole());
        self.pins.remove(&name.whole());
    }

    /// Makes all of the changes or none. What they need was [checked](super::check_names) before.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a pin of a name that is not there.
    pub fn change(&mut self, changes: &[NameChange]) -> Result<()> {
        let mut after = self.clone();
        for change in changes {
            match change {
                NameChange::Pin(name) if !after.names.contains_key(&name.whole()) => {
                    return Err(Error::not_found("not in the store").with_image(name));
                }
                NameChange::Pin(name) => _ = after.pins.insert(name.whole()),
                NameChange::Remove(name) => after.remove(name),
                NameChange::Require(_) => {}
                NameChange::Set(name, descriptor) => after.set(name, descriptor.clone()),
                NameChange::Unpin(name) => _ = after.pins.remove(&name.whole()),
            }
        }
        *self = after;
        Ok(())
    }
}
