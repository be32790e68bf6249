//! Several ranges of one very large layer at the same time, put together in order.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use plyfold_core::{Blob, Descriptor, Error, Result, TransferFault, stall};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::{Client, Target};
use crate::range::{opened, ranged_request, states_range};

/// Bytes of one part. All parts that wait to be read are held in memory.
const PART: u64 = 4 << 20;
/// Parts that may be open at the same time: with [`PART`] this bounds memory for any blob.
const MAX_PARTS: usize = 8;
/// Smaller blobs come in one piece.
const PARALLEL_THRESHOLD: u64 = 32 << 20;

impl Client {
    /// Whether a range is worth being read in parts.
    pub(crate) fn is_parted(&self, range: &Range<u64>) -> bool {
        self.ahead() > 1 && range.end - range.start >= PARALLEL_THRESHOLD
    }

    fn ahead(&self) -> usize {
        self.site.parallel_ranges.min(MAX_PARTS)
    }

    /// Opens the first part; the others follow when that one shows that the registry has ranges. Goes on with any
    /// other answer, for the caller to handle.
    pub(crate) async fn read_parts(
        self: &Arc<Self>,
        target: &Target,
        blob: &Descriptor,
        range: &Range<u64>,
    ) -> Result<ControlFlow<Blob, Response>> {
        let first = range.start..range.end.min(range.start + PART);
        let response = self.send(target, ranged_request(target, Method::GET, blob, &first)?).await?;
        let is_range =
            response.status() == StatusCode::PARTIAL_CONTENT && states_range(&response, &first, blob.size());
        if !is_range {
            return Ok(ControlFlow::Continue(response));
        }
        let first = opened(response, blob, first).await?;
        let endpoint = first.endpoint().unwrap_or_default().to_owned();
        let next = first.offset() + PART;
        let source = PartSource { client: Arc::clone(self), target: target.clone(), blob: blob.clone() };
        let parts = in_order(source, first, next..range.end, self.ahead());
        Ok(ControlFlow::Break(Blob::ranged(blob, range.clone(), parts)?.with_endpoint(endpoint)))
    }
}

/// Where the parts come from.
#[derive(Clone)]
struct PartSource {
    client: Arc<Client>,
    target: Target,
    blob: Descriptor,
}

impl PartSource {
    async fn open(&self, range: Range<u64>) -> Result<Blob> {
        let request = ranged_request(&self.target, Method::GET, &self.blob, &range)?;
        let response = self.client.send(&self.target, request).await?;
        let part = opened(response, &self.blob, range.clone()).await?;
        if part.offset() != range.start {
            return Err(Error::from(TransferFault::NoRange).with_context("range", "none"));
        }
        Ok(part)
    }
}

/// One part on its way; dropping it ends the request.
struct RangeInFlight {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    task: JoinHandle<()>,
}

impl RangeInFlight {
    fn start(open: impl Future<Output = Result<Blob>> + Send + 'static) -> Self {
        // Unbounded, and yet no more than `PART` bytes: a blob yields no byte beyond its range.
        let (sender, chunks) = mpsc::unbounded_channel();
        // Local waits of a part count as local waits of the whole blob.
        let task = tokio::spawn(stall::inherit(async move {
            let read = async {
                let mut part = open.await?;
                while let Some(chunk) = part.chunk().await? {
                    if sender.send(Ok(chunk)).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(e) = read.await {
                // The receiver is gone when the blob was dropped.
                let _ = sender.send(Err(e));
            }
        }));
        Self { chunks, task }
    }
}

impl Drop for RangeInFlight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first part and then all of `rest`, `ahead` parts of it under way at any time.
fn in_order(
    source: PartSource,
    first: Blob,
    rest: Range<u64>,
    ahead: usize,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let parts = VecDeque::from([RangeInFlight::start(async move { Ok(first) })]);
    stream::try_unfold((parts, rest), move |(mut parts, mut rest)| {
        let source = source.clone();
        async move {
            loop {
                while parts.len() < ahead && rest.start < rest.end {
                    let part = rest.start..rest.end.min(rest.start + PART);
                    rest.start = part.end;
                    let source = source.clone();
                    parts.push_back(RangeInFlight::start(async move { source.open(part).await }));
                }
                let Some(front) = parts.front_mut() else { return Ok(None) };
                match front.chunks.recv().await {
                    Some(chunk) => return Ok(Some((chunk?, (parts, rest)))),
                    None => parts.pop_front(),
                };
            }
        }
    })
}
