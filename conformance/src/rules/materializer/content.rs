//! Images whose content lies in one file, in several, and in pieces.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _};
use std::path::Path;

use plyfold_core::layer::{LayerOptions, LayerTar, Metadata, TreeLimits};
use plyfold_core::tree::{
    Directory, FileData, Kind, LayerContent, LayerFile, LayerReader, LayerRun, LayerSource, LayerTree,
    LayerTreeBuilder, LowerLink, MergedTree, Node, NodeId, Tree,
};
use plyfold_core::{Digest, ErrorKind, Input, Result, digest};
use tempfile::TempDir;

use super::made::Files;
use crate::MaterializerFixture;
use crate::rules::probe::{assert_kind, sound};
use crate::samples::{self, LayerBuilder};

/// Bytes of a piece.
const PIECE: u64 = 4096;

/// Where the content of layers lies.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// In one temporary file, as it comes out of compressed tars.
    Spooled,
    /// In the tars.
    InTars,
    /// In files that were made of the layers: in pieces, with holes where there are zeros, the nodes in another order.
    InFiles,
    /// One layer here, and one there.
    Mixed,
}

pub(super) async fn content_makes_the_same_bytes_wherever_it_lies(fixture: &dyn MaterializerFixture) {
    if fixture.materializer().input() != Input::Image {
        let folder = TempDir::new().expect("a temporary directory can be made");
        let whole = sound(image(&zeros(), Way::InTars, folder.path()));
        let made = fixture.materializer().image(&whole, &mut Files::spools(fixture));
        assert_kind(made, &ErrorKind::Unsupported);
        return;
    }
    let rootfs = samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    for (tars, ways) in [(rootfs, &[Way::Mixed][..]), (zeros(), &[Way::InTars, Way::InFiles])] {
        let made = |way| {
            let folder = TempDir::new().expect("a temporary directory can be made");
            bytes(fixture, &sound(image(&tars, way, folder.path())))
        };
        let expected = made(Way::Spooled);
        for way in ways.iter().copied() {
            assert!(made(way) == expected, "other bytes where content lies {way:?}");
        }
    }
}

/// Zeros in the file, and holes in the tar.
fn zeros() -> Vec<Vec<u8>> {
    let mut data = vec![1; 1_400_000];
    data[70_000..1_300_000].fill(0);
    let layer = LayerBuilder::new().dir("./", 0o755).file("more", 0o644, &data);
    let layer = layer.file("none", 0o644, &vec![0; 70_000]).file("some", 0o644, &data[..140_000]);
    let runs: [(u64, &[u8]); 3] = [(3, b"run"), (100_000, &data[..70_000]), (290_000, b"end")];
    vec![layer.sparse_file("sparse", 0o644, 300_000, &runs).finish()]
}

fn bytes(fixture: &dyn MaterializerFixture, image: &MergedTree) -> Digest {
    let mut out = Files::spools(fixture);
    sound(fixture.materializer().image(image, &mut out));
    digest::sha256(&out.bytes())
}

fn image(tars: &[Vec<u8>], way: Way, folder: &Path) -> Result<MergedTree> {
    let sources = tars.iter().enumerate().map(|(number, tar)| {
        let in_file = match way {
            Way::Mixed => number % 2 == 0,
            _ => matches!(way, Way::InFiles),
        };
        if matches!(way, Way::Spooled) {
            return LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()).map(LayerSource::from);
        }
        let path = folder.join(number.to_string());
        fs::write(&path, tar)?;
        let file = File::open(&path)?;
        if in_file {
            return LayerFile::new(file, READER, Some(digest::sha256(tar))).map(LayerSource::File);
        }
        LayerTar::in_file(File::open(&path)?, file, LayerOptions::default()).map(LayerSource::from)
    });
    MergedTree::from_sources(sources, TreeLimits::default(), folder)
}

const READER: LayerReader = LayerReader { format: "conformance", package: env!("CARGO_PKG_NAME"), read };

/// Reads a tar as if it were the file of a format that cuts content into pieces.
fn read(layer: &mut LayerContent<'_, '_>, limits: TreeLimits) -> Result<LayerTree<FileData>> {
    let (mut file, mut tar) = (layer.file(), Vec::new());
    file.rewind().and_then(|()| file.read_to_end(&mut tar))?;
    let mut entries = LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default())?;
    let mut builder = LayerTreeBuilder::within(limits.clone());
    let mut files = 0;
    while let Some(mut entry) = entries.next_entry()? {
        entry.metadata.xattrs.retain(|(name, _)| plyfold_core::tree::is_kept_xattr(name));
        builder.insert(entry, |size, extents| {
            files += 1;
            if extents.is_none() && files % 3 == 0 {
                return layer.keep(size, |take| entries.copy_data(size, take));
            }
            let whole = [plyfold_core::layer::DataExtent { offset: 0, length: size }];
            let mut at = entries.position();
            let mut runs = Vec::new();
            for extent in extents.unwrap_or(&whole) {
                pieces(&tar, at, extent.offset, extent.length, &mut runs);
                at += extent.length;
            }
            layer.lies_in(size, &runs)
        })?;
    }
    renumbered(builder.finish()?, limits)
}

/// The pieces of a run that are not zeros.
fn pieces(tar: &[u8], at: u64, offset: u64, length: u64, runs: &mut Vec<LayerRun>) {
    let mut done = 0;
    while done < length {
        // Ends where a piece of the file does.
        let piece = (PIECE - (offset + done) % PIECE).min(length - done);
        let start = usize::try_from(at + done).expect("a tar in memory");
        let bytes = &tar[start..][..usize::try_from(piece).expect("a piece")];
        if bytes.iter().any(|byte| *byte != 0) {
            runs.push(LayerRun { at: at + done, offset: offset + done, length: piece });
        }
        done += piece;
    }
}

/// The same layer with its nodes, its names and its links in the opposite order.
fn renumbered(layer: LayerTree<FileData>, limits: TreeLimits) -> Result<LayerTree<FileData>> {
    let LayerTree { tree: old, lower_links, assumed } = layer;
    let mut tree = Tree::within(limits);
    let mut place = vec![NodeId::ROOT; old.capacity()];
    let mut ids: Vec<NodeId> = old.ids().collect();
    ids.reverse();
    for id in &ids {
        let node = without_names(old.node(*id));
        match *id {
            NodeId::ROOT => *tree.node_mut(NodeId::ROOT) = node,
            _ => place[id.index()] = tree.push(node)?,
        }
    }
    for id in &ids {
        let children: Vec<_> = old.children(*id).collect();
        for (name, child) in children.into_iter().rev() {
            tree.link(place[id.index()], name, place[child.index()])?;
        }
        for name in old.whiteouts(*id) {
            tree.hide(place[id.index()], name)?;
        }
    }
    tree.finish();
    let moved = |link: LowerLink| LowerLink { directory: place[link.directory.index()], ..link };
    Ok(LayerTree { tree, lower_links: lower_links.into_iter().map(moved).collect(), assumed })
}

fn without_names(node: &Node<FileData>) -> Node<FileData> {
    let kind = match &node.kind {
        Kind::Directory(old) => {
            let mut directory = Directory::default();
            (directory.opaque, directory.implied, directory.late) = (old.opaque, old.implied, old.late);
            Kind::Directory(directory)
        }
        other => other.clone(),
    };
    let Node { mode, uid, gid, mtime, xattrs, .. } = node;
    let metadata = Metadata { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs: xattrs.to_vec() };
    Node::new(kind, metadata)
}
