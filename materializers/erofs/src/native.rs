//! Layers that are EROFS images already.
//!
//! Such an image comes from anywhere, and kernels mount it as it is. Before it is kept, its metadata is read: names, modes,
//! extended attributes, and where the data of every file lies. Compressed data is not decoded then.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use plyfold_core::layer::{
    DataExtent, Entry, EntryKind, FileKind, ImagePath, LayerEntries, LayerForm, LayerLimits, LayerTar,
    Metadata,
};
use plyfold_core::tree::{Kind, Node, NodeId, Tree, is_overlay_xattr};
use plyfold_core::{Error, Made, Output, Result, printable};

use crate::content::{Chunks, Content, DataLayout};
use crate::fault::ErofsFault;
use crate::overlay::{self, is_whiteout};
use crate::reader::Reader;

plyfold_core::register!(LayerForm {
    name: "erofs",
    // As containerd has it, and as the draft of the EROFS image layer format specification has it.
    media_types: &["application/vnd.erofs.layer.v1", "application/vnd.erofs"],
    package: env!("CARGO_PKG_NAME"),
    check: |layer| {
        let role = layer.annotations().as_ref().and_then(|all| all.get(ROLE));
        match role.map(String::as_str) {
            None | Some("" | "overlay-lower") => Ok(()),
            Some(role) => Err(ErofsFault::Role(printable(role)).into()),
        }
    },
    open: |file, limits| Ok(Box::new(ErofsEntries::open(file, limits)?)),
});

/// What a layer is to the image (EROFS image layer format specification, draft, section 2.4).
const ROLE: &str = "org.erofs.role";
/// What starts the name of a whiteout in a tar (OCI image spec, `layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whether a layer is such an image.
pub(crate) fn is_native(tar: &LayerTar) -> bool {
    tar.form().is_some_and(|form| form.package == env!("CARGO_PKG_NAME"))
}

/// Keeps the image of a layer as it is, once it is checked.
///
/// # Errors
/// Those of [`LayerTar::write_to`] and of [`check`].
pub(crate) fn keep(tar: &mut LayerTar, out: &mut dyn Output) -> Result<Made> {
    tar.write_to(out)?;
    out.seek(SeekFrom::Start(0)).map_err(|e| Error::io("reading a layer back", e))?;
    let mut reader = Reader::new(out)?.with_limits(tar.limits().tree.clone());
    let tree = reader.tree()?;
    let hides_alone = check(&reader, &tree)?;
    let (major, minor) = reader.superblock.kernel();
    let made = Made::default().with_kernel(major, minor);
    Ok(match hides_alone {
        0 => made,
        count => {
            let directories = if count == 1 { "directory has" } else { "directories have" };
            made.with_note(format!(
                "{count} {directories} whiteouts and no trusted.overlay.origin: where no lower layer has such a directory, \
                 overlayfs shows the whiteouts as devices; the format erofs shows the image as it is"
            ))
        }
    })
}

/// Checks that an image says what a tar of it would say, to overlayfs, too; how many directories do so only where a
/// lower layer has them.
///
/// # Errors
/// [`Unsupported`](plyfold_core::ErrorKind::Unsupported).
fn check<R: Read + Seek>(reader: &Reader<R>, tree: &Tree<Content>) -> Result<u64> {
    let mut hides_alone = 0;
    for (path, id) in tree.walk() {
        let at = |fault: ErofsFault| Error::from(fault).with_context("path", &path);
        if path.name().starts_with(WHITEOUT) {
            return Err(at(ErofsFault::WhiteoutName));
        }
        let node = tree.node(id);
        if let Some(name) = overlay::foreign_mark(&node.xattrs, node.directory().is_some()) {
            return Err(at(ErofsFault::OverlayMark(name)));
        }
        match &node.kind {
            Kind::File { content, .. } if reader.lacks(content) => {
                return Err(at(ErofsFault::DevicesElsewhere(reader.devices())));
            }
            Kind::Directory(_) if !overlay::is_origin(&node.xattrs) => {
                let hides = tree.children(id).any(|(_, child)| is_whiteout(tree.node(child)));
                hides_alone += u64::from(hides);
            }
            _ => {}
        }
    }
    Ok(hides_alone)
}

/// A directory whose names come next.
struct Open {
    path: ImagePath,
    names: std::vec::IntoIter<(Box<[u8]>, NodeId)>,
    /// Its own entry, where that stands behind those of what is in it.
    late: Option<Entry>,
}

/// The file whose data is asked for.
struct Current {
    content: Content,
    size: u64,
    runs: VecDeque<DataExtent>,
}

/// The entries of the tar that such an image stands for.
struct ErofsEntries {
    reader: Reader<File>,
    tree: Tree<Content>,
    open: Vec<Open>,
    next: VecDeque<Entry>,
    /// The first names of files with several.
    first: HashMap<NodeId, ImagePath>,
    file: Option<Current>,
}

impl ErofsEntries {
    fn open(file: File, limits: &LayerLimits) -> Result<Self> {
        let mut reader = Reader::new(file)?.with_limits(limits.tree.clone());
        let tree = reader.tree()?;
        check(&reader, &tree)?;
        let (next, first) = (VecDeque::new(), HashMap::new());
        let mut entries = Self { reader, tree, open: Vec::new(), next, first, file: None };
        entries.enter(ImagePath::ROOT, NodeId::ROOT);
        Ok(entries)
    }

