//! Descriptors without any tool: text, keys, refusals, reading back.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

use std::fs::{self, File};
use std::io::Cursor;
use std::path::PathBuf;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::digest::sha256;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::{ErrorKind, InputArtifact, LocalArtifact, Made, Materializer as _, OneFile, Result, Role};
use plyfold_erofs::ErofsLayer;
use plyfold_vmdk::{Descriptor, Extent, MAX_DESCRIPTOR, Vmdk};

#[path = "../disk/mod.rs"]
mod disk;
mod libkrun;
#[path = "../set/mod.rs"]
mod set;
mod stream;
mod suite;
mod verified;

use disk::GIB;

fn extent(name: impl Into<String>, size: u64) -> InputArtifact {
    let name = name.into();
    let file = LocalArtifact::new((&name).into(), size, Made::default());
    InputArtifact::new(name, Role::Image, Box::new(file), None)
}

fn text(vmdk: &Vmdk, layers: &[InputArtifact]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    vmdk.join(layers, &mut OneFile(Role::Descriptor, File::create(&path).unwrap())).unwrap();
    fs::read_to_string(path).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind().clone()
}

/// A merged image expects each layer where the data of the one before it ends.
#[test]
fn a_hash_tree_is_no_part_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut extents = Vec::new();
    for verified in [false, true] {
        let path = folder.path().join(format!("{verified}.erofs"));
        let mut file = File::create_new(&path).unwrap();
        let tar = LayerBuilder::new().file("file", 0o644, &[1; 10_000]).finish();
        let mut layer = LayerTar::new(Cursor::new(tar), LayerOptions::default()).unwrap();
        let erofs = if verified { ErofsLayer::default().with_hash_tree() } else { ErofsLayer::default() };
        let told = erofs.layer(&mut layer, &mut file).unwrap();
        let size = file.metadata().unwrap().len();
        // What the materializer has said, or nothing, as of a path that a caller has.
        for told in [told, Made::default()] {
            let artifact = LocalArtifact::new(path.clone(), size, told);
            let file = InputArtifact::new("a.erofs", Role::Image, Box::new(artifact), None);
            extents.push(Vmdk::new().descriptor(&[file]).unwrap().extents().to_vec());
        }
        assert_eq!(size == extents[0][0].size(), !verified);
    }
    assert!(extents.windows(2).all(|pair| pair[0] == pair[1]), "{extents:?}");
}

/// A file that is not there yet has no tree; one that cannot be read may have one.
#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loop");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let with = |path: PathBuf| {
        let file = LocalArtifact::new(path, 4096, Made::default());
        Vmdk::new().descriptor(&[InputArtifact::new("a", Role::Image, Box::new(file), None)])
    };
    assert_eq!(kind(with(path)), ErrorKind::Io);
    for missing in ["none".into(), "none/a".into(), "n".repeat(300)] {
        assert_eq!(with(folder.path().join(missing)).unwrap().size(), 4096);
    }
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes() {
    let layers = [extent("fsmeta.erofs", 1 << 20), extent("layers/sha256 a/ü'.erofs", 5 * GIB)];
    let expected = "\
# Disk DescriptorFile
version=1
CID=6962d561
parentCID=ffffffff
createType=\"twoGbMaxExtentFlat\"

# Extent description
RW 2048 FLAT \"fsmeta.erofs\" 0
RW 10485760 FLAT \"layers/sha256 a/ü'.erofs\" 0

# The Disk Data Base
#DDB

ddb.virtualHWVersion = \"4\"
ddb.geometry.cylinders = \"10404\"
ddb.geometry.heads = \"16\"
ddb.geometry.sectors = \"63\"
ddb.adapterType = \"ide\"
";
    assert_eq!(text(&Vmdk::new(), &layers), expected);
}

#[test]
fn files_are_split_at_2_gib_for_vmware_only() {
    let layers = [extent("a", 4096), extent("b", 5 * GIB)];
    let lines = |vmdk: &Vmdk| -> Vec<String> {
        text(vmdk, &layers).lines().filter(|line| line.starts_with("RW ")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&Vmdk::new()), ["RW 8 FLAT \"a\" 0", "RW 10485760 FLAT \"b\" 0"]);
    let split = [
        "RW 8 FLAT \"a\" 0",
        "RW 4194304 FLAT \"b\" 0",
        "RW 4194304 FLAT \"b\" 4194304",
        "RW 2097152 FLAT \"b\" 8388608",
    ];
    assert_eq!(lines(&Vmdk::new().split(true)), split);
    assert_ne!(Vmdk::new().format(), Vmdk::new().split(true).format());
    assert_eq!(Vmdk::new().format().to_string(), "vmdk-v1");
    assert_eq!(Vmdk::new().split(true).sector_blocks().format().to_string(), "vmdk-v1-b512-split");
}

