//! Several layer images as one.

use plyfold_core::layer::{Metadata, TreeLimits};
use plyfold_core::tree::{Node, Tree};
use plyfold_core::{
    Advice, ArtifactReader, Error, ErrorKind, Format, Input, InputArtifact, Made, Materializer, OutputSpec,
    Result, Role, Sink, TreePlace,
};
use plyfold_verity::{tree_key, with_tree};
use uuid::Uuid;
use zerocopy::FromZeros as _;

use crate::fault::ErofsFault;
use crate::format::DeviceSlot;
use crate::options::Options;
use crate::reader::Reader;
use crate::shown::{self, OverlayDifferences};
use crate::stream::BlockStream;
use crate::{overlay, writer};

/// Makes a metadata-only image of stacked layers, with the layer images as its devices.
///
/// No data is copied: a file of one run of blocks is one chunk on its layer's device. Linux mounts it from 5.16
/// with `-o device=LAYER1,device=LAYER2,…`, bottom first. From 6.4 the image and its layers, one after the other
/// in that order, are also one disk that needs no options: what a VMDK makes of them.
///
/// The layers must be [`ErofsLayer`](crate::ErofsLayer)'s, all of this materializer's block size.
#[derive(Clone, Debug, Default)]
pub struct ErofsMerged {
    options: Options,
    hash_tree: Option<TreePlace>,
    separates_trees: bool,
    /// By default those of the sink.
    limits: Option<TreeLimits>,
}

impl ErofsMerged {
    /// A materializer with other options than the defaults.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The same with a dm-verity hash tree behind the image, in blocks of the image's size, of layers that have such
    /// trees, too ([`ErofsLayer::with_hash_tree`](crate::ErofsLayer::with_hash_tree)). The image's own bytes stay as they
    /// are.
    #[must_use]
    pub fn with_hash_trees(mut self) -> Self {
        self.hash_tree = Some(TreePlace::Append);
        self
    }

    /// The same with trees that become files of their own, as
    /// [`ErofsLayer::with_separate_hash_tree`](crate::ErofsLayer::with_separate_hash_tree) has it.
    #[must_use]
    pub fn with_separate_hash_trees(mut self) -> Self {
        self.separates_trees = true;
        self.with_hash_trees()
    }

    /// Bounds on what the metadata of all layers together takes in memory. They change no image.
    #[must_use]
    pub fn with_limits(mut self, limits: TreeLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Where overlayfs, given the images of these layers, does not show what the merged image is. `stacked` says
    /// whether a single layer is mounted by overlayfs, too: under an upper.
    ///
    /// # Errors
    /// As [`Materializer::join`].
    pub fn overlay_differences(&self, layers: &[InputArtifact], stacked: bool) -> Result<OverlayDifferences> {
        let limits = self.limits.clone().unwrap_or_default();
        overlay_differences(layers, &limits, stacked)
    }

    /// The root directory of the image that these layers make: that of the uppermost one with an entry for it.
    ///
    /// # Errors
    /// As [`Materializer::join`].
    pub fn root(layers: &[InputArtifact]) -> Result<Metadata> {
        let mut found = Metadata { mode: 0o755, ..Metadata::default() };
        for layer in layers.iter().rev() {
            let root = ArtifactReader::open(&*layer.artifact).and_then(|file| Reader::new(file)?.root());
            let root = root.map_err(|e| of_layer(e, layer))?;
            let is_implied = root.directory().is_some_and(|directory| directory.implied);
            let Node { mode, uid, gid, mtime, xattrs, .. } = root;
            found = Metadata { mode, uid, gid, mtime, xattrs: xattrs.to_vec() };
            if !is_implied {
                break;
            }
        }
        Ok(found)
    }

    fn open(&self, layer: &InputArtifact, limits: &TreeLimits) -> Result<Reader<ArtifactReader>> {
        let mut reader = open(layer, limits)?;
        if reader.block_size() != self.options.block_size {
            return Err(ErofsFault::BlockSizes(reader.block_size(), self.options.block_size).into());
        }
        if reader.is_compressed() {
            return Err(ErofsFault::CompressedLayer.into());
        }
        if reader.devices() > 0 {
            return Err(ErofsFault::MergedLayer.into());
        }
        // On the one flat disk each layer starts where the one before it ends.
        let size = reader.blocks() * u64::from(reader.block_size());
        if reader.size() != size && !reader.ends_with_hash_tree()? {
            return Err(ErofsFault::FileSize(reader.size(), size).into());
        }
        Ok(reader)
    }
}

/// Where overlayfs, given the images of layers, does not show what the image is.
pub(crate) fn overlay_differences(
    layers: &[InputArtifact],
    limits: &TreeLimits,
    stacked: bool,
) -> Result<OverlayDifferences> {
    let open = |at: usize| {
        let layer: &InputArtifact = &layers[at];
        open(layer, limits).map_err(|e| of_layer(e, layer))
    };
    shown::differences(layers.len(), open, limits, stacked)
}

/// A layer's image, whatever a merged one can refer to.
fn open(layer: &InputArtifact, limits: &TreeLimits) -> Result<Reader<ArtifactReader>> {
    Ok(Reader::new(ArtifactReader::open(&*layer.artifact)?)?.with_limits(limits.clone()))
}

impl Materializer for ErofsMerged {
    fn format(&self) -> Format {
        let options = tree_key(self.options.key(), self.hash_tree);
        Format { name: "erofs-merged", version: 1, options, extension: "erofs" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "erofs-layers", options: self.options.layers(self.hash_tree) }
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, self.format().extension).with_stem("merged")]
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    fn separates_hash_trees(&self) -> bool {
        self.separates_trees
    }

