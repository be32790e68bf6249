//! Mutants of names.

use std::time::Duration;

use plyfold_core::cache::CachedNames;
use plyfold_core::{
    CacheProvider, CacheProviderExt, Descriptor, Digest, Error, NameChange, Page, RawManifest, Reference,
    Result,
};

use super::{BrokenCache, CacheFault};

impl BrokenCache {
    pub(super) async fn change_names(&self, changes: &[NameChange]) -> Result<()> {
        let _everything = match self.fault {
            CacheFault::OneLockForAll => Some(self.shared.everything.lock().await),
            _ => None,
        };
        if self.fault == CacheFault::None {
            return self.inner.update(changes).await;
        }
        if self.fault == CacheFault::LosesUpdates {
            return self.rewrite(changes).await;
        }
        for change in changes {
            match change {
                NameChange::Remove(name) => self.drop_name(name).await?,
                NameChange::Set(name, descriptor) => self.set(name, descriptor).await?,
                NameChange::Require(_)
                    if matches!(
                        self.fault,
                        CacheFault::NamesWithoutContent | CacheFault::NothingIsRequired
                    ) => {}
                NameChange::Pin(_) | NameChange::Require(_) | NameChange::Unpin(_) => {
                    self.inner.update(std::slice::from_ref(change)).await?;
                }
            }
        }
        Ok(())
    }

    async fn names_of(&self, digest: &Digest) -> Result<Vec<Reference>> {
        let names = self.inner.list().await?.into_iter();
        Ok(names.filter(|(_, descriptor)| descriptor.digest() == digest).map(|(name, _)| name).collect())
    }

    async fn set(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        match self.fault {
            CacheFault::FirstNameStays if self.inner.find_descriptor(name).await?.is_some() => return Ok(()),
            CacheFault::NamesWithoutContent => {
                self.inner.insert_name(name, descriptor.clone());
                return Ok(());
            }
            CacheFault::NamesVanish => {
                self.inner.remove(name).await?;
                self.until_seen().await;
            }
            CacheFault::OneNameForEachDigest => {
                for other in self.names_of(descriptor.digest()).await? {
                    self.inner.remove(&other).await?;
                }
            }
            _ => {}
        }
        self.inner.update(&[NameChange::Set(name.clone(), descriptor.clone())]).await
    }

    async fn drop_name(&self, name: &Reference) -> Result<()> {
        let Some(descriptor) = self.inner.find_descriptor(name).await? else {
            return match self.fault {
                CacheFault::RemoveNeedsName => Err(Error::not_found("no such name")),
                _ => Ok(()),
            };
        };
        if self.fault == CacheFault::RemovesByDigest {
            for other in self.names_of(descriptor.digest()).await? {
                self.inner.remove(&other).await?;
            }
        }
        if self.fault == CacheFault::RemovesContent {
            let content = self.inner.content(&descriptor, 1 << 20).await?;
            for blob in RawManifest::new(content, None)?.references() {
                self.inner.quarantine(blob.digest()).await?;
            }
        }
        self.inner.remove(name).await
    }

    /// Reads all names, changes them, and writes all of them, without a lock.
    async fn rewrite(&self, changes: &[NameChange]) -> Result<()> {
        let mut names = self.inner.list().await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        for change in changes {
            if let NameChange::Set(name, _) | NameChange::Remove(name) = change {
                names.retain(|(other, _)| other != name);
            }
            if let NameChange::Set(name, descriptor) = change {
                names.push((name.clone(), descriptor.clone()));
            }
        }
        let now = self.inner.list().await?;
        let gone = now.into_iter().map(|(name, _)| NameChange::Remove(name));
        let set = names.into_iter().map(|(name, descriptor)| NameChange::Set(name, descriptor));
        self.inner.update(&gone.chain(set).collect::<Vec<_>>()).await
    }

    pub(super) async fn broken_page(&self, page: &Page) -> Result<CachedNames> {
        let mut honest = self.inner.list_page(page).await?;
        match self.fault {
            CacheFault::PagesRepeat if page.after.is_some() => {
                honest.names.extend(self.inner.list().await?.into_iter().take(1));
            }
            CacheFault::PagesStop if page.after.is_some() => honest.next = None,
            _ => {}
        }
        Ok(honest)
    }
}
