//! Disks without any tool. Here the empty upper: bytes, options, refusals, failing outputs.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod journal;
mod log;
mod memory;
mod rootfs;
mod suite;
mod verified;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;

use plyfold_core::digest::Hasher;
use plyfold_core::layer::{Metadata, Timestamp};
use plyfold_core::{
    ErrorKind, InputArtifact, LocalArtifact, Made, Materializer as _, Output, RangeWrite, Result, Role,
};
use plyfold_ext4::{Ext4Upper, MAX_SIZE, MIN_SIZE};

fn image(upper: &Ext4Upper) -> File {
    let mut disk = tempfile::tempfile().unwrap();
    upper.join(&[], &mut disk).unwrap();
    disk
}

fn digest(mut disk: File) -> String {
    let mut hasher = Hasher::sha256();
    let mut chunk = vec![0; 1 << 20];
    disk.rewind().unwrap();
    loop {
        match disk.read(&mut chunk).unwrap() {
            0 => return hasher.finish().digest().to_owned(),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// Every option away from its default, and attributes that need a block.
fn elaborate() -> Ext4Upper {
    let root = Metadata {
        mode: 0o1771,
        uid: 100_000,
        gid: 0xffff_fffe,
        mtime: Timestamp { seconds: 5_000_000_000, nanos: 999_999_999 },
        xattrs: vec![(b"user.note".to_vec(), vec![b'x'; 1000])],
    };
    Ext4Upper::new(256 << 20)
        .and_then(|upper| upper.uuid(*b"0123456789abcdef").label("sixteen bytes ok"))
        .and_then(|upper| upper.time(Timestamp { seconds: 1_700_000_000, nanos: 1 }).root(root))
        .unwrap()
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes() {
    let plain = Ext4Upper::new(MIN_SIZE).unwrap();
    assert_eq!(digest(image(&plain)), "624db009dc11e525b6b857cccc9c743aa0741150995f3779529622e8d6f1339b");
    assert_eq!(
        digest(image(&elaborate())),
        "fb268820db961fa1f1b02a9827a577442032390a41454447caf3127932a5fcc4"
    );
    assert_eq!(
        digest(image(&plain.journal(false))),
        "9e6c8850e12f5511b6623cd773127a5c79b935fe0816d0265c9640c2e333514c"
    );
}

#[test]
fn every_option_is_in_the_key() {
    let plain = Ext4Upper::new(MIN_SIZE).unwrap();
    let root = Metadata { mode: 0o755, ..Metadata::default() };
    let with_root = |root| plain.clone().root(root).unwrap();
    let later = Timestamp { seconds: 0, nanos: 1 };
    let all = [
        plain.clone(),
        Ext4Upper::new(MIN_SIZE + 4096).unwrap(),
        plain.clone().uuid([0; 16]),
        plain.clone().uuid([1; 16]),
        plain.clone().label("a").unwrap(),
        plain.clone().journal(false),
        plain.clone().time(later),
        with_root(Metadata { mode: 0o700, ..root.clone() }),
        with_root(Metadata { uid: 1, ..root.clone() }),
        with_root(Metadata { gid: 1, ..root.clone() }),
        with_root(Metadata { mtime: later, ..root.clone() }),
        with_root(Metadata { xattrs: vec![(b"user.a".to_vec(), Vec::new())], ..root.clone() }),
        with_root(Metadata { xattrs: vec![(b"user.a".to_vec(), vec![0])], ..root.clone() }),
    ];
    let mut keys: Vec<_> = all.iter().map(|upper| upper.format().to_string()).collect();
    assert_eq!(keys[0], "ext4-upper-v1-67108864");
    assert!(
        keys.iter()
            .flat_map(|key| key.bytes())
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    );
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all.len());
    assert_eq!(with_root(root).format(), plain.format());
}

#[test]
fn sizes_outside_of_the_range_are_refused_with_a_hint() {
    for size in [0, 1, MIN_SIZE - 4096, MIN_SIZE + 1, MIN_SIZE + 512, MAX_SIZE + 4096, u64::MAX] {
        let error = Ext4Upper::new(size).unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Config, true), "{size}");
    }
    assert!(Ext4Upper::new(MIN_SIZE).is_ok());
    assert!(Ext4Upper::new(MAX_SIZE).is_ok());
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let plain = Ext4Upper::new(MIN_SIZE).unwrap();
    for label in ["seventeen bytes!!", "nul\0"] {
        assert_eq!(plain.clone().label(label).unwrap_err().kind(), &ErrorKind::Config);
    }
}

#[test]
fn attributes_that_ext4_cannot_hold_are_refused() {
    let root = |name: &[u8], value: &[u8]| {
        let xattrs = vec![(name.to_vec(), value.to_vec())];
        Ext4Upper::new(MIN_SIZE).unwrap().root(Metadata { xattrs, ..Metadata::default() })
    };
    let kind = |result: Result<Ext4Upper>| result.unwrap_err().kind().clone();
    for name in ["foo", "user.", "system.other", "btrfs.compression"] {
        assert_eq!(kind(root(name.as_bytes(), b"")), ErrorKind::Unsupported, "{name}");
    }
    assert_eq!(kind(root(b"user.a", &[0; 4096])), ErrorKind::Limit);
    assert_eq!(kind(root(&[b"user.".as_slice(), &[b'n'; 256]].concat(), b"")), ErrorKind::Limit);
    for acl in [
        &[][..],
        &[1, 0, 0, 0],
        &[2, 0, 0, 0, 1],
        &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 2, 0, 7, 0],
    ] {
        assert_eq!(kind(root(b"system.posix_acl_access", acl)), ErrorKind::Corrupt, "{acl:?}");
    }
}

