//! What each dialect of tar means.

use plyfold_core::layer::{DataExtent, EntryKind, FileKind, ImagePath, Timestamp};

use super::archive::{Archive, Header, names, read, record};

fn one(archive: Archive) -> super::archive::Seen {
    let mut seen = read(&archive.file("next", b"n").end()).unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[1].0.path.as_bytes(), b"next");
    seen.remove(0)
}

#[test]
fn ustar_fields_and_prefix() {
    let mut header = Header::new("name", b'0', 3);
    header.put(345, b"a/prefix");
    let (entry, data) = one(Archive::default().header(header).data(b"abc"));
    assert_eq!(entry.path.as_bytes(), b"a/prefix/name");
    assert_eq!(entry.kind, EntryKind::Node(FileKind::File { size: 3, content: None }));
    let metadata = entry.metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o644, 1, 2));
    assert_eq!(metadata.mtime, Timestamp { seconds: 3, nanos: 0 });
    assert_eq!(data, b"abc");
}

#[test]
fn every_regular_typeflag_has_data() {
    for flag in [b'\0', b'0', b'7'] {
        let (entry, data) = one(Archive::default().header(Header::new("f", flag, 3)).data(b"abc"));
        assert_eq!(entry.kind, EntryKind::Node(FileKind::File { size: 3, content: None }));
        assert_eq!(data, b"abc");
    }
}

#[test]
fn v7_headers_have_neither_prefix_nor_devices() {
    let mut header = Header::new("d/", b'\0', 0);
    header.put(257, &[0; 8]).put(345, b"no prefix");
    let (entry, _) = one(Archive::default().header(header));
    assert_eq!((entry.path.as_bytes(), entry.kind), (&b"d"[..], EntryKind::Node(FileKind::Directory(()))));
}

#[test]
fn star_headers_have_a_shorter_prefix() {
    let mut header = Header::new("n", b'0', 0);
    header.put(345, b"p").put(476, b"00000000000 ").put(508, b"tar\0");
    assert_eq!(one(Archive::default().header(header)).0.path.as_bytes(), b"p/n");
}

#[test]
fn checksums_of_signed_bytes_are_right_too() {
    let mut block = Header::new(b"\xff\xfe", b'0', 0).block();
    block[148..156].copy_from_slice(b"        ");
    let sum: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(one(Archive(block.to_vec())).0.path.as_bytes(), b"\xff\xfe");
}

#[test]
fn sizes_on_entries_without_data_do_not_hide_the_next_entry() {
    for flag in b'1'..=b'6' {
        let mut header = Header::new("e", flag, 4711);
        header.put(157, b"target");
        one(Archive::default().header(header));
    }
    let names =
        names(&Archive::default().header(Header::new("dump", b'D', 3)).data(b"Yx").file("b", b"").end());
    assert_eq!(names.len(), 2);
}

#[test]
fn kinds_of_entries() {
    let mut device = Header::new("e", b'3', 0);
    device.put(329, b"0000005\0").put(337, b"0000001\0");
    assert_eq!(
        one(Archive::default().header(device)).0.kind,
        EntryKind::Node(FileKind::CharDevice { major: 5, minor: 1 })
    );
    let mut device = Header::new("e", b'4', 0);
    device.put(329, b"0007777\0").put(337, b"3777777\0");
    assert_eq!(
        one(Archive::default().header(device)).0.kind,
        EntryKind::Node(FileKind::BlockDevice { major: 0xfff, minor: 0xf_ffff })
    );
    assert_eq!(
        one(Archive::default().header(Header::new("e", b'6', 0))).0.kind,
        EntryKind::Node(FileKind::Fifo)
    );
    let link = Header::link("e", b'1', "/usr/./bin/x");
    let target = ImagePath::parse(b"usr/bin/x").unwrap();
    assert_eq!(one(Archive::default().header(link)).0.kind, EntryKind::HardLink { target });
    let link = Header::link("e", b'2', "/../..//x/");
    let target = b"/../..//x/".to_vec();
    assert_eq!(
        one(Archive::default().header(link)).0.kind,
        EntryKind::Node(FileKind::Symlink { target: target.into() })
    );
}

