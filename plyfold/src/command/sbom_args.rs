//! The grammar of `sbom`.

use clap::{Args as Group, ValueEnum};

use super::reading::Policy;
use crate::AttestationKind;

/// Options of `sbom`.
#[derive(Debug, Group)]
pub(crate) struct Sbom {
    /// Which image
    pub(crate) image: String,
    /// Those of one form; or each exactly as it is stored, with the statement and the envelope around it
    #[arg(long, value_enum)]
    pub(crate) format: Option<Form>,
    /// That whose digest begins so, as --list shows it
    #[arg(long)]
    pub(crate) digest: Option<String>,
    /// Write all of several, each with a line feed behind it
    #[arg(long)]
    pub(crate) all: bool,
    /// Write how the image was built, as SLSA's provenance says it, in place of SBOMs
    #[arg(long)]
    pub(crate) provenance: bool,
    /// List what there is
    #[arg(long, conflicts_with = "all")]
    pub(crate) list: bool,
    /// When to ask the image's backend [default: if-missing for registries, always for directories and archives]
    #[arg(long, value_enum)]
    pub(crate) policy: Option<Policy>,
}

/// What is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Form {
    /// SBOMs in SPDX, out of their statements
    Spdx,
    #[value(name = "cyclonedx", help = "SBOMs in CycloneDX, out of their statements")]
    CycloneDx,
    /// As it is stored
    Raw,
}

impl Form {
    /// Whether an SBOM of this kind is one of the form.
    pub(crate) fn takes(self, kind: AttestationKind) -> bool {
        match self {
            Self::Spdx => kind == AttestationKind::Spdx,
            Self::CycloneDx => kind == AttestationKind::CycloneDx,
            Self::Raw => true,
        }
    }
}
