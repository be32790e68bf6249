//! Images written and read back, without any tool.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

#[path = "../common/mod.rs"]
mod common;
mod compressed;
mod compressed_layers;
mod files;
mod flat;
mod fragments;
mod hostile;
mod limits;
mod memory;
mod memory_per_entry;
mod merged;
mod mkfs;
mod native;
mod patch;
mod peers;
mod signals;
mod sources;
mod suite;
mod tar_index;
mod written;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use plyfold_core::tree::{Kind, Tree};
use plyfold_erofs::{Content, Reader};

/// An image's files, one a line, in the order of their paths.
fn listing(image: &Path) -> Vec<String> {
    let mut reader = Reader::new(File::open(image).unwrap()).unwrap();
    let tree = reader.tree().unwrap();
    tree.walk().map(|(path, id)| line(&mut reader, &tree, &path.to_string(), id)).collect()
}

fn line(
    reader: &mut Reader<File>,
    tree: &Tree<Content>,
    path: &str,
    id: plyfold_core::tree::NodeId,
) -> String {
    let node = tree.node(id);
    let kind = match &node.kind {
        Kind::BlockDevice { major, minor } => format!("b{major}:{minor}"),
        Kind::CharDevice { major, minor } => format!("c{major}:{minor}"),
        Kind::Directory(_) => "d".into(),
        Kind::Fifo => "p".into(),
        Kind::File { size, content } => {
            let data = data(reader, content, *size);
            match data.first() {
                Some(byte) if data.len() > 32 && data.iter().all(|other| other == byte) => {
                    format!("f{}*{byte}", data.len())
                }
                _ => format!("f\"{}\"", data.escape_ascii()),
            }
        }
        Kind::Socket => "s".into(),
        Kind::Symlink { target } if target.len() > 32 => format!("l{} bytes", target.len()),
        Kind::Symlink { target } => format!("l{}", target.escape_ascii()),
    };
    let (time, links) = (node.mtime, tree.links(id));
    let mut line = format!("{path} {kind} {:o} {}:{} x{links}", node.mode, node.uid, node.gid);
    if time.seconds != i64::try_from(plyfold_conformance::samples::MTIME).unwrap() || time.nanos != 0 {
        write!(line, " {}+{}", time.seconds, time.nanos).unwrap();
    }
    for (name, value) in &node.xattrs {
        write!(line, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    line
}

/// All of a file, holes included.
fn data<R: Read + Seek>(reader: &mut Reader<R>, content: &Content, size: u64) -> Vec<u8> {
    let mut data = vec![0xaa; usize::try_from(size).unwrap()];
    let mut at = 0;
    while at < data.len() {
        let count = reader.read(content, size, at as u64, &mut data[at..]).unwrap();
        assert!(count > 0);
        at += count;
    }
    data
}
