//! Reading blobs: closed ranges, checked against what came.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::stream;
use plyfold_core::{Blob, BlobRange, Descriptor, Error, ErrorKind, Reference, Result, digest};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, Response, StatusCode};

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::error;
use crate::range::{fits, name, opened, ranged_request, request, wrong_size};
use crate::response::text;

impl Client {
    /// Opens a blob at the range's first byte, or at 0 when the registry has no usable ranges. A descriptor's
    /// `urls` are ignored: what is not in the registry does not exist here.
    pub(crate) async fn read_blob(
        self: &Arc<Self>,
        reference: &Reference,
        blob: &Descriptor,
        range: BlobRange,
    ) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let (target, _) = self.target(reference, Access::Pull)?;
        let range = range.resolve(blob.size())?;
        let is_whole = range == (0..blob.size());
        if range.is_empty() && !is_whole {
            return Blob::ranged(blob, range, stream::empty());
        }
        let response = if self.is_parted(&range) {
            match self.read_parts(&target, blob, &range).await? {
                ControlFlow::Break(blob) => return Ok(blob),
                ControlFlow::Continue(response) => response,
            }
        } else if is_whole {
            let fits = |response: &Response| fits(response, blob, &range);
            self.send_if(&target, request(&target, Method::GET, blob), fits).await?
        } else {
            let request = ranged_request(&target, Method::GET, blob, &range)?;
            match self.send_if(&target, request, |response| fits(response, blob, &range)).await {
                // An unsatisfiable range makes docker-registry break the connection. A blob that is shorter than
                // its descriptor says is the one reason why this one can be.
                Err(e) if *e.kind() == ErrorKind::Unavailable => {
                    return Err(self.shorter(&target, blob).await.unwrap_or(e));
                }
                outcome => outcome?,
            }
        };
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            return opened(response, blob, range).await;
        }
        drop(response);
        let whole = self.send(&target, request(&target, Method::GET, blob)).await?;
        opened(whole, blob, range).await
    }

    /// The error for a blob whose size in the registry is not that of its descriptor.
    async fn shorter(&self, target: &Target, blob: &Descriptor) -> Option<Error> {
        let response = self.send(target, request(target, Method::HEAD, blob)).await.ok()?;
        let size = text(response.headers(), CONTENT_LENGTH.as_str())?.parse().ok()?;
        (response.status() == StatusCode::OK && size != blob.size()).then(|| wrong_size(blob, size))
    }

    /// Whether a repository that is pushed to has this blob.
    pub(crate) async fn stat_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        digest::supported(blob.digest())?;
        let (target, _) = self.target(reference, Access::Push)?;
        self.find_blob(&target, blob).await
    }

    /// Whether the repository has this blob, by HEAD.
    pub(crate) async fn find_blob(&self, target: &Target, blob: &Descriptor) -> Result<bool> {
        let response = self.send(target, request(target, Method::HEAD, blob)).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            // It is not there, or the registry does not do HEAD: pushing again is harmless.
            status if error::is_lack(status) && !error::is_signed_for_get(&response) => Ok(false),
            _ if error::is_signed_for_get(&response) => self.starts(target, blob).await,
            _ => Err(error::status(response, &name(blob)).await),
        }
    }

    /// Whether the repository has this blob, by a GET of its first byte.
    async fn starts(&self, target: &Target, blob: &Descriptor) -> Result<bool> {
        let request = match blob.size() {
            0 => request(target, Method::GET, blob),
            _ => ranged_request(target, Method::GET, blob, &(0..1))?,
        };
        let response = self.send(target, request).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            status if error::is_lack(status) => Ok(false),
            _ => Err(error::status(response, &name(blob)).await),
        }
    }
}
