//! The disk that the conformance suite joins: a descriptor of a merged image and its layers, in one folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use plyfold_conformance::path_of;
use plyfold_core::{InputArtifact, LocalArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_erofs::ErofsMerged;
use plyfold_vmdk::Vmdk;

/// Rules that have nothing to judge: the disk is made of finished files.
pub(crate) const NOT_JUDGED: [&str; 3] = [
    "a_bad_layer_is_an_error_not_a_smaller_image",
    "appended_patch_reads_back",
    "whiteouts_and_opaque_in_overlay_form",
];

/// With the hash tree of the disk in this place, if it has one.
pub(crate) fn materializer(place: Option<TreePlace>) -> Box<dyn Materializer> {
    Box::new(place.into_iter().fold(Vmdk::new(), Vmdk::with_hash_tree))
}

/// All other places.
pub(crate) fn others(place: Option<TreePlace>) -> impl Iterator<Item = Option<TreePlace>> {
    let all = [None, Some(TreePlace::Append), Some(TreePlace::Separate)];
    all.into_iter().filter(move |other| *other != place)
}

/// The merged image stands beside the descriptor, which names all by file name.
pub(crate) fn join(
    place: Option<TreePlace>,
    layers: &[InputArtifact],
    file: &Path,
    out: &mut dyn Sink,
) -> Result<Made> {
    let path = merged(file);
    let mut image = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let told = ErofsMerged::default().join(layers, &mut image)?;
    let merged = LocalArtifact::new(path, image.metadata()?.len(), told);
    let mut files = vec![InputArtifact::new("merged.erofs", Role::Image, Box::new(merged), None)];
    files.extend(layers.iter().map(|layer| {
        let name = path_of(layer).file_name().unwrap_or_default().to_string_lossy();
        InputArtifact::new(name, layer.role, layer.artifact.clone(), layer.diff_id.clone())
    }));
    materializer(place).join(&files, out)
}

/// The merged image of a descriptor.
pub(crate) fn merged(descriptor: &Path) -> PathBuf {
    descriptor.with_file_name("merged.erofs")
}

/// The hash tree, by its name in a set.
pub(crate) fn named_tree(descriptor: &Path) -> PathBuf {
    descriptor.with_file_name("rootfs.verity")
}

/// Gives the hash tree that the suite has made that name.
pub(crate) fn name_tree(descriptor: &Path) {
    let tree = descriptor.with_extension("verity");
    if tree.exists() {
        fs::copy(tree, named_tree(descriptor)).expect("the tree can be copied");
    }
}

/// Writes files of the suite beside the layers, where the other files are; the descriptor's path.
pub(crate) fn written(files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> PathBuf {
    let descriptor = path_of(&layers[0]).with_file_name("disk.vmdk");
    for (role, bytes) in files {
        let file = if *role == Role::HashTree { named_tree(&descriptor) } else { descriptor.clone() };
        fs::write(file, bytes).expect("a file can be written");
    }
    descriptor
}
