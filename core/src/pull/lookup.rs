//! Look-up in the cache: find an image, lease it, verify it.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::engine::Engine;
use super::options::PullPolicy;
use crate::cache::{CacheProvider, Completeness, Lease, completeness, content, source_of};
use crate::digest::chain_id;
use crate::manifest::RawConfig;
use crate::progress::{Event, Progress};
use crate::registry::ImageRegistry;
use crate::source::{ImageSource, ImageSourceExt, RegistrySource};
use crate::{Descriptor, Digest, Error, ErrorKind, Result, reference};

/// An image that is in the cache whole, and stays there.
pub(super) struct Found {
    pub(super) source: RegistrySource,
    pub(super) config: Option<RawConfig>,
    pub(super) lease: Lease,
    /// Whether some of it has to be brought to this machine.
    pub(super) is_away: bool,
}

/// What comes of the wait for another pull of the same image.
pub(super) enum Turn {
    /// The image, which the other has pulled.
    Found(Box<Found>),
    /// The right to pull it.
    Right(Lease),
}

impl Engine<'_> {
    /// Whether the backend has to agree before the cache answers.
    pub(super) fn confirms(&self) -> bool {
        self.options.confirm.unwrap_or(self.options.credential.is_some())
    }

    /// The image out of the cache, if it is complete there and the backend agrees, where that is asked for (rule C 200
    /// `a_confirmed_hit_asks_first`).
    pub(super) async fn look(&self) -> Result<Option<Found>> {
        /// How often the name may move, and its old content be removed, during the look-up.
        const MOVES: u32 = 16;
        let mut top = self.cache.find_descriptor(&self.name).await?;
        for _ in 0..MOVES {
            let Some(here) = top else { return Ok(None) };
            // Before the content is looked at: what is damaged or cannot be read is named by its digest.
            if self.confirms() && !self.agrees(here.digest()).await? {
                // If it is gone there, what the name stands for now may still be allowed.
                return Ok(None);
            }
            if let Some(found) = self.look_at(&here).await? {
                return Ok(Some(found));
            }
            top = self.cache.find_descriptor(&self.name).await?;
            if top.as_ref() == Some(&here) {
                break;
            }
        }
        Ok(None)
    }

    /// Whether the backend has what the name stands for here. It is asked by the name that the caller gave: no error
    /// and no event tells a digest that only the cache knows (rule C 230 `a_refusal_tells_no_digest`).
    async fn agrees(&self, here: &Digest) -> Result<bool> {
        let there = Error::found(self.retrying("manifest", || self.registry.resolve(self.reference)).await)?;
        if there.is_some_and(|there| there.digest() == here) {
            return Ok(true);
        }
        // The name has moved there or is gone, and the image may still be there.
        let same = reference::by_digest(self.reference, here);
        let silent = Progress::none();
        let there = self.retrying_with(&silent, "manifest", || self.registry.resolve(&same)).await;
        // Neither the message nor the context of this error may be shown.
        let refused =
            |e: Error| Error::new(e.kind().clone(), "cannot ask for the image that is in the cache");
        Ok(Error::found(there.map_err(|e| refused(e).with_endpoint(&self.registry)))?.is_some())
    }

    /// The image that a descriptor leads to, if it is complete in the cache, whether or not its name still exists.
    pub(super) async fn look_at(&self, top: &Descriptor) -> Result<Option<Found>> {
        let (source, config) = match self.read_documents(top).await {
            Ok(documents) => documents,
            Err(e) if *e.kind() == ErrorKind::NotFound => return Ok(None),
            // Damage and a platform that was not pulled are reasons to fetch, unless fetching is forbidden. An I/O
            // error of this machine is not: it is returned.
            Err(e) if self.options.policy != PullPolicy::Never && is_to_be_fetched(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let lease = self.lease(&source, config.as_ref()).await?;
        // Content may have been removed before the lease was taken. Check again now that the lease is held.
        let mut is_away = false;
        for blob in blobs(&source) {
            if self.cache.stat(blob.digest()).await? != Some(blob.size()) {
                return Ok(None);
            }
            is_away |= self.cache.is_away(blob.digest()).await?;
        }
        if self.options.verify && !self.drop_damaged(&source).await? {
            return Ok(None);
        }
        Ok(Some(Found { source, config, lease, is_away }))
    }

    /// The documents that are here; no config for artifacts.
    async fn read_documents(&self, top: &Descriptor) -> Result<(RegistrySource, Option<RawConfig>)> {
        let source = source_of(&self.cache, &self.name, top, &self.options.platform).await?;
        match config_of(&source).await {
            Ok(config) => Ok((source, Some(config))),
            Err(e) if *e.kind() == ErrorKind::Unsupported => Ok((source, None)),
            Err(e) => Err(e),
        }
    }

    /// Protects everything that the image needs, here or not yet.
    pub(crate) async fn lease(&self, source: &RegistrySource, config: Option<&RawConfig>) -> Result<Lease> {
        let mut content: Vec<Digest> = blobs(source).iter().map(|blob| blob.digest().clone()).collect();
        if let Some(config) = config {
            let diff_ids = config.diff_ids()?;
            content.extend(chain_id(&diff_ids));
            content.extend(diff_ids);
        }
        self.cache.lease(&content).await
    }

    /// Verifies the image's content in the cache; returns whether all of it is there and undamaged. Damaged content is
    /// quarantined, unless fetching is forbidden.
    pub(super) async fn drop_damaged(&self, source: &RegistrySource) -> Result<bool> {
        let jobs = blobs(source).into_iter().map(|blob| async move { self.is_sound(&blob).await });
        let sound: Vec<bool> =
            stream::iter(jobs).buffer_unordered(self.options.concurrency.max(1)).try_collect().await?;
        Ok(sound.into_iter().all(|sound| sound))
    }

    async fn is_sound(&self, blob: &Descriptor) -> Result<bool> {
        match content::verify(&self.cache, blob).await {
            Ok(()) => Ok(true),
            Err(e) if *e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) if *e.kind() == ErrorKind::Corrupt && self.options.policy != PullPolicy::Never => {
                if self.quarantine_damaged(blob).await? {
                    return Ok(false);
                }
                // Another task has replaced it, or the content is right and this image has a wrong size for it.
                Ok(self.cache.stat(blob.digest()).await? == Some(blob.size()))
            }
            Err(e) => Err(e.with_context("blob", blob.digest())),
        }
    }

    /// Quarantines a blob if it is damaged, with a warning; returns whether it was damaged.
    pub(super) async fn quarantine_damaged(&self, blob: &Descriptor) -> Result<bool> {
        let was_damaged = content::quarantine_damaged(&self.cache, blob).await?;
        if was_damaged {
            let message = format!("{} is damaged in the store and is fetched again", blob.digest());
            self.options.progress.emit(Event::Warning { message });
        }
        Ok(was_damaged)
    }

    /// Waits while another task or process pulls the same image, at most [`LIMIT`]. What it has pulled is found without the right,
    /// so those who wait for it do not follow one after the other.
    pub(super) async fn turn(&self) -> Result<Turn> {
        /// When many pulls of one image fail slowly, they must not fail one after the other. After this time a pull
        /// goes on: documents are then fetched twice, blobs are not.
        const LIMIT: Duration = Duration::from_secs(300);
        /// The time between two looks.
        const LOOK: Duration = Duration::from_secs(1);
        let work = format!("pull {} {}", self.name.whole(), self.options.platform);
        let turn = async {
            let mut right = self.cache.single_flight(&work);
            loop {
                match tokio::time::timeout(LOOK, &mut right).await {
                    Ok(right) => return right.map(Turn::Right),
                    // A look would ask the backend each time.
                    Err(_) if self.confirms() => {}
                    Err(_) => {
                        if let Some(found) = self.look().await? {
                            return Ok(Turn::Found(Box::new(found)));
                        }
                    }
                }
            }
        };
        let turn = tokio::time::timeout(LIMIT, self.telling(self.name.whole(), turn)).await;
        turn.unwrap_or_else(|_| Ok(Turn::Right(Lease::none())))
    }

    /// Waits for another task or process, and sends [`Event::Waiting`] when it takes long.
    pub(crate) async fn telling<T>(&self, what: String, wait: impl Future<Output = T>) -> T {
        /// Waits shorter than this are not reported.
        const PATIENCE: Duration = Duration::from_millis(200);
        let mut wait = pin!(wait);
        if let Ok(outcome) = tokio::time::timeout(PATIENCE, &mut wait).await {
            return outcome;
        }
        self.options.progress.emit(Event::Waiting { what });
        wait.await
    }

    /// What the name stands for here, if it stands for the same at the backend: one request without content.
    pub(super) async fn unmoved(&self) -> Result<Option<Descriptor>> {
        let Some(here) = self.cache.find_descriptor(&self.name).await? else { return Ok(None) };
        let there = self.retrying("manifest", || self.registry.resolve(self.reference)).await?;
        Ok((there.digest() == here.digest()).then_some(here))
    }

    /// The error for what is missing under [`PullPolicy::Never`].
    pub(super) async fn missing(&self) -> Result<Error> {
        let image = &self.name;
        let hint = "pull it with another policy, or load it from an archive";
        let what = match completeness(&self.cache, image, &self.options.platform).await? {
            Completeness::Incomplete(list) => {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                format!(
                    "the image is incomplete in the cache and fetching is forbidden; missing: {}",
                    list.join(", ")
                )
            }
            _ => "the image is not in the cache and fetching is forbidden".to_owned(),
        };
        Ok(Error::not_found(what).with_hint(hint).with_endpoint(&self.cache))
    }

    /// Refuses a pull whose blobs have no room, before any of them is fetched.
    pub(super) async fn check_room(&self, source: &RegistrySource) -> Result<()> {
        if self.cache.free().await?.is_none() {
            return Ok(());
        }
        let (mut counted, mut needed) = (HashSet::new(), 0_u64);
        for blob in blobs(source) {
            let (digest, size) = (blob.digest(), blob.size());
            if !counted.insert(digest.clone()) {
                continue;
            }
            if self.cache.stat(digest).await? != Some(size) || self.cache.is_away(digest).await? {
                needed = needed.saturating_add(size.saturating_sub(self.cache.partial(digest).await?));
            }
        }
        content::check_room(&self.cache, needed, "the image needs").await
    }
}

/// Whether what is here is damaged, or is not what the platform needs: a fetch can repair that.
fn is_to_be_fetched(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::PlatformNotFound { .. })
}

/// The config of an image, read if need be.
pub(super) async fn config_of(source: &RegistrySource) -> Result<RawConfig> {
    match source.known_config() {
        Some(config) => Ok(config.clone()),
        None => source.config().await,
    }
}

/// Everything that an image has: indexes, manifest, config, layers.
pub(super) fn blobs(source: &RegistrySource) -> Vec<Descriptor> {
    let documents = source.indexes().iter().chain(std::iter::once(source.raw()));
    documents.map(|raw| raw.descriptor().clone()).chain(source.raw().references()).collect()
}
