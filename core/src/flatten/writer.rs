//! The entries of a flattened image.

use std::io::Write;

use tar::{EntryType, Header};

use crate::layer::ImagePath;
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
    /// The node; a sparse file has runs of data, as offset and length.
    Node(Option<&'a [(u64, u64)]>),
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
                map = sparse_map(size, runs);
                stored = map.len() as u64 + runs.iter().map(|(_, length)| length).sum::<u64>();
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

/// GNU sparse format 1.0: count, then offset and length of each run, one number a line, padded to a block. Runs of whole
/// blocks of the archive are the same to GNU tar, which starts each at one, and to others, which pack them.
fn sparse_map(size: u64, runs: &[(u64, u64)]) -> Vec<u8> {
    // GNU tar marks the file's end by an empty run.
    let end = [(size, 0)];
    let numbers = runs.iter().chain(&end).flat_map(|(offset, length)| [*offset, *length]);
    let lines = [runs.len() as u64 + 1].into_iter().chain(numbers).map(|number| format!("{number}\n"));
    let mut map = lines.collect::<String>().into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}
