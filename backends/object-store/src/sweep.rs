//! What a collection removes besides unused content: names that are evicted, and what writers that are gone have left.

use futures_util::TryStreamExt as _;
use object_store::ObjectMeta;
use plyfold_core::{ErrorKind, Reference, Result};

use crate::bucket::{gone, is_token};
use crate::fold;
use crate::holdings::{Census, HeldRecord};
use crate::name;
use crate::record::{self, Slot};
use crate::shared::Shared;
use crate::transaction::{self, Outcome};

/// Removes names, unless they have changed since they were read; those that were removed.
pub(crate) async fn evict(shared: &Shared, census: &Census, names: &[Reference]) -> Result<Vec<Reference>> {
    let mut evicted = Vec::new();
    for of in names {
        let found = census.roots.names.iter().find(|(name, ..)| name == of);
        let Some((_, _, version)) = found else { continue };
        let path = name::path(&shared.bucket, &of.whole())?;
        if shared.replace(&path, version, gone()).await? {
            evicted.push(of.clone());
        }
    }
    Ok(evicted)
}

/// Removes what writers that are gone have left; how many things that were.
pub(crate) async fn remains(shared: &Shared, census: &Census) -> Result<u64> {
    let mut removed = 0;
    for HeldRecord { path, found } in &census.left {
        // A writer that goes on after all learns it by its next put.
        if shared.replace(path, &found.version, gone()).await? {
            removed += 1;
        }
        if let Some(id) = &found.record.data {
            shared.bucket.delete(&record::data(&shared.bucket, path, id)?).await?;
        }
    }
    for (data, _) in &census.orphans {
        // A record that was read before may have changed to this content, but never back to it.
        let Some((path, id)) = record::of_data(&shared.bucket, data) else { continue };
        let slot = Slot::read(&shared.bucket, &path).await?;
        let may_be_named = match &slot {
            Slot::Damaged(_) => true,
            Slot::Empty(_) => false,
            Slot::Held(found) => found.record.data.as_deref() == Some(id),
        };
        if !may_be_named {
            shared.bucket.delete(data).await?;
            removed += 1;
        }
    }
    Ok(removed + probes(shared, census).await? + transactions(shared, census).await?)
}

/// Removes what is left of questions to the service: a put of one may have arrived after it was removed.
async fn probes(shared: &Shared, census: &Census) -> Result<u64> {
    let (bucket, mut removed) = (&shared.bucket, 0);
    let mut objects = bucket.list("probes", None)?;
    while let Some(ObjectMeta { location, last_modified, .. }) = objects.try_next().await? {
        let age = census.now.duration_since(last_modified.into()).unwrap_or_default();
        if age > shared.expiry * 2 && bucket.below("probes", &location).is_some_and(is_token) {
            bucket.delete(&location).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Ends transactions whose writer is gone, and removes those that have ended.
async fn transactions(shared: &Shared, census: &Census) -> Result<u64> {
    let (bucket, mut removed) = (&shared.bucket, 0);
    let mut objects = bucket.list("transactions", None)?;
    while let Some(ObjectMeta { location, last_modified, .. }) = objects.try_next().await? {
        let age = census.now.duration_since(last_modified.into()).unwrap_or_default();
        let id = bucket.below("transactions", &location).filter(|id| is_token(id));
        let Some(id) = id.filter(|_| age > shared.expiry * 2) else { continue };
        let (object, version) = match transaction::read(bucket, &location).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // It decides for no name that can be read.
            Err(e) if *e.kind() == ErrorKind::Corrupt => continue,
            Err(e) => return Err(e),
        };
        if object.state == Outcome::Pending {
            transaction::abort(bucket, &location, (&object, &version)).await?;
        }
        fold::fold(bucket, id, &object.names).await?;
        removed += 1;
    }
    Ok(removed)
}
