//! What is wrong with attestations, and how much of them is read.

use crate::Digest;

crate::fault! {
    /// What is wrong with what attests to an image.
    pub enum AttestationFault;
    /// There are too many of them, or the name of a type is too long.
    Many(String) => (Limit, "{0}"),
    /// The content is no attestation that plyfold can read.
    Statement(String) => (Corrupt, "not an attestation: {0}"),
    /// It is about something else than the image that it is beside, or refers to.
    Subject(Digest) => (Corrupt, "the statement is not about {0}",
        "it was moved here from another image, or the image was built again without it"),
    /// A document of another form than JSON, which is there as it is alone.
    Text(String) => (Unsupported, "a document of the type {0} is not JSON",
        "it can be read as it is stored"),
}

/// Bounds on what is read. Memory follows these, never what an input declares.
pub mod limits {
    /// Bytes of a statement, or of an envelope around it.
    pub const STATEMENT: u64 = 64 << 20;
    /// Attestations to one image.
    pub const ATTESTATIONS: usize = 4096;
    /// Bytes of the type of a predicate, and of a media type.
    pub const TYPE: usize = 4096;
    /// Manifests of attestations that are looked at for one image.
    pub const MANIFESTS: usize = 1024;
    /// Bytes of these manifests together.
    pub const DOCUMENTS: usize = 64 << 20;
}
