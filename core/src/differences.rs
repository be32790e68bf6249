//! What differs between two images, file by file.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::iter::Peekable;

use strum::Display;

use crate::Result;
use crate::blocking::Stop;
use crate::layer::ImagePath;
use crate::tree::{FileData, Kind, MergedTree, Node, NodeId, Walk};

/// Bytes of two files that are compared at once.
const PIECE: usize = 64 << 10;

/// A path that is not the same in two images.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The path, without a slash in front; empty for the root.
    pub path: ImagePath,
    /// How it differs.
    pub change: FileChange,
}

/// How a path differs.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FileChange {
    /// It is in the second image only.
    Added,
    /// It is in both, and this of it is not the same.
    Changed(Vec<FileField>),
    /// It is in the first image only.
    Removed,
}

/// What may differ of a file.
#[derive(Clone, Copy, Debug, Display, Eq, PartialEq)]
#[non_exhaustive]
#[strum(serialize_all = "lowercase")]
pub enum FileField {
    /// The bytes of a regular file.
    Content,
    /// The numbers of a device.
    Device,
    /// What it is: a file, a directory, a link. Nothing else but owners, permissions, times and attributes is compared then.
    Kind,
    /// Which other names the file has, of those that are in both images.
    Links,
    /// The permissions.
    Mode,
    /// User and group.
    Owner,
    /// The text of a symbolic link.
    Target,
    /// The modification time.
    Time,
    /// The extended attributes.
    Xattrs,
}

/// The paths that differ between two images, parents before children, in the order of the names' bytes. Contents are compared
/// byte for byte while it is asked for the next one, so it is for a thread that may wait. The first error is the last item: it
/// may be that an image was [changed](MergedTree::check_unchanged) meanwhile.
///
/// ```
/// use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
/// use plyfold_core::tree::MergedTree;
/// use plyfold_core::{Differences, FileChange, FileField};
///
/// let scratch = tempfile::tempdir()?;
/// let image = |content: &[u8]| -> Result<MergedTree, Box<dyn std::error::Error>> {
///     let mut header = tar::Header::new_ustar();
///     header.set_path("hello")?;
///     header.set_mode(0o644);
///     header.set_size(content.len() as u64);
///     header.set_cksum();
///     let mut layer = tar::Builder::new(Vec::new());
///     layer.append(&header, content)?;
///     let layer = std::io::Cursor::new(layer.into_inner()?);
///     let layers = [LayerTar::new(layer, LayerOptions::default())];
///     Ok(MergedTree::read(layers, TreeLimits::default(), scratch.path())?)
/// };
/// let (before, after) = (image(b"world")?, image(b"there")?);
/// let changes: Vec<_> = Differences::new(&before, &after).collect::<Result<_, _>>()?;
/// assert_eq!(changes[0].path.as_bytes(), b"hello");
/// assert_eq!(changes[0].change, FileChange::Changed(vec![FileField::Content]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Differences<'a> {
    before: Side<'a>,
    after: Side<'a>,
    /// Whether files with several names, of both images, have the same content: each pair is read once.
    compared: HashMap<(NodeId, NodeId), bool>,
    ignores_times: bool,
    stop: Stop,
    buffers: [Vec<u8>; 2],
    has_ended: bool,
}

/// One of the two images.
#[derive(Debug)]
struct Side<'a> {
    image: &'a MergedTree,
    names: Peekable<Walk<'a, FileData>>,
    /// Of files with several names, the file of the other image that has the first name which both have.
    partners: HashMap<NodeId, NodeId>,
}

impl<'a> Side<'a> {
    fn new(image: &'a MergedTree) -> Self {
        Self { image, names: image.tree().walk().peekable(), partners: HashMap::new() }
    }

    fn node(&self, id: NodeId) -> &'a Node<FileData> {
        self.image.tree().node(id)
    }

    /// Whether this file, of which a name is also that of `other`, has had a name before that is another file's there.
    fn is_of_another(&mut self, id: NodeId, other: NodeId) -> bool {
        self.image.tree().links(id) > 1 && *self.partners.entry(id).or_insert(other) != other
    }
}

impl<'a> Differences<'a> {
    /// From the first image to the second.
    pub fn new(before: &'a MergedTree, after: &'a MergedTree) -> Self {
        let buffers = [vec![0; PIECE], vec![0; PIECE]];
        let (before, after) = (Side::new(before), Side::new(after));
        let (stop, compared) = (Stop::default(), HashMap::new());
        Self { before, after, compared, ignores_times: false, stop, buffers, has_ended: false }
    }