    fn join(&self, layers: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        with_tree(self.hash_tree, self.options.block_size, None, out, |out| self.write(layers, out))
    }
}

impl ErofsMerged {
    fn write(&self, layers: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        match layers.len() {
            0 => return Err(ErofsFault::NoLayers.into()),
            1..=0xffff => {}
            more => return Err(ErofsFault::Layers(more).into()),
        }
        let options = &self.options;
        let limits = self.limits.clone().unwrap_or_else(|| out.limits());
        let head_blocks = writer::head_blocks(options, layers.len());
        let mut devices = Vec::with_capacity(layers.len());
        let (mut end, mut name) = (0u32, String::from("erofs:merged"));
        let trees = layers.iter().zip(1..).map(|(artifact, device)| {
            let layer = (|| {
                let mut reader = self.open(artifact, &limits)?;
                let tag = artifact.diff_id.as_ref().map(|digest| digest.digest().as_bytes());
                let tag = std::array::from_fn(|at| tag.and_then(|tag| tag.get(at)).copied().unwrap_or(0));
                let count = u32::try_from(reader.blocks()).map_err(|_| ErofsFault::BlocksOfLayers)?;
                let (blocks, uniaddr) = (count.into(), end.into());
                devices.push(DeviceSlot { tag, blocks, uniaddr, ..DeviceSlot::new_zeroed() });
                end = end.checked_add(count).ok_or(ErofsFault::BlocksOfLayers)?;
                name.push('/');
                name.push_str(&Uuid::from_bytes(reader.uuid()).to_string());
                overlay::from_overlay(reader.tree_on(device)?)
            })();
            layer.map_err(|e| of_layer(e, artifact))
        });
        let tree = Tree::from_layers_within(trees, limits.clone())?;
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes();
        let image = BlockStream::new(out.output(Role::Image)?, options.block_size, head_blocks)?;
        writer::finish(&tree, options, options.uuid.unwrap_or(uuid), devices, image)
    }
}

/// An error about a layer's file, which can be made again where it is damaged.
fn of_layer(error: Error, layer: &InputArtifact) -> Error {
    let error = error.with_context("layer", shown_as(layer));
    match (error.kind(), error.hint()) {
        (ErrorKind::Corrupt, None) => error.with_advice(Advice::RepairContent),
        _ => error,
    }
}

/// A layer's file as errors name it.
fn shown_as(layer: &InputArtifact) -> String {
    layer.artifact.path().map_or_else(|| layer.name.clone(), |path| path.display().to_string())
}
