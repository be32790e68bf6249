//! Layers flattened into one tar, read back.

use plyfold_core::flatten;
use plyfold_core::layer::{DataExtent, EntryKind, FileKind, LayerOptions, LayerTar, Timestamp};
use plyfold_core::{ErrorKind, Result};

use super::archive::{Archive, Header, Seen, open, read};

fn flat(layers: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flatten(layers.len(), |at| Ok(open(&layers[at], LayerOptions::default())), &mut out)?;
    Ok(out)
}

fn seen(layers: &[Vec<u8>]) -> Vec<Seen> {
    let tar = flat(layers).unwrap();
    assert_eq!(tar, flat(layers).unwrap(), "S 91");
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
            ("file-then-dir/", ""),
            ("opaque/", ""),
            ("d/kept", "2"),
            ("file-then-dir/y", "6"),
            ("dir-then-file", "7"),
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
        &[("/", ""), ("a-link", "one"), ("z-target", "two"), ("b-link -> a-link", "")],
    );
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
    assert_eq!(after, before);
    let (sparse, data) = before.iter().find(|(entry, _)| entry.path.as_bytes() == b"sparse").unwrap();
    let extents =
        vec![DataExtent { offset: 4096, length: 512 }, DataExtent { offset: 8_999_999_488, length: 512 }];
    assert_eq!(sparse.kind, EntryKind::Node(FileKind::File { size: 9_000_000_000, content: Some(extents) }));
    assert_eq!(sparse.metadata.mtime, Timestamp { seconds: 7, nanos: 1 });
    assert_eq!(data, &[b'x'; 1024]);
}

#[test]
fn errors_leave_no_tar_behind() {
    let good = Archive::default().file("a", b"data").end();
    let bad = Archive::default().file("../b", b"").end();
    assert_eq!(flat(&[good.clone(), bad]).unwrap_err().kind(), &ErrorKind::Corrupt);
    // A layer that is another one at its second reading.
    let other = Archive::default().file("a", b"other").end();
    let readings = std::cell::Cell::new(0);
    let open = |_| -> Result<LayerTar> {
        readings.set(readings.get() + 1);
        Ok(open(if readings.get() == 1 { &good } else { &other }, LayerOptions::default()))
    };
    assert_eq!(flatten(1, open, Vec::new()).unwrap_err().kind(), &ErrorKind::Corrupt);
}

/// GNU tar and others disagree about runs that do not start at a block: none are written.
#[test]
fn sparse_runs_are_widened_to_blocks() {
    let layer = Archive::default()
        .pax(&[("GNU.sparse.size", b"3000"), ("GNU.sparse.map", b"513,2,1100,1,2500,1,2998,2")])
        .file("f", b"abcdef")
        .end();
    let (entry, data) = seen(&[layer]).remove(1);
    let extents = vec![DataExtent { offset: 512, length: 1024 }, DataExtent { offset: 2048, length: 952 }];
    assert_eq!(entry.kind, EntryKind::Node(FileKind::File { size: 3000, content: Some(extents) }));
    let mut expected = vec![0; 1976];
    for (at, byte) in
        [(1, b'a'), (2, b'b'), (588, b'c'), (1024 + 452, b'd'), (1024 + 950, b'e'), (1024 + 951, b'f')]
    {
        expected[at] = byte;
    }
    assert_eq!(data, expected);
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