    /// Starts with the names of a directory. What is in it follows its own entry, and the mark that hides lower layers'.
    fn enter(&mut self, path: ImagePath, id: NodeId) {
        let node = self.tree.node(id);
        let kind = EntryKind::Node(FileKind::Directory(()));
        let own = Entry { path: path.clone(), kind, metadata: metadata(node) };
        let (is_late, is_opaque) = (overlay::is_late(&node.xattrs), overlay::is_opaque(&node.xattrs));
        let mut late = Some(own).filter(|_| !overlay::is_implied(&node.xattrs));
        if !is_late {
            self.next.extend(late.take());
        }
        self.next.extend(is_opaque.then(|| mark(path.join(OPAQUE))));
        let names: Vec<_> = self.tree.children(id).map(|(name, child)| (name.into(), child)).collect();
        self.open.push(Open { path, names: names.into_iter(), late });
    }

    /// The entry of a name that is no directory.
    fn entry(&mut self, path: ImagePath, name: &[u8], id: NodeId) -> Result<Entry> {
        let node = self.tree.node(id);
        if is_whiteout(node) {
            let parent = self.open.last().map_or(ImagePath::ROOT, |open| open.path.clone());
            return Ok(mark(parent.join(&[WHITEOUT, name].concat())));
        }
        let metadata = metadata(node);
        if let Some(target) = self.first.get(&id) {
            return Ok(Entry { path, kind: EntryKind::HardLink { target: target.clone() }, metadata });
        }
        let kind = match &node.kind {
            Kind::BlockDevice { major, minor } => FileKind::BlockDevice { major: *major, minor: *minor },
            Kind::CharDevice { major, minor } => FileKind::CharDevice { major: *major, minor: *minor },
            Kind::Directory(_) => FileKind::Directory(()),
            Kind::Fifo => FileKind::Fifo,
            Kind::Socket => FileKind::Socket,
            Kind::Symlink { target } => FileKind::Symlink { target: target.clone() },
            Kind::File { size, content } => {
                let runs = runs(content, *size, self.reader.block_size().into());
                let whole = DataExtent { offset: 0, length: *size };
                let stored = runs.clone().unwrap_or_else(|| vec![whole]);
                self.file = Some(Current { content: content.clone(), size: *size, runs: stored.into() });
                FileKind::File { size: *size, content: runs }
            }
        };
        if self.tree.links(id) > 1 {
            // The map has the path once more.
            self.tree.charge(2 * path.as_bytes().len() + size_of::<(NodeId, ImagePath)>())?;
            self.first.insert(id, path.clone());
        }
        Ok(Entry { path, kind: EntryKind::Node(kind), metadata })
    }
}

impl LayerEntries for ErofsEntries {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.file = None;
        loop {
            if let Some(entry) = self.next.pop_front() {
                return Ok(Some(entry));
            }
            let Some(open) = self.open.last_mut() else { return Ok(None) };
            let Some((name, id)) = open.names.next() else {
                let late = self.open.pop().and_then(|open| open.late);
                self.next.extend(late);
                continue;
            };
            let path = open.path.join(&name);
            if self.tree.node(id).directory().is_some() {
                self.enter(path, id);
            } else {
                return self.entry(path, &name, id).map(Some);
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(file) = &mut self.file else { return Ok(0) };
        let Some(run) = file.runs.front_mut().filter(|run| run.length > 0 && !buffer.is_empty()) else {
            return Ok(0);
        };
        let wanted = usize::try_from(run.length).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&file.content, file.size, run.offset, &mut buffer[..wanted])?;
        if count == 0 {
            return Err(ErofsFault::Malformed("a file ends before its size").into());
        }
        run.offset += count as u64;
        run.length -= count as u64;
        if run.length == 0 {
            file.runs.pop_front();
        }
        Ok(count)
    }
}

/// A whiteout.
fn mark(path: ImagePath) -> Entry {
    let kind = EntryKind::Node(FileKind::File { size: 0, content: None });
    Entry { path, kind, metadata: Metadata::default() }
}

/// Without what is overlayfs' own.
fn metadata(node: &Node<Content>) -> Metadata {
    let xattrs = node.xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name));
    let xattrs = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    Metadata { mode: node.mode, uid: node.uid, gid: node.gid, mtime: node.mtime, xattrs }
}

/// The runs of data of a file with holes; `None` when all of it is data.
fn runs(content: &Content, size: u64, block_size: u64) -> Option<Vec<DataExtent>> {
    let DataLayout::Chunks(chunks) = &content.0 else { return None };
    let Chunks { bits, runs, .. } = &**chunks;
    let chunk = block_size << bits;
    let mut found: Vec<DataExtent> = Vec::new();
    for run in runs {
        let (offset, end) = (run.first * chunk, ((run.first + run.count) * chunk).min(size));
        match found.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length = end - last.offset,
            _ => found.push(DataExtent { offset, length: end - offset }),
        }
    }
    let is_whole = found.first().is_some_and(|run| run.offset == 0 && run.length == size);
    (!is_whole).then_some(found)
}
