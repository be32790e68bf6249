//! Materializers: verified layers or a whole image in, block-device files out.

use std::fmt;
use std::fs::File;
use std::path::Path;

use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};

use crate::artifact::{ArtifactHandle, LocalArtifact, Made};
use crate::format::{Format, Output};
use crate::layer::{LayerTar, TreeLimits};
use crate::options::Options;
use crate::tree::MergedTree;
use crate::{Digest, Error, Result};

/// What a file is for.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, strum::Display,
)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Text that names other files, such as a VMDK.
    Descriptor,
    /// Hashes of the image, such as a dm-verity tree.
    HashTree,
    /// The disk or the archive itself.
    Image,
    /// Anything else that belongs to the image.
    Sidecar,
}

/// One of the files that a materializer makes. It is known before the work: with the [`Format`] it is part of the
/// artifact's key.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OutputSpec {
    /// What the file is for. A materializer has one file of a role.
    pub role: Role,
    /// The file extension, without a dot, as [`Format::extension`]. A materializer has one file of an extension.
    pub extension: &'static str,
    /// The file name without its extension, where the file is put beside others: lower-case letters, digits, `-`. Files
    /// of layers are numbered instead, and `layer-NUMBER` is theirs, as `upper.ext4` is the upper's.
    pub stem: &'static str,
    /// Whether its users write to it, as to a root disk: outside of the cache it is a copy of its own, which
    /// [`Materializer::adapt`] has seen, never a link to what the cache has.
    pub writable: bool,
}

impl OutputSpec {
    /// The longest [`stem`](Self::stem), in bytes.
    pub const STEM_BYTES: usize = 64;

    /// A file `rootfs.EXTENSION`.
    pub fn new(role: Role, extension: &'static str) -> Self {
        Self { role, extension, stem: "rootfs", writable: false }
    }

    /// The same for a file that its users write to.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// The same with another file name.
    #[must_use]
    pub fn with_stem(mut self, stem: &'static str) -> Self {
        self.stem = stem;
        self
    }
}

/// What a format is made from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// The files of another format, and below them what those were made from: `erofs-merged` gives the merged image,
    /// then the layers, bottom first. See [`Materializer::join`].
    Artifacts {
        /// The [name](Format::name) of the other format.
        format: &'static str,
        /// Its options. Where they change bytes, they belong into [`Format::options`] of this format, too.
        options: Options,
    },
    /// The whole image, as a tree with content. See [`Materializer::image`].
    Image,
    /// One layer's tar, in one pass, also while it is downloaded. See [`Materializer::layer`].
    Layer,
    /// Nothing of the image, such as an empty disk: [`Materializer::join`] without artifacts.
    Nothing,
}

/// Where a materializer writes. Every [`Output`] is a sink of one file, its [image](Role::Image).
pub trait Sink: Send {
    /// The file of a role: empty at first, the same one when it is asked for again.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a role that [`Materializer::outputs`] does not list.
    fn output(&mut self, role: Role) -> Result<&mut dyn Output>;

    /// A file without a name on the disk of the output, gone when it is dropped: for formats that need room for what
    /// they cannot write in order.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); [`Config`](crate::ErrorKind::Config) where no folder for it is known.
    fn scratch(&mut self) -> Result<File>;

    /// Bounds on what the materializer may hold in memory for names and metadata. They change no byte.
    fn limits(&self) -> TreeLimits {
        TreeLimits::default()
    }
}

impl<O: Output> Sink for O {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        match role {
            Role::Image => Ok(self),
            other => Err(Error::unsupported(format!("there is one file, its image, and no {other}"))),
        }
    }

    fn scratch(&mut self) -> Result<File> {
        tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))
    }
}

/// A sink of one file of another role than [`Role::Image`].
#[derive(Debug)]
pub struct OneFile<O>(pub Role, pub O);

impl<O: Output> Sink for OneFile<O> {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        let Self(of, file) = self;
        if role == *of {
            return Ok(file);
        }
        Err(Error::unsupported(format!("there is one file, its {of}, and no {role}")))
    }

    fn scratch(&mut self) -> Result<File> {
        self.1.scratch()
    }
}

/// A finished file that another format is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InputArtifact {
    /// The name that it has beside the output. Formats that name other files (VMDK) write this text.
    pub name: String,
    /// What the file is for.
    pub role: Role,
    /// The file.
    pub artifact: Box<dyn ArtifactHandle>,
    /// The layer it was made from, if it was made from one.
    pub diff_id: Option<Digest>,
}

impl Made {
    /// What holds for several files together, as [`and`](Self::and) has it.
    pub fn of_files(files: &[InputArtifact]) -> Self {
        files.iter().fold(Self::default(), |made, file| made.and(file.artifact.made()))
    }
}

impl InputArtifact {
    /// A file of a cache.
    pub fn new(
        name: impl Into<String>,
        role: Role,
        artifact: Box<dyn ArtifactHandle>,
        diff_id: Option<Digest>,
    ) -> Self {
        Self { name: name.into(), role, artifact, diff_id }
    }

