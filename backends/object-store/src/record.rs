//! Records: one small object for each blob and each artifact, which says what is there of it.
//!
//! ```text
//! absent, gone ──► writing ──► live ◄──► condemned ──► gone
//!                     │  ▲       └──────────────────────►│      (quarantine)
//!                     │  └── another writer, after an expiry
//!                     └──────────────────────────────► gone     (given up)
//! ```
//!
//! Each arrow is a conditional put. The content itself is in the record, if it is small, or in an object of its own whose
//! name no other attempt has (`data/…/ID`). A record that is `writing` says the ID before anything is written there, and a
//! record that has left an ID never has it again: so what a late writer still puts there is never content, and may be
//! removed by anyone at any time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;
use plyfold_core::block_sums::BlockSums;
use plyfold_core::{ArtifactKey, Digest, Error, ErrorKind, Made, Result, digest};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

use crate::bucket::{Bucket, Expected, Read, is_gone, is_token, token};

/// Content of at most so many bytes is in its record.
pub(crate) const INLINE: u64 = 16 << 10;
/// The largest record: the checksums of an artifact of 1 TiB, as text, and inline content.
const LARGEST: u64 = 16 << 20;

/// The largest content: more than a service has for one object. Sums of sizes do not overflow.
const LARGEST_CONTENT: u64 = 1 << 50;

/// What a record says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Unused when a collection looked for it. Who is about to use it makes it [`Live`](Self::Live) first.
    Condemned,
    Live,
    /// It is being written, and nothing of it can be seen.
    Writing,
}

/// The first line of a record.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) size: u64,
    /// The name of the object with the content, unless that is inline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// Of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact: Option<ArtifactRecord>,
    token: String,
    #[serde(skip)]
    pub(crate) inline: Bytes,
}

/// What is known of an artifact besides its bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ArtifactRecord {
    /// The format as it prints.
    pub(crate) format: String,
    pub(crate) content: String,
    pub(crate) made: Made,
    /// The [checksums of its blocks](BlockSums::to_bytes), in base 64.
    sums: String,
}

impl ArtifactRecord {
    pub(crate) fn new(key: &ArtifactKey, made: &Made, sums: &BlockSums) -> Self {
        Self {
            format: key.format.to_string(),
            content: key.content.to_string(),
            made: made.bounded(),
            sums: STANDARD.encode(sums.to_bytes()),
        }
    }

    /// The checksums, of an artifact of this size; `None` when they are damaged.
    pub(crate) fn sums(&self, size: u64) -> Option<BlockSums> {
        BlockSums::parse(size, &STANDARD.decode(&self.sums).ok()?)
    }

    /// What it was made from.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt).
    pub(crate) fn content(&self) -> Result<Digest> {
        digest::parse(&self.content)
    }
}

impl Record {
    /// The record of content that is being written to `data/…/ID`.
    pub(crate) fn writing(id: &str) -> Self {
        let data = Some(id.to_owned());
        Self { state: State::Writing, size: 0, data, artifact: None, token: token(), inline: Bytes::new() }
    }

    /// The record of content of this size in `data/…/ID`.
    pub(crate) fn live(size: u64, id: &str) -> Self {
        Self { state: State::Live, size, ..Self::writing(id) }
    }

    /// The record that has its content inline.
    pub(crate) fn inline(content: Bytes) -> Self {
        Self {
            state: State::Live,
            size: content.len() as u64,
            data: None,
            inline: content,
            ..Self::writing("")
        }
    }

    #[must_use]
    pub(crate) fn with_artifact(self, artifact: ArtifactRecord) -> Self {
        Self { artifact: Some(artifact), ..self }
    }

    /// The same in another state.
    #[must_use]
    pub(crate) fn in_state(&self, state: State) -> Self {
        Self { state, token: token(), ..self.clone() }
    }

    /// Whether there is content, condemned or not.
    pub(crate) fn has_content(&self) -> bool {
        self.state != State::Writing
    }

