//! Verification: everything that is here is read again.

use std::collections::{HashMap, HashSet};

use plyfold_core::block_sums::BlockSums;
use plyfold_core::blocking::{Stop, blocking};
use plyfold_core::cache::{Damage, DamagedPart, Needs, needed, selected, verify_names};
use plyfold_core::{
    ArtifactReader, BlobRange, CacheProvider, Descriptor, Digest, Error, ErrorKind, Reference, Result,
    Verified, Verify,
};

use crate::bucket::gone;
use crate::collect::remove_artifact;
use crate::content;
use crate::holdings::{Census, HeldRecord, service_time};
use crate::shared::Shared;
use crate::stored_artifact::StoredArtifact;

/// Reads blobs and artifacts again.
pub(crate) async fn verify(cache: &dyn CacheProvider, shared: &Shared, what: &Verify) -> Result<Verified> {
    let mut verified = verify_names(cache, what).await?;
    let now = match shared.refusal {
        Some(_) => std::time::SystemTime::now(),
        None => service_time(&shared.bucket).await?,
    };
    let census = Census::take(shared, now).await?;
    if what.images.is_none() {
        nameless(cache, shared, what, &census, &mut verified).await?;
    }
    artifacts(cache, shared, what, &census, &mut verified).await?;
    verified.remains.count += u64::try_from(census.left.len() + census.orphans.len()).unwrap_or(u64::MAX);
    verified.remains.bytes += census.orphans.iter().map(|(_, size)| size).sum::<u64>();
    if what.repair && shared.refusal.is_none() {
        verified.remains.removed += crate::sweep::remains(shared, &census).await?;
    }
    Ok(verified)
}

/// Reads the blobs that no name leads to.
async fn nameless(
    cache: &dyn CacheProvider,
    shared: &Shared,
    what: &Verify,
    census: &Census,
    verified: &mut Verified,
) -> Result<()> {
    let named: HashSet<Digest> = needed(cache, None).await?.into_keys().collect();
    let mut blobs: Vec<_> = census.blobs.iter().filter(|(digest, _)| !named.contains(*digest)).collect();
    blobs.sort_by_cached_key(|(digest, _)| digest.to_string());
    for (digest, HeldRecord { path, found }) in blobs {
        let blob = Descriptor::new("application/octet-stream".into(), found.record.size, digest.clone());
        let read = async {
            let mut content = content::open(shared, &blob, BlobRange::FULL).await?;
            while content.chunk().await?.is_some() {}
            Ok::<_, Error>(())
        };
        verified.checked += 1;
        match read.await {
            Ok(()) => verified.bytes += blob.size(),
            Err(e) if *e.kind() == ErrorKind::NotFound => verified.checked -= 1,
            Err(e) if *e.kind() == ErrorKind::Corrupt => {
                let repaired = what.repair && shared.replace(path, &found.version, gone()).await?;
                let part = DamagedPart::Blob(digest.clone());
                let reason = e.message().to_owned();
                verified.damage.push(Damage { part, reason, images: Vec::new(), repaired });
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads the artifacts, of these images or all.
async fn artifacts(
    cache: &dyn CacheProvider,
    shared: &Shared,
    what: &Verify,
    census: &Census,
    verified: &mut Verified,
) -> Result<()> {
    let mut needed: HashMap<Digest, Vec<Reference>> = HashMap::new();
    for (name, top) in selected(cache, what.images.as_deref()).await? {
        for content in Needs::of(cache, &top).await.map_err(|e| e.with_image(&name))?.contents {
            needed.entry(content).or_default().push(name.clone());
        }
    }
    let mut held: Vec<_> = census.artifacts.iter().collect();
    held.sort_by_cached_key(|(_, held)| held.path.to_string());
    for (content, HeldRecord { path, found }) in held {
        let images = needed.get(content).cloned().unwrap_or_default();
        if what.images.is_some() && images.is_empty() {
            continue;
        }
        let (size, reason) = match StoredArtifact::new(&shared.bucket, path, found) {
            Some(stored) => check(stored).await?,
            None => (0, Some("its checksums are damaged".to_owned())),
        };
        verified.checked += 1;
        verified.bytes += size;
        if let Some(reason) = reason {
            let format = found.record.artifact.as_ref().map(|artifact| artifact.format.clone());
            let part = DamagedPart::Artifact(format.unwrap_or_default(), content.clone());
            if what.repair {
                remove_artifact(shared, path, &found.version).await?;
            }
            verified.damage.push(Damage { part, reason, images, repaired: what.repair });
        }
    }
    Ok(())
}

/// The bytes that were read, and what is wrong with them.
async fn check(stored: StoredArtifact) -> Result<(u64, Option<String>)> {
    let (size, found) = (stored.sums().size(), stored.stored_size().await?);
    if found != Some(size) {
        let found = found.map_or_else(|| "it is missing".to_owned(), |found| format!("it has {found}"));
        return Ok((0, Some(format!("size mismatch: recorded with {size} bytes, {found}"))));
    }
    let read = blocking(move |stop: &Stop| {
        let reader = stop.reader(ArtifactReader::open(&stored)?);
        let read = BlockSums::read_all(reader).map_err(|e| Error::io("reading an artifact", e))?;
        Ok(stored.sums().differences(&read))
    });
    match read.await {
        Err(e) if *e.kind() == ErrorKind::Corrupt => Ok((size, Some(e.message().to_owned()))),
        read => Ok((size, read?)),
    }
}
