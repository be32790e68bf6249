//! What the bucket holds, as a collection looks at it: everything by pages, and each record once.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, UpdateVersion};
use plyfold_core::cache::{Head, Held, HeldArtifact, Holdings, Inventory};
use plyfold_core::{CacheProvider, Collect, Descriptor, Digest, Error, Reference, Result};

use crate::bucket::{Bucket, Expected, Swapped, is_gone, token};
use crate::lease::{Leases, Uses};
use crate::name::{self, Entry, Image};
use crate::record::{self, Found, Slot, State};
use crate::shared::Shared;

/// Objects that are read at the same time.
pub(crate) const PARALLEL: usize = 16;

/// A record with content.
#[derive(Clone, Debug)]
pub(crate) struct HeldRecord {
    pub(crate) path: Path,
    pub(crate) found: Found,
}

/// What leads to content.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) names: Vec<(Reference, Image, UpdateVersion)>,
    /// What names are about to stand for.
    pub(crate) pending: Vec<Descriptor>,
    pub(crate) leases: Leases,
}

/// What the bucket holds.
#[derive(Debug)]
pub(crate) struct Census {
    /// The time of the service when it was begun.
    pub(crate) now: SystemTime,
    /// The same moment by the clock of this machine, which core compares with.
    local: SystemTime,
    pub(crate) roots: Roots,
    pub(crate) blobs: HashMap<Digest, HeldRecord>,
    pub(crate) artifacts: Vec<(Digest, HeldRecord)>,
    /// Records whose writer is gone.
    pub(crate) left: Vec<HeldRecord>,
    /// Content that no record names, which none will name again, and its bytes.
    pub(crate) orphans: Vec<(Path, u64)>,
    pub(crate) uses: Uses,
}

impl Roots {
    /// Reads them: the leases first, because a name is set while a lease is held.
    pub(crate) async fn read(shared: &Shared, now: SystemTime) -> Result<Self> {
        let leases = Leases::read(shared, now).await?;
        let bucket = &shared.bucket;
        let objects = bucket.list("names", None)?;
        let objects = objects.try_filter(|object| std::future::ready(!is_gone(object.size)));
        let of_names = objects.try_filter_map(|object| {
            let of = name::of_path(bucket, &object.location);
            std::future::ready(Ok(of.map(|of| (object.location, of))))
        });
        let read = of_names.map(|found| async {
            let (path, of) = found?;
            let entry = Entry::settled(bucket, &path).await.map_err(|e| e.with_image(&of))?;
            Ok::<_, Error>((of, entry))
        });
        let mut read = Box::pin(read.buffered(PARALLEL));
        let (mut names, mut pending) = (Vec::new(), Vec::new());
        while let Some((of, entry)) = read.try_next().await? {
            pending.extend(
                entry.pending.clone().and_then(|pending| pending.image).map(|image| image.descriptor),
            );
            if let (Some(version), Some(image)) = (entry.version().cloned(), entry.image) {
                names.push((of, image, version));
            }
        }
        Ok(Self { names, pending, leases })
    }

    /// Whether these lead to the same content.
    pub(crate) fn leads_as(&self, other: &Self) -> bool {
        let names = |roots: &Self| {
            let named =
                roots.names.iter().map(|(name, image, _)| (name.whole(), image.descriptor.digest().clone()));
            named.collect::<HashSet<_>>()
        };
        let others = |roots: &Self| {
            let pending = roots.pending.iter().map(|descriptor| descriptor.digest().clone());
            pending.chain(roots.leases.held.iter().cloned()).collect::<HashSet<_>>()
        };
        names(self) == names(other) && others(self) == others(other)
    }
}

impl Census {
    pub(crate) async fn take(shared: &Shared, now: SystemTime) -> Result<Self> {
        let bucket = &shared.bucket;
        let roots = Roots::read(shared, now).await?;
        // Content before the records: a record says the name of its content before that is written.
        let mut content: HashMap<Path, (Path, u64)> = HashMap::new();
        let mut objects = bucket.list("data", None)?;
        while let Some(ObjectMeta { location, size, .. }) = objects.try_next().await? {
            if let Some((path, _)) = record::of_data(bucket, &location) {
                content.insert(location, (path, size));
            }
        }
        let mut census = Self {
            now,
            local: SystemTime::now(),
            roots,
            blobs: HashMap::new(),
            artifacts: Vec::new(),
            left: Vec::new(),
            orphans: Vec::new(),
            uses: Uses::read(bucket).await?,
        };
        for folder in ["blobs", "artifacts"] {
            let objects = bucket.list(folder, None)?;
            let objects = objects.try_filter(|object| {
                let is_record = !is_gone(object.size) && record::is_record(bucket, &object.location);
                std::future::ready(is_record)
            });
            let read = objects.map(|object| async {
                let path = object?.location;
                Ok::<_, Error>((Slot::read(bucket, &path).await?, path))
            });
            let mut read = Box::pin(read.buffer_unordered(PARALLEL));
            while let Some((slot, path)) = read.try_next().await? {
                match slot {
                    Slot::Held(found) => {
                        if let Some(id) = &found.record.data {
                            content.remove(&record::data(bucket, &path, id)?);
                        }
                        census.add(shared, HeldRecord { path, found: *found });
                    }
                    Slot::Empty(_) => {}
                    // It is damage, and no content: a verification says so.
                    Slot::Damaged(_) => content.retain(|_, (record, _)| *record != path),
                }
            }
        }
        census.orphans = content.into_iter().map(|(data, (_, size))| (data, size)).collect();
        Ok(census)
    }

