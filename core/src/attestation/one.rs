//! One attestation.

use std::sync::Arc;

use bytes::Bytes;
use strum::Display;

use super::fault::{AttestationFault, limits};
use super::statement::{self, Unwrapped, unwrapped};
use crate::source::ImageSource;
use crate::{BlobRange, Descriptor, Digest, Error, Result, Size};

/// Where an attestation was found.
#[derive(Clone, Copy, Debug, Display, Eq, PartialEq)]
#[non_exhaustive]
#[strum(serialize_all = "kebab-case")]
pub enum AttestationOrigin {
    /// Under a tag of cosign's, which is made of the digest of what it is about.
    CosignTag,
    /// In the image's index, as `BuildKit` writes it.
    Index,
    /// As a referrer of the image, or of an index with it.
    Referrer,
}

/// What an attestation says, by the type of its predicate.
#[derive(Clone, Copy, Debug, Display, Eq, PartialEq)]
#[non_exhaustive]
#[strum(serialize_all = "lowercase")]
pub enum AttestationKind {
    /// An SBOM in the form of `CycloneDX`.
    CycloneDx,
    /// Something else.
    Other,
    /// SLSA provenance: how the image was built.
    Provenance,
    /// An SBOM in the form of SPDX.
    Spdx,
}

impl AttestationKind {
    fn of(predicate_type: &str) -> Self {
        let begins = |starts: &[&str]| starts.iter().any(|start| predicate_type.starts_with(start));
        if begins(&["https://spdx.dev/Document"]) {
            Self::Spdx
        } else if begins(&["https://cyclonedx.org/bom", "https://cyclonedx.org/schema"]) {
            Self::CycloneDx
        } else if begins(&["https://slsa.dev/provenance/"]) {
            Self::Provenance
        } else {
            Self::Other
        }
    }

    /// Whether it is an SBOM.
    pub fn is_sbom(self) -> bool {
        matches!(self, Self::CycloneDx | Self::Spdx)
    }
}

/// One attestation to an image. Its content is read when it is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attestation {
    pub(super) manifest: Descriptor,
    pub(super) content: Descriptor,
    pub(super) predicate_type: Option<String>,
    pub(super) origin: AttestationOrigin,
    pub(super) subject: Digest,
    /// The image's source, which all attestations to it share.
    pub(super) source: Arc<dyn ImageSource>,
}

impl Attestation {
    /// The manifest that it is in.
    pub fn manifest(&self) -> &Descriptor {
        &self.manifest
    }

    /// Its content: a statement, an envelope around one, or a plain SBOM.
    pub fn content(&self) -> &Descriptor {
        &self.content
    }

    /// Where it was found.
    pub fn origin(&self) -> AttestationOrigin {
        self.origin
    }

    /// The digest of what it is about: the image's manifest, or an index that led to it.
    pub fn subject(&self) -> &Digest {
        &self.subject
    }

    /// The type of its predicate, as `https://spdx.dev/Document`; `None` when only its content says so. What
    /// [`ImageAttestations::sboms`](super::ImageAttestations::sboms) and [`provenance`](super::ImageAttestations::provenance) find has it.
    pub fn predicate_type(&self) -> Option<&str> {
        self.predicate_type.as_deref()
    }

    /// What it says, as far as its type is known.
    pub fn kind(&self) -> AttestationKind {
        self.predicate_type().map_or(AttestationKind::Other, AttestationKind::of)
    }

    /// Its content as it is stored, verified by its digest.
    ///
    /// # Errors
    /// As [`ImageSource::blob`]; [`Limit`](crate::ErrorKind::Limit) beyond [`limits::STATEMENT`].
    pub async fn statement(&self) -> Result<Bytes> {
        let read = async {
            if self.content.size() > limits::STATEMENT {
                let sizes = Size(self.content.size()).beyond(Size(limits::STATEMENT));
                return Err(Error::limit(format!("the statement has {sizes}")));
            }
            self.source.blob(&self.content, BlobRange::FULL).await?.bytes(limits::STATEMENT).await
        };
        read.await.map_err(|e| self.at(e))
    }

    /// What it says of the image: the predicate of the statement, out of its envelopes, or the plain SBOM. JSON, byte for
    /// byte as it was written.
    ///
    /// # Errors
    /// As [`statement`](Self::statement); [`Corrupt`](crate::ErrorKind::Corrupt) with an [`AttestationFault`] for what is
    /// no statement, or one about another image; [`Unsupported`](crate::ErrorKind::Unsupported) for an SBOM that is not
    /// JSON.
    pub async fn predicate(&self) -> Result<Bytes> {
        Ok(self.unwrapped().await?.predicate)
    }

    /// The digests of content that the statement says it is about; empty for a plain SBOM, and for a statement that leaves
    /// it open.
    ///
    /// # Errors
    /// As [`predicate`](Self::predicate).
    pub async fn subjects(&self) -> Result<Vec<Digest>> {
        Ok(self.unwrapped().await?.subjects)
    }

    async fn unwrapped(&self) -> Result<Unwrapped> {
        let kind = self.content.media_type().to_string();
        if statement::is_text(&kind) {
            return Err(self.at(AttestationFault::Text(kind).into()));
        }
        let unwrapped = unwrapped(&self.statement().await?).map_err(|e| self.at(e))?;
        // Without subjects the manifest decides, which names the image.
        if !unwrapped.is_open && !unwrapped.subjects.contains(&self.subject) {
            return Err(self.at(AttestationFault::Subject(self.subject.clone()).into()));
        }
        Ok(unwrapped)
    }

    /// The same with its predicate's type, for which its content is read where the manifest does not say it. `None` when the
    /// content is another thing, such as a signature.
    ///
    /// # Errors
    /// As [`statement`](Self::statement); [`Corrupt`](crate::ErrorKind::Corrupt) for content that is not JSON, and for a
    /// damaged envelope or statement; [`Limit`](crate::ErrorKind::Limit) beyond [`limits::TYPE`].
    pub async fn typed(self) -> Result<Option<Self>> {
        if self.predicate_type.is_some() {
            return Ok(Some(self));
        }
        let statement = self.statement().await?;
        let predicate_type = statement::predicate_type(&statement).map_err(|e| self.at(e))?;
        Ok(predicate_type.map(|predicate_type| Self { predicate_type: Some(predicate_type), ..self }))
    }

    fn at(&self, error: Error) -> Error {
        error
            .with_context("attestation", self.content.digest())
            .with_context("manifest", self.manifest.digest())
    }
}