    /// The image at a path, with its path as its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn local(path: &Path, diff_id: Option<Digest>) -> Result<Self> {
        let found = std::fs::metadata(path);
        let size = found.map_err(|e| Error::io(format!("looking at {}", path.display()), e))?.len();
        let artifact = LocalArtifact::new(path.to_owned(), size, Made::default());
        Ok(Self::new(path.to_string_lossy(), Role::Image, Box::new(artifact), diff_id))
    }
}

/// Turns layers, images or files of other formats into block-device files.
///
/// Synchronous, for blocking threads. Deterministic: the same input and options give the same bytes on every
/// machine, with any number of threads (rules M 147 `same_input_same_bytes` and M 232 `threads_change_no_byte`). Memory
/// is bounded by constants, and for names and metadata by [`Sink::limits`] (rule M 152
/// `memory_bounded_for_any_layer_size`); the zeros of sparse files are not written where the format has holes (rule M 234
/// `holes_stay_holes`). Any error leaves nothing behind (rule M 153 `output_absent_after_any_error`): the caller drops the
/// output.
///
/// A materializer writes the one method that belongs to its [`input`](Self::input); the others answer
/// [`Unsupported`](crate::ErrorKind::Unsupported).
pub trait Materializer: DynClone + fmt::Debug + Send + Sync + 'static {
    /// What it makes.
    fn format(&self) -> Format;

    /// What it is made from.
    fn input(&self) -> Input;

    /// The files that it makes; the first is the one that others refer to. Known without the image, and the same at
    /// each call.
    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, self.format().extension)]
    }

    /// Whether its files show the whole image without any other file (rule M 148 `kernel_mount_equals_reference_tree`).
    /// What is made of a whole image does. A format of other files says so by itself: then these are not put beside its
    /// own. One that needs them copies none of their content (rule M 154 `merged_image_refers_to_layers_without_copying`).
    fn is_self_contained(&self) -> bool {
        self.input() == Input::Image
    }

    /// Changes a copy of a finished file outside of the cache, where [`OutputSpec::writable`]: what the options say
    /// that is not in [`format`](Self::format), such as a size, so that one artifact serves for all (rule M 231
    /// `an_adapted_copy_holds_the_same`). By default nothing.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for options that do not fit the file, before anything is changed;
    /// [`Io`](crate::ErrorKind::Io).
    fn adapt(&self, role: Role, copy: &mut dyn Output) -> Result<()> {
        let _ = (role, copy);
        Ok(())
    }

    /// Whether its image has a hash tree that covers all of it, which [`Made::hash_tree`] then describes (rule M 245
    /// `a_hash_tree_is_of_all_of_its_image`). What it is made from is asked by itself.
    fn has_hash_tree(&self) -> bool {
        false
    }

    /// Whether the hash trees of its files, and of those that it is made from, become files of their own beside the images,
    /// although they are behind the data in the cache: an artifact of a layer is one file. One artifact serves for both
    /// places then, so nothing of this is in [`format`](Self::format). A tree gets the name of its image with the extension
    /// `verity`.
    fn separates_hash_trees(&self) -> bool {
        false
    }

    /// Whether it is made of tars alone, for [`Input::Layer`]: an image that has a layer of another
    /// [form](crate::layer::LayerForm) is then refused before any of its layers is fetched (rule M 268
    /// `a_format_of_tars_alone_says_so`).
    fn takes_only_tars(&self) -> bool {
        false
    }

    /// Writes one layer, in one pass over its tar, for [`Input::Layer`]. Reads the tar to its verified end.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Limit`](crate::ErrorKind::Limit) for bad layers,
    /// [`Io`](crate::ErrorKind::Io) from `out`, [`Unsupported`](crate::ErrorKind::Unsupported).
    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let _ = (tar, out);
        Err(Error::unsupported(format!("{} is not made from a single layer", self.format().name)))
    }

    /// Writes a whole image, for [`Input::Image`]. Its layers were verified before (rule M 196
    /// `a_bad_layer_is_an_error_not_a_smaller_image`).
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) for what the format cannot hold, [`Io`](crate::ErrorKind::Io) from `out`,
    /// [`Unsupported`](crate::ErrorKind::Unsupported); [`Config`](crate::ErrorKind::Config) for a size that the options ask
    /// for and that is too small, before anything is written (rule M 233 `a_size_too_small_is_told_first`).
    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        let _ = (image, out);
        Err(Error::unsupported(format!("{} is not made from a whole image", self.format().name)))
    }

    /// Writes out of finished files, for [`Input::Artifacts`], in their order, and for [`Input::Nothing`], with none.
    ///
    /// # Errors
    /// As [`Materializer::layer`]; [`Config`](crate::ErrorKind::Config) for files that cannot be joined.
    fn join(&self, artifacts: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let _ = (artifacts, out);
        Err(Error::unsupported(format!("{} is not made from finished files", self.format().name)))
    }
}

dyn_clone::clone_trait_object!(Materializer);
