//! The test files of other tar readers: what we read of them, beside what Go, GNU tar, bsdtar and Python read.
//!
//! `tests/peers/CORPUS/` has the files, `CORPUS.txt` what the others read (`record.py` wrote it), and
//! `CORPUS.ours.txt` our reading of every file that Go and GNU tar do not read alike, with its reason.
//! `PLYFOLD_BLESS=1 cargo test -p plyfold-core` writes the latter anew and keeps the reasons.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;
use std::{env, fs};

use plyfold_core::Result;
use plyfold_core::layer::{DataExtent, Entry, EntryKind, FileKind};
use sha2::{Digest, Sha256};

use super::archive::open;

/// Content is compared up to this size: sparse test files have up to 60 GiB of holes.
const HASHED: u64 = 16 << 20;

/// Lines that begin with `== NAME`, by that name.
type Sections = BTreeMap<String, Vec<String>>;

#[test]
fn files_of_go() {
    compare("go", 43);
}

#[test]
fn files_of_tar_rs() {
    compare("tar-rs", 19);
}

#[test]
fn files_of_cpython() {
    compare("cpython", 2);
}

#[test]
fn files_of_libarchive() {
    compare("libarchive", 50);
}

fn compare(corpus: &str, files: usize) {
    let (peers, old) = (sections(&format!("{corpus}.txt")), sections(&format!("{corpus}.ours.txt")));
    assert_eq!(peers.len(), files);
    let mut faults = String::new();
    let mut ours = Sections::new();
    for (name, peers) in &peers {
        let reading = reading(&fs::read(folder().join(corpus).join(format!("{name}.tar.gz"))).unwrap());
        match agreed(peers) {
            Some(agreed) if same(&agreed, &reading) => {}
            Some(agreed) => {
                writeln!(faults, "{name}: Go and GNU tar read\n{agreed:#?}\nand we read\n{reading:#?}")
                    .unwrap();
            }
            None => {
                let why = old.get(name).and_then(|lines| lines.first()).cloned();
                let why = why.filter(|line| line.starts_with("why: ")).unwrap_or("why: ?".to_owned());
                ours.insert(name.clone(), [vec![why], reading].concat());
            }
        }
    }
    if env::var_os("PLYFOLD_BLESS").is_some() {
        let lines = |(name, lines): (&String, &Vec<String>)| format!("== {name}\n{}\n", lines.join("\n"));
        let text: Vec<String> = ours.iter().map(lines).collect();
        fs::write(folder().join(format!("{corpus}.ours.txt")), text.join("\n")).unwrap();
    } else if old != ours {
        writeln!(faults, "{corpus}.ours.txt has\n{old:#?}\nand we read\n{ours:#?}").unwrap();
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(ours.values().all(|lines| lines[0] != "why: ?"), "a verdict has no reason: {ours:#?}");
}

/// The reading that Go and GNU tar share, if both read the file to its end.
fn agreed(peers: &[String]) -> Option<Vec<String>> {
    let mut readings = [None, None];
    let mut lines = peers.iter().peekable();
    while let Some(readers) = lines.next() {
        let readers: Vec<&str> = readers.split(' ').collect();
        assert_eq!(readers[0], "--", "{peers:?}");
        let mut reading = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("-- ")) {
            reading.push(line.clone());
        }
        for (place, reader) in readings.iter_mut().zip(["go", "gnu"]) {
            if readers.contains(&reader) {
                *place = Some(reading.clone());
            }
        }
    }
    let has_bsdtar = |line: &String| line.starts_with("-- ") && line.ends_with("bsdtar");
    assert!(peers.iter().any(has_bsdtar), "bsdtar is missing: {peers:?}");
    let [Some(go), Some(gnu)] = readings else { panic!("a reader is missing: {peers:?}") };
    // A name that leaves the root names no place in an image; GNU tar lists it, and does not extract it.
    let odd = |line: &String| {
        line.starts_with("error ") || line.split(' ').nth(1).is_some_and(|at| at.starts_with(".."))
    };
    let whole = !go.iter().chain(&gnu).any(odd);
    (whole && same(&go, &gnu)).then_some(go)
}

/// Whether two readings are the same; content that a reader did not hash is no difference.
fn same(one: &[String], other: &[String]) -> bool {
    let head = |line: &str| line.strip_suffix(" -").map(str::to_owned);
    let equal = |(one, other): (&String, &String)| match (head(one), head(other)) {
        (Some(one), None) => other.starts_with(&one),
        (None, Some(other)) => one.starts_with(&other),
        (one_head, other_head) => one_head == other_head && one == other,
    };
    one.len() == other.len() && one.iter().zip(other).all(equal)
}

/// Our reading, in the form of `record.py`; what is refused ends with `error` and its kind.
fn reading(file: &[u8]) -> Vec<String> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut tar).unwrap();
    let mut lines = Vec::new();
    if let Err(e) = read_into(&tar, &mut lines) {
        lines.push(format!("error {:?}: {}", e.kind(), e.message()));
    }
    lines
}

fn read_into(bytes: &[u8], lines: &mut Vec<String>) -> Result<()> {
    let mut tar = open(bytes, plyfold_core::layer::LayerOptions::default());
    while let Some(Entry { path, kind, .. }) = tar.next_entry()? {
        let mut data = Vec::new();
        loop {
            let bytes = tar.data()?;
            if bytes.is_empty() {
                break;
            }
            data.extend_from_slice(bytes);
            let count = bytes.len();
            tar.consume(count);
        }
        let at = format!("/{}", text(path.as_bytes()));
        lines.push(match kind {
            EntryKind::Node(FileKind::BlockDevice { major, minor }) => format!("block {at} {major}:{minor}"),
            EntryKind::Node(FileKind::CharDevice { major, minor }) => format!("char {at} {major}:{minor}"),
            EntryKind::Node(FileKind::Directory(())) => format!("dir {at}"),
            EntryKind::Node(FileKind::Fifo) => format!("fifo {at}"),
            EntryKind::Node(FileKind::File { size, content: extents }) => {
                format!("file {at} {size} {}", hash(size, extents.as_deref(), &data))
            }
            EntryKind::HardLink { target } => format!("link {at} /{}", text(target.as_bytes())),
            EntryKind::Node(FileKind::Socket) => format!("socket {at}"),
            EntryKind::Node(FileKind::Symlink { target }) => format!("symlink {at} {}", text(&target)),
        });
    }
    tar.finish().map(drop)
}

/// The first 16 digits of the content's sha256, holes included.
fn hash(size: u64, extents: Option<&[DataExtent]>, data: &[u8]) -> String {
    if size > HASHED {
        return "-".to_owned();
    }
    let whole = [DataExtent { offset: 0, length: size }];
    let mut content = vec![0; size as usize];
    let mut stored = data;
    for extent in extents.unwrap_or(&whole) {
        let (run, rest) = stored.split_at(extent.length as usize);
        content[extent.offset as usize..][..run.len()].copy_from_slice(run);
        stored = rest;
    }
    let head = Sha256::digest(&content)[..8].iter().fold(0, |head, byte| head << 8 | u64::from(*byte));
    format!("{head:016x}")
}

fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'\\' => out.push(char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
    }
    out
}

fn sections(name: &str) -> Sections {
    let text = fs::read_to_string(folder().join(name)).unwrap_or_default();
    let mut sections = Sections::new();
    let mut lines = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("== ") {
            lines = Some(sections.entry(name.to_owned()).or_default());
        } else if let Some(lines) = &mut lines {
            lines.push(line.to_owned());
        }
    }
    sections
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}
