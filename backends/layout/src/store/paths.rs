//! The names of temporary files in `ingest/`.

use plyfold_core::{Digest, digest};

/// The name of a blob's temporary file.
pub(super) fn name_of(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.digest())
}

/// The digest whose temporary file has this name.
pub(super) fn digest_in(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// Whether a file in `ingest/` is another tool's: oras has a folder of this name too, and locks nothing in it.
pub(super) fn is_foreign(name: &str) -> bool {
    name.split_once('_').is_some_and(|(hex, _)| digest::parse(&format!("sha256:{hex}")).is_ok())
}
