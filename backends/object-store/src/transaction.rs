//! Transactions: one object that decides for all names that a change is of.

use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;
use plyfold_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Expected, Read, token};

/// The largest object of a transaction: all names of a large change.
const LARGEST: u64 = 64 << 20;

/// What a transaction is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Aborted,
    /// It has ended, and every name says so itself, or it never was.
    #[serde(skip)]
    Absent,
    Committed,
    Pending,
}

/// What the object of a transaction says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TransactionObject {
    pub(crate) state: Outcome,
    pub(crate) names: Vec<String>,
    token: String,
}

impl TransactionObject {
    pub(crate) fn body(state: Outcome, names: &[String]) -> Result<Bytes> {
        let object = Self { state, names: names.to_vec(), token: token() };
        let body = serde_json::to_vec(&object);
        body.map(Bytes::from).map_err(|e| Error::config("writing a transaction").with_source(e))
    }
}

pub(crate) fn path_of(bucket: &Bucket, id: &str) -> Result<Path> {
    bucket.path(&format!("transactions/{id}"))
}

/// Reads a transaction; `None` when it is absent.
pub(crate) async fn read(bucket: &Bucket, path: &Path) -> Result<Option<(TransactionObject, UpdateVersion)>> {
    let Some(Read { bytes, version, .. }) = bucket.read(path, LARGEST).await? else { return Ok(None) };
    let object = serde_json::from_slice(&bytes).map_err(|e| {
        bucket.damaged("an object is no transaction").with_context("object", path).with_source(e)
    })?;
    Ok(Some((object, version)))
}

/// What has become of a transaction.
pub(crate) async fn outcome(bucket: &Bucket, id: &str) -> Result<Outcome> {
    let found = read(bucket, &path_of(bucket, id)?).await?;
    Ok(found.map_or(Outcome::Absent, |(object, _)| object.state))
}

/// Ends a transaction that is pending at this version, unless its writer does so first or has renewed it.
pub(crate) async fn abort(
    bucket: &Bucket,
    path: &Path,
    (object, version): (&TransactionObject, &UpdateVersion),
) -> Result<()> {
    if object.state == Outcome::Pending {
        let body = TransactionObject::body(Outcome::Aborted, &object.names)?;
        bucket.swap(path, &Expected::Version(version.clone()), body).await?;
    }
    Ok(())
}
