//! Layers and images made to fill memory, each in a process of its own whose peak is measured.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::process::Command;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{Hashing, LayerLimits, LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::{LayerSource, MergedTree, NodeId};
use plyfold_core::{ErrorKind, InputArtifact, Made, Materializer as _, Result, flatten};
use plyfold_erofs::{Compression, ErofsFlat, ErofsLayer, ErofsMerged};

const MIB: u64 = 1 << 20;
/// A sixteenth of the default for what is counted by bytes: the cases are small, and memory follows the bound.
const METADATA: u64 = 4 * MIB;
/// What the process takes besides: itself, and the buffers of a layer.
const BASE: u64 = 24 * MIB;
/// What a case runs as, in the process that is measured.
pub(crate) const CASE: &str = "PLYFOLD_MEMORY_CASE";

/// A tar whose entries are made while it is read, a few at once: what is not read yet is in the peak, too.
struct Endless<F> {
    entry: F,
    number: u64,
    count: u64,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<F: FnMut(u64) -> LayerBuilder> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() && !self.ended {
            self.bytes.clear();
            self.at = 0;
            while self.number < self.count && self.bytes.len() < 64 << 10 {
                let mut entry = (self.entry)(self.number).finish();
                entry.truncate(entry.len() - 1024);
                self.bytes.append(&mut entry);
                self.number += 1;
            }
            if self.number == self.count {
                self.bytes.extend_from_slice(&[0; 1024]);
                self.ended = true;
            }
        }
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// The same text again and again.
struct Again {
    text: Vec<u8>,
    at: usize,
}

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.text.len() - self.at);
        buffer[..count].copy_from_slice(&self.text[self.at..self.at + count]);
        self.at = (self.at + count) % self.text.len();
        Ok(count)
    }
}

pub(crate) type Entry = Box<dyn FnMut(u64) -> LayerBuilder + Send>;

fn layer(entry: Entry, count: u64) -> Result<LayerTar> {
    layer_within(TreeLimits { metadata: METADATA, ..TreeLimits::default() }, entry, count)
}

pub(crate) fn layer_within(tree: TreeLimits, entry: Entry, count: u64) -> Result<LayerTar> {
    let tar = Endless { entry, number: 0, count, bytes: Vec::new(), at: 0, ended: false };
    let limits = LayerLimits { tree, ..LayerLimits::default() };
    LayerTar::new(tar, LayerOptions { hashing: Hashing::Nothing, limits, ..LayerOptions::default() })
}

fn plain(number: u64) -> LayerBuilder {
    LayerBuilder::new().file(format!("d{}/f{number}", number / 1000), 0o644, b"")
}

fn xattrs(size: usize) -> Entry {
    Box::new(move |number| {
        let mut value = vec![b'x'; size];
        value[..8].copy_from_slice(&number.to_le_bytes());
        LayerBuilder::new().xattr("user.x", value).file(format!("{number}"), 0o644, b"")
    })
}

type Case = (&'static str, (Entry, u64));

fn case(name: &'static str, count: u64, entry: impl FnMut(u64) -> LayerBuilder + Send + 'static) -> Case {
    (name, (Box::new(entry), count))
}

/// The entries of each case, and how many.
fn cases() -> BTreeMap<&'static str, (Entry, u64)> {
    let target = |number: u64| format!("{}{number}", "t".repeat(4_000));
    BTreeMap::from([
        case("deep directories", 1_000, |number| {
            let depth = usize::try_from(number % 1_900).unwrap();
            LayerBuilder::new().dir(format!("{}/{}", number / 1_900, "d/".repeat(depth)), 0o755)
        }),
        case("deep paths", 200, |number| {
            LayerBuilder::new().file(format!("{number}/{}f", "d/".repeat(1_900)), 0o644, b"")
        }),
        case("links to lower layers", 10_000, |number| {
            let target = format!("{}{number}", "deep/".repeat(800));
            LayerBuilder::new().pax("linkpath", target).hard_link(format!("{number}"), "")
        }),
        case("links to later links", 50_000, |number| {
            LayerBuilder::new().hard_link(format!("{number}"), &format!("{}", number + 1))
        }),
        case("long targets", 10_000, move |number| {
            LayerBuilder::new().pax("linkpath", target(number)).symlink(format!("{number}"), "")
        }),
        case("opaque marks", 200_000, |number| LayerBuilder::new().opaque(&format!("{number}"))),
        case("small xattrs", 100_000, xattrs(8)),
        case("whiteouts", 200_000, |number| LayerBuilder::new().whiteout(&format!("d/{number}"))),
        case("xattrs", 1_000, xattrs(60_000)),
    ])
}

