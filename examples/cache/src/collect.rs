//! What the bucket holds and what of it is needed: core follows the documents, the cache lists and removes.

use std::time::SystemTime;

use plyfold_core::cache::{Head, Held, HeldArtifact, Holdings, Inventory};
use plyfold_core::{ArtifactHandle as _, ArtifactKey, CacheProvider, Collect, Collected, Digest, Result};

use crate::bucket::Shared;

pub(crate) async fn collect(
    cache: &impl CacheProvider,
    shared: &Shared,
    policy: &Collect,
) -> Result<Collected> {
    // No lease is taken and no name is set meanwhile.
    let _gate = shared.gate.write().await;
    let (inventory, artifacts) = inventory(cache, shared, policy).await?;
    let mut plan = inventory.plan(policy.budget)?;
    let mut bucket = shared.bucket();
    // What was stored again since is not what was looked at.
    let is_same = |digest: &Digest, used: SystemTime| {
        bucket.blobs.get(digest).is_some_and(|object| object.used == used)
    };
    let (gone, changed): (Vec<_>, Vec<_>) =
        plan.blobs.drain(..).partition(|(digest, held)| is_same(digest, held.used));
    let changed: u64 = changed.iter().map(|(_, held)| held.size).sum();
    if !policy.dry_run {
        for name in &plan.evicted {
            bucket.names.remove(name);
        }
        for (digest, _) in &gone {
            bucket.blobs.remove(digest);
        }
        for place in &plan.artifacts {
            bucket.artifacts.remove(&artifacts[*place]);
        }
    }
    Ok(Collected {
        evicted: plan.evicted,
        blobs: gone.into_iter().map(|(digest, _)| digest).collect(),
        artifacts: plan.artifacts.len() as u64,
        freed: plan.freed - changed,
        kept: plan.kept + changed,
        missed: plan.missed,
        ..Collected::default()
    })
}

/// What is here, and the artifacts in their order there.
pub(crate) async fn inventory(
    cache: &impl CacheProvider,
    shared: &Shared,
    policy: &Collect,
) -> Result<(Inventory, Vec<ArtifactKey>)> {
    let (holdings, artifacts) = holdings(shared);
    let heads = |unread: Vec<Digest>| async move {
        let bucket = shared.bucket();
        let read = |digest: Digest| Head::of(&digest, bucket.blobs.get(&digest)?.content.clone());
        Ok(unread.into_iter().filter_map(read).collect())
    };
    Ok((Inventory::of(cache, holdings, policy, heads).await?, artifacts))
}

fn holdings(shared: &Shared) -> (Holdings, Vec<ArtifactKey>) {
    let bucket = shared.bucket();
    let mut holdings = Holdings {
        names: bucket.names.list(),
        pins: bucket.names.pins().into_iter().collect(),
        leased: bucket.leases.values().flatten().cloned().collect(),
        ..Holdings::default()
    };
    for (digest, object) in &bucket.blobs {
        let held = Held { size: object.content.len() as u64, used: object.used };
        holdings.blobs.insert(digest.clone(), held);
    }
    let mut keys = Vec::with_capacity(bucket.artifacts.len());
    for (key, object) in &bucket.artifacts {
        let held = Held { size: object.artifact.size(), used: object.used };
        holdings.artifacts.push(HeldArtifact { content: key.content.clone(), held });
        keys.push(key.clone());
    }
    (holdings, keys)
}
