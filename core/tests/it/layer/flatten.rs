//! Layers flattened into one tar, read back.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _, Write as _};

use plyfold_core::layer::{DataExtent, EntryKind, FileKind, LayerOptions, LayerTar, Timestamp, TreeLimits};
use plyfold_core::tree::{LayerSource, MergedTree};
use plyfold_core::{ErrorKind, Result, flatten};

use super::archive::{Archive, Header, Seen, open, read};

fn tree(layers: impl IntoIterator<Item = Result<LayerTar>>) -> Result<MergedTree> {
    let layers = layers.into_iter().map(|layer| layer.map(LayerSource::from));
    MergedTree::with_every_xattr(layers, TreeLimits::default(), &std::env::temp_dir())
}

fn flat(layers: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flatten(&tree(layers.iter().map(|layer| Ok(open(layer, LayerOptions::default()))))?, &mut out)?;
    Ok(out)
}

/// The same into a file, of layers that are files.
fn flat_files(layers: &[Vec<u8>]) -> Result<Vec<u8>> {
    let layers = layers.iter().map(|layer| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(layer).unwrap();
        LayerTar::in_file(Cursor::new(layer.clone()), file, LayerOptions::default())
    });
    let (mut out, mut bytes) = (tempfile::tempfile().unwrap(), Vec::new());
    flatten(&tree(layers)?, &mut out)?;
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

fn seen(layers: &[Vec<u8>]) -> Vec<Seen> {
    let tar = flat(layers).unwrap();
    assert!(tar == flat(layers).unwrap(), "S 91");
    assert!(tar == flat_files(layers).unwrap(), "content that lies in the layers' files");
    read(&tar).unwrap()
}

/// Names, links as `name -> target`, and data.
fn summary(layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |(entry, data): Seen| {
        let path = text(entry.path.as_bytes());
        let name = match entry.kind {
            EntryKind::HardLink { target } => format!("{path} -> {}", text(target.as_bytes())),
            EntryKind::Node(FileKind::Directory(())) => format!("{path}/"),
            EntryKind::Node(_) => path,
        };
        (name, data)
    };
    seen(layers).into_iter().map(one).collect()
}

fn dir(name: &str) -> Header {
    Header::new(name, b'5', 0)
}

fn expect(layers: &[Vec<u8>], expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, data)| ((*name).to_owned(), data.as_bytes().to_vec())).collect();
    assert_eq!(summary(layers), expected);
}

#[test]
fn upper_layers_replace_hide_and_add() {
    let lower = Archive::default()
        .header(dir("d/"))
        .file("d/gone", b"1")
        .file("d/kept", b"2")
        .file("file-then-dir", b"3")
        .file("dir-then-file/x", b"4")
        .file("opaque/old", b"5")
        .end();
    let upper = Archive::default()
        .file("d/.wh.gone", b"")
        .file("file-then-dir/y", b"6")
        .file("dir-then-file", b"7")
        .file("opaque/new", b"8")
        .file("opaque/.wh..wh..opq", b"")
        .end();
    expect(
        &[lower, upper],
        &[
            ("/", ""),
            ("d/", ""),
            ("d/kept", "2"),
            ("dir-then-file", "7"),
            ("file-then-dir/", ""),
            ("file-then-dir/y", "6"),
            ("opaque/", ""),
            ("opaque/new", "8"),
        ],
    );
}

/// Rules S 83, 84.
#[test]
fn hard_links_survive_their_targets() {
    let lower = Archive::default()
        .file("z-target", b"one")
        .header(Header::link("a-link", b'1', "z-target"))
        .header(Header::link("b-link", b'1', "z-target"))
        .end();
    let upper = Archive::default().file(".wh.z-target", b"").end();
    expect(
        std::slice::from_ref(&lower),
        &[("/", ""), ("a-link", "one"), ("b-link -> a-link", ""), ("z-target -> a-link", "")],
    );
    expect(&[lower.clone(), upper], &[("/", ""), ("a-link", "one"), ("b-link -> a-link", "")]);
    let replaced = Archive::default().file("z-target", b"two").end();
    expect(
        &[lower, replaced],
        &[("/", ""), ("a-link", "one"), ("b-link -> a-link", ""), ("z-target", "two")],
    );
}

