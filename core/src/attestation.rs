//! What attests to an image: SBOMs and provenance, beside it in its index or as what refers to it.
//!
//! ```
//! use plyfold_core::{ImageAttestations as _, ImageSource, Result};
//!
//! /// The SPDX and CycloneDX documents of an image, as JSON.
//! async fn sboms(image: &dyn ImageSource) -> Result<Vec<bytes::Bytes>> {
//!     let mut documents = Vec::new();
//!     for sbom in image.sboms().await? {
//!         documents.push(sbom.predicate().await?);
//!     }
//!     Ok(documents)
//! }
//! ```
//!
//! Signatures are not verified: what is found is what the repository holds. `cosign verify-attestation` verifies it.

mod fault;
mod found;
mod one;
mod statement;

use async_trait::async_trait;

use crate::Result;
use crate::source::ImageSource;

pub use fault::{AttestationFault, limits};
pub use one::{Attestation, AttestationKind, AttestationOrigin};

/// What attests to an image, the same for every backend and cache.
///
/// It is found in the image's indexes, as `BuildKit` writes it, by [referrers](ImageSource::referring) of the image and of
/// these indexes, and under cosign's tags. What stands in several of these places is one.
#[async_trait]
pub trait ImageAttestations: ImageSource {
    /// All that attests to the image, in the order of the index, then of the lists of referrers. Manifests are read, no
    /// statement.
    ///
    /// # Contract
    /// S 95 `sboms_none_is_empty_multiple_supported_predicate_extracted`, S 96
    /// `attestations_by_annotation_and_by_referrers_agree`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the index lists an attestation that is not there;
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`limits`]; otherwise as [`ImageSource::referring`] and
    /// [`ImageSource::document`].
    async fn attestations(&self) -> Result<Vec<Attestation>> {
        found::all(self.as_source()).await
    }

    /// The SBOMs of the image: SPDX and `CycloneDX`. A statement is read only where no manifest says what it is.
    ///
    /// # Contract
    /// As [`attestations`](Self::attestations).
    ///
    /// # Errors
    /// As [`attestations`](Self::attestations) and [`Attestation::predicate`].
    async fn sboms(&self) -> Result<Vec<Attestation>> {
        self.attestations_of(AttestationKind::is_sbom).await
    }

    /// How the image was built, as SLSA's provenance says it. As [`sboms`](Self::sboms) otherwise.
    ///
    /// # Contract
    /// As [`attestations`](Self::attestations).
    ///
    /// # Errors
    /// As [`sboms`](Self::sboms).
    async fn provenance(&self) -> Result<Vec<Attestation>> {
        self.attestations_of(|kind| kind == AttestationKind::Provenance).await
    }

    /// Those of the kinds that are wanted. As [`sboms`](Self::sboms) otherwise.
    ///
    /// # Contract
    /// As [`attestations`](Self::attestations).
    ///
    /// # Errors
    /// As [`sboms`](Self::sboms).
    async fn attestations_of(&self, is_wanted: fn(AttestationKind) -> bool) -> Result<Vec<Attestation>> {
        let mut wanted = Vec::new();
        for attestation in self.attestations().await? {
            wanted.extend(attestation.typed().await?.filter(|one| is_wanted(one.kind())));
        }
        Ok(wanted)
    }
}

impl<T: ImageSource + ?Sized> ImageAttestations for T {}
