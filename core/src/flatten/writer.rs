//! The entries of a flattened image.

use std::io::Write;

use tar::{EntryType, Header};

use crate::layer::{DataExtent, ImagePath};
use crate::tar_out::{BLOCK, LONG_MAX, Pax, TarOut, field, set_size};
use crate::tree::{Kind, Node};
use crate::{Error, Result};

/// What 7 octal digits hold (POSIX ustar, uid and gid).
const ID_MAX: u32 = 0o777_7777;

/// What an entry is.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    /// Another name of the node's file.
    HardLink(&'a [u8]),
    /// The node; a sparse file has runs.
    Node(Option<&'a Runs>),
}

/// A file's runs of data, widened to whole blocks: GNU tar starts each run at a block of the archive, others
/// pack them, and only runs of whole blocks are the same to both.
pub(super) struct Runs {
    aligned: Vec<DataExtent>,
    /// Zeros to write, then bytes of data to pass on.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Runs {
    pub(super) fn new(size: u64, extents: &[DataExtent]) -> Self {
        let mut aligned: Vec<DataExtent> = Vec::new();
        let mut pieces = Vec::new();
        // Where the last run and its data end.
        let (mut run_end, mut data_end) = (0, 0);
        for extent in extents {
            let start = extent.offset - extent.offset % BLOCK;
            let end = extent.offset + extent.length;
            let zeros = match aligned.last_mut() {
                Some(run) if start <= run_end => {
                    run.length = end.next_multiple_of(BLOCK).min(size) - run.offset;
                    extent.offset - data_end
                }
                _ => {
                    let length = end.next_multiple_of(BLOCK).min(size) - start;
                    aligned.push(DataExtent { offset: start, length });
                    run_end - data_end + extent.offset - start
                }
            };
            pieces.push((zeros, extent.length));
            run_end = end.next_multiple_of(BLOCK).min(size);
            data_end = end;
        }
        pieces.push((run_end - data_end, 0));
        Self { aligned, pieces }
    }
}

/// An entry's headers; a file's data follows by [`TarOut::data`] and [`TarOut::pad`].
pub(super) fn header<C>(
    out: &mut TarOut<impl Write>,
    path: &ImagePath,
    node: &Node<C>,
    item: Item<'_>,
) -> Result<()> {
    let mut pax = Pax::default();
    let mut header = Header::new_ustar();
    let mut name = path.as_bytes().to_vec();
    if node.directory().is_some() {
        name.splice(..0, path.is_root().then_some(b'.'));
        name.push(b'/');
    }
    field(&mut header, 0, &name, "path", &mut pax);
    header.set_mode(u32::from(node.mode));
    for (id, key) in [(node.uid, "uid"), (node.gid, "gid")] {
        if id > ID_MAX {
            pax.add(key, id.to_string().as_bytes());
        }
    }
    header.set_uid(u64::from(node.uid));
    header.set_gid(u64::from(node.gid));
    let seconds = u64::try_from(node.mtime.seconds).ok().filter(|seconds| *seconds <= LONG_MAX);
    header.set_mtime(seconds.unwrap_or(0));
    if seconds.is_none() || node.mtime.nanos != 0 {
        pax.add("mtime", decimal(node.mtime.seconds, node.mtime.nanos).as_bytes());
    }
    if !matches!(item, Item::HardLink(_)) {
        for (name, value) in &node.xattrs {
            pax.add([b"SCHILY.xattr.", escaped(name).as_slice()].concat(), value);
        }
    }
    let map = kind(&mut header, &mut pax, &node.kind, item, &name)?;
    out.header(header, &pax)?;
    out.data(&map)
}

/// Zeros that widen a run, always fewer than two blocks.
pub(super) fn zeros(out: &mut TarOut<impl Write>, count: u64) -> Result<()> {
    out.data(&[0; 2 * BLOCK as usize][..count as usize])
}

/// Fills in what depends on the kind; yields the map of a sparse file, which stands before its data.
fn kind<C>(
    header: &mut Header,
    pax: &mut Pax,
    kind: &Kind<C>,
    item: Item<'_>,
    name: &[u8],
) -> Result<Vec<u8>> {
    let bad = |e| Error::io("writing a tar header", e);
    let mut map = Vec::new();
    header.set_size(0);
    let runs = match item {
        Item::HardLink(target) => {
            header.set_entry_type(EntryType::Link);
            field(header, 157, target, "linkpath", pax);
            return Ok(map);
        }
        Item::Node(runs) => runs,
    };
    match kind {
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
            let block = matches!(kind, Kind::BlockDevice { .. });
            header.set_entry_type(if block { EntryType::Block } else { EntryType::Char });
            header.set_device_major(*major).map_err(bad)?;
            header.set_device_minor(*minor).map_err(bad)?;
        }
        Kind::Directory(_) => header.set_entry_type(EntryType::Directory),
        // Sockets are left out before.
        Kind::Fifo | Kind::Socket => header.set_entry_type(EntryType::Fifo),
        Kind::File { size, .. } => {
            header.set_entry_type(EntryType::Regular);
            let (size, mut stored) = (*size, *size);
            if let Some(runs) = runs {
                map = sparse_map(size, &runs.aligned);
                stored = map.len() as u64 + runs.aligned.iter().map(|run| run.length).sum::<u64>();
                pax.add("GNU.sparse.major", b"1");
                pax.add("GNU.sparse.minor", b"0");
                pax.add("GNU.sparse.name", name);
                pax.add("GNU.sparse.realsize", size.to_string().as_bytes());
            }
            set_size(header, stored, pax);
        }
        Kind::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            field(header, 157, target, "linkpath", pax);
        }
    }
    Ok(map)
}

/// A key ends at its first `=`; GNU tar reads these two escapes.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => out.extend(b"%25"),
            b'=' => out.extend(b"%3D"),
            other => out.push(*other),
        }
    }
    out
}

/// Seconds as PAX has them: -2 s and 0.5e9 ns is -1.5.
fn decimal(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        (..0, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// GNU sparse format 1.0: count, then offset and length of each run, one number a line, padded to a block.
fn sparse_map(size: u64, extents: &[DataExtent]) -> Vec<u8> {
    // GNU tar marks the file's end by an empty run.
    let end = [DataExtent { offset: size, length: 0 }];
    let runs = extents.iter().chain(&end).flat_map(|extent| [extent.offset, extent.length]);
    let lines = [extents.len() as u64 + 1].into_iter().chain(runs).map(|number| format!("{number}\n"));
    let mut map = lines.collect::<String>().into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}
