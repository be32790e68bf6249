//! References: how an image is named (OCI distribution spec, "Pulling manifests").

use std::path::Path;

pub use oci_spec::distribution::Reference;

use crate::{Digest, Error, Result, digest};

/// Bytes of a reference: room for the longest host, repository, tag and digest, and short enough to parse
/// quickly.
const LENGTH: usize = 1024;

crate::fault! {
    /// What is wrong with a reference.
    pub enum ReferenceFault;
    Invalid(String, String) => (Config, "invalid image reference {0:?}: {1}",
        "a reference is [host[:port]/]repository[:tag][@digest], in lower case"),
    Long(String, usize) => (Config, "invalid image reference {0:?}…: it has {1} bytes"),
}

/// Parses a reference, normalised as every other tool does: `alpine` is `docker.io/library/alpine:latest`.
///
/// By hand, because the pattern that `oci-spec` matches takes longer to compile than to pull an image that is here.
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
/// assert_eq!(reference::parse("[::1]:5000/x")?.registry(), "[::1]:5000");
/// assert!(reference::parse("UPPER/case").is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn parse(text: &str) -> Result<Reference> {
    let invalid = |why: &str| Error::from(ReferenceFault::Invalid(text.to_owned(), why.to_owned()));
    if text.len() > LENGTH {
        let start: String = text.chars().take(40).collect();
        return Err(ReferenceFault::Long(start, text.len()).into());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        digest::parse(digest).map_err(|e| invalid(e.message()))?;
    }
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(invalid("a tag has at most 128 letters, digits, and _ . - after the first"));
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':', '[']) => (host, path),
        _ => (DOCKER_HUB, name),
    };
    if !is_host(host) {
        return Err(invalid("the registry is no host name or address with an optional port"));
    }
    if path.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(invalid("repository names are in lower case"));
    }
    let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
    let library = host == DOCKER_HUB && !path.contains('/');
    let repository = if library { format!("library/{path}") } else { path.to_owned() };
    if repository.len() > 255 || !path.split('/').all(is_component) {
        return Err(invalid("a repository is lower-case words joined by . _ __ - and /"));
    }
    let (host, tag) = (host.to_owned(), tag.map(str::to_owned));
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag, digest.to_owned()),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest.to_owned()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or_else(|| "latest".to_owned())),
    })
}

/// The registry of names that have none.
const DOCKER_HUB: &str = "docker.io";

/// `host[:port]`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => {
            (&text[..=end], text[end + 1..].strip_prefix(':').or(Some("0").filter(|_| text.ends_with(']'))))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    let is_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_port = |port: &str| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    port.is_some_and(is_port)
        && match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(is_label),
        }
}

/// One part of a repository: words of `[a-z0-9]+`, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joint = |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|c| c == b'-');
    text.starts_with(word) && text.ends_with(word) && text.split(word).all(joint)
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

/// The name of the index of a subject's referrers: `ALGORITHM-HEX`, with no more than 64 characters of the digest
/// (distribution-spec, "Referrers Tag Schema").
pub fn referrers_of(reference: &Reference, subject: &Digest) -> Reference {
    Reference::with_tag(
        reference.registry().to_owned(),
        reference.repository().to_owned(),
        tag_of_referrers(subject),
    )
}

/// The tag of the list of what [refers](referrers_of) to a manifest.
pub(crate) fn tag_of_referrers(subject: &Digest) -> String {
    format!("{}-{:.64}", subject.algorithm(), subject.digest())
}

/// Whether a name is that of a list of [referrers](referrers_of).
pub fn is_list_of_referrers(name: &Reference) -> bool {
    let parts = name.tag().and_then(|tag| tag.split_once('-'));
    parts.is_some_and(|(algorithm, hex)| {
        ["sha256", "sha384", "sha512"].contains(&algorithm)
            && hex.len() == 64
            && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The endings of cosign's tags.
const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

/// The tags under which cosign keeps signatures, attestations and SBOMs of a manifest where there are no referrers.
pub(crate) fn cosign_tags(subject: &Digest) -> impl Iterator<Item = String> {
    let stem = subject.as_ref().replacen(':', "-", 1);
    let tags = COSIGN.map(|ending| format!("{stem}{ending}"));
    tags.into_iter().filter(|tag| is_tag(tag))
}

/// Whether a name is that of something about images: a list of [referrers](is_list_of_referrers), or what cosign keeps
/// beside an image as `ALGORITHM-HEX.sig`, `.att` or `.sbom`.
pub fn is_about_images(name: &Reference) -> bool {
    is_list_of_referrers(name) || subject_of_cosign(name).is_some()
}

/// What a name is about that is one of [cosign's tags](cosign_tags).
pub(crate) fn subject_of_cosign(name: &Reference) -> Option<Digest> {
    let tag = name.tag()?;
    let stem = COSIGN.iter().find_map(|ending| tag.strip_suffix(ending))?;
    digest::parse(&stem.replacen('-', ":", 1)).ok()
}

/// The same repository with another tag.
pub(crate) fn tagged(reference: &Reference, tag: String) -> Reference {
    Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag)
}

/// `registry/repository` without tag and digest: the scope of names and credentials.
pub fn repository_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// The name that an image gets when its medium holds only a tag, such as `latest` in the layout directory
/// `/srv/My App`: `localhost/my-app:latest`. Every backend over a path derives it the same way, without what says how
/// an archive is packed. A path that ends in no name, such as `.`, is looked up.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) when `tag` is not a tag.
///
/// ```
/// use std::path::Path;
/// use plyfold_core::reference;
///
/// assert_eq!(reference::local(Path::new("/srv/My App"), "latest")?.whole(), "localhost/my-app:latest");
/// assert_eq!(reference::local(Path::new("alpine-3.20.tar.gz"), "v1")?.whole(), "localhost/alpine-3-20:v1");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn local(path: &Path, tag: &str) -> Result<Reference> {
    /// Other suffixes are kept, so that `alpine-3.19` and `alpine-3.20` differ.
    const PACKED: [&str; 8] = [".bz2", ".gz", ".oci", ".tar", ".tgz", ".tzst", ".xz", ".zst"];
    let found = if path.file_name().is_none() { path.canonicalize().ok() } else { None };
    let file = found.as_deref().unwrap_or(path).file_name().unwrap_or_default();
    let file = file.to_string_lossy().to_lowercase();
    let mut stem = file.as_str();
    while let Some(shorter) = PACKED.iter().find_map(|packed| stem.strip_suffix(packed)) {
        stem = shorter;
    }
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
