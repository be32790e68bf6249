//! The grammar of `save`.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum};

use super::written_files::Durably;
use crate::save::ArchiveForm;

/// Options of `save`.
#[derive(Debug, Group)]
pub(crate) struct Save {
    /// Which images of the store; or the URI of an image elsewhere
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) out: PathBuf,
    /// The form of the archive: an OCI layout with Docker's list, which keeps every digest, or what docker save wrote before
    /// version 25
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Form,
    /// Leave out manifest.json, Docker's list, for readers that want the layout alone
    #[arg(long)]
    pub(crate) no_docker_list: bool,
    /// Save what refers to the images, too, such as signatures and SBOMs
    #[arg(long)]
    pub(crate) referrers: bool,
    /// Leave out layers that the receiver has: those of an image, of an archive or a layout directory, or of another store
    /// by store:DIR; may be given several times
    #[arg(long, value_name = "BASE")]
    pub(crate) since: Vec<String>,
    #[command(flatten)]
    pub(crate) durably: Durably,
}

/// [`ArchiveForm`] on the command line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Form {
    /// An OCI layout
    #[default]
    Oci,
    /// Configs and uncompressed layers of images of one platform; digests of manifests are not kept
    Docker,
}

impl From<Form> for ArchiveForm {
    fn from(form: Form) -> Self {
        match form {
            Form::Docker => Self::Docker,
            Form::Oci => Self::Oci,
        }
    }
}
