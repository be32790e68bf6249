//! Limits per host: requests at the same time, and requests per second.

use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plyfold_core::{Error, ErrorKind, Result, Shared, stall};
use reqwest::Url;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::Config;
use crate::policy::origin;

/// The limits that a configuration sets, for each host by itself.
#[derive(Debug)]
pub(crate) struct Limits {
    connections: Option<NonZero<usize>>,
    interval: Option<Duration>,
    hosts: Shared,
}

#[derive(Debug)]
pub(crate) struct Host {
    /// Reads and writes are counted apart: a copy within one host reads while it writes.
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    next: Mutex<Instant>,
}

/// The permit for one request, held until its answer is read. Stored in the response's extensions, with the host that
/// counts it.
type Permit = Arc<(Arc<Host>, OwnedSemaphorePermit)>;

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connections: config.max_connections,
            interval: config.requests_per_second.map(|rate| Duration::from_secs(1) / rate.get()),
            hosts: Shared::default(),
        }
    }

    /// How many reads a host takes at the same time.
    pub(crate) fn connections(&self) -> usize {
        self.connections.map_or(usize::MAX, NonZero::get)
    }

    /// Waits until a host may have one request more.
    pub(crate) async fn admit(&self, host: &Url, is_write: bool) -> Result<Option<Permit>> {
        if self.connections.is_none() {
            return Ok(None);
        }
        let host = self.host(host)?;
        let slots = if is_write { &host.writes } else { &host.reads };
        // This is a local wait: no time-out counts it.
        let held = stall::held_back(Arc::clone(slots).acquire_owned()).await;
        let held = held.map_err(|e| Error::new(ErrorKind::Internal, "limiting requests").with_source(e))?;
        Ok(Some(Arc::new((host, held))))
    }

    /// Waits until the next request to the host is due: requests are spread evenly.
    pub(crate) async fn pace(&self, host: &Url) -> Result<()> {
        let Some(interval) = self.interval else { return Ok(()) };
        let host = self.host(host)?;
        let turn = {
            let mut next = host.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + interval;
            turn
        };
        stall::held_back(tokio::time::sleep_until(turn)).await;
        Ok(())
    }

    fn host(&self, url: &Url) -> Result<Arc<Host>> {
        let slots = || Arc::new(Semaphore::new(self.connections().min(Semaphore::MAX_PERMITS)));
        let fresh = || Ok(Host { reads: slots(), writes: slots(), next: Mutex::new(Instant::now()) });
        self.hosts.get_or_make(&origin(url), fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Url {
        Url::parse(&format!("https://{host}/")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_for_each_host_by_itself() {
        let config = Config { requests_per_second: NonZero::new(4), ..Config::default() };
        let limits = Limits::new(&config);
        let start = Instant::now();
        for _ in 0..9 {
            limits.pace(&url("a.example")).await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis(), 2000);
        limits.pace(&url("b.example")).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_has_so_many_requests_and_no_more() {
        let config = Config { max_connections: NonZero::new(2), ..Config::default() };
        let limits = Limits::new(&config);
        let soon = Duration::from_millis(1);
        let first = limits.admit(&url("a.example"), false).await.unwrap();
        let _second = limits.admit(&url("a.example"), false).await.unwrap();
        let host = url("a.example");
        tokio::time::timeout(soon, limits.admit(&host, false)).await.unwrap_err();
        let _write = limits.admit(&host, true).await.unwrap();
        let _elsewhere = limits.admit(&url("b.example"), false).await.unwrap();
        drop(first);
        tokio::time::timeout(soon, limits.admit(&host, false)).await.unwrap().unwrap();
    }
}
