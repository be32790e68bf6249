//! Mutants of archives that are written.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use plyfold_core::Result;

use super::base::Fault;

/// The archive with one fault.
pub(super) async fn broken(
    fault: Fault,
    tar: BoxStream<'static, Result<Bytes>>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    static STAMP: AtomicU8 = AtomicU8::new(0);
    /// The offset of the time in a header.
    const MTIME: usize = 136;
    if fault == Fault::TarsEndEarly {
        return Ok(tar.take_while(|piece| std::future::ready(piece.is_ok())).boxed());
    }
    if fault != Fault::OciTarMislabelled && fault != Fault::TarsStamped {
        return Ok(tar);
    }
    let mut bytes = tar.try_collect::<Vec<_>>().await?.concat();
    if fault == Fault::TarsStamped {
        bytes[MTIME] = STAMP.fetch_add(1, Ordering::Relaxed);
    } else {
        mislabel(&mut bytes);
    }
    Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed())
}

/// Says of a manifest in `index.json`, the last document with media types, that it is an index.
fn mislabel(bytes: &mut [u8]) {
    for (right, wrong) in
        [("image.manifest.v1", "image.index.v1000"), ("manifest.v2+json", "list.v2+json    ")]
    {
        if let Some(at) = bytes.windows(right.len()).rposition(|part| part == right.as_bytes()) {
            bytes[at..at + wrong.len()].copy_from_slice(wrong.as_bytes());
        }
    }
}
