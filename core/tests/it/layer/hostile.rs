//! Tars that must be refused, by row of the catalogue of hostile inputs where it has one.

use plyfold_core::ErrorKind::{self, Ambiguous, Corrupt, Limit, Unsupported};
use plyfold_core::layer::{LayerLimits, LayerOptions};

use super::archive::{Archive, Header, fault, names, read, read_with, record};

#[track_caller]
fn refused(archive: Archive, kind: &ErrorKind) {
    assert_eq!(&fault(&archive.file("next", b"").end()), kind);
}

fn with(at: usize, field: &[u8]) -> Archive {
    let mut header = Header::new("f", b'0', 0);
    header.put(at, field);
    Archive::default().header(header)
}

/// Rows 33, 43.
#[test]
fn bad_names() {
    for name in ["../x", "../../x", "a/../../b", "a/..", "..", "/..", "./..", ""] {
        refused(Archive::default().file(name, b""), &Corrupt);
    }
    // The root is a directory, nothing else.
    refused(Archive::default().file(".", b""), &Corrupt);
    for (name, kind) in [
        (vec![b'a'; 256], Limit),
        (vec![b'a'; 1 << 19], Limit),
        (b"a/".repeat(4000), Limit),
        (b"a\0b".to_vec(), Corrupt),
    ] {
        refused(Archive::default().pax(&[("path", &name)]).file("f", b""), &kind);
        // A NUL ends a GNU name.
        if kind == Limit {
            refused(Archive::default().extension(b'L', &name).file("f", b""), &kind);
        }
    }
}

/// Row 36, as far as one entry tells.
#[test]
fn bad_link_targets() {
    for target in ["../../etc/hostname", "a/../../b", ""] {
        refused(Archive::default().header(Header::link("l", b'1', target)), &Corrupt);
    }
    refused(Archive::default().header(Header::link("l", b'2', "")), &Corrupt);
    let link = || Header::link("l", b'2', "t");
    refused(Archive::default().pax(&[("linkpath", b"a\0b")]).header(link()), &Corrupt);
    refused(Archive::default().pax(&[("linkpath", &[b'a'; 4096])]).header(link()), &Limit);
}

