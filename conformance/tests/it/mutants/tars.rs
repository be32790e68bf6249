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
    if !matches!(fault, Fault::FlatLinksLost | Fault::OciTarMislabelled | Fault::TarsStamped) {
        return Ok(tar);
    }
    let mut bytes = tar.try_collect::<Vec<_>>().await?.concat();
    match fault {
        Fault::FlatLinksLost => unlink(&mut bytes),
        Fault::TarsStamped => bytes[MTIME] = STAMP.fetch_add(1, Ordering::Relaxed),
        _ => mislabel(&mut bytes),
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

/// Makes an empty file of every hard link (POSIX ustar: the sum of a header in octal at 148, its type at 156).
fn unlink(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes[at] != 0 {
        let header = &mut bytes[at..at + 512];
        let size = std::str::from_utf8(&header[124..135]).unwrap().trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).unwrap();
        if header[156] == b'1' {
            header[156] = b'0';
            header[157..257].fill(0);
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        at += 512 + size.next_multiple_of(512);
    }
}
