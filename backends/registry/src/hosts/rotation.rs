//! Which host is asked next for a blob: hosts that have failed for it recently come last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use plyfold_core::Result;
use reqwest::{Request, Url};
use tokio::time::Instant;

use crate::policy::origin;

/// How long a failure is remembered: longer than the pauses between the attempts of a pull.
const MEMORY: Duration = Duration::from_secs(120);
/// Failures that are kept; beyond this number all are dropped.
const FAILURES: usize = 4096;

/// Recent failures, by host and blob.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rotation(Arc<Mutex<HashMap<Attempt, Instant>>>);

/// One blob on one host, by its origin.
type Attempt = (Wanted, String);

/// A blob, as the registry that it belongs to names it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Wanted(String);

impl Wanted {
    /// The blob that a request reads.
    pub(crate) fn of(request: &Request) -> Self {
        let url = request.url();
        Self(format!("{}{}", origin(url), url.path()))
    }
}

impl Rotation {
    /// The order in which hosts are asked for a blob: those that have not failed for it as they are configured, and
    /// then the others, beginning with the one whose failure is the longest ago. So the next attempt is made at another
    /// host, and every host is tried again in the end.
    pub(crate) fn order(&self, blob: &Wanted, hosts: &[&Url]) -> Vec<usize> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, when| when.elapsed() < MEMORY);
        let failure = |at: &usize| failures.get(&(blob.clone(), origin(hosts[*at]))).copied();
        let mut order: Vec<usize> = (0..hosts.len()).collect();
        // A stable sort: equal keys keep their order, and `None` comes before `Some`.
        order.sort_by_key(failure);
        order
    }

    /// Watches a request for a blob until its answer has been read.
    pub(crate) fn watch(&self, blob: &Wanted, host: &Url) -> Watch {
        let attempt = (blob.clone(), origin(host));
        Watch(Arc::new(Watched { rotation: self.clone(), attempt, is_waiting: AtomicBool::new(true) }))
    }
}

/// A request for a blob. It counts as failed when it is dropped while it waits for the host: a host that does
/// not answer in time, or stops in the middle, hits a time-out of the engine, which drops the request. Stored in the
/// response's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    rotation: Rotation,
    attempt: Attempt,
    is_waiting: AtomicBool,
}

impl Watch {
    /// The content of a blob, watched until its end.
    pub(crate) fn over(
        watch: Option<Self>,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let state = (content.boxed(), watch);
        stream::unfold(state, |(mut content, watch)| async move {
            let set = |is_waiting| {
                if let Some(Self(watched)) = &watch {
                    watched.is_waiting.store(is_waiting, Ordering::Relaxed);
                }
            };
            set(true);
            let item = content.next().await;
            // A stream dropped after an error stays a failure; a stream that the reader drops is not a failure.
            set(matches!(item, Some(Err(_))));
            Some((item?, (content, watch)))
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.is_waiting.load(Ordering::Relaxed) {
            // Every change is one insertion, so a poisoned lock is consistent.
            let mut failures = self.rotation.0.lock().unwrap_or_else(PoisonError::into_inner);
            if failures.len() >= FAILURES {
                failures.clear();
            }
            failures.insert(self.attempt.clone(), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> [Url; 3] {
        ["https://a", "https://b", "https://origin"].map(|url| Url::parse(url).unwrap())
    }

    fn order(rotation: &Rotation, blob: &Wanted) -> Vec<usize> {
        rotation.order(blob, &hosts().each_ref())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_sends_a_host_to_the_end_and_round_again() {
        let (rotation, blob) = (Rotation::default(), Wanted("1".to_owned()));
        assert_eq!(order(&rotation, &blob), [0, 1, 2]);
        for (failed, expected) in
            [(0, [1, 2, 0]), (1, [2, 0, 1]), (2, [0, 1, 2]), (0, [1, 2, 0]), (2, [1, 0, 2])]
        {
            drop(rotation.watch(&blob, &hosts()[failed]));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(order(&rotation, &blob), expected, "{failed} failed");
        }
        assert_eq!(order(&rotation, &Wanted("2".to_owned())), [0, 1, 2], "another blob");
        tokio::time::advance(MEMORY).await;
        assert_eq!(order(&rotation, &blob), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_reader_leaves_is_no_failure_and_what_breaks_is_one() {
        let part = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let broken = || Err(plyfold_core::Error::new(plyfold_core::ErrorKind::Unavailable, "it broke"));
        for (what, items, read, fails) in [
            ("its end", vec![part("a"), part("b")], 3, false),
            ("left early", vec![part("a"), part("b")], 1, false),
            ("an error", vec![part("a"), broken()], 2, true),
            ("never read", vec![part("a")], 0, true),
        ] {
            let (rotation, blob) = (Rotation::default(), Wanted("1".to_owned()));
            let watch = rotation.watch(&blob, &hosts()[0]);
            let mut content = Box::pin(Watch::over(Some(watch), stream::iter(items)));
            for _ in 0..read {
                let _ = content.next().await;
            }
            drop(content);
            assert_eq!(order(&rotation, &blob)[0] != 0, fails, "{what}");
        }
        let (rotation, blob) = (Rotation::default(), Wanted("1".to_owned()));
        let endless = stream::iter([part("a")]).chain(stream::pending());
        let mut content = Box::pin(Watch::over(Some(rotation.watch(&blob, &hosts()[0])), endless));
        content.next().await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(1), content.next()).await.unwrap_err();
        drop(content);
        assert_eq!(order(&rotation, &blob), [1, 2, 0], "cancelled while it waits");
    }
}