/// They would hide or redirect what lies below.
#[test]
fn attributes_of_overlayfs_are_left_out() {
    let root = |xattrs| {
        let root = Metadata { mode: 0o755, xattrs, ..Metadata::default() };
        Ext4Upper::new(MIN_SIZE).unwrap().uuid([7; 16]).root(root).unwrap()
    };
    let overlay =
        ["trusted.overlay.opaque", "user.overlay.redirect"].map(|name| (name.into(), b"y".to_vec()));
    let mut disk = image(&root(overlay.to_vec()));
    let mut bytes = Vec::new();
    disk.rewind().unwrap();
    (&mut disk).take(8 << 20).read_to_end(&mut bytes).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"overlay" || window == b"opaque\0"));
    // The magic of attributes in an inode or a block.
    assert!(!bytes.chunks(4).any(|word| word == 0xea02_0000_u32.to_le_bytes()));
}

#[test]
fn an_upper_is_not_made_of_layers() {
    let file = LocalArtifact::new("layer.erofs".into(), 4096, Made::default());
    let layer = InputArtifact::new("layer.erofs", Role::Image, Box::new(file), None);
    let mut disk = tempfile::tempfile().unwrap();
    let error = Ext4Upper::new(MIN_SIZE).unwrap().join(&[layer], &mut disk).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
}

#[test]
fn a_terabyte_takes_about_a_megabyte_of_the_host() {
    let small = image(&Ext4Upper::new(1 << 30).unwrap()).metadata().unwrap();
    assert_eq!(small.len(), 1 << 30);
    assert!(small.blocks() * 512 <= 64 << 10, "{} sectors", small.blocks());
    let large = image(&Ext4Upper::new(1 << 40).unwrap()).metadata().unwrap();
    assert!(large.blocks() * 512 <= 1100 << 10, "{} sectors", large.blocks());
}

/// A disk that fails at the nth write, and ends the test when it is never reached.
struct Full {
    file: File,
    writes_left: usize,
}

impl Read for Full {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl RangeWrite for Full {}

impl Output for Full {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

#[test]
fn a_full_disk_at_any_write_is_an_io_error_and_leaves_no_superblock() {
    let upper = elaborate();
    for writes_left in 0..100 {
        let mut disk = Full { file: tempfile::tempfile().unwrap(), writes_left };
        let Err(error) = upper.join(&[], &mut disk) else {
            assert!(writes_left > 10);
            return;
        };
        assert_eq!(error.kind(), &ErrorKind::Io);
        let mut magic = [1; 2];
        disk.seek(SeekFrom::Start(1024 + 0x38)).unwrap();
        disk.read_exact(&mut magic).unwrap();
        assert_eq!(magic, [0; 2]);
    }
    panic!("the disk was never written whole");
}