#[test]
fn gnu_long_names_and_links() {
    let (name, link) = (vec![b'n'; 200], vec![b'l'; 3000]);
    let archive = Archive::default()
        .extension(b'L', &[name.as_slice(), b"\0"].concat())
        .extension(b'K', &link)
        .header(Header::link("short", b'2', "short"));
    let (entry, _) = one(archive);
    assert_eq!(
        (entry.path.as_bytes(), entry.kind),
        (name.as_slice(), EntryKind::Node(FileKind::Symlink { target: link.into() }))
    );
}

#[test]
fn base_256_numbers() {
    let mut header = Header::new("f", b'0', 0);
    header.put(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    header.put(136, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    let metadata = one(Archive::default().header(header)).0.metadata;
    assert_eq!((metadata.uid, metadata.mtime.seconds), (u32::MAX, -2));
}

#[test]
fn pax_overrides_the_header() {
    let archive = Archive::default()
        .pax(&[
            ("path", b"dir/\xff\xfe"),
            ("uid", b"4294967294"),
            ("gid", b"3000000"),
            ("mtime", b"-1.5"),
            ("size", b"4"),
            ("comment", b"nothing"),
        ])
        .header(Header::new("short", b'0', 1))
        .data(b"abcd");
    let (entry, data) = one(archive);
    assert_eq!(entry.path.as_bytes(), b"dir/\xff\xfe");
    let metadata = entry.metadata;
    assert_eq!((metadata.uid, metadata.gid), (4_294_967_294, 3_000_000));
    assert_eq!(metadata.mtime, Timestamp { seconds: -2, nanos: 500_000_000 });
    assert_eq!(data, b"abcd");
}

#[test]
fn pax_times() {
    for (text, seconds, nanos) in [
        ("1", 1, 0),
        ("1.", 1, 0),
        ("1.000000001999", 1, 1),
        ("0.25", 0, 250_000_000),
        ("-0.25", -1, 750_000_000),
        ("-7", -7, 0),
        ("-9223372036854775808", i64::MIN, 0),
    ] {
        let archive = Archive::default().pax(&[("mtime", text.as_bytes())]).header(Header::new("f", b'0', 0));
        assert_eq!(one(archive).0.metadata.mtime, Timestamp { seconds, nanos }, "{text}");
    }
}

#[test]
fn global_headers_hold_until_a_local_one_says_otherwise() {
    let uid = |archive: Archive| -> Vec<u32> {
        read(&archive.end()).unwrap().iter().map(|(entry, _)| entry.metadata.uid).collect()
    };
    let archive = Archive::default()
        .extension(b'g', &record(b"uid", b"7"))
        .file("global", b"")
        .pax(&[("uid", b"8")])
        .file("local", b"")
        .pax(&[("uid", b"")])
        .file("deleted", b"")
        .file("global again", b"")
        .extension(b'g', &record(b"uid", b""))
        .file("none", b"");
    assert_eq!(uid(archive), [7, 8, 1, 7, 1]);
}

#[test]
fn xattrs_of_a_global_header_are_those_of_every_file() {
    let global = [
        record(b"SCHILY.xattr.user.a", b"all"),
        record(b"SCHILY.xattr.user.b", b"all"),
        record(b"LIBARCHIVE.xattr.user.c", b"YWxs"),
    ];
    let archive = Archive::default()
        .extension(b'g', &global.concat())
        .file("all", b"")
        .pax(&[("SCHILY.xattr.user.b", b"own"), ("LIBARCHIVE.xattr.user.c", b"b3du")])
        .file("own", b"");
    let seen = read(&archive.end()).unwrap();
    let xattrs = |at: usize| seen[at].0.metadata.xattrs.clone();
    let all =
        |names: [(&[u8], &[u8]); 3]| names.map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec();
    assert_eq!(xattrs(0), all([(b"user.a", b"all"), (b"user.b", b"all"), (b"user.c", b"all")]));
    assert_eq!(xattrs(1), all([(b"user.a", b"all"), (b"user.b", b"own"), (b"user.c", b"own")]));
}

#[test]
fn xattrs_of_star_and_libarchive() {
    let archive = Archive::default()
        .pax(&[
            ("SCHILY.xattr.user.b", b"\0\xff=\n"),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.a%3Db", b"1"),
            ("LIBARCHIVE.xattr.user.b", b"b3RoZXI"),
            ("LIBARCHIVE.xattr.user.a%20c", b"b3RoZXI="),
        ])
        .header(Header::new("f", b'0', 0));
    let expected: [(&[u8], &[u8]); 4] =
        [(b"user.a c", b"other"), (b"user.a=b", b"1"), (b"user.b", b"\0\xff=\n"), (b"user.empty", b"")];
    assert_eq!(one(archive).0.metadata.xattrs, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
}

const EXTENTS: [DataExtent; 2] =
    [DataExtent { offset: 4096, length: 3 }, DataExtent { offset: 8192, length: 2 }];

#[track_caller]
fn is_the_sparse_file((entry, data): super::archive::Seen) {
    assert_eq!(entry.path.as_bytes(), b"sparse");
    assert_eq!(entry.kind, EntryKind::Node(FileKind::File { size: 10_000, content: Some(EXTENTS.to_vec()) }));
    assert_eq!(data, b"abcde");
}

#[test]
fn gnu_sparse_0_0() {
    let archive = Archive::default().pax(&[
        ("GNU.sparse.size", b"10000"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"8192"),
        ("GNU.sparse.numbytes", b"2"),
        ("GNU.sparse.offset", b"10000"),
        ("GNU.sparse.numbytes", b"0"),
    ]);
    is_the_sparse_file(one(archive.file("sparse", b"abcde")));
}

#[test]
fn gnu_sparse_0_1() {
    let archive = Archive::default().pax(&[
        ("GNU.sparse.size", b"10000"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.map", b"4096,3,8192,2,10000,0"),
    ]);
    is_the_sparse_file(one(archive.file("GNUSparseFile.1/sparse", b"abcde")));
}

#[test]
fn gnu_sparse_1_0() {
    let archive = Archive::default().pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"10000"),
    ]);
    let mut data = b"3\n4096\n3\n8192\n2\n10000\n0\n".to_vec();
    data.resize(512, 0);
    data.extend(b"abcde");
    is_the_sparse_file(one(archive.file("GNUSparseFile.1/sparse", &data)));
}

#[test]
fn old_gnu_sparse_with_extension_blocks() {
    let mut header = Header::new("sparse", b'S', 5);
    header.put(257, b"ustar  \0");
    header.put(345, &[0; 155]);
    header.put(386, b"00000010000\x0000000000003\0");
    header.put(482, &[1]);
    header.put(483, b"00000023420\0");
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(b"00000020000\x0000000000002\0");
    extension[24..48].copy_from_slice(b"00000023420\x0000000000000\0");
    let mut archive = Archive::default().header(header);
    archive.0.extend(extension);
    is_the_sparse_file(one(archive.data(b"abcde")));
}

#[test]
fn sparse_files_may_be_all_hole_or_all_data() {
    let all_hole = Archive::default()
        .pax(&[("GNU.sparse.size", b"10000"), ("GNU.sparse.map", b"10000,0")])
        .file("f", b"");
    assert_eq!(
        one(all_hole).0.kind,
        EntryKind::Node(FileKind::File { size: 10_000, content: Some(Vec::new()) })
    );
    let all_data =
        Archive::default().pax(&[("GNU.sparse.size", b"3"), ("GNU.sparse.map", b"0,3")]).file("f", b"abc");
    assert_eq!(one(all_data).0.kind, EntryKind::Node(FileKind::File { size: 3, content: None }));
}

#[test]
fn names_are_clamped_to_the_root() {
    for (name, clean) in [
        ("/etc/passwd", "etc/passwd"),
        ("//etc", "etc"),
        ("./a/./b", "a/b"),
        (".//a", "a"),
        ("a.", "a."),
        ("...", "..."),
    ] {
        assert_eq!(names(&Archive::default().file(name, b"").end())[0].0, clean, "{name}");
    }
    for root in ["./", "/", "."] {
        let (entry, _) = one(Archive::default().header(Header::new(root, b'5', 0)));
        assert!(entry.path.is_root(), "{root}");
    }
}

#[test]
fn volume_labels_are_left_out() {
    let seen = names(&Archive::default().header(Header::new("label", b'V', 0)).file("f", b"").end());
    assert_eq!(seen.len(), 1);
}
