//! Collection: names first and durably, then content.
//!
//! Interrupted at any moment it leaves every remaining name complete: content without a name is unreferenced,
//! and the next collection removes it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plyfold_core::blocking::blocking;
use plyfold_core::cache::{Inventory, Plan, Remains};
use plyfold_core::{Collect, Collected, Digest, Reference, Result, Usage};

use super::handle::Store;
use super::holdings;
use super::index::change_locked;
use super::lease::Alone;
use super::quarantine::{self, Removal};
use super::queue::COLLECTOR;
use super::remains::{self, is_older};
use super::{checksum, items, paths, sidecar};
use crate::files::{self, for_each};
use crate::root::Root;

/// How long damaged blobs are kept in `quarantine/`.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) async fn run(store: &Store, policy: &Collect) -> Result<Collected> {
    // A look at a store that cannot be written locks nothing: nothing is removed.
    let looks_only = policy.dry_run && store.root.is_read_only();
    let alone = if looks_only { None } else { Some(Alone::with(store).await?) };
    let (inventory, artifacts, leased) = inventory(store, policy, true).await?;
    let policy = policy.clone();
    let swept = store.work(move |root| {
        let plan = inventory.plan(policy.budget)?;
        let (done, gone) = (Collected::default(), HashSet::new());
        let mut sweep = Sweep { root, policy: &policy, done, artifacts: gone };
        sweep.names(&plan)?;
        sweep.content(plan, &artifacts)?;
        sweep.ingest(&leased)?;
        sweep.parts()?;
        sweep.quarantine()?;
        // The task goes on when the caller is dropped.
        drop(alone);
        Ok(sweep.done)
    });
    swept.await
}

pub(super) async fn usage(store: &Store) -> Result<Usage> {
    let (inventory, ..) = inventory(store, &Collect::default(), false).await?;
    blocking(move |_| Ok(inventory.usage())).await
}

/// What is here, where the artifacts are, and what is leased.
async fn inventory(
    store: &Store,
    policy: &Collect,
    evicts: bool,
) -> Result<(Inventory, Vec<PathBuf>, HashSet<Digest>)> {
    let (mut holdings, artifacts) = store.work(|root| holdings::holdings(root)).await?;
    if evicts {
        // Where `index.json` is an image itself, its name is no entry that could go.
        let index = store.work(|root| root.index()).await?;
        let entries: HashSet<&Digest> = index.0.entries().map(plyfold_core::Descriptor::digest).collect();
        holdings.names.retain(|(_, top)| entries.contains(top.digest()));
    }
    let leased = holdings.leased.clone();
    let heads = |unread| store.work(move |root| holdings::heads(root, unread));
    Ok((Inventory::of(store, holdings, policy, heads).await?, artifacts, leased))
}

/// A running collection. A dry run does all but remove.
struct Sweep<'a> {
    root: &'a Root,
    policy: &'a Collect,
    done: Collected,
    /// Artifacts that go with their layers.
    artifacts: HashSet<PathBuf>,
}