/// Row 45.
#[test]
fn bad_numbers() {
    let negative = [0xff; 12];
    let huge = [0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let most = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for flag in [b'0', b'5'] {
        for size in [&negative[..], &huge, b"0000000008\0 ", b"junk", b"-1"] {
            let mut header = Header::new("f", flag, 0);
            header.put(124, &[0; 12]).put(124, size);
            refused(Archive::default().header(header), &Corrupt);
        }
    }
    // Nothing behind it, and nothing is allocated for it.
    refused(with(124, &most), &Limit);
    refused(with(108, &[0x80, 0, 0, 1, 0, 0, 0, 0]), &Corrupt);
    refused(with(108, &[0xff; 8]), &Corrupt);
    refused(with(136, &huge), &Corrupt);
}

/// Row 46, CVE-2025-62518.
#[test]
fn a_pax_size_wins_both_ways() {
    let inner = Archive::default().file("inner", b"evil");
    let outer = Archive::default().pax(&[("size", inner.0.len().to_string().as_bytes())]);
    let larger = outer.header(Header::new("outer", b'0', 0)).data(&inner.0).file("last", b"").end();
    assert_eq!(names(&larger).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["outer", "last"]);

    let smaller = Archive::default()
        .pax(&[("size", b"0")])
        .header(Header::new("outer", b'0', inner.0.len() as u64))
        .file("seen", b"")
        .end();
    assert_eq!(names(&smaller).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["outer", "seen"]);
}

/// Row 47.
#[test]
fn bad_pax_records() {
    for body in [
        &b"99999999999999999999 a=b\n"[..],
        b"100 a=b\n",
        b"6 a=bb\n",
        b"6 a=b ",
        b"0 a=b\n",
        b"1 a=b\n",
        b"a=b\n",
        b"5 ab\n",
        b"5 =b\n",
        b"6 \xff=b\n",
        b"6 a=b\n\0",
        b"+6 a=b\n",
    ] {
        refused(Archive::default().extension(b'x', body).file("f", b""), &Corrupt);
    }
    for (key, value) in [
        ("size", "-1"),
        ("size", "9223372036854775808"),
        ("size", "1x"),
        ("uid", "4294967296"),
        ("mtime", "1e5"),
        ("mtime", "1.2.3"),
        ("mtime", "--1"),
        ("mtime", "9223372036854775808"),
        ("SCHILY.xattr.", "a"),
        ("GNU.sparse.offset", "1"),
    ] {
        refused(Archive::default().pax(&[(key, value.as_bytes())]).file("f", b""), &Corrupt);
    }
}

/// What readers disagree about lets an attacker show each of them another file.
#[test]
fn ambiguous_extensions() {
    let pax = |archive: Archive, name: &[u8]| archive.pax(&[("path", name)]);
    let long = Archive::default().extension(b'L', b"a");
    refused(pax(long.clone(), b"b").file("f", b""), &Ambiguous);
    assert_eq!(names(&pax(long, b"a").file("f", b"").end())[0].0, "a");
    for key in ["size", "GNU.sparse.size", "GNU.sparse.name"] {
        let global = Archive::default().extension(b'g', &record(key.as_bytes(), b"1"));
        refused(global.file("f", b""), &Corrupt);
    }
}

/// Row 48.
#[test]
fn extension_headers_beyond_their_limit() {
    for flag in [b'x', b'g', b'L', b'K'] {
        // The declared size decides, no byte of it is read.
        refused(Archive::default().header(Header::new("f", flag, 1 << 30)), &Limit);
    }
    let mut archive = Archive::default();
    for name in 0..40 {
        let value = vec![b'v'; 60_000];
        archive = archive.extension(b'g', &record(format!("SCHILY.xattr.user.{name}").as_bytes(), &value));
    }
    refused(archive, &Limit);
}

/// Row 49, CVE-2025-58183.
#[test]
fn bad_sparse_maps() {
    let sparse = |size: &str, map: &str, data: &[u8]| {
        Archive::default()
            .pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())])
            .file("f", data)
    };
    for map in ["0,-3", "5,1,0,2", "0,2,1,1", "0,3,9", "0,4", "0,2", "9223372036854775807,3", "99,3", "a,3"] {
        refused(sparse("50", map, b"abc"), &Corrupt);
    }
    refused(sparse("4611686018427387904", "0,3", b"abc"), &Limit);
    let pairs = |count: usize| {
        let text: Vec<String> = (0..count).map(|at| format!("{},1", at * 2)).collect();
        let limits = LayerLimits { sparse_extents: 100, ..LayerLimits::default() };
        let tar = sparse("1000", &text.join(","), &vec![b'a'; count]).end();
        read_with(&tar, LayerOptions { limits, ..LayerOptions::default() }).map_err(|e| e.kind().clone())
    };
    assert!(pairs(100).is_ok());
    assert_eq!(pairs(101).unwrap_err(), Limit);

    let in_data = |map: &[u8]| {
        let version: [(&str, &[u8]); 3] =
            [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"10")];
        Archive::default().pax(&version).file("f", map)
    };
    refused(in_data(&[&b"100000000\n"[..], &[0; 502]].concat()), &Limit);
    refused(in_data(b"1\n0\n1"), &Corrupt);
    refused(in_data(b""), &Corrupt);
    refused(in_data(&[b'1'; 600]), &Corrupt);
    let no_size: [(&str, &[u8]); 1] = [("GNU.sparse.major", b"1")];
    refused(Archive::default().pax(&no_size).file("f", b""), &Corrupt);
    let later: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"1")];
    refused(Archive::default().pax(&later).file("f", b""), &Unsupported);
}

/// Row 49: an old GNU map that never ends.
#[test]
fn an_endless_old_sparse_map() {
    let mut header = Header::new("f", b'S', 0);
    header.put(482, &[1]).put(483, b"00000023420\0");
    let mut archive = Archive::default().header(header);
    let mut block = [0; 512];
    block[504] = 1;
    (0..20_000).for_each(|_| archive.0.extend(block));
    refused(archive, &Limit);
}

