//! What is stored and not yet in the archive.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use plyfold_core::Digest;

use crate::members::Member;

/// What is stored and not yet in the archive.
#[derive(Clone, Debug, Default)]
pub(super) struct Pushed(Arc<RwLock<HashMap<Digest, Member>>>);

impl Pushed {
    pub(super) fn get(&self, digest: &Digest) -> Option<Member> {
        self.read().get(digest).cloned()
    }

    /// Their digests.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.read().keys().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// In the order of the file.
    pub(super) fn in_order(&self) -> Vec<(Digest, Member)> {
        let mut all: Vec<_> =
            self.read().iter().map(|(digest, member)| (digest.clone(), member.clone())).collect();
        all.sort_by_key(|(_, member)| member.place().1);
        all
    }

    pub(super) fn add(&self, digest: Digest, member: Member) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(digest, member);
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Digest, Member>> {
        // Every change is one insertion, so a poisoned lock is consistent.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
