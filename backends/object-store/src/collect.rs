//! Collection: unused content is condemned, what leads to content is read again, and only then is it removed.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::UpdateVersion;
use object_store::path::Path;
use plyfold_core::cache::Plan;
use plyfold_core::{CacheProvider, Collect, Collected, Digest, Error, Result, Usage};

use crate::background;
use crate::bucket::gone;
use crate::holdings::{Census, HeldRecord, PARALLEL, Roots, service_time};
use crate::record::{self, Record, Slot, State};
use crate::shared::Shared;
use crate::sweep;

/// What takes how much room.
pub(crate) async fn usage(cache: &dyn CacheProvider, shared: &Shared) -> Result<Usage> {
    let census = Census::take(shared, now(shared).await?).await?;
    Ok(census.inventory(cache, &Collect::default()).await?.usage())
}

/// The time of the service; where nothing can be written, that of this machine.
async fn now(shared: &Shared) -> Result<std::time::SystemTime> {
    match shared.refusal {
        Some(_) => Ok(std::time::SystemTime::now()),
        None => service_time(&shared.bucket).await,
    }
}

/// Removes what neither a name nor a lease needs.
pub(crate) async fn collect(
    cache: &dyn CacheProvider,
    shared: &Shared,
    policy: &Collect,
) -> Result<Collected> {
    if !policy.dry_run {
        shared.check_writable()?;
    }
    background::settled().await;
    let census = Census::take(shared, now(shared).await?).await?;
    let plan = census.inventory(cache, policy).await?.plan(policy.budget)?;
    let mut collected = Collected {
        evicted: plan.evicted.clone(),
        kept: plan.kept,
        missed: plan.missed,
        ..Collected::default()
    };
    let left = u64::try_from(census.left.len() + census.orphans.len()).unwrap_or(u64::MAX);
    let left_bytes = census.orphans.iter().map(|(_, size)| *size).sum::<u64>();
    if policy.dry_run {
        collected.blobs = plan.blobs.iter().map(|(digest, _)| digest.clone()).collect();
        collected.artifacts = plan.artifacts.len() as u64;
        (collected.remains, collected.freed) = (left, plan.freed + left_bytes);
        return Ok(collected);
    }
    // Names first: none ever stands for what is gone.
    collected.evicted = sweep::evict(shared, &census, &plan.evicted).await?;
    let condemned = condemn(shared, &census, &plan).await?;
    let roots = Roots::read(shared, census.now).await?;
    let is_same = roots.leads_as(&census.roots) && collected.evicted.is_empty() && plan.evicted.is_empty();
    let unused = if is_same { condemned } else { still_unused(cache, shared, policy, condemned).await? };
    let mut freed = 0;
    for Condemned { of, path, record, version } in unused {
        if !shared.replace(&path, &version, gone()).await? {
            // It is in use again.
            continue;
        }
        if let Some(id) = &record.data {
            shared.bucket.delete(&record::data(&shared.bucket, &path, id)?).await?;
        }
        freed += record.size;
        match of {
            Some(digest) => collected.blobs.push(digest),
            None => collected.artifacts += 1,
        }
    }
    collected.kept = (plan.kept + plan.freed).saturating_sub(freed);
    collected.blobs.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    collected.remains = sweep::remains(shared, &census).await?;
    collected.freed = freed + left_bytes;
    let Census { uses, roots: Roots { leases, .. }, blobs, artifacts, .. } = census;
    let is_here = |digest: &Digest| {
        blobs.contains_key(digest) || artifacts.iter().any(|(content, _)| content == digest)
    };
    uses.absorb(&shared.bucket, &leases, is_here).await?;
    Ok(collected)
}

/// Content that is condemned, at the version that says so.
#[derive(Clone, Debug)]
struct Condemned {
    /// Of a blob.
    of: Option<Digest>,
    path: Path,
    record: Record,
    version: UpdateVersion,
}

/// Condemns what a plan removes: from now on its next user changes its record.
async fn condemn(shared: &Shared, census: &Census, plan: &Plan) -> Result<Vec<Condemned>> {
    let blobs =
        plan.blobs.iter().filter_map(|(digest, _)| Some((Some(digest.clone()), census.blobs.get(digest)?)));
    let artifacts = plan.artifacts.iter().filter_map(|place| Some((None, &census.artifacts.get(*place)?.1)));
    let all: Vec<_> = blobs.chain(artifacts).map(|(of, held)| (of, held.clone())).collect();
    let each = stream::iter(all).map(|(of, HeldRecord { path, found })| async move {
        // Another collection has condemned it: it was seen like that before what leads to it is read again.
        if found.record.state == State::Condemned {
            return Ok::<_, Error>(Some(Condemned {
                of,
                path,
                record: found.record,
                version: found.version,
            }));
        }
        let record = found.record.in_state(State::Condemned);
        let body = record.to_bytes()?;
        let expected = crate::bucket::Expected::Version(found.version);
        Ok(match shared.bucket.swap(&path, &expected, body).await? {
            crate::bucket::Swapped::Done(version) => Some(Condemned { of, path, record, version }),
            crate::bucket::Swapped::Lost => None,
        })
    });
    let condemned: Vec<Option<Condemned>> = each.buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await?;
    Ok(condemned.into_iter().flatten().collect())
}

/// Those that nothing leads to by now either; the others are used again.
async fn still_unused(
    cache: &dyn CacheProvider,
    shared: &Shared,
    policy: &Collect,
    condemned: Vec<Condemned>,
) -> Result<Vec<Condemned>> {
    let census = Census::take(shared, service_time(&shared.bucket).await?).await?;
    // Condemning is a change of the record, and no use; the budget was met by the names that went.
    let policy = Collect { budget: None, grace: std::time::Duration::ZERO, ..policy.clone() };
    let plan = census.inventory(cache, &policy).await?.plan(None)?;
    let blobs = plan.blobs.iter().filter_map(|(digest, _)| census.blobs.get(digest));
    let artifacts =
        plan.artifacts.iter().filter_map(|place| census.artifacts.get(*place)).map(|(_, held)| held);
    let unused: HashMap<&Path, &HeldRecord> = blobs.chain(artifacts).map(|held| (&held.path, held)).collect();
    let (unused, used): (Vec<_>, Vec<_>) =
        condemned.into_iter().partition(|it| unused.contains_key(&it.path));
    for Condemned { path, record, version, .. } in used {
        shared.replace(&path, &version, record.in_state(State::Live).to_bytes()?).await?;
    }
    Ok(unused)
}

/// Removes the record of an artifact that is damaged, unless it has changed since.
pub(crate) async fn remove_artifact(shared: &Shared, path: &Path, version: &UpdateVersion) -> Result<()> {
    let slot = Slot::read(&shared.bucket, path).await?;
    if let Some(found) = slot.with_content().filter(|found| found.version == *version)
        && shared.replace(path, version, gone()).await?
        && let Some(id) = &found.record.data
    {
        shared.bucket.delete(&record::data(&shared.bucket, path, id)?).await?;
    }
    Ok(())
}
