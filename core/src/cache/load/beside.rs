//! What refers to images, and has no name.

use crate::manifest::RawManifest;
use crate::registry::ImageRegistry;
use crate::{Error, Reference, Result, reference, select};

/// Whether what has no name of its own is about another document that is there: it comes with that one.
pub(super) async fn is_beside(from: &dyn ImageRegistry, name: &Reference, raw: &RawManifest) -> Result<bool> {
    let Some(subject) = raw.subject().filter(|_| name.tag().is_none()) else { return Ok(false) };
    let subject = select::raw(from, &reference::by_digest(name, subject.digest())).await;
    Ok(Error::found(subject)?.is_some())
}
