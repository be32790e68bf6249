//! One pull: where it reads, where it stores, and how.

use std::path::PathBuf;

use crate::cache::CacheProvider;
use crate::progress::Progress;
use crate::registry::ImageRegistry;
use crate::worker::Workers;
use crate::{Error, ErrorKind, Reference, Result, stall};

use super::cached_documents::CachedDocuments;
use super::options::PullOptions;

pub(crate) struct Engine<'a> {
    pub(crate) registry: Box<dyn ImageRegistry>,
    pub(crate) reference: &'a Reference,
    pub(crate) name: Reference,
    pub(crate) cache: Box<dyn CacheProvider>,
    pub(crate) options: &'a PullOptions,
    /// The threads that convert layers.
    pub(crate) workers: Workers,
}

impl Engine<'_> {
    /// The folder for temporary files, if one is known.
    pub(crate) fn scratch(&self) -> Option<PathBuf> {
        self.options.scratch.clone().or_else(|| self.cache.scratch())
    }

    /// Ends the pull. After an error it waits for the conversion threads, so that no partial output is left.
    pub(crate) async fn end<T>(self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(value) => {
                self.workers.done();
                Ok(value)
            }
            Err(e) => {
                self.workers.ended().await;
                Err(e.with_image(self.reference))
            }
        }
    }

    /// Where manifest and config are read.
    pub(super) fn documents(&self) -> Box<dyn ImageRegistry> {
        if self.options.force {
            return self.registry.clone();
        }
        Box::new(CachedDocuments { registry: self.registry.clone(), cache: self.cache.clone() })
    }

    /// As [`Retry::run`]; an attempt without an answer has failed, too.
    pub(super) async fn retrying<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.retrying_with(&self.options.progress, what, attempt).await
    }

    /// As [`retrying`](Self::retrying), with events to `progress`.
    pub(super) async fn retrying_with<T, F>(
        &self,
        progress: &Progress,
        what: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let limit = self.options.stall;
        let answered = || async {
            let stalled = || Err(Error::new(ErrorKind::Timeout, format!("no answer for {limit:?}")));
            stall::timeout(limit, attempt()).await.unwrap_or_else(stalled)
        };
        self.options.retry.run(what, progress, answered).await
    }
}

/// The name under which a pulled image is kept: a digest wins, because the tag may mean something else by now.
pub(super) fn cache_name(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.clone_with_digest(digest.to_owned()),
        None => reference.clone(),
    }
}
