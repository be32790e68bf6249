//! Blobs of the small client, and the ways it gets ranges wrong.

use plyfold_core::{Blob, BlobRange, Descriptor, Error, ErrorKind, Reference, Result, reference};

use super::wire::{Request, Response};
use super::{HttpFault, SmallRegistry};

impl SmallRegistry {
    pub(super) async fn read(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let span = range.resolve(blob.size())?;
        let is_part = span != (0..blob.size()) && self.fault != HttpFault::RangesNever;
        if !is_part {
            return self.whole(name, blob).await;
        }
        let closed = match self.fault {
            HttpFault::RangesOpen => format!("bytes={}-", span.start),
            _ => format!("bytes={}-{}", span.start, span.end - 1),
        };
        let request = request(name, blob).with("Range", closed);
        let by_digest = reference::by_digest(name, blob.digest());
        let outcome = self.ask(&request, &by_digest, |response| {
            let (span, fault) = (span.clone(), self.fault);
            async move { part(response, blob, span, fault) }
        });
        match outcome.await {
            Err(e) if e.context("status") == Some("416") && self.fault != HttpFault::UnsatisfiedIsFinal => {
                self.whole(name, blob).await
            }
            outcome => outcome,
        }
    }

    async fn whole(&self, name: &Reference, blob: &Descriptor) -> Result<Blob> {
        let by_digest = reference::by_digest(name, blob.digest());
        let is_trusted = |response: &Response| {
            response.host == self.setup.host || self.fault == HttpFault::MirrorContentTrusted
        };
        self.ask(&request(name, blob), &by_digest, |response| async {
            let is_coded = response.header("content-encoding").is_some();
            if is_coded && self.fault == HttpFault::CodingsRefused {
                return Err(Error::corrupt("it is encoded"));
            }
            if is_trusted(&response) {
                return Blob::new(blob, response.body());
            }
            // There are others to ask, as long as nothing of it has been passed on.
            let content = Blob::new(blob, response.body())?.bytes(1 << 20).await?;
            Blob::from_bytes(blob, BlobRange::FULL, &content)
        })
        .await
    }
}

fn request(name: &Reference, blob: &Descriptor) -> Request {
    Request::new("GET", "", format!("/v2/{}/blobs/{}", name.repository(), blob.digest()))
}

/// The answer to a range.
fn part(response: Response, blob: &Descriptor, span: std::ops::Range<u64>, fault: HttpFault) -> Result<Blob> {
    let stated = response.header("content-range").unwrap_or_default().to_owned();
    let asked = format!("bytes {}-{}/{}", span.start, span.end - 1, blob.size());
    match (response.status, fault) {
        (206, HttpFault::ContentRangeIgnored) | (200, HttpFault::WholeTakenForPart) => {
            Blob::ranged(blob, span, response.body())
        }
        (206, _) if stated == asked => Blob::ranged(blob, span, response.body()),
        (206, _) => Err(Error::new(ErrorKind::Unavailable, "another range than was asked for")
            .with_context("range", stated)),
        _ => Blob::new(blob, response.body()),
    }
}
