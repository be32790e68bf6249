//! Tars that are not as they should be, and that every other reader takes: names that need cleaning, extensions
//! that repeat, entries that are no files.

use plyfold_core::ErrorKind::{Corrupt, Limit};
use plyfold_core::layer::{Entry, EntryKind, FileKind, LayerOptions, Warning};

use super::archive::{Archive, Header, fault, names, read, read_with, record};

fn first(archive: Archive) -> Entry {
    read(&archive.file("next", b"").end()).unwrap().remove(0).0
}

fn path(archive: Archive) -> String {
    String::from_utf8_lossy(first(archive).path.as_bytes()).into_owned()
}

/// Docker, containerd and umoci clean names without a look at the files. A relative name that leaves the root is
/// refused, as Docker and Podman refuse it; the root's own parent is the root.
#[test]
fn names_are_cleaned() {
    for (name, clean) in [
        ("a//b", "a/b"),
        ("usr///bin//x", "usr/bin/x"),
        ("a/./b", "a/b"),
        ("a/../b", "b"),
        ("usr/lib/../x", "usr/x"),
        ("a/b/../../c", "c"),
        ("/a/../b", "b"),
        ("/../x", "x"),
        ("/a/../../x", "x"),
        ("./a/.././b", "b"),
        ("a/..b/c", "a/..b/c"),
        ("d/.wh.x/../y", "d/y"),
    ] {
        let file = || Archive::default().file(name, b"");
        assert_eq!(path(file()), clean, "{name}");
        assert_eq!(
            path(Archive::default().pax(&[("path", name.as_bytes())]).file("f", b"")),
            clean,
            "{name}"
        );
        let EntryKind::HardLink { target } =
            first(Archive::default().header(Header::link("l", b'1', name))).kind
        else {
            panic!("{name} is no hard link")
        };
        assert_eq!(target.as_bytes(), clean.as_bytes(), "{name}");
    }
    for name in ["..", "../x", "./../x", "a/../../b", "a/../../a/b"] {
        assert_eq!(fault(&Archive::default().file(name, b"").end()), Corrupt, "{name}");
        assert_eq!(fault(&Archive::default().header(Header::link("l", b'1', name)).end()), Corrupt, "{name}");
    }
    for name in ["a/..", "/.."] {
        assert!(first(Archive::default().header(Header::new(name, b'5', 0))).path.is_root(), "{name}");
        assert_eq!(fault(&Archive::default().file(name, b"").end()), Corrupt, "{name}");
    }
    // A directory without a name is the root, as for Go and GNU tar.
    assert!(first(Archive::default().header(Header::new("", b'5', 0))).path.is_root());
    // What is cut away counts for no limit.
    let long = [&b"./".repeat(5000)[..], b"x"].concat();
    assert_eq!(path(Archive::default().pax(&[("path", &long)]).file("f", b"")), "x");
}

#[test]
fn a_whiteouts_prefix_counts_for_no_limit() {
    let whiteout = |length: usize| [b"d/.wh.".to_vec(), vec![b'n'; length]].concat();
    let named = |name: &[u8]| Archive::default().pax(&[("path", name)]).file("f", b"");
    assert_eq!(first(named(&whiteout(255))).path.name().len(), 259);
    assert_eq!(fault(&named(&whiteout(256)).end()), Limit);
    let deep = |length: usize| {
        let tail = [vec![b'n'; length], b"/.wh.x".to_vec()].concat();
        [b"d/".repeat(2000), tail].concat()
    };
    assert_eq!(first(named(&deep(94))).path.as_bytes().len(), 4100);
    assert_eq!(fault(&named(&deep(95)).end()), Limit);
}

/// As Go and GNU tar; an extension before it counts as if it were not there.
#[test]
fn the_last_of_two_extensions_counts() {
    let pax = |archive: Archive, key: &str, value: &str| archive.pax(&[(key, value.as_bytes())]);
    let two = pax(pax(Archive::default(), "path", "a"), "path", "b");
    assert_eq!(path(two.file("f", b"")), "b");
    let other = pax(pax(Archive::default(), "path", "a"), "uid", "7");
    let entry = first(other.file("f", b""));
    assert_eq!((entry.path.as_bytes(), entry.metadata.uid), (&b"f"[..], 7));
    let larger = pax(pax(Archive::default(), "size", "512"), "size", "2").header(Header::new("f", b'0', 1));
    assert_eq!(names(&larger.data(b"ab").file("g", b"c").end())[1], ("g".to_owned(), b"c".to_vec()));

    let long = |archive: Archive, text: &[u8]| archive.extension(b'L', text);
    assert_eq!(path(long(long(Archive::default(), b"a\0"), b"b\0").file("f", b"")), "b");
    assert_eq!(path(long(long(Archive::default(), b"a\0"), b"\0").file("f", b"")), "f");
    let links = Archive::default().extension(b'K', b"a").extension(b'K', b"b");
    let target = first(links.header(Header::link("l", b'2', "t"))).kind;
    assert_eq!(target, EntryKind::Node(FileKind::Symlink { target: b"b"[..].into() }));
}

#[test]
fn a_nul_ends_a_long_name() {
    assert_eq!(path(Archive::default().extension(b'L', b"long\0garbage\0").file("f", b"")), "long");
    let link = Archive::default().extension(b'K', b"target\0x").header(Header::link("l", b'2', "t"));
    assert_eq!(first(link).kind, EntryKind::Node(FileKind::Symlink { target: b"target"[..].into() }));
}

