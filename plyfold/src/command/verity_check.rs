//! `verity FILE --check` and `--roots`: a file or a disk against root hashes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::disk_file::{DiskBytes, DiskFormat, format_within, open_error};
use crate::materializers::disk::Partitions;
use crate::materializers::verity::{RootHash, TreeLayout, Uuid, VerityFault, Work};
use crate::{Error, ErrorKind, ReadAt as _, Result, RootHashes, Slice};

use super::disk_args::Verity;
use super::hash_trees::behind;
use super::verity_done::Done;
use super::verity_options::{Told, check_same, check_told, open, parameters};
use super::verity_partitions::{Report, has_trees, verify_partitions};
use super::verity_roots::Roots;

/// What was verified, or made.
pub(crate) enum Checked {
    Partitions(Report),
    Whole(Box<Done>),
}

impl Checked {
    /// Of a file, or of a disk as a whole.
    pub(crate) fn whole(done: Done) -> Self {
        Self::Whole(Box::new(done))
    }
}

/// Verifies a file by the tree that it is given or ends with, and a disk with partitions by the trees in these. Of a VMDK it is
/// the disk that is verified.
pub(crate) fn check(options: &Verity, work: &Work) -> Result<Checked> {
    let roots = match &options.roots {
        Some(path) => Roots::Document(Box::new(document(path)?)),
        None => Roots::Given(options.check.clone()),
    };
    // Others have no size, or change.
    open(&options.file)?;
    let disk = DiskBytes::open(&options.file)?;
    let whole = Slice::whole(&disk).map_err(|e| Error::io("looking at the file", e))?;
    let check_whole = |root, told| {
        let mut done = verify_whole(options, whole, root, told, work)?;
        done.is_of_vmdk = disk.is_of_vmdk();
        Ok(Checked::whole(done))
    };
    let is_for_whole = options.hash_tree.is_some() || options.append || options.no_superblock;
    // A tree behind the last table is of the whole disk.
    if !is_for_whole && format_within(whole)? == Some(DiskFormat::Gpt) && TreeLayout::find(&whole)?.is_none()
    {
        let partitions = Partitions::new(whole)?;
        if has_trees(&whole, partitions.list())? {
            let mut report = verify_partitions(options, &whole, partitions.list(), &roots, work)?;
            let Some(unknown) = report.unknown.take() else { return Ok(Checked::Partitions(report)) };
            // It may be that of all bytes of the disk, for which there is no tree.
            let (root, told) =
                if roots.is_of_whole() { roots.of_whole(&options.file)? } else { return Err(unknown) };
            return check_whole(root, told).map_err(|e: Error| match e.kind() {
                ErrorKind::Cancelled | ErrorKind::Io => e,
                _ => unknown,
            });
        }
        if !roots.is_of_whole() {
            return Err(without_trees("no partition of the disk has a hash tree"));
        }
    }
    let (root, told) = roots.of_whole(&options.file)?;
    check_whole(root, told)
}

fn without_trees(message: &str) -> Error {
    Error::config(message)
        .with_hint("`plyfold materialize IMAGE --as gpt -m verity=append` makes a disk with hash trees")
}

/// The document that `verity IMAGE --as FORMAT` writes.
fn document(path: &Path) -> Result<RootHashes> {
    let at = |e: Error| e.with_context("document", path.display());
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DOCUMENT + 1).read_to_end(&mut text));
    read.map_err(|e| at(open_error("reading root hashes", e)))?;
    if text.len() as u64 > DOCUMENT {
        return Err(at(Error::limit(format!("a document of root hashes has at most {DOCUMENT} bytes"))));
    }
    RootHashes::parse(&text).map_err(at)
}

/// The longest document of root hashes that is read: 255 partitions take some 150 KiB.
const DOCUMENT: u64 = 4 << 20;

/// Verifies the bytes of a file, or of a disk, by one tree.
fn verify_whole(
    options: &Verity,
    data: Slice<'_>,
    root: RootHash,
    told: Option<Told<'_>>,
    work: &Work,
) -> Result<Done> {
    let file = &options.file;
    let size = data.size().map_err(|e| Error::io("looking at the file", e))?;
    let check_tree = |layout: &TreeLayout| {
        check_same(options, layout)?;
        told.map_or(Ok(()), |told| check_told(layout, told))
    };
    let of = |layout: TreeLayout, uuid: Option<Uuid>, tree: Option<&Path>| Done {
        file: file.clone(),
        layout,
        root,
        uuid,
        tree: tree.map(|path| (path.to_owned(), path.metadata().map_or(0, |metadata| metadata.len()))),
        sidecar: None,
        is_of_vmdk: false,
        is_verified: true,
    };
    if let Some(path) = &options.hash_tree {
        let at = |e: Error| e.with_context("path", path.display());
        let tree = open(path).map_err(at)?;
        let (layout, uuid) = if options.no_superblock {
            (TreeLayout::beside(parameters(options)?, size)?.without_superblock()?, None)
        } else {
            let (layout, uuid) = TreeLayout::read(&tree, 0).map_err(at)?;
            (layout, Some(uuid))
        };
        check_tree(&layout)?;
        layout.check_covers(size)?;
        layout.verify(&root, &data, &tree, work)?;
        return Ok(of(layout, uuid, Some(path)));
    }
    if !options.no_superblock
        && let Some((layout, uuid)) = behind(&data)?
    {
        check_tree(&layout)?;
        layout.verify(&root, &data, &data, work)?;
        return Ok(of(layout, Some(uuid), Some(file)));
    }
    if options.append {
        let bare = TreeLayout::bare(&parameters(options)?, size).filter(|_| options.no_superblock);
        let layout = bare.ok_or_else(|| {
            let error = Error::corrupt("the file does not end with a hash tree of these options");
            error.with_hint("name the file of the tree by --hash-tree, if it is another one")
        })?;
        layout.verify(&root, &data, &data, work)?;
        return Ok(of(layout, None, Some(file)));
    }
    if told.is_some() {
        let error = Error::corrupt("the file does not end with the hash tree that the document is of");
        return Err(error.with_hint("--hash-tree names the file of the tree, if it is another one"));
    }
    // Without a tree it is not known which block is bad.
    let layout = TreeLayout::beside(parameters(options)?, size)?;
    let found = layout.root_hash(&data, work)?;
    if found != root {
        return Err(VerityFault::Root(root.to_string(), found.to_string()).into());
    }
    Ok(of(layout, None, None))
}