    fn add(&mut self, shared: &Shared, held: HeldRecord) {
        let age = self.now.duration_since(held.found.modified).unwrap_or_default();
        if held.found.record.state == State::Writing {
            if age > shared.expiry * 2 {
                self.left.push(held);
            }
        } else if let Some(artifact) = &held.found.record.artifact {
            if let Ok(content) = artifact.content() {
                self.artifacts.push((content, held));
            }
        } else if let Some(digest) = record::digest_of(&shared.bucket, &held.path) {
            self.blobs.insert(digest, held);
        }
    }

    /// Follows everything that is held. `cache` looks, and uses nothing.
    pub(crate) async fn inventory(&self, cache: &dyn CacheProvider, policy: &Collect) -> Result<Inventory> {
        let heads = |unread: Vec<Digest>| async move {
            let read = unread.into_iter().map(|digest| async move { self.head(cache, digest).await });
            let read = futures_util::stream::iter(read).buffer_unordered(PARALLEL);
            let heads: Vec<Option<Head>> = read.try_collect().await?;
            Ok(heads.into_iter().flatten().collect())
        };
        Inventory::of(cache, self.holdings(), policy, heads).await
    }

    async fn head(&self, cache: &dyn CacheProvider, digest: Digest) -> Result<Option<Head>> {
        let Some(held) = self.blobs.get(&digest) else { return Ok(None) };
        let record = &held.found.record;
        if record.data.is_none() {
            return Ok(Head::of(&digest, record.inline.clone()));
        }
        let blob = Descriptor::new("application/octet-stream".into(), record.size, digest.clone());
        let start = plyfold_core::BlobRange::new(0, (Head::PEEK as u64).min(record.size));
        let peeked = async { cache.open(&blob, start).await?.bytes(Head::PEEK as u64).await };
        match peeked.await {
            Ok(start) if !Head::may_be(&start) => return Ok(None),
            Err(e) if is_damage(&e) => return Ok(None),
            start => start?,
        };
        let read = async { cache.open(&blob, plyfold_core::BlobRange::FULL).await?.bytes(blob.size()).await };
        match read.await {
            Err(e) if is_damage(&e) => Ok(None),
            read => Ok(Head::of(&digest, read?)),
        }
    }

    fn holdings(&self) -> Holdings {
        let blobs = self.blobs.iter().map(|(digest, held)| (digest.clone(), self.held(digest, &held.found)));
        let artifacts = self.artifacts.iter().map(|(content, held)| HeldArtifact {
            content: content.clone(),
            held: self.held(content, &held.found),
        });
        let names = &self.roots.names;
        Holdings {
            names: names.iter().map(|(name, image, _)| (name.clone(), image.descriptor.clone())).collect(),
            pins: names.iter().filter(|(_, image, _)| image.pinned).map(|(name, ..)| name.clone()).collect(),
            roots: self.roots.pending.clone(),
            leased: self.roots.leases.held.iter().cloned().collect(),
            blobs: blobs.collect(),
            artifacts: artifacts.collect(),
            ..Holdings::default()
        }
    }

    fn held(&self, digest: &Digest, found: &Found) -> Held {
        let times = [Some(found.modified), self.roots.leases.used.get(digest).copied(), self.uses.of(digest)];
        let last = times.into_iter().flatten().max().unwrap_or(found.modified);
        // By the service's clock until here: how long ago it was, as a time of this machine.
        let age = self.now.duration_since(last).unwrap_or_default();
        let used = self.local.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Held { size: found.record.size, used }
    }
}

fn is_damage(error: &Error) -> bool {
    use plyfold_core::ErrorKind::{Corrupt, NotFound};
    matches!(error.kind(), Corrupt | NotFound)
}

/// The time of the service: that of an object which is written for it.
pub(crate) async fn service_time(bucket: &Bucket) -> Result<SystemTime> {
    let path = bucket.path(&format!("probes/{}", token()))?;
    let body = bytes::Bytes::from(token() + "time");
    let written = bucket.swap(&path, &Expected::Absent, body).await?;
    let found = match written {
        Swapped::Done(_) => bucket.read(&path, 64).await?,
        Swapped::Lost => None,
    };
    bucket.delete(&path).await?;
    let missing = || {
        Error::new(
            plyfold_core::ErrorKind::Unavailable,
            "the service does not give back what was just written",
        )
    };
    // Where its dates have no fraction of a second: not before anything that was written until now.
    let end = |start: SystemTime| start.checked_add(Duration::from_micros(999_999)).unwrap_or(start);
    let whole = |found: crate::bucket::Read| match found.modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.subsec_nanos() == 0 => end(found.modified),
        _ => found.modified,
    };
    found.map(whole).ok_or_else(|| missing().with_endpoint(bucket))
}