    /// As an object.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        let mut bytes =
            serde_json::to_vec(self).map_err(|e| Error::config("writing a record").with_source(e))?;
        if self.data.is_none() {
            bytes.push(b'\n');
            bytes.extend_from_slice(&self.inline);
        }
        Ok(bytes.into())
    }

    fn parse(bytes: &Bytes) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let mut record: Self = serde_json::from_slice(&bytes[..end]).ok()?;
        if record.data.is_none() {
            record.inline = bytes.slice((end + 1).min(bytes.len())..);
        }
        if record.size > LARGEST_CONTENT {
            return None;
        }
        // It becomes a part of a path.
        record.data.as_ref().is_none_or(|id| is_token(id)).then_some(record)
    }
}

/// What stands in the place of a record.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// What is no record: it was altered, or another program has put it there. Nothing of it is read, and a writer replaces it.
    Damaged(UpdateVersion),
    Empty(Expected),
    Held(Box<Found>),
}

/// A record that was read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) version: UpdateVersion,
    /// When it was written, by the service's clock.
    pub(crate) modified: SystemTime,
}

impl Slot {
    /// Reads what is there.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn read(bucket: &Bucket, path: &Path) -> Result<Self> {
        let read = match bucket.read(path, LARGEST).await {
            // It is too long for a record.
            Err(e) if *e.kind() == ErrorKind::Corrupt => {
                let found = bucket.look(path).await?;
                return Ok(found.map_or(Self::Empty(Expected::Absent), |(version, _)| Self::Damaged(version)));
            }
            read => read?,
        };
        let Some(Read { bytes, version, modified }) = read else {
            return Ok(Self::Empty(Expected::Absent));
        };
        if is_gone(bytes.len() as u64) {
            return Ok(Self::Empty(Expected::Version(version)));
        }
        Ok(match Record::parse(&bytes) {
            Some(record) => Self::Held(Box::new(Found { record, version, modified })),
            None => Self::Damaged(version),
        })
    }

    /// The record, if there is content, condemned or not.
    pub(crate) fn with_content(self) -> Option<Found> {
        match self {
            Self::Held(found) if found.record.has_content() => Some(*found),
            _ => None,
        }
    }
}

/// The path of a blob's record.
pub(crate) fn of_blob(bucket: &Bucket, blob: &Digest) -> Result<Path> {
    bucket.path(&format!("blobs/{}", place(blob)))
}

/// The path of an artifact's record. Keys that print alike have two. It is short: services, and the folders that some are
/// made of, bound the names of objects.
pub(crate) fn of_artifact(bucket: &Bucket, key: &ArtifactKey) -> Result<Path> {
    let ArtifactKey { format, content } = key;
    let whole = (format.name, format.version, &format.options, format.extension, content.as_ref());
    let whole = serde_json::to_vec(&whole).map_err(|e| Error::config("writing a key").with_source(e))?;
    bucket.path(&format!("artifacts/{}", digest::sha256(&whole).digest()))
}

/// The path of content beside a record.
pub(crate) fn data(bucket: &Bucket, record: &Path, id: &str) -> Result<Path> {
    let below = bucket.below("blobs", record).map(|rest| format!("data/blobs/{rest}/{id}"));
    let below =
        below.or_else(|| bucket.below("artifacts", record).map(|rest| format!("data/artifacts/{rest}/{id}")));
    bucket.path(&below.ok_or_else(|| Error::config(format!("{record} is no record")))?)
}

/// The path of the record that content stands beside, and the name of that content; `None` for an object of another program.
pub(crate) fn of_data<'a>(bucket: &Bucket, data: &'a Path) -> Option<(Path, &'a str)> {
    let (record, id) = bucket.below("data", data)?.rsplit_once('/')?;
    let record = bucket.path(record).ok().filter(|record| is_record(bucket, record))?;
    is_token(id).then_some((record, id))
}

/// Whether a record can stand here.
pub(crate) fn is_record(bucket: &Bucket, path: &Path) -> bool {
    let is_artifact = |name: &str| name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit());
    digest_of(bucket, path).is_some() || bucket.below("artifacts", path).is_some_and(is_artifact)
}

/// The digest whose record stands here.
pub(crate) fn digest_of(bucket: &Bucket, record: &Path) -> Option<Digest> {
    let (algorithm, encoded) = bucket.below("blobs", record)?.split_once('/')?;
    digest::parse(&format!("{algorithm}:{encoded}")).ok()
}

fn place(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.digest())
}
