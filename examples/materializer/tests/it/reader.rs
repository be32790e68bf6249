//! Reads archives as strictly as the kernel does where it reads them (init/initramfs.c), and where it leaves out what
//! it does not understand, stricter.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use plyfold_conformance::FormatFidelity;
use plyfold_conformance::tree::{ContentText, TreeLine};
use plyfold_core::layer::ImagePath;

/// The longest name or link with its NUL.
const PATH_MAX: usize = 4096;

/// What archives of the format can hold.
pub(crate) fn fidelity() -> FormatFidelity {
    FormatFidelity::default()
        .with_times(Duration::from_secs(1), 0..=u32::MAX.into())
        .with_largest_file(u32::MAX.into())
        .without_xattrs()
}

pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u32,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u32,
    pub(crate) mtime: u32,
    pub(crate) device: (u32, u32),
    pub(crate) data: Vec<u8>,
}

/// All entries before the trailer.
pub(crate) fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let header = &archive[at..at + 110];
        assert!(header.starts_with(b"070701"), "no header at {at}");
        let field = |number: usize| {
            let text = std::str::from_utf8(&header[6 + 8 * number..][..8]).unwrap();
            assert!(text.bytes().all(|digit| digit.is_ascii_hexdigit()), "{text}");
            u32::from_str_radix(text, 16).unwrap()
        };
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        assert!((2..=PATH_MAX).contains(&name_size), "a name of {name_size} bytes");
        let name = &archive[at + 110..at + 110 + name_size];
        let (nul, name) = name.split_last().unwrap();
        assert!(*nul == 0 && !name.contains(&0), "{}", name.escape_ascii());
        let padded = |from: usize, to: usize| {
            let end = to.next_multiple_of(4);
            assert!(archive[to..end].iter().all(|byte| *byte == 0), "padding after {from}");
            end
        };
        let data = padded(at, at + 110 + name_size);
        let end = padded(data, data + size);
        if name == b"TRAILER!!!" {
            assert_eq!(size, 0);
            assert!(archive[end..].iter().all(|byte| *byte == 0) && archive.len().is_multiple_of(512));
            return entries;
        }
        assert_eq!((field(7), field(8), field(12)), (0, 0, 0), "device of the archive, checksum");
        entries.push(Entry {
            name: name.to_vec(),
            inode: field(0),
            mode: field(1),
            links: field(4),
            owner: (field(2), field(3)),
            mtime: field(5),
            device: (field(9), field(10)),
            data: archive[data..data + size].to_vec(),
        });
        at = end;
    }
}

/// What an archive unpacks to.
pub(crate) fn read(file: &Path) -> Vec<TreeLine> {
    let entries = entries(&fs::read(file).unwrap());
    // The content of a file with several names stands at one of them, and how many it has is what all of them say.
    let mut contents: HashMap<u32, &[u8]> = HashMap::new();
    let mut names: HashMap<u32, u32> = HashMap::new();
    for entry in &entries {
        *names.entry(entry.inode).or_default() += 1;
        let content = contents.entry(entry.inode).or_default();
        if entry.mode & 0o170_000 == 0o100_000 && !entry.data.is_empty() {
            assert!(content.is_empty(), "content twice");
            *content = &entry.data;
        }
    }
    let mut first_names: HashMap<u32, String> = HashMap::new();
    let line = |entry: &Entry| {
        let path = ImagePath::parse(&entry.name).unwrap();
        assert!(path.is_root() || !entry.name.starts_with(b"/"), "an absolute name");
        let path = path.to_string();
        let first = first_names.get(&entry.inode).cloned();
        let is_directory = entry.mode & 0o170_000 == 0o040_000;
        assert!(is_directory || entry.links == names[&entry.inode], "{path}: {} links", entry.links);
        first_names.entry(entry.inode).or_insert_with(|| path.clone());
        let what = first.map_or_else(|| what(entry, contents[&entry.inode]), |first| format!("= {first}"));
        TreeLine {
            path,
            what,
            mode: (entry.mode & 0o7777) as u16,
            owner: entry.owner,
            mtime: (entry.mtime.into(), 0),
            links: entry.links,
            xattrs: Vec::new(),
        }
    };
    entries.iter().map(line).collect()
}

fn what(entry: &Entry, content: &[u8]) -> String {
    let (major, minor) = entry.device;
    match entry.mode & 0o170_000 {
        0o010_000 => "fifo".to_owned(),
        0o020_000 => format!("char {major}:{minor}"),
        0o040_000 => "dir".to_owned(),
        0o060_000 => format!("block {major}:{minor}"),
        0o100_000 => {
            let mut text = ContentText::new(content.len() as u64);
            text.data(0, content);
            format!("file {}", text.finish())
        }
        0o120_000 => {
            assert!(entry.data.len() < PATH_MAX, "a link of {} bytes", entry.data.len());
            format!("-> {}", plyfold_core::printable(&String::from_utf8_lossy(&entry.data)))
        }
        kind => panic!("a file of kind {kind:o}"),
    }
}