/// The bytes are the file's, whichever layer has which of its names, and a name below a directory is written where the
/// directory stands.
#[test]
fn hard_links_across_layers_are_one_file() {
    let lower = Archive::default().file("d/target", b"one").end();
    let upper = Archive::default()
        .header(Header::link("a-link", b'1', "d/target"))
        .header(Header::link("e/link", b'1', "d/target"))
        .end();
    let gone = Archive::default().file("d/.wh.target", b"").file(".wh.a-link", b"").end();
    expect(
        &[lower.clone(), upper.clone()],
        &[
            ("/", ""),
            ("a-link", "one"),
            ("d/", ""),
            ("d/target -> a-link", ""),
            ("e/", ""),
            ("e/link -> a-link", ""),
        ],
    );
    expect(&[lower, upper, gone], &[("/", ""), ("d/", ""), ("e/", ""), ("e/link", "one")]);
}

/// Rule S 87.
#[test]
fn missing_parents_are_made() {
    let entries = seen(&[Archive::default().file("a/b/c", b"x").end()]);
    let paths: Vec<_> = entries.iter().map(|(entry, _)| entry.path.as_bytes().to_vec()).collect();
    assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c"]);
    for (entry, _) in &entries[..3] {
        assert_eq!(entry.kind, EntryKind::Node(FileKind::Directory(())));
        assert_eq!((entry.metadata.mode, entry.metadata.uid, entry.metadata.gid), (0o755, 0, 0));
    }
}

#[test]
fn nothing_of_an_entry_is_lost() {
    let long = vec![b'n'; 255];
    let name = [&b"\xff"[..], b"/", &long].concat();
    let layer = Archive::default()
        .header({
            let mut root = dir("./");
            root.put(100, b"0000700\0");
            root
        })
        .header({
            let mut device = Header::new("dev", b'3', 0);
            device.put(329, b"0007777\0").put(337, b"3777777\0");
            device
        })
        .header(Header::new("fifo", b'6', 0))
        .pax(&[("linkpath", &[b't'; 300])])
        .header(Header::link("link", b'2', "t"))
        .pax(&[
            ("path", &name),
            ("uid", b"4294967294"),
            ("gid", b"2097152"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.a%3Db", b"\0\n"),
            ("SCHILY.xattr.user.c", b""),
        ])
        .file("f", b"data")
        .pax(&[
            ("GNU.sparse.size", b"9000000000"),
            ("GNU.sparse.map", b"4096,512,8999999488,512"),
            ("mtime", b"7.000000001"),
        ])
        .file("sparse", &[b'x'; 1024])
        .end();
    let mut before = read(&layer).unwrap();
    let mut after = seen(&[layer]);
    after.retain(|(entry, _)| entry.path.as_bytes() != b"\xff");
    before.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    after.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let is_sparse = |(entry, _): &&mut Seen| entry.path.as_bytes() == b"sparse";
    let (sparse, data) = after.iter_mut().find(is_sparse).unwrap();
    // Two blocks before a hole, and one that the file's end cuts.
    let last = 9_000_000_000 - 9_000_000_000 % 4096;
    let (first, end) = (DataExtent { offset: 0, length: 8192 }, DataExtent { offset: last, length: 2560 });
    assert_eq!(
        sparse.kind,
        EntryKind::Node(FileKind::File { size: 9_000_000_000, content: Some(vec![first, end]) })
    );
    assert_eq!(sparse.metadata.mtime, Timestamp { seconds: 7, nanos: 1 });
    let zeros = vec![0; 4096];
    assert!(*data == [&*zeros, &[b'x'; 512], &zeros[..3584], &zeros[..2048], &[b'x'; 512]].concat());
    let (entry, data) = (sparse.clone(), data.clone());
    *before.iter_mut().find(is_sparse).unwrap() = (entry, data);
    assert_eq!(after, before);
}

#[test]
fn errors_leave_no_tar_behind() {
    let good = Archive::default().file("a", b"data").end();
    let bad = Archive::default().file("../b", b"").end();
    assert_eq!(flat(&[good.clone(), bad]).unwrap_err().kind(), &ErrorKind::Corrupt);
    // Content that is another one by the time that it is written.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer");
    fs::write(&path, &good).unwrap();
    let layer = |options| LayerTar::in_file(Cursor::new(good.clone()), File::open(&path).unwrap(), options);
    let (image, mut out) = (tree([layer(LayerOptions::default())]).unwrap(), Vec::new());
    flatten(&image, &mut out).unwrap();
    fs::write(&path, [&good[..], b"more"].concat()).unwrap();
    let mut changed = Vec::new();
    assert_eq!(flatten(&image, &mut changed).unwrap_err().kind(), &ErrorKind::Corrupt);
    assert!(changed == out[..out.len() - 1024], "the end is missing");
}

/// Attributes of every name are kept, but overlayfs' own.
#[test]
fn attributes_that_no_file_system_stores_are_kept() {
    let layer = Archive::default()
        .pax(&[
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/d"),
            ("SCHILY.xattr.vendor.note", b"1"),
            ("SCHILY.xattr.user.note", b"2"),
        ])
        .file("f", b"")
        .end();
    let names: Vec<_> = seen(&[layer])[1].0.metadata.xattrs.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [b"user.note".to_vec(), b"vendor.note".to_vec()]);
}

