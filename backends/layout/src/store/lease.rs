//! Leases and work rights: locked files in `ingest/` of running processes.
//!
//! A lease is written under the store lock, shared and for a moment; a collection holds that lock alone while it
//! looks and removes. So a collection sees every lease that was taken before it, and content that it removed is already
//! missing for a lease that is taken after it. The lock is never held during network I/O.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use plyfold_core::{Digest, Error, Lease, Result, digest};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockWriteGuard};

use super::handle::Store;
use super::queue::{COLLECTOR, LOCK, NAMES, is_read_only};
use crate::durable::{self, Temp};
use crate::files;
use crate::root::Root;

/// What the names of lease files begin with. No blob's does: there is no such algorithm. Those of artifacts do not either.
pub(super) const LEASE: &str = "lease-";
/// Many times what the digests of the largest image take.
const LIMIT: u64 = 16 << 20;
impl Store {
    pub(super) async fn take_lease(&self, content: &[Digest]) -> Result<Lease> {
        if content.is_empty() {
            return Ok(Lease::none());
        }
        content.iter().try_for_each(digest::supported)?;
        let content: Arc<[Digest]> = content.into();
        let _gate = self.queues.gate.read().await;
        let taken = self.poll(&self.in_progress(COLLECTOR), move |root| begin(root, &content)).await;
        granted(taken.map(Lease::new))
    }

    pub(super) async fn hold_work(&self, work: &str) -> Result<Lease> {
        let name = format!("work-{}", digest::sha256(work.as_bytes()).digest());
        let queue = self.queues.queue(&name).await;
        let taken = self.poll(&self.in_progress(&name), move |root| Temp::claim(root, &name)).await;
        // In this order: the next one in the queue finds the file gone.
        granted(taken.map(|temp| Lease::new((temp, queue))))
    }
}

/// In a store that cannot be written a lease protects nothing: a user who may write there may collect.
fn granted(taken: Result<Lease>) -> Result<Lease> {
    match taken {
        Err(e) if is_read_only(&e) => Ok(Lease::none()),
        taken => taken,
    }
}

/// Takes a lease; `None` while a collection runs.
fn begin(root: &Arc<Root>, content: &[Digest]) -> Result<Option<Temp>> {
    if is_collected(root)? {
        return Ok(None);
    }
    let Some(_lock) = durable::try_lock(root, LOCK, File::try_lock_shared)? else { return Ok(None) };
    let Some(mut lease) = Temp::claim(root, &name())? else { return Ok(None) };
    let lines: Vec<&str> = content.iter().map(AsRef::as_ref).collect();
    lease
        .file()
        .write_all((lines.join("\n") + "\n").as_bytes())
        .map_err(|e| Error::io("writing a lease", e))?;
    for digest in content {
        touch(&root.blob_path(digest));
    }
    Ok(Some(lease))
}

/// Whether a collection runs or waits. The file of a killed collector is removed.
fn is_collected(root: &Root) -> Result<bool> {
    let path = root.path().join("ingest").join(COLLECTOR);
    let is_there = path.try_exists();
    if !is_there.map_err(|e| Error::io(format!("looking at {}", path.display()), e))? {
        return Ok(false);
    }
    Ok(Temp::claim(root, COLLECTOR)?.is_none())
}

/// A name that no other lease has: not of this process, of no other one, and not of one before it.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{LEASE}{}-{}-{count}", std::process::id(), now.as_nanos())
}

/// Notes that a blob is used now. Best effort: it may be missing, or owned by another user.
fn touch(path: &Path) {
    if let Ok(Some(file)) = files::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// What a lease protects; `None` when its holder has ended.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Digest>>> {
    let at = |e: io::Error| Error::io(format!("reading the lease {}", path.display()), e);
    let Some(file) = files::open(path).map_err(at)? else { return Ok(None) };
    if files::is_locked(file.try_lock_shared()).map_err(at)? {
        return Ok(None);
    }
    let mut lines = String::new();
    file.take(LIMIT + 1).read_to_string(&mut lines).map_err(at)?;
    if lines.len() as u64 > LIMIT {
        return Err(Error::limit(format!("the lease {} has more than {LIMIT} bytes", path.display())));
    }
    // Without the store lock a lease may be read while it is written: its last line may be incomplete.
    let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
    let digests: Result<Vec<Digest>> = whole.lines().map(digest::parse).collect();
    digests
        .map(Some)
        .map_err(|e| Error::corrupt(format!("{} is not a lease: {}", path.display(), e.message())))
}

/// The right to collect. While it is held no lease is taken and no name changes.
#[derive(Debug)]
pub(super) struct Alone {
    /// Held, and released in this order.
    _locks: [File; 2],
    _names: OwnedMutexGuard<()>,
    _announced: Temp,
    _gate: OwnedRwLockWriteGuard<()>,
}

impl Alone {
    /// Waits for another collection, then for those who take a lease at this moment: new ones wait from then on.
    pub(super) async fn with(store: &Store) -> Result<Self> {
        let gate = store.queues.gate.clone().write_owned().await;
        let announced =
            store.poll(&store.in_progress(COLLECTOR), |root| Temp::claim(root, COLLECTOR)).await?;
        let lock = store.root.path().join("locks").join(LOCK);
        let leases = store.poll(&lock, |root| durable::try_lock(root, LOCK, File::try_lock)).await?;
        let changes = store.queues.queue(NAMES).await;
        let names = store.work(|root| durable::lock(root, NAMES)).await?;
        Ok(Self { _locks: [names, leases], _names: changes, _announced: announced, _gate: gate })
    }
}