/// qemu compares CIDs to tell whether a disk's content has changed.
#[test]
fn the_cid_follows_the_content_and_not_the_place() {
    let made_from = |path: &str, layer: &[u8]| {
        let mut extent = extent(path, 4096);
        extent.diff_id = Some(sha256(layer));
        extent
    };
    let cid = |layers: &[InputArtifact]| Vmdk::new().descriptor(layers).unwrap().cid();
    let here = cid(&[made_from("a", b"1"), made_from("b", b"2")]);
    assert_eq!(here, cid(&[made_from("elsewhere/a", b"1"), made_from("elsewhere/b", b"2")]));
    assert_ne!(here, cid(&[made_from("a", b"1"), made_from("b", b"3")]));
    assert_ne!(here, cid(&[made_from("b", b"2"), made_from("a", b"1")]));
    assert_ne!(cid(&[extent("a", 4096)]), cid(&[extent("a", 8192)]));
}

/// A disk never shrinks, and a file system block never straddles two files.
#[test]
fn files_of_broken_blocks_are_refused_with_a_hint() {
    for size in [0, 1, 511, 512, 4095, 4608, u64::MAX] {
        let error = Vmdk::new().descriptor(&[extent("a", size)]).unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Config, true), "{size}");
    }
    assert_eq!(Vmdk::new().sector_blocks().descriptor(&[extent("a", 512)]).unwrap().size(), 512);
    assert_eq!(kind(Vmdk::new().sector_blocks().descriptor(&[extent("a", 513)])), ErrorKind::Config);
    assert_eq!(kind(Vmdk::new().descriptor(&[])), ErrorKind::Config);
}

#[test]
fn paths_that_a_reader_would_take_for_others_are_refused() {
    let long = "p".repeat(512);
    let refused = [
        "",
        "/abs/a.erofs",
        "..",
        "../a",
        "d/../a",
        "./..",
        "d/..",
        "a\"b",
        "a\nb",
        "a\rb",
        "a\u{1b}b",
        "nbd:host",
        "json:{}",
        &long,
    ];
    for path in refused {
        let error = Vmdk::new().descriptor(&[extent(path, 4096)]).unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Config, true), "{path:?}");
    }
    for path in
        ["a b", "..a", "a../b", ".../a", "./nbd:host", "d/a:b", "ünïcode", "%s", "a'b", "a\\b", &long[1..]]
    {
        let text = text(&Vmdk::new(), &[extent(path, 4096)]);
        assert_eq!(Descriptor::parse(&text).unwrap().extents()[0].path(), path);
    }
}

#[test]
fn what_no_reader_can_hold_is_refused() {
    let many: Vec<_> = (0..3000).map(|n| extent(format!("{n:0500}"), 4096)).collect();
    assert_eq!(kind(Vmdk::new().descriptor(&many)), ErrorKind::Limit);
    assert_eq!(kind(Vmdk::new().descriptor(&vec![extent("a", 1 << 62); 3])), ErrorKind::Limit);
    assert_eq!(kind(Vmdk::new().descriptor(&vec![extent("a", 1 << 63); 3])), ErrorKind::Limit);
}

/// Nothing can be made that [`Descriptor::parse`] refuses, or whose end is no number of bytes.
#[test]
fn extents_are_not_empty_and_end_within_2_63_bytes() {
    let most = (1 << 53) - 1;
    for (sectors, offset, expected) in [
        (0, 0, ErrorKind::Config),
        (1, u64::MAX, ErrorKind::Limit),
        (u64::MAX, 1, ErrorKind::Limit),
        (most + 1, 0, ErrorKind::Limit),
        (1, most + 1, ErrorKind::Limit),
    ] {
        let error = Extent::new("a", sectors, offset).unwrap_err();
        assert_eq!(*error.kind(), expected, "{sectors} from {offset}: {error}");
        let text = format!("version=1\nCID=1\nparentCID=ffffffff\nRW {sectors} FLAT \"a\" {offset}");
        assert_eq!(kind(Descriptor::parse(&text)), ErrorKind::Corrupt, "{sectors} from {offset}");
    }
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("a")).unwrap();
    let last = Descriptor::new(1, vec![Extent::new("a", most, most).unwrap()]).unwrap();
    assert_eq!(Descriptor::parse(&last.to_string()).unwrap(), last);
    assert_eq!(kind(last.check(folder.path())), ErrorKind::Corrupt);
}

#[test]
fn a_descriptor_reads_back_as_it_was() {
    let layers = [extent("a b", 4096), extent("d/c", 5 * GIB)];
    for vmdk in [Vmdk::new(), Vmdk::new().split(true)] {
        let written = vmdk.descriptor(&layers).unwrap();
        let read = Descriptor::parse(&written.to_string()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.size(), 4096 + 5 * GIB);
    }
}

/// As VMware writes them: other keys, spaces, CR LF.
#[test]
fn descriptors_of_others_are_read() {
    let text = "# Disk DescriptorFile\r\nversion=3\r\nencoding=\"UTF-8\"\r\nCID=FFFFFFFE\r\nparentCID=ffffffff\r\n\
                createType=\"monolithicFlat\"\r\nRW  8  FLAT  \"disk-flat.vmdk\"  16\r\nddb.uuid = \"60 00\"\r\n";
    let descriptor = Descriptor::parse(text).unwrap();
    let extent = &descriptor.extents()[0];
    assert_eq!(
        (descriptor.cid(), extent.path(), extent.size(), extent.start()),
        (!1, "disk-flat.vmdk", 8 * 512, 16 * 512)
    );
}