/// Runs this test again as a process that does `case`; yields its peak in bytes.
pub(crate) fn peak(test: &str, case: &str) -> u64 {
    let mut command = Command::new(env::current_exe().unwrap());
    let run = command.args(["--exact", test, "--nocapture"]).env(CASE, case).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{case}: {said} {}", String::from_utf8_lossy(&run.stderr));
    let peak = said.split("peak: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    peak.unwrap_or_else(|| panic!("{case}: {said}")).parse::<u64>().unwrap() * 1024
}

/// Tells the peak of this process (`proc(5)`, `VmHWM`).
pub(crate) fn tell_peak() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    io::stdout().write_all(format!("\npeak: {}\n", line.trim()).as_bytes()).unwrap();
}

fn made_or_refused(made: Result<Made>) {
    if let Err(error) = made {
        assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
        assert!(format!("{error:?}").contains("TreeLimits"), "{error:?}");
    }
}

#[test]
fn memory_follows_the_bound_whatever_fills_it() {
    if let Ok(case) = env::var(CASE) {
        let (entry, count) = cases().remove(&*case).unwrap();
        let mut tar = layer(entry, count).unwrap();
        made_or_refused(ErofsLayer::default().layer(&mut tar, &mut tempfile::tempfile().unwrap()));
        return tell_peak();
    }
    let peaks = cases().into_keys().map(|case| {
        let peak = peak("memory::memory_follows_the_bound_whatever_fills_it", case);
        (case, peak / 1024)
    });
    // By the default bound of 64 MiB, that is 128 MiB.
    let bound = (BASE + METADATA * 108 / 64) / 1024;
    let beyond: Vec<_> = peaks.filter(|(_, peak)| *peak >= bound).collect();
    assert!(beyond.is_empty(), "above {bound} KiB: {beyond:?}");
}

/// Paths that make directories, each with names of its own. By an eighth of the default bounds: names are most of what they
/// take, and what the process takes besides is little next to it.
#[test]
fn directories_that_no_entry_made_take_no_more() {
    const TEST: &str = "memory::directories_that_no_entry_made_take_no_more";
    const EIGHTH: u64 = TreeLimits::METADATA / 8;
    let long = |letter: &str, number: u64| format!("{}{number:010}", letter.repeat(240));
    let cases: [Case; 3] = [
        case("wide deep names", 40_000, move |number| {
            let name = long("n", number);
            LayerBuilder::new().file(format!("{name}/{name}/{name}"), 0o644, b"")
        }),
        case("wide names", 40_000, move |number| {
            LayerBuilder::new().file(format!("{number}/{}", long("f", number)), 0o644, b"")
        }),
        case("short names", 60_000, |number| LayerBuilder::new().file(format!("{number}/f"), 0o644, b"")),
    ];
    let asked = env::var(CASE);
    let mut peaks = Vec::new();
    for (name, (entry, count)) in cases {
        match &asked {
            Ok(asked) if asked == name => {
                let mut tar = layer_within(TreeLimits::of(EIGHTH), entry, count).unwrap();
                made_or_refused(ErofsLayer::default().layer(&mut tar, &mut tempfile::tempfile().unwrap()));
                return tell_peak();
            }
            Ok(_) => {}
            Err(_) => peaks.push((name, peak(TEST, name) / 1024)),
        }
    }
    let bound = (BASE + EIGHTH * 108 / 64) / 1024;
    assert!(peaks.iter().all(|(_, peak)| *peak < bound), "above {bound} KiB: {peaks:?}");
}

#[test]
fn a_plain_file_takes_160_bytes_and_its_name() {
    const FILES: u64 = 40_000;
    if env::var(CASE).is_ok() {
        let mut tar = layer(Box::new(plain), FILES).unwrap();
        ErofsLayer::default().layer(&mut tar, &mut tempfile::tempfile().unwrap()).unwrap();
        return tell_peak();
    }
    let peak = peak("memory::a_plain_file_takes_160_bytes_and_its_name", "plain");
    assert!(peak < BASE + FILES * (160 + 8), "{} KiB", peak / 1024);
}