impl Sweep<'_> {
    fn names(&mut self, plan: &Plan) -> Result<()> {
        (self.done.evicted, self.done.missed) = (plan.evicted.clone(), plan.missed);
        if self.policy.dry_run || (plan.evicted.is_empty() && plan.nameless.is_empty()) {
            return Ok(());
        }
        let evicted: HashSet<&Reference> = plan.evicted.iter().collect();
        change_locked(self.root, |index| {
            index.retain(|name, top| match name {
                Some(name) => !evicted.contains(name),
                None => !plan.nameless.contains(top),
            });
            Ok(())
        })
    }

    fn content(&mut self, plan: Plan, artifacts: &[PathBuf]) -> Result<()> {
        self.done.kept = plan.kept;
        for artifact in plan.artifacts.iter().map(|place| &artifacts[*place]) {
            // The checksum first: from then on there is no artifact for us.
            if !self.policy.dry_run {
                files::remove(&checksum::path_of(artifact))?;
            }
            if let Some(found) = files::look(artifact)? {
                self.remove(artifact, found.len())?;
                if !self.policy.dry_run {
                    files::remove(&sidecar::path_of(artifact))?;
                }
                self.done.artifacts += 1;
                self.artifacts.insert(artifact.clone());
            }
        }
        for (digest, held) in plan.blobs {
            let path = self.root.blob_path(&digest);
            match files::look(&path)? {
                // Stored or used again since, by a tool that takes no lease.
                Some(found) if holdings::held(&found) != held => {
                    self.done.kept = self.done.kept.saturating_add(found.len());
                }
                Some(_) => {
                    self.remove(&path, held.size)?;
                    self.done.blobs.push(digest);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Leftovers of killed owners in `ingest/`; partial downloads are kept for a while so that a pull can resume.
    fn ingest(&mut self, leased: &HashSet<Digest>) -> Result<()> {
        let patience = self.policy.resumable.max(self.policy.grace);
        let mut remains = Remains::default();
        for_each(&self.root.path().join("ingest"), |entry, metadata| {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| *name != COLLECTOR && metadata.is_file()) else {
                return Ok(());
            };
            let Some(partial) = remains::partial(self.root, name, metadata)? else {
                return remains::temporary(self.root, name, metadata, self.remains(), &mut remains);
            };
            let waits = leased.contains(&partial.digest) || !is_older(Ok(partial.used), patience);
            let mut removed = Remains::default();
            if !waits {
                remains::temporary(self.root, name, metadata, self.remains(), &mut removed)?;
            }
            if removed.count == 0 {
                self.done.resumable = self.done.resumable.saturating_add(partial.size);
            } else {
                self.done.freed = self.done.freed.saturating_add(partial.size);
                self.done.partials.push(partial.digest);
            }
            Ok(())
        })?;
        self.done.partials.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        self.add(remains);
        Ok(())
    }

    /// Incomplete artifacts of killed processes, also of layers that are needed.
    fn parts(&mut self) -> Result<()> {
        let mut remains = Remains::default();
        remains::companions(self.root, self.remains(), &mut remains)?;
        for item in items::artifacts(self.root, |_| true)? {
            let is_left = item.kind.is_file() && !self.artifacts.contains(&item.path);
            let is_part = is_left && remains::has_no_checksum(&item.path)?;
            if is_part && is_older(Ok(item.used), self.policy.grace) {
                let gone = self.policy.dry_run || quarantine::remove(self.root, &item)? == Removal::Done;
                if gone {
                    self.done.kept = self.done.kept.saturating_sub(item.size);
                    remains::note(&mut remains, item.size, gone);
                }
            }
        }
        self.add(remains);
        Ok(())
    }

    fn remains(&self) -> remains::Policy {
        remains::Policy { remove: !self.policy.dry_run, grace: self.policy.grace }
    }

    fn add(&mut self, remains: Remains) {
        self.done.remains += remains.count;
        self.done.freed = self.done.freed.saturating_add(remains.bytes);
    }

    /// Damaged blobs whose time is over. Other quarantined files are left to the user.
    fn quarantine(&mut self) -> Result<()> {
        for_each(&self.root.path().join("quarantine"), |entry, metadata| {
            let name = entry.file_name();
            let blob = name.to_str().and_then(|name| name.rsplit_once('.')).map(|(blob, _)| blob);
            // When it was moved here.
            let moved = u64::try_from(metadata.ctime()).unwrap_or(0);
            let moved = SystemTime::UNIX_EPOCH + Duration::from_secs(moved);
            let is_blob = blob.and_then(paths::digest_in).is_some() && metadata.is_file();
            if !is_blob || !is_older(Ok(moved), QUARANTINE) {
                return Ok(());
            }
            self.done.remains += 1;
            self.remove(&entry.path(), metadata.len())
        })
    }

    fn remove(&mut self, path: &Path, size: u64) -> Result<()> {
        self.done.freed = self.done.freed.saturating_add(size);
        if self.policy.dry_run { Ok(()) } else { files::remove(path) }
    }
}