/// The runs of data of a file with holes, as offset and length.
type Runs = Option<Vec<(u64, u64)>>;

/// The runs of data of a file, and its bytes.
fn extents(layer: Vec<u8>) -> (Runs, Vec<u8>) {
    let (entry, data) = seen(&[layer]).remove(1);
    let EntryKind::Node(FileKind::File { content, .. }) = entry.kind else { panic!("{:?}", entry.kind) };
    (content.map(|runs| runs.iter().map(|run| (run.offset, run.length)).collect()), data)
}

/// The same bytes are the same tar, whether their layer has the zeros or leaves them out.
#[test]
fn zeros_are_holes_by_their_number_alone() {
    const MIB: usize = 1 << 20;
    let with = |size: usize, data: &[(usize, &[u8])]| {
        let mut content = vec![0; size];
        for (at, bytes) in data {
            content[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        content
    };
    let cases: [(Vec<u8>, Runs); 8] = [
        (with(MIB - 4097, &[]), None),
        (with(MIB - 4095, &[]), Some(vec![])),
        (with(MIB, &[]), Some(vec![])),
        (with(MIB + 4096, &[(0, b"x")]), Some(vec![(0, 4096)])),
        // A run that does not begin at a block is shorter than it seems.
        (with(MIB + 4095, &[(0, b"x"), (MIB + 4094, b"y")]), None),
        (with(MIB + 5000, &[(MIB, b"y")]), Some(vec![(1 << 20, 5000)])),
        (with(MIB + 5000, &[(MIB - 1, b"y")]), None),
        (
            with(3 * MIB + 100, &[(8191, b"xy"), (2 * MIB, b"z"), (3 * MIB, b"e")]),
            Some(vec![(0, 12288), (2 << 20, (1 << 20) + 100)]),
        ),
    ];
    for (number, (content, expected)) in cases.into_iter().enumerate() {
        let plain = Archive::default().file("f", &content).end();
        let (runs, data) = extents(plain.clone());
        assert_eq!(runs, expected, "case {number}");
        let wanted: Vec<u8> = match &runs {
            None => content.clone(),
            Some(runs) => runs
                .iter()
                .flat_map(|(at, length)| content[*at as usize..(at + length) as usize].to_vec())
                .collect(),
        };
        assert!(data == wanted, "case {number}");
        let bytes = || content.iter().enumerate().filter(|(_, byte)| **byte != 0);
        let map = bytes().map(|(at, _)| format!("{at},1")).collect::<Vec<_>>().join(",");
        let stored: Vec<u8> = bytes().map(|(_, byte)| *byte).collect();
        let size = content.len().to_string();
        let sparse = Archive::default()
            .pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())])
            .file("f", &stored)
            .end();
        assert!(flat(&[plain]).unwrap() == flat(&[sparse]).unwrap(), "case {number}");
    }
}

/// A mark is one by its name, whatever type the entry has, as for Docker, Podman and umoci.
#[test]
fn marks_of_every_type_hide() {
    let lower = Archive::default().file("d/x", b"1").file("d/y", b"2").end();
    let marks = |name: &str| {
        [
            Archive::default().file(name, b"data"),
            Archive::default().header(Header::link(name, b'1', "d/no-such-file")),
            Archive::default().header(Header::link(name, b'2', "anywhere")),
            Archive::default().header(Header::new(name, b'3', 0)),
            Archive::default().header(Header::new(name, b'4', 0)),
            Archive::default().header(dir(&format!("{name}/"))),
            Archive::default().header(Header::new(name, b'6', 0)),
        ]
    };
    for upper in marks("d/.wh.x") {
        expect(&[lower.clone(), upper.end()], &[("/", ""), ("d/", ""), ("d/y", "2")]);
    }
    for upper in marks("d/.wh..wh..opq") {
        expect(&[lower.clone(), upper.end()], &[("/", ""), ("d/", "")]);
    }
    // What stands below one would be a directory whose name says something else.
    for below in ["d/.wh.x/q", "d/.wh..wh..opq/q"] {
        let upper = Archive::default().file(below, b"").end();
        assert_eq!(flat(&[lower.clone(), upper]).unwrap_err().kind(), &ErrorKind::Corrupt, "{below}");
    }
}