#[test]
fn what_readers_disagree_about_is_not_read() {
    let with = |lines: &str| Descriptor::parse(&format!("version=1\nCID=1\nparentCID=ffffffff\n{lines}"));
    assert!(with("RW 8 FLAT \"a\" 0").is_ok());
    let unsupported = [
        "RW 8 ZERO",
        "RDONLY 8 FLAT \"a\" 0",
        "NOACCESS 8 ZERO",
        "RW 8 SPARSE \"a\"",
        "RW 8 VMFS \"a\"",
        "RW 8 FLAT a 0",
        "RW 8 FLAT \"../a\" 0",
        "RW 8 FLAT \"d/../a\" 0",
    ];
    for line in unsupported {
        assert_eq!(kind(with(&format!("RW 8 FLAT \"a\" 0\n{line}"))), ErrorKind::Unsupported, "{line}");
    }
    for line in [
        "",
        "nonsense",
        "CID=2\nRW 8 FLAT \"a\" 0",
        "RW 8 FLAT \"a\"",
        "RW 8 FLAT\"a\" 0",
        "RW 8 FLAT \"a\" x",
        "RW 8 FLAT \"a\" -1",
        "RW 8 FLAT \"a 0",
        "RW 0 FLAT \"a\" 0",
        "RW -8 FLAT \"a\" 0",
        "RW 99999999999999999999 FLAT \"a\" 0",
        "RW 8 FLAT \"/etc/shadow\" 0",
        "RW 8 FLAT \"nbd:host\" 0",
        // qemu takes it for an extent.
        "RW 8 FLAT \"a\" 0\nRW\u{b}8\u{b}FLAT\u{b}\"b\" 0 x=1",
        "RW 8 FLAT \"a\" 0\n#\0",
    ] {
        assert_eq!(kind(with(line)), ErrorKind::Corrupt, "{line}");
    }
    for head in ["CID=1\n", "version=1\n", "version=9\nCID=1\n", "version=1\nCID=x\n"] {
        assert_eq!(
            kind(Descriptor::parse(&format!("{head}RW 8 FLAT \"a\" 0"))),
            ErrorKind::Corrupt,
            "{head}"
        );
    }
    // QEMU takes other bytes for a space and looks for keys anywhere, and it skips lines that are empty.
    for line in [
        "RW\u{b}8\u{b}FLAT\u{b}\"/etc/shadow\" 0 x=1",
        "RW\u{c}8 FLAT \"/etc/shadow\" 0 x=1",
        "\u{b}RW 8 FLAT \"/etc/shadow\" 0 x=1",
        "x=1\rRW 8 FLAT \"/etc/shadow\" 0",
        "parentFileNameHint=\"/etc/shadow\"",
        "# parentFileNameHint=\"/etc/shadow\"",
        "ddb.x=1 parentFileNameHint=\"/etc/shadow\"",
        "\u{0}",
    ] {
        let refused = with(&format!("RW 8 FLAT \"a\" 0\n{line}\n")).unwrap_err();
        let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
        assert!(kinds.contains(refused.kind()), "{line:?}: {refused}");
    }
    assert_eq!(kind(with("\nRW 8 FLAT \"a\" 0")), ErrorKind::Corrupt);
    assert_eq!(kind(with(" \nRW 8 FLAT \"a\" 0")), ErrorKind::Corrupt);
    let delta = "version=1\nCID=1\nparentCID=2\nRW 8 FLAT \"a\" 0";
    assert_eq!(kind(Descriptor::parse(delta)), ErrorKind::Unsupported);
    // qemu opens it, whatever the parent's CID is.
    for line in ["parentFileNameHint=\"b\"", "# parentFileNameHint=\"b\""] {
        assert_eq!(kind(with(&format!("RW 8 FLAT \"a\" 0\n{line}"))), ErrorKind::Unsupported, "{line}");
    }
    assert_eq!(kind(Descriptor::parse(&" ".repeat(MAX_DESCRIPTOR + 1))), ErrorKind::Limit);
}

/// Readers show zeros where a file ends too early.
#[test]
fn short_and_missing_files_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let descriptor = Vmdk::new().split(true).descriptor(&[extent("a", 4096), extent("b", 3 * GIB)]).unwrap();
    File::create(folder.path().join("a")).unwrap().set_len(4096).unwrap();
    assert_eq!(kind(descriptor.check(folder.path())), ErrorKind::NotFound);
    let b = File::create(folder.path().join("b")).unwrap();
    b.set_len(3 * GIB - 1).unwrap();
    assert_eq!(kind(descriptor.check(folder.path())), ErrorKind::Corrupt);
    b.set_len(3 * GIB).unwrap();
    descriptor.check(folder.path()).unwrap();
}