/// Row 50.
#[test]
fn out_of_range_metadata() {
    let device = |at, field: &[u8]| {
        let mut header = Header::new("d", b'3', 0);
        header.put(at, field);
        Archive::default().header(header)
    };
    refused(device(329, b"0010000\0"), &Corrupt);
    refused(device(337, b"4000000\0"), &Corrupt);
    let mode = read(&with(100, b"7777777\0").end()).unwrap();
    assert_eq!(mode[0].0.metadata.mode, 0o7777);
    let xattr =
        |length| Archive::default().pax(&[("SCHILY.xattr.user.a", &vec![b'v'; length])]).file("f", b"");
    refused(xattr(65_537), &Limit);
    assert_eq!(read(&xattr(65_536).end()).unwrap()[0].0.metadata.xattrs[0].1.len(), 65_536);
    let long_name = format!("SCHILY.xattr.{}", "n".repeat(256));
    refused(Archive::default().pax(&[(&long_name, b"1")]).file("f", b""), &Limit);
    let capability = Archive::default().pax(&[("SCHILY.xattr.security.capability", b"bad")]).file("f", b"");
    assert_eq!(read(&capability.end()).unwrap()[0].0.metadata.xattrs[0].1, b"bad");
}

#[test]
fn truncation_anywhere_but_between_entries() {
    let whole = Archive::default().pax(&[("uid", b"5")]).file("f", &[b'x'; 700]).file("g", b"y").0;
    for length in 1..whole.len() {
        let cut = read(&whole[..length]);
        // Between entries, in the padding of a file whose data is complete, behind an extension, and nowhere else.
        let whole_entries = length == 1024 || (2236..=2560).contains(&length) || length >= 3073;
        assert_eq!(cut.is_ok(), whole_entries, "{length}");
        if let Err(e) = cut {
            assert_eq!(e.kind(), &Corrupt, "{length}");
        }
    }
}

#[test]
fn other_bad_structure() {
    refused(Archive(b"this is no tar, but longer than a block".repeat(20)), &Corrupt);
    refused(Archive(vec![0; 512]), &Corrupt);
    refused(Archive::default().header(Header::new("f", b'M', 0)), &Unsupported);
    let limits = LayerLimits { entries: 2, ..LayerLimits::default() };
    let three = Archive::default().file("a", b"").file("b", b"").file("c", b"").end();
    let options = LayerOptions { limits, ..LayerOptions::default() };
    assert_eq!(read_with(&three, options).unwrap_err().kind(), &Limit);
}

/// Every file is read with all of them: a thousand would cost each file as much as a thousand of its own.
#[test]
fn global_records_are_few() {
    let global = |count: u32| {
        let records = (0..count).map(|at| record(format!("SCHILY.xattr.user.{at:04}").as_bytes(), b"value"));
        Archive::default().extension(b'g', &records.collect::<Vec<_>>().concat())
    };
    refused(global(1_000).file("f", b""), &Limit);
    assert_eq!(read(&global(100).file("f", b"").end()).unwrap()[0].0.metadata.xattrs.len(), 100);
    // Nor do they add up to more over several headers.
    let mut archive = Archive::default();
    for at in 0..1_000_u32 {
        let key = format!("SCHILY.xattr.user.{at:04}");
        archive = archive.extension(b'g', &record(key.as_bytes(), b"value"));
    }
    refused(archive.file("f", b""), &Limit);
}

/// What is no tar is called what it is.
#[test]
fn other_files_are_told_by_their_first_bytes() {
    for (start, kind, what) in [
        (&b"\xfd7zXZ\0\0\x04"[..], Unsupported, "xz"),
        (b"BZh91AY&SY", Unsupported, "bzip2"),
        (b"\x5d\0\0\x80\0", Unsupported, "lzma"),
        (b"\x04\x22\x4d\x18", Unsupported, "lz4"),
        (b"\x1f\x9d\x90", Unsupported, "compress"),
        (b"<html>\n", Corrupt, "text"),
    ] {
        for length in [start.len(), 512, 5000] {
            let rest = if kind == Corrupt { b'x' } else { 0x80 };
            let mut file = start.to_vec();
            file.resize(length, rest);
            let error = read(&file).unwrap_err();
            assert_eq!((error.kind(), error.message().contains(what)), (&kind, true), "{error}");
            // Behind an entry it is data that is broken.
            let after = [Archive::default().file("f", b"").0, file].concat();
            let error = read(&after).unwrap_err();
            assert!(*error.kind() == Corrupt && !error.message().contains(what), "{error}");
        }
    }
}