/// The content of its files is on the disk, also while it is written as one image.
#[test]
fn a_whole_image_takes_the_memory_of_its_names() {
    const FILES: u64 = 200_000;
    const GIB: u64 = 1 << 30;
    if env::var(CASE).is_ok() {
        let entry = |number: u64| match number {
            0 => LayerBuilder::new().sparse_file("big", 0o644, GIB, &[(0, b"start"), (GIB - 3, b"end")]),
            _ => LayerBuilder::new().file(format!("d{}/f{number}", number / 1000), 0o644, &[7; 500]),
        };
        let (scratch, entry) = (tempfile::tempdir().unwrap(), Box::new(entry));
        let image = MergedTree::read([layer(entry, FILES)], TreeLimits::default(), scratch.path()).unwrap();
        let big = image.tree().child(NodeId::ROOT, b"big").unwrap();
        let mut part = [1; 8];
        assert_eq!(image.read_at(big, GIB - 8, &mut part).unwrap(), 8);
        assert_eq!(&part, b"\0\0\0\0\0end");
        ErofsFlat::default().image(&image, &mut tempfile::tempfile().unwrap()).unwrap();
        return tell_peak();
    }
    let peak = peak("memory::a_whole_image_takes_the_memory_of_its_names", "whole");
    assert!(peak < BASE + FILES * (160 + 8), "{} KiB", peak / 1024);
}

/// A layer with a large file that can be compressed.
fn large_file(size: u64) -> Result<LayerTar> {
    let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    let text = crate::common::text(1 << 20, 1);
    tar.append_data(&mut header, "f", Again { text, at: 0 }.take(size)).unwrap();
    let mut tar = tar.into_inner().unwrap();
    io::Seek::rewind(&mut tar).unwrap();
    LayerTar::new(tar, LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() })
}

/// The tar of a compressed layer is read once, and no file of it is held.
#[test]
fn a_compressed_layer_takes_no_more_for_larger_files() {
    const SIZE: u64 = 300 * MIB;
    if env::var(CASE).is_ok() {
        let compression = Compression::new("lz4".parse().unwrap()).unwrap().with_cluster(64 << 10).unwrap();
        let layer = ErofsLayer::default().with_compression(compression.with_threads(4.try_into().unwrap()));
        let mut out = tempfile::tempfile().unwrap();
        layer.unwrap().layer(&mut large_file(SIZE).unwrap(), &mut out).unwrap();
        assert!(out.metadata().unwrap().len() < SIZE / 2);
        return tell_peak();
    }
    let peak = peak("memory::a_compressed_layer_takes_no_more_for_larger_files", "compressed");
    // Four threads, each with 4 MiB of the file four times.
    assert!(peak < BASE + 4 * 4 * 4 * MIB, "{} KiB", peak / 1024);
}

/// Pieces of a file are compressed at once, not the file.
#[test]
fn a_compressed_image_takes_no_more_for_larger_files() {
    const SIZE: u64 = 300 * MIB;
    if env::var(CASE).is_ok() {
        let layer = large_file(SIZE);
        let scratch = tempfile::tempdir().unwrap();
        let image = MergedTree::read([layer], TreeLimits::default(), scratch.path()).unwrap();
        let compression = Compression::new("lz4".parse().unwrap()).unwrap().with_cluster(64 << 10).unwrap();
        let flat = ErofsFlat::default().with_compression(compression.with_threads(4.try_into().unwrap()));
        let mut out = tempfile::tempfile().unwrap();
        flat.unwrap().image(&image, &mut out).unwrap();
        assert!(out.metadata().unwrap().len() < SIZE / 2);
        return tell_peak();
    }
    let peak = peak("memory::a_compressed_image_takes_no_more_for_larger_files", "compressed");
    // Four threads, each with 4 MiB of the file four times.
    assert!(peak < BASE + 4 * 4 * 4 * MIB, "{} KiB", peak / 1024);
}