    /// The same until `stop` says so: the next item is that error then.
    #[must_use]
    pub fn until(self, stop: &Stop) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// The same without modification times, which a new build of the same image changes.
    #[must_use]
    pub fn ignoring_times(self) -> Self {
        Self { ignores_times: true, ..self }
    }

    fn changed(&mut self, before: NodeId, after: NodeId) -> Result<Vec<FileField>> {
        let (one, two) = (self.before.node(before), self.after.node(after));
        let what = match (&one.kind, &two.kind) {
            (Kind::File { size, .. }, Kind::File { size: other, .. }) => {
                let differs = size != other || !self.is_same_content(before, after, *size)?;
                differs.then_some(FileField::Content)
            }
            (Kind::Symlink { target }, Kind::Symlink { target: other }) => {
                (target != other).then_some(FileField::Target)
            }
            (one, two) if std::mem::discriminant(one) != std::mem::discriminant(two) => Some(FileField::Kind),
            (one, two) => (device(one) != device(two)).then_some(FileField::Device),
        };
        let mut fields = Vec::from_iter(what);
        let is_linked = [self.before.is_of_another(before, after), self.after.is_of_another(after, before)];
        let times = one.mtime != two.mtime && !self.ignores_times;
        let differing = [
            (is_linked.contains(&true) && one.directory().is_none(), FileField::Links),
            (one.mode != two.mode, FileField::Mode),
            ((one.uid, one.gid) != (two.uid, two.gid), FileField::Owner),
            (times, FileField::Time),
            (one.xattrs != two.xattrs, FileField::Xattrs),
        ];
        fields.extend(differing.into_iter().filter_map(|(differs, field)| differs.then_some(field)));
        Ok(fields)
    }

    fn is_same_content(&mut self, before: NodeId, after: NodeId, size: u64) -> Result<bool> {
        let links = self.before.image.tree().links(before).max(self.after.image.tree().links(after));
        if links < 2 {
            return self.compare(before, after, size);
        }
        if let Some(same) = self.compared.get(&(before, after)) {
            return Ok(*same);
        }
        let same = self.compare(before, after, size)?;
        self.compared.insert((before, after), same);
        Ok(same)
    }

    fn compare(&mut self, before: NodeId, after: NodeId, size: u64) -> Result<bool> {
        let [one, two] = &mut self.buffers;
        let mut at = 0;
        while at < size {
            self.stop.check()?;
            let count = self.before.image.read_at(before, at, one)?;
            // Both have as many bytes.
            let other = self.after.image.read_at(after, at, &mut two[..count])?;
            if count == 0 || count != other || one[..count] != two[..count] {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(true)
    }
}

impl Iterator for Differences<'_> {
    type Item = Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let found = self.find().transpose();
        self.has_ended = !matches!(found, Some(Ok(_)));
        found
    }
}

impl Differences<'_> {
    /// The next difference; `None` at the end, where both images still are what was read.
    fn find(&mut self) -> Result<Option<Difference>> {
        loop {
            self.stop.check()?;
            let order = match (self.before.names.peek(), self.after.names.peek()) {
                (None, None) => {
                    self.before.image.check_unchanged()?;
                    return self.after.image.check_unchanged().map(|()| None);
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((two, _))) => in_walk(one, two),
            };
            let side = if order.is_gt() { &mut self.after } else { &mut self.before };
            let Some((path, id)) = side.names.next() else { return Ok(None) };
            if order.is_ne() {
                let change = if order.is_gt() { FileChange::Added } else { FileChange::Removed };
                return Ok(Some(Difference { path, change }));
            }
            let Some((_, other)) = self.after.names.next() else { return Ok(None) };
            let fields = self.changed(id, other)?;
            if !fields.is_empty() {
                return Ok(Some(Difference { path, change: FileChange::Changed(fields) }));
            }
        }
    }
}

/// The order of two paths in a walk, which is that of their components.
fn in_walk(one: &ImagePath, two: &ImagePath) -> Ordering {
    let slash = |byte: &u8| *byte == b'/';
    // The root comes first: its path has no component, not an empty one.
    let is_root = |path: &ImagePath| path.as_bytes().is_empty();
    match (is_root(one), is_root(two)) {
        (false, false) => one.as_bytes().split(slash).cmp(two.as_bytes().split(slash)),
        (first, second) => second.cmp(&first),
    }
}

/// The numbers of a device.
fn device<C, D>(kind: &crate::layer::FileKind<C, D>) -> Option<(u32, u32)> {
    use crate::layer::FileKind;
    match kind {
        FileKind::BlockDevice { major, minor } | FileKind::CharDevice { major, minor } => {
            Some((*major, *minor))
        }
        _ => None,
    }
}
