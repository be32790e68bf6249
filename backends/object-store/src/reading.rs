//! The bytes of an object that is never changed, however often a connection ends in the middle.

use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, GetRange, GetResult};
use plyfold_core::{Error, Result};

use crate::bucket::{Bucket, is_absent};
use crate::tries::Tries;

/// An object, and how far it is read.
struct Reading {
    bucket: Bucket,
    path: Path,
    at: u64,
    end: u64,
    e_tag: Option<String>,
    content: BoxStream<'static, object_store::Result<Bytes>>,
    /// Since the last byte.
    tries: Option<Tries>,
}

/// The size of an object, and the bytes of all of it or of a range; `None` when it is absent. What a connection that ends leaves
/// out is asked for again, as long as each answer brings something.
pub(crate) async fn read(
    bucket: &Bucket,
    path: &Path,
    range: Option<Range<u64>>,
) -> Result<Option<(u64, BoxStream<'static, Result<Bytes>>)>> {
    let mut tries = Tries::new();
    let found = loop {
        // No service gives no bytes; one is read.
        let wanted = range.clone().map(|range| if range.is_empty() { 0..1 } else { range });
        match get(bucket, path, wanted, None).await {
            Ok(found) => break found,
            Err(e) if is_absent(&e) => return Ok(None),
            Err(e) => {
                let error = failed(bucket, path, e);
                if !tries.again(&error).await {
                    return Err(error);
                }
            }
        }
    };
    let (size, e_tag, Range { start: at, end }) =
        (found.meta.size, found.meta.e_tag.clone(), found.range.clone());
    let content = found.into_stream();
    let (bucket, path) = (bucket.clone(), path.clone());
    let reading = Reading { bucket, path, at, end, e_tag, content, tries: None };
    let bytes = stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|bytes| (bytes, reading)))
    });
    Ok(Some((size, bytes.boxed())))
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let error = match self.content.next().await {
                None => return Ok(None),
                Some(Ok(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.tries = None;
                    return Ok(Some(bytes));
                }
                Some(Err(e)) => failed(&self.bucket, &self.path, e),
            };
            if self.at >= self.end || !self.tries.get_or_insert_with(Tries::new).again(&error).await {
                return Err(error);
            }
            match get(&self.bucket, &self.path, Some(self.at..self.end), self.e_tag.clone()).await {
                Ok(found) => self.content = found.into_stream(),
                // It is asked for again, or the error is returned.
                Err(e) => self.content = stream::iter([Err(e)]).boxed(),
            }
        }
    }
}

async fn get(
    bucket: &Bucket,
    path: &Path,
    range: Option<Range<u64>>,
    if_match: Option<String>,
) -> object_store::Result<GetResult> {
    let options = GetOptions { range: range.map(GetRange::Bounded), if_match, ..GetOptions::default() };
    bucket.store().get_opts(path, options).await
}

fn failed(bucket: &Bucket, path: &Path, error: StoreError) -> Error {
    bucket.failed(error, "reading content").with_context("object", path)
}
