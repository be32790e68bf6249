//! Leases: what a collection leaves alone, and when content was used last.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use plyfold_core::{Digest, Error, Lease, Result, digest};
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Expected, Read, Swapped, is_gone, is_token, token};
use crate::hold::Hold;
use crate::shared::Shared;

/// The largest object of a lease: the digests of a large image for all platforms.
const LARGEST: u64 = 16 << 20;
/// The largest table of uses.
const LARGEST_TABLE: u64 = 256 << 20;
/// Leases that are read at the same time.
const PARALLEL: usize = 16;
/// A lease that was not renewed for so many times the expiry has no holder.
const FORGOTTEN: u32 = 2;

/// What the object of a lease says.
#[derive(Debug, Deserialize, Serialize)]
struct LeaseObject {
    digests: Vec<String>,
    /// It protects nothing any more, and tells the use.
    #[serde(default)]
    ended: bool,
    /// When its holder wrote it, in microseconds, by its own clock.
    #[serde(default)]
    at: u64,
    token: String,
}

/// Protects content from collections until it is dropped. The object has a name of its own, and no other writer;
/// a collection removes it when it has ended.
pub(crate) async fn lease(shared: &Shared, content: &[Digest]) -> Result<Lease> {
    if content.is_empty() || shared.refusal.is_some() {
        return Ok(Lease::none());
    }
    let bucket = &shared.bucket;
    let path = bucket.path(&format!("leases/{}", token()))?;
    let digests: Vec<String> = content.iter().map(ToString::to_string).collect();
    let body = move |ended| {
        let digests = digests.clone();
        move || {
            let object = LeaseObject {
                digests: digests.clone(),
                ended,
                at: micros(SystemTime::now()),
                token: token(),
            };
            Bytes::from(serde_json::to_vec(&object).unwrap_or_default())
        }
    };
    let taken = Hold::take((bucket, &path, &Expected::Absent), shared.expiry, body(false), body(true));
    let same =
        || Error::new(plyfold_core::ErrorKind::Internal, "two leases have one name").with_endpoint(bucket);
    taken.await?.map(Lease::new).ok_or_else(same)
}

/// All leases of a bucket.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// What is protected.
    pub(crate) held: Vec<Digest>,
    /// When content was used, by the leases that have ended.
    pub(crate) used: HashMap<Digest, SystemTime>,
    /// The objects of those.
    pub(crate) ended: Vec<Path>,
}

impl Leases {
    /// Reads them. `now` is the time of the service.
    pub(crate) async fn read(shared: &Shared, now: SystemTime) -> Result<Self> {
        let bucket = &shared.bucket;
        let objects = bucket.list("leases", None)?;
        // What has another name, or is longer, is of another program.
        let objects = objects.try_filter(|object| {
            let is_named = bucket.below("leases", &object.location).is_some_and(is_token);
            std::future::ready(is_named && object.size <= LARGEST)
        });
        let read = objects.map(|object| async {
            let path = object?.location;
            Ok::<_, Error>((bucket.read(&path, LARGEST).await?, path))
        });
        let mut read = Box::pin(read.buffer_unordered(PARALLEL));
        let mut leases = Self::default();
        while let Some((found, path)) = read.try_next().await? {
            // One that is gone has ended since.
            let Some(found) = found else { continue };
            leases.add(&found, path, shared.expiry * FORGOTTEN, now);
        }
        Ok(leases)
    }

    fn add(&mut self, found: &Read, path: Path, forgotten: Duration, now: SystemTime) {
        let age = now.duration_since(found.modified).unwrap_or_default();
        // What is no lease protects nothing, and stays.
        let Ok(object) = serde_json::from_slice::<LeaseObject>(&found.bytes) else { return };
        let used = within_second(found.modified, object.at);
        let digests = object.digests.iter().filter_map(|digest| digest::parse(digest).ok());
        let (ended, mut held) = (object.ended || age > forgotten, Vec::new());
        for digest in digests {
            let known = self.used.entry(digest.clone()).or_insert(used);
            *known = (*known).max(used);
            held.push(digest);
        }
        if ended {
            self.ended.push(path);
        } else {
            self.held.append(&mut held);
        }
    }
}

/// A time that a service has told, which may have no fraction of a second: the fraction is as the writer's clock says, if that
/// agrees. Among uses within a second it decides nothing but their order.
fn within_second(modified: SystemTime, at: u64) -> SystemTime {
    let start = micros(modified);
    if !start.is_multiple_of(1_000_000) {
        return modified;
    }
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(at.clamp(start, start + 999_999)));
    time.unwrap_or(modified)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}

/// What that object says.
#[derive(Deserialize)]
struct Table {
    used: BTreeMap<String, u64>,
}

/// When content was used, by leases that are gone: an object that only collections write.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    expected: Option<Expected>,
    table: BTreeMap<String, u64>,
}

impl Uses {
    pub(crate) async fn read(bucket: &Bucket) -> Result<Self> {
        let found = bucket.read(&bucket.path("uses")?, LARGEST_TABLE).await?;
        let Some(found) = found.filter(|found| !is_gone(found.bytes.len() as u64)) else {
            return Ok(Self::default());
        };
        // Without the table content looks older than it is, within the grace of none.
        let table =
            serde_json::from_slice(&found.bytes).map_or_else(|_| BTreeMap::new(), |table: Table| table.used);
        Ok(Self { expected: Some(Expected::Version(found.version)), table })
    }

    /// When this was used, by the service's clock.
    pub(crate) fn of(&self, digest: &Digest) -> Option<SystemTime> {
        let micros = self.table.get(digest.as_ref())?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(*micros))
    }

    /// Adds what leases that have ended tell, for content that is here, and removes those.
    pub(crate) async fn absorb(
        mut self,
        bucket: &Bucket,
        leases: &Leases,
        is_here: impl Fn(&Digest) -> bool,
    ) -> Result<()> {
        if leases.ended.is_empty() {
            return Ok(());
        }
        for (digest, used) in &leases.used {
            let micros = micros(*used);
            let known = self.table.entry(digest.to_string()).or_default();
            *known = (*known).max(micros);
        }
        self.table.retain(|digest, _| digest::parse(digest).is_ok_and(|digest| is_here(&digest)));
        let body = serde_json::json!({ "used": self.table, "token": token() }).to_string();
        let expected = self.expected.unwrap_or(Expected::Absent);
        // Another collection does the same: its leases are these.
        if let Swapped::Done(_) = bucket.swap(&bucket.path("uses")?, &expected, body.into()).await? {
            for path in &leases.ended {
                bucket.delete(path).await?;
            }
        }
        Ok(())
    }
}
