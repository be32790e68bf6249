//! What a cache in memory holds, and how it is collected.

use std::collections::HashSet;
use std::time::SystemTime;

use super::state::MemoryCache;
use super::state::{Kept, State};
use crate::cache::{Collect, Collected, Head, Held, HeldArtifact, Holdings, Inventory, PartialBlob};
use crate::{ArtifactKey, Digest, Error, Result};

impl MemoryCache {
    pub(super) async fn collect_now(&self, policy: &Collect) -> Result<Collected> {
        let _gate = self.0.gate.write().await;
        let (inventory, artifacts) = self.inventory(policy).await?;
        let mut plan = inventory.plan(policy.budget)?;
        let mut state = self.0.lock();
        // What was stored again since is not what was looked at.
        let (gone, changed): (Vec<_>, Vec<_>) =
            plan.blobs.drain(..).partition(|(digest, held)| state.used.get(digest) == Some(&held.used));
        let changed: u64 = changed.iter().map(|(_, held)| held.size).sum();
        let since = SystemTime::now().checked_sub(policy.resumable.max(policy.grace));
        let leased: HashSet<&Digest> = state.leases.values().flatten().collect();
        let is_old = |partial: &PartialBlob| since.is_some_and(|since| partial.used <= since);
        let (partial, resumable): (Vec<_>, Vec<_>) = partials(&state)
            .into_iter()
            .partition(|partial| !leased.contains(&partial.digest) && is_old(partial));
        if !policy.dry_run {
            for name in &plan.evicted {
                state.names.remove(name);
            }
            for (digest, _) in &gone {
                state.blobs.remove(digest);
                state.used.remove(digest);
            }
            for key in plan.artifacts.iter().map(|place| &artifacts[*place]) {
                if let Some(Kept { path, .. }) = state.made.remove(key) {
                    std::fs::remove_file(&path).map_err(|e| Error::io("removing an artifact", e))?;
                }
            }
            for PartialBlob { digest, .. } in &partial {
                state.partial.remove(digest);
            }
        }
        let size = |partials: &[PartialBlob]| partials.iter().map(|partial| partial.size).sum::<u64>();
        let freed = size(&partial);
        let mut partials: Vec<Digest> = partial.into_iter().map(|partial| partial.digest).collect();
        partials.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        Ok(Collected {
            evicted: plan.evicted,
            blobs: gone.into_iter().map(|(digest, _)| digest).collect(),
            artifacts: plan.artifacts.len() as u64,
            partials,
            remains: 0,
            freed: plan.freed - changed + freed,
            kept: plan.kept + changed,
            missed: plan.missed,
            resumable: size(&resumable),
        })
    }

    /// What is here, and the artifacts in their order there.
    pub(super) async fn inventory(&self, policy: &Collect) -> Result<(Inventory, Vec<ArtifactKey>)> {
        let (holdings, artifacts) = self.holdings()?;
        let heads = |unread: Vec<Digest>| async move {
            let state = self.0.lock();
            let read = |digest: Digest| Head::of(&digest, state.blobs.get(&digest)?.clone());
            Ok(unread.into_iter().filter_map(read).collect())
        };
        Ok((Inventory::of(self, holdings, policy, heads).await?, artifacts))
    }

    fn holdings(&self) -> Result<(Holdings, Vec<ArtifactKey>)> {
        let state = self.0.lock();
        let used = |digest| state.used.get(digest).copied().unwrap_or(SystemTime::UNIX_EPOCH);
        let held = |digest, size| Held { size, used: used(digest) };
        let mut made: Vec<ArtifactKey> = state.made.keys().cloned().collect();
        made.sort_by_cached_key(|key| (key.content.to_string(), key.format.clone()));
        let artifacts =
            made.iter().filter_map(|key| {
                let Kept { path, size, .. } = state.made.get(key)?;
                let used = std::fs::metadata(path).and_then(|metadata| metadata.modified());
                let used = used.map_err(|e| Error::io("looking at an artifact", e));
                Some(used.map(|used| HeldArtifact {
                    content: key.content.clone(),
                    held: Held { size: *size, used },
                }))
            });
        let artifacts = artifacts.collect::<Result<_>>()?;
        let holdings = Holdings {
            pins: state.names.pins().into_iter().collect(),
            names: state.names.list(),
            leased: state.leases.values().flatten().cloned().collect(),
            blobs: state
                .blobs
                .iter()
                .map(|(digest, content)| (digest.clone(), held(digest, content.len() as u64)))
                .collect(),
            artifacts,
            partials: partials(&state),
            ..Holdings::default()
        };
        Ok((holdings, made))
    }
}

fn partials(state: &State) -> Vec<PartialBlob> {
    let each = state.partial.iter();
    each.map(|(digest, (content, used))| PartialBlob {
        digest: digest.clone(),
        size: content.len() as u64,
        used: *used,
    })
    .collect()
}
