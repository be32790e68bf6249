//! Digests: parsed once, then carried as proof (OCI image spec, `descriptor.md#digests`).

use std::fmt;
use std::io;

pub use oci_spec::image::{Digest, DigestAlgorithm};
use plyfold_sha256::{Sha256, update_two};
use sha2::Digest as _;

use crate::page_buffer::PageBuffer;
use crate::{Error, Result};

crate::fault! {
    /// What is wrong with a digest.
    pub enum DigestFault;
    Algorithm(String) => (Unsupported, "digest algorithm {0} is not supported",
        "plyfold verifies sha256, sha384 and sha512"),
    Invalid(String) => (Corrupt, "invalid digest {0:?}"),
}

/// Parses `algorithm:encoded` strictly: lower-case hex of the right length, an algorithm that can be verified.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) for anything that is not a digest,
/// [`Unsupported`](crate::ErrorKind::Unsupported) for an algorithm other than sha256, sha384 and sha512.
///
/// ```
/// let text = format!("sha256:{}", "0".repeat(64));
/// assert_eq!(plyfold_core::digest::parse(&text)?.algorithm().as_ref(), "sha256");
/// assert!(plyfold_core::digest::parse("sha256:../../etc/passwd").is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn parse(text: &str) -> Result<Digest> {
    let invalid = |e| Error::from(DigestFault::Invalid(text.to_owned())).with_source(e);
    let digest = Digest::try_from(text).map_err(invalid)?;
    supported(&digest)?;
    Ok(digest)
}

/// Checks that plyfold can verify content against this digest.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) for an algorithm other than sha256, sha384 and sha512.
pub fn supported(digest: &Digest) -> Result<()> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha384 | DigestAlgorithm::Sha512 => Ok(()),
        other => Err(DigestFault::Algorithm(other.to_string()).into()),
    }
}

/// The sha256 digest of `bytes`.
///
/// ```
/// let empty = plyfold_core::digest::sha256(b"");
/// assert!(empty.as_ref().starts_with("sha256:e3b0c442"));
/// ```
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// The ChainID of an image's layers, by their `diff_id`s, bottom first: the digest of what they are when they are stacked
/// (image-spec, config.md, "Layer ChainID"). `None` without layers.
///
/// ```
/// use plyfold_core::digest::{chain_id, sha256};
///
/// let [a, b] = [sha256(b"a"), sha256(b"b")];
/// assert_eq!(chain_id(&[a.clone()]), Some(a.clone()));
/// assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(sha256(format!("{a} {b}").as_bytes())));
/// ```
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, others) = diff_ids.split_first()?;
    let stacked = |below: Digest, diff_id: &Digest| sha256(format!("{below} {diff_id}").as_bytes());
    Some(others.iter().fold(first.clone(), stacked))
}

/// Hands over all that a reader still has; how many bytes that is.
pub fn read_all(mut reader: impl io::Read, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let (mut chunk, mut size) = (PageBuffer::new(256 << 10), 0);
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(size),
            Ok(count) => {
                each(&chunk[..count]);
                size += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A running hash that ends in a [`Digest`].
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A sha256 hasher.
    pub fn sha256() -> Self {
        Self(State::Sha256(Sha256::new()))
    }

    /// A hasher that ends in a digest comparable with `digest`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for an algorithm that cannot be verified.
    pub fn like(digest: &Digest) -> Result<Self> {
        supported(digest)?;
        Ok(Self(match digest.algorithm() {
            DigestAlgorithm::Sha384 => State::Sha384(sha2::Sha384::new()),
            DigestAlgorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            _ => State::Sha256(Sha256::new()),
        }))
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha384(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Hashes more bytes of two streams, which takes less time than one after the other where both are hashed by sha256.
    pub fn update_two([one, two]: [&mut Self; 2], bytes: [&[u8]; 2]) {
        if let (State::Sha256(one), State::Sha256(two)) = (&mut one.0, &mut two.0) {
            return update_two([one, two], bytes);
        }
        one.update(bytes[0]);
        two.update(bytes[1]);
    }

    /// Hashes all that a reader still has; how many bytes that is.
    ///
    /// # Errors
    /// Those of the reader, but an interruption by a signal.
    pub fn read_all(&mut self, reader: impl io::Read) -> io::Result<u64> {
        read_all(reader, |chunk| self.update(chunk))
    }

    /// The digest of all bytes so far.
    ///
    /// # Panics
    /// Never: the text is built in the digest grammar.
    pub fn finish(self) -> Digest {
        let text = match self.0 {
            State::Sha256(state) => format!("sha256:{}", Hex(&state.finish())),
            State::Sha384(state) => format!("sha384:{}", Hex(&state.finalize())),
            State::Sha512(state) => format!("sha512:{}", Hex(&state.finalize())),
        };
        Digest::try_from(text).expect("hex of a known algorithm is a digest")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
