//! The grammar of `copy` and `push`.

use clap::{Args as Group, ValueEnum};

use crate::{Conversion, MediaForm, Recompression};

/// Options of `copy`.
#[derive(Debug, Group)]
pub(crate) struct Copy {
    /// What to copy
    pub(crate) source: String,
    /// The target, with its name
    pub(crate) target: String,
    /// Copy what refers to the image, too, such as signatures and SBOMs
    #[arg(long)]
    pub(crate) referrers: bool,
    /// The index, when some platforms are copied: kept with its digest, where the target takes that; refused; or rewritten,
    /// with another digest
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sparse: Sparse,
    #[command(flatten)]
    pub(crate) convert: Convert,
}

/// Options of `push`.
#[derive(Debug, Group)]
pub(crate) struct Push {
    /// Which image
    pub(crate) image: String,
    /// The target, with its name
    pub(crate) target: String,
    /// Of an index that is not all in the store, push one of what is there: with another digest
    #[arg(long)]
    pub(crate) rewrite_index: bool,
    /// Push what refers to it, too: what the store has under the tags ALGORITHM-HEX, such as root hashes
    #[arg(long)]
    pub(crate) referrers: bool,
    #[command(flatten)]
    pub(crate) convert: Convert,
}

/// What is changed on the way.
#[derive(Clone, Copy, Debug, Group)]
pub(crate) struct Convert {
    /// Change the media types of manifests and indexes to those of OCI or of Docker: with other digests
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Compress layers anew that are not compressed so: zstd or gzip, with a level as in zstd:19; with other digests
    #[arg(long, value_name = "KIND[:LEVEL]", value_parser = recompression)]
    compress: Option<Recompression>,
}

impl From<Convert> for Option<Conversion> {
    fn from(Convert { format, compress }: Convert) -> Self {
        let conversion = Conversion { form: format.map(MediaForm::from), compress };
        (conversion != Conversion::default()).then_some(conversion)
    }
}

pub(crate) fn recompression(text: &str) -> Result<Recompression, String> {
    text.parse().map_err(|e: crate::Error| super::hints::on_one_line(&e))
}

/// [`MediaForm`] on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Form {
    /// Docker's manifest, version 2 schema 2, and its manifest list
    Docker,
    /// OCI's manifest and index
    Oci,
}

impl From<Form> for MediaForm {
    fn from(form: Form) -> Self {
        match form {
            Form::Docker => Self::Docker,
            Form::Oci => Self::Oci,
        }
    }
}

/// [`crate::Sparse`] on the command line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Sparse {
    /// Copy the index as it is
    Keep,
    /// Copy nothing
    #[default]
    Refuse,
    /// Copy an index of what is copied
    Rewrite,
}

impl From<Sparse> for crate::Sparse {
    fn from(sparse: Sparse) -> Self {
        match sparse {
            Sparse::Keep => Self::Keep,
            Sparse::Refuse => Self::Refuse,
            Sparse::Rewrite => Self::Rewrite,
        }
    }
}
