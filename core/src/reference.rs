//! References: how an image is named (OCI distribution spec, "Pulling manifests").

use std::path::Path;

pub use oci_spec::distribution::Reference;

use crate::{Digest, Error, Result, digest};

/// Bytes of a reference: room for the longest host, repository, tag and digest, and nothing for a pattern matcher
/// to toil on.
const LENGTH: usize = 1024;

/// Parses a reference, normalised as every other tool does: `alpine` is `docker.io/library/alpine:latest`.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) before any I/O (rule R 9 `invalid_reference_rejected_before_io`).
///
/// ```
/// use plyfold_core::reference;
///
/// assert_eq!(reference::parse("alpine")?.whole(), "docker.io/library/alpine:latest");
/// assert_eq!(reference::parse("localhost/x")?.registry(), "localhost");
/// assert_eq!(reference::parse("host:5000/x:1")?.registry(), "host:5000");
/// assert!(reference::parse("UPPER/case").is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn parse(text: &str) -> Result<Reference> {
    let invalid = |why: String| {
        Error::config(format!("invalid image reference {text:?}: {why}"))
            .with_hint("a reference is [host[:port]/]repository[:tag][@digest], in lower case")
    };
    if text.len() > LENGTH {
        let start: String = text.chars().take(40).collect();
        let message = format!("invalid image reference {start:?}…: it has {} bytes", text.len());
        return Err(Error::config(message));
    }
    let reference = Reference::try_from(text).map_err(|e| invalid(e.to_string()))?;
    // oci-spec takes `UPPER/case` for a Docker Hub repository, Docker for a host: nobody means either.
    if reference.repository().bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(invalid("repository names are in lower case".to_owned()));
    }
    if let Some(text) = reference.digest() {
        digest::parse(text).map_err(|e| invalid(e.message().to_owned()))?;
    }
    Ok(reference)
}

/// The digest in a reference, parsed. It wins over the tag (rule R 7 `tag_plus_digest_uses_digest_only`).
///
/// # Errors
/// As [`digest::parse`]; references made by [`parse`] never fail.
pub fn digest_of(reference: &Reference) -> Result<Option<Digest>> {
    reference.digest().map(digest::parse).transpose()
}

/// The same repository by digest.
pub fn by_digest(reference: &Reference, digest: &Digest) -> Reference {
    reference.clone_with_digest(digest.to_string())
}

/// `registry/repository` without tag and digest: the scope of names and credentials.
pub fn repository_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// The name that an image gets when its medium holds only a tag, such as `latest` in the layout directory
/// `/srv/My App`: `localhost/my-app:latest`. Every backend over a path derives it the same way.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) when `tag` is not a tag.
///
/// ```
/// use std::path::Path;
/// use plyfold_core::reference;
///
/// assert_eq!(reference::local(Path::new("/srv/My App"), "latest")?.whole(), "localhost/my-app:latest");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn local(path: &Path, tag: &str) -> Result<Reference> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut name = String::new();
    for c in stem.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    parse(&format!("localhost/{}:{tag}", if name.is_empty() { "image" } else { name }))
}

/// Whether text is a tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
pub fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= 128
        && bytes.first().copied().is_some_and(word)
        && bytes.iter().all(|c| word(*c) || matches!(c, b'.' | b'-'))
}