#[test]
fn names_for_all_files_name_none() {
    let body = [record(b"path", b"g"), record(b"linkpath", b"g"), record(b"uid", b"9")].concat();
    let seen = read(
        &Archive::default()
            .extension(b'g', &body)
            .file("f", b"")
            .header(Header::link("l", b'2', "t"))
            .pax(&[("path", b"")])
            .file("h", b"")
            .end(),
    )
    .unwrap();
    let paths: Vec<&[u8]> = seen.iter().map(|(entry, _)| entry.path.as_bytes()).collect();
    assert_eq!(paths, [&b"f"[..], b"l", b"h"]);
    assert_eq!(seen[1].0.kind, EntryKind::Node(FileKind::Symlink { target: b"t"[..].into() }));
    assert!(seen.iter().all(|(entry, _)| entry.metadata.uid == 9));
}

/// As GNU tar and bsdtar; the data of such an entry is passed over.
#[test]
fn a_slash_at_the_end_makes_a_directory() {
    for flag in [b'\0', b'0', b'7'] {
        assert_eq!(
            first(Archive::default().header(Header::new("d/", flag, 0))).kind,
            EntryKind::Node(FileKind::Directory(()))
        );
        let named = Archive::default().pax(&[("path", b"d/")]).header(Header::new("f", flag, 0));
        assert_eq!(first(named).kind, EntryKind::Node(FileKind::Directory(())));
    }
    let with_data = Archive::default().file("d/", &[b'x'; 700]).file("f", b"1").end();
    assert_eq!(names(&with_data), [("d".to_owned(), vec![]), ("f".to_owned(), b"1".to_vec())]);
    assert!(first(Archive::default().file("./", b"")).path.is_root());
}

#[test]
fn unknown_types_are_left_out_with_a_warning() {
    for flag in *b"ZAEN8V\xff" {
        let tar = Archive::default()
            .pax(&[("path", b"odd"), ("size", b"600")])
            .header(Header::new("short", flag, 1))
            .data(&[b'x'; 600])
            .file("next", b"1")
            .end();
        let (seen, summary) = read_with(&tar, LayerOptions::default()).unwrap();
        assert_eq!(seen.len(), 1, "{flag}");
        assert_eq!((seen[0].0.path.as_bytes(), &*seen[0].1), (&b"next"[..], &b"1"[..]), "{flag}");
        let [Warning::Skipped { path, typeflag }] = &summary.warnings[..] else {
            panic!("{:?}", summary.warnings)
        };
        assert_eq!((path.as_bytes(), *typeflag), (&b"odd"[..], flag));
    }
    // The text of a volume label is no path.
    let label = Archive::default().header(Header::new("../backup", b'V', 0)).file("f", b"").end();
    assert_eq!(names(&label).len(), 1);
}

/// What it belongs to is missing, and Go and GNU tar do not miss it.
#[test]
fn an_extension_may_stand_last() {
    for flag in [b'L', b'K'] {
        assert_eq!(names(&Archive::default().file("f", b"").extension(flag, b"x").end()).len(), 1);
    }
    assert!(names(&Archive::default().pax(&[("uid", b"5")]).end()).is_empty());
}

#[test]
fn xattrs_encoded_slightly_off() {
    for (value, decoded) in [
        ("b3RoZXI=", "other"),
        ("b3RoZXI", "other"),
        ("b3Ro\nZXI=\n", "other"),
        ("b3Ro ZXI=", "other"),
        ("b3RoZXI_", "other"),
        ("b3RoZXI=b3RoZXI=", "other"),
        ("b3RoZ", "oth"),
        ("!", ""),
        ("", ""),
    ] {
        let file = Archive::default().pax(&[("LIBARCHIVE.xattr.user.a", value.as_bytes())]).file("f", b"");
        let expected = vec![(b"user.a".to_vec(), decoded.as_bytes().to_vec())];
        assert_eq!(first(file).metadata.xattrs, expected, "{value:?}");
    }
    // A name is bytes, as Linux has it.
    let body = record(b"SCHILY.xattr.user.\xff", b"1\n=\0");
    let file = Archive::default().extension(b'x', &body).file("f", b"");
    assert_eq!(first(file).metadata.xattrs, [(b"user.\xff".to_vec(), b"1\n=\0".to_vec())]);
}

/// Go before 1.8, and so Docker before 1.13, put a prefix where the old GNU format has times. Go reads it so.
#[test]
fn a_prefix_in_place_of_gnu_times() {
    let named = |prefix: &[u8]| {
        let mut header = Header::new("f", b'0', 0);
        header.put(257, b"ustar  \0").put(345, prefix);
        path(Archive::default().header(header))
    };
    assert_eq!(named(&[b'a'; 155]), format!("{}/f", "a".repeat(155)));
    assert_eq!(named(b"usr/share/doc"), "usr/share/doc/f");
    assert_eq!(named(b"00000000007\0usr"), "00000000007/f");
    for times in [
        &b"00000000007 00000000007 "[..],
        b"00000000007\0",
        b"\0\0",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
        b"d\xfc",
    ] {
        assert_eq!(named(times), "f", "{times:?}");
    }
}
