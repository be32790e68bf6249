//! What comes with an image because it refers to that.

use crate::manifest::{RawManifest, limits};
use crate::registry::ImageRegistry;
use crate::{Advice, Error, Reference, Result, reference, select};

/// Whether a document is about another one that is there, and comes with that one: it has no name of its own, or one of
/// cosign's tags.
pub(crate) async fn is_beside(from: &dyn ImageRegistry, name: &Reference, raw: &RawManifest) -> Result<bool> {
    let subject = match name.tag() {
        Some(_) => reference::subject_of_cosign(name),
        None => raw.subject().map(|subject| subject.digest().clone()),
    };
    let Some(subject) = subject else { return Ok(false) };
    let subject = select::raw(from, &reference::by_digest(name, &subject)).await;
    Ok(Error::found(subject)?.is_some())
}

/// How many documents have been found to refer to an image, and to those: a registry may make up more for each.
#[derive(Debug, Default)]
pub(crate) struct ReferrerCount(usize);

impl ReferrerCount {
    /// Counts one more.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`limits::ALL_REFERRERS`].
    pub(crate) fn add(&mut self) -> Result<()> {
        self.0 += 1;
        if self.0 > limits::ALL_REFERRERS {
            let message = format!("more than {} documents refer to the image", limits::ALL_REFERRERS);
            return Err(Error::limit(message).with_advice(Advice::LeaveReferrers));
        }
        Ok(())
    }
}
