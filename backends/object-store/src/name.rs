//! Names: one small object each, and what it says.

use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;
use plyfold_core::{Descriptor, Error, Reference, Result, reference};
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Expected, Read, gone, is_gone, is_token, token};
use crate::transaction::{self, Outcome};

/// The largest object of a name: two descriptors with annotations.
const LARGEST: u64 = 1 << 20;

/// Looks at a name whose transaction ends meanwhile.
const LOOKS: u32 = 16;

/// What a name stands for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Image {
    pub(crate) descriptor: Descriptor,
    #[serde(default)]
    pub(crate) pinned: bool,
}

/// A change that is not made yet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Pending {
    /// What the name will stand for; nothing removes it.
    pub(crate) image: Option<Image>,
    /// The transaction that decides. Without one the writer of the change makes it by its next put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<String>,
}

/// What the object of a name says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NameObject {
    /// The name itself.
    pub(crate) name: String,
    pub(crate) image: Option<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
    token: String,
}

impl NameObject {
    /// The body of an object that says this. A name that stands for nothing, and is not about to, is gone.
    pub(crate) fn body(name: &str, image: Option<Image>, pending: Option<Pending>) -> Result<Bytes> {
        if image.is_none() && pending.is_none() {
            return Ok(gone());
        }
        let object = Self { name: name.to_owned(), image, pending, token: token() };
        let body = serde_json::to_vec(&object);
        body.map(Bytes::from).map_err(|e| Error::config("writing a name").with_source(e))
    }
}

/// A name as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// What has to be there for the next put.
    pub(crate) expected: Expected,
    pub(crate) image: Option<Image>,
    pub(crate) pending: Option<Pending>,
    /// It is not the object of a name, and a change replaces it.
    pub(crate) is_damaged: bool,
}

impl Entry {
    const ABSENT: Self = Self { expected: Expected::Absent, image: None, pending: None, is_damaged: false };

    /// A damaged object of this version.
    pub(crate) fn damaged(version: UpdateVersion) -> Self {
        Self { expected: Expected::Version(version), is_damaged: true, ..Self::ABSENT }
    }

    /// Reads the object of a name.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for an object that is not one of this name, and those of the service.
    pub(crate) async fn read(bucket: &Bucket, path: &Path) -> Result<Self> {
        let Some(Read { bytes, version, .. }) = bucket.read(path, LARGEST).await? else {
            return Ok(Self::ABSENT);
        };
        let expected = Expected::Version(version);
        if is_gone(bytes.len() as u64) {
            return Ok(Self { expected, ..Self::ABSENT });
        }
        let damaged = |why: &str| {
            let error =
                Error::corrupt(format!("the object of a name is damaged: {why}")).with_endpoint(bucket);
            error.with_context("object", path).with_hint("remove the object, or set the name again")
        };
        let object: NameObject = serde_json::from_slice(&bytes)
            .map_err(|e| damaged("it is not the JSON of a name").with_source(e))?;
        if bucket.below("names", path) != Some(&object.name) {
            return Err(damaged(&format!("it is of the name {:?}", object.name)));
        }
        let transaction = object.pending.as_ref().and_then(|pending| pending.transaction.as_ref());
        // It becomes a part of a path.
        if transaction.is_some_and(|id| !is_token(id)) {
            return Err(damaged("its transaction has no such ID"));
        }
        Ok(Self { expected, image: object.image, pending: object.pending, is_damaged: false })
    }

    /// The same with the outcome of a transaction that has ended, and what the name stands for now.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) async fn settled(bucket: &Bucket, path: &Path) -> Result<Self> {
        let mut entry = Self::read(bucket, path).await?;
        for _ in 0..LOOKS {
            let Some(Pending { image, transaction: Some(id) }) = &entry.pending else { return Ok(entry) };
            match transaction::outcome(bucket, id).await? {
                Outcome::Committed => return Ok(Self { image: image.clone(), ..entry }),
                Outcome::Aborted | Outcome::Pending => return Ok(entry),
                // It is removed after its last name was written: either this one has changed since, or it was given up.
                Outcome::Absent => {
                    let next = Self::read(bucket, path).await?;
                    if next.version() == entry.version() {
                        return Ok(entry);
                    }
                    entry = next;
                }
            }
        }
        Ok(entry)
    }

    pub(crate) fn version(&self) -> Option<&UpdateVersion> {
        match &self.expected {
            Expected::Version(version) => Some(version),
            Expected::Absent => None,
        }
    }
}

/// The path of a name's object. Their order is that of the names.
pub(crate) fn path(bucket: &Bucket, name: &str) -> Result<Path> {
    bucket.path(&format!("names/{name}"))
}

/// The name whose object this is; `None` for an object of another program.
pub(crate) fn of_path(bucket: &Bucket, path: &Path) -> Option<Reference> {
    let text = bucket.below("names", path)?;
    reference::parse(text).ok().filter(|name| name.whole() == text)
}