/// Each layer is within its bounds, all of them together are not.
#[test]
fn an_image_has_the_bounds_of_one_layer() {
    if env::var(CASE).is_ok() {
        let folder = tempfile::tempdir().unwrap();
        let layers = (0..3).map(|at| {
            let path = folder.path().join(at.to_string());
            let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            let xattr = move |number: u64| {
                let mut value = vec![b'x'; 50_000];
                value[..8].copy_from_slice(&(number + 1_000 * at).to_le_bytes());
                LayerBuilder::new().xattr("user.x", value).file(format!("{at}-{number}"), 0o644, b"")
            };
            let mut tar = layer(Box::new(xattr), 70).unwrap();
            ErofsLayer::default().layer(&mut tar, &mut file).unwrap();
            InputArtifact::local(&path, None).unwrap()
        });
        let layers: Vec<_> = layers.collect();
        let merged = merge(&layers);
        assert_eq!(*merged.unwrap_err().kind(), ErrorKind::Limit);
        return tell_peak();
    }
    let peak = peak("memory::an_image_has_the_bounds_of_one_layer", "image");
    assert!(peak < BASE + METADATA * 3, "{} KiB", peak / 1024);
}

/// A quarter of 100,000, within a quarter of the default bounds.
#[test]
fn many_hard_links_to_lower_files_are_made() {
    const LINKS: u64 = 25_000;
    const QUARTER: u64 = TreeLimits::METADATA / 4;
    let target = |number: u64| format!("usr/share/doc/package-{}/file-{number}", number / 100);
    if env::var(CASE).is_ok() {
        let folder = tempfile::tempdir().unwrap();
        let files = move |number: u64| LayerBuilder::new().file(target(number), 0o644, b"");
        let links = move |number: u64| {
            LayerBuilder::new().hard_link(format!("srv/copy-{}/{number}", number / 100), &target(number))
        };
        let layers =
            [Box::new(files) as Entry, Box::new(links)].into_iter().enumerate().map(|(at, entry)| {
                let path = folder.path().join(at.to_string());
                let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
                let mut tar = layer_within(TreeLimits::of(QUARTER), entry, LINKS).unwrap();
                ErofsLayer::default().layer(&mut tar, &mut file).unwrap();
                InputArtifact::local(&path, None).unwrap()
            });
        let layers: Vec<_> = layers.collect();
        let merged = ErofsMerged::default().with_limits(TreeLimits::of(QUARTER));
        merged.join(&layers, &mut tempfile::tempfile().unwrap()).unwrap();
        return tell_peak();
    }
    let peak = peak("memory::many_hard_links_to_lower_files_are_made", "links");
    assert!(peak < BASE + QUARTER * 108 / 64, "{} KiB", peak / 1024);
}

/// What many layers overwrite does not add up.
#[test]
fn replaced_files_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..12)
        .map(|at| {
            let path = folder.path().join(at.to_string());
            let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            let target = move |number: u64| {
                let target = format!("{at}{}", "t".repeat(4_000));
                LayerBuilder::new().pax("linkpath", target).symlink(format!("{number}"), "")
            };
            let mut tar = layer(Box::new(target), 500).unwrap();
            ErofsLayer::default().layer(&mut tar, &mut file).unwrap();
            InputArtifact::local(&path, None).unwrap()
        })
        .collect();
    merge(&layers).unwrap();
}

fn merge(layers: &[InputArtifact]) -> Result<Made> {
    let limits = TreeLimits { metadata: METADATA, ..TreeLimits::default() };
    ErofsMerged::default().with_limits(limits).join(layers, &mut tempfile::tempfile().unwrap())
}

#[test]
fn flattening_deep_files_keeps_no_paths() {
    if env::var(CASE).is_ok() {
        let deep =
            |number: u64| LayerBuilder::new().file(format!("{}{number}", "d/".repeat(1_900)), 0o644, b"");
        let layer = layer(Box::new(deep), 3_000).map(LayerSource::from);
        let image = MergedTree::with_every_xattr([layer], TreeLimits::default(), &env::temp_dir()).unwrap();
        flatten(&image, &mut io::sink()).unwrap();
        return tell_peak();
    }
    let peak = peak("memory::flattening_deep_files_keeps_no_paths", "flatten");
    assert!(peak < 16 * MIB, "{} KiB", peak / 1024);
}
