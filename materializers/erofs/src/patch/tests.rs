//! Disks that fail, and power cuts.

use std::io::{self, Cursor as Bytes};
use std::sync::Mutex;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::{ContentText, lines};
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{ErrorKind, Materializer as _, Result};

use super::file::PatchFile;
use super::{ErofsPatch, Patched};
use crate::{Compression, ErofsFlat, Options, Reader};

/// A sector: what a disk writes completely or not at all.
const SECTOR: usize = 512;
/// The most bytes that one write takes: a patch has more of them then.
const PIECE: usize = 8192;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

/// A file in memory that remembers each step, and at which each step can fail.
struct Disk {
    state: Mutex<State>,
    /// The number of the step that fails.
    fails: usize,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    count: usize,
}

impl Disk {
    fn new(bytes: &[u8]) -> Self {
        Self::failing(bytes, usize::MAX)
    }

    fn failing(bytes: &[u8], fails: usize) -> Self {
        Self { state: Mutex::new(State { bytes: bytes.to_vec(), ..State::default() }), fails }
    }

    fn step(&self, step: Step) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        if state.count - 1 == self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        take(&mut state.bytes, &step);
        state.steps.push(step);
        Ok(())
    }

    fn into_state(self) -> State {
        self.state.into_inner().unwrap()
    }
}

fn take(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(at, written) => {
            let at = usize::try_from(*at).unwrap();
            let end = at + written.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(written);
        }
        Step::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Step::Sync => {}
    }
}

impl PatchFile for Disk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        let rest = &state.bytes[usize::try_from(at).unwrap().min(state.bytes.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        self.step(Step::Write(at, bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.step(Step::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.step(Step::Sync)
    }
}

fn old() -> Vec<u8> {
    let mut layer = LayerBuilder::new().dir("./", 0o755);
    for number in 0..60 {
        let text = format!("line {number}\n").repeat(number * 20);
        layer = layer.file(format!("d/{number}"), 0o644, text.as_bytes());
    }
    layer.finish()
}

fn change() -> Vec<u8> {
    let noise: Vec<u8> =
        (0_u32..30_000).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    LayerBuilder::new().whiteout("d/7").file("d/8", 0o600, &noise).hard_link("d/link", "d/9").finish()
}

fn flat(layers: &[Vec<u8>], format: &ErofsFlat) -> Vec<u8> {
    let layers = layers.iter().map(|tar| LayerTar::new(Bytes::new(tar.clone()), LayerOptions::default()));
    let scratch = tempfile::tempdir().unwrap();
    let image = MergedTree::read(layers, TreeLimits::default(), scratch.path()).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    format.image(&image, file.as_file_mut()).unwrap();
    std::fs::read(file.path()).unwrap()
}

fn formats() -> [ErofsFlat; 3] {
    let small = Options::default().with_block_size(512).unwrap();
    let compression = Compression::new("lz4".parse().unwrap()).unwrap();
    [ErofsFlat::default(), ErofsFlat::new(small), ErofsFlat::default().with_compression(compression).unwrap()]
}

fn patch(disk: &Disk, tar: &[u8]) -> Result<Patched> {
    let scratch = tempfile::tempdir().unwrap();
    let changes = [LayerTar::new(Bytes::new(tar.to_vec()), LayerOptions::default())];
    ErofsPatch::default().apply_to(disk, changes, scratch.path())
}

fn listing(bytes: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(Bytes::new(bytes)).unwrap();
    let tree = reader.tree().unwrap();
    let lines = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    lines.unwrap().iter().map(ToString::to_string).collect()
}

/// What a disk may hold when the power is cut after these steps: what was synced, and any of the rest.
fn after_a_cut(start: &[u8], steps: &[Step]) -> Vec<Vec<u8>> {
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |at| at + 1);
    let (sure, rest) = steps.split_at(synced);
    let mut bytes = start.to_vec();
    for step in sure {
        take(&mut bytes, step);
    }
    let with = |kept: &dyn Fn(usize) -> bool| {
        let mut bytes = bytes.clone();
        rest.iter().enumerate().filter(|(at, _)| kept(*at)).for_each(|(_, step)| take(&mut bytes, step));
        bytes
    };
    let mut found = vec![with(&|_| false), with(&|_| true), with(&|at| at % 2 == 0), with(&|at| at % 2 == 1)];
    found.extend((0..rest.len()).map(|only| with(&move |at| at == only)));
    // A write of which some sectors came.
    if let Some(Step::Write(at, written)) = rest.last() {
        for sectors in 0..written.len().div_ceil(SECTOR) {
            let mut torn = with(&|at| at + 1 < rest.len());
            let start = usize::try_from(*at).unwrap() / SECTOR * SECTOR;
            let end = (start + (sectors + 1) * SECTOR).min(usize::try_from(*at).unwrap() + written.len());
            take(&mut torn, &Step::Write(*at, written[..end - usize::try_from(*at).unwrap()].to_vec()));
            found.push(torn);
        }
    }
    found
}

#[test]
fn a_power_cut_at_any_write_leaves_the_old_or_the_new_image() {
    for format in formats() {
        for padding in [0, 1 << 20] {
            let mut start = flat(&[old()], &format);
            let image = start.len();
            start.resize(image + padding, 0);
            let disk = Disk::new(&start);
            patch(&disk, &change()).unwrap();
            let State { bytes: new, steps, .. } = disk.into_state();
            let of_old = listing(&start);
            assert!(of_old != listing(&new) && steps.len() > 8, "{} steps", steps.len());
            let (mut olds, mut news) = (0, 0);
            for cut in 0..=steps.len() {
                for left in after_a_cut(&start, &steps[..cut]) {
                    if left == new {
                        news += 1;
                        continue;
                    }
                    assert!(left[..image] == start[..image], "neither image after {cut} steps");
                    olds += 1;
                    // The next patch cuts off what is left.
                    if olds % 5 == 0 {
                        assert!(listing(&left) == of_old);
                        let again = Disk::new(&left);
                        patch(&again, &change()).unwrap();
                        assert!(again.into_state().bytes == new, "after {cut} steps");
                    }
                }
            }
            assert!(olds > 20 && news >= 3, "{olds} {news}");
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_step_leaves_the_file_as_it_was() {
    for format in formats() {
        let start = flat(&[old()], &format);
        let disk = Disk::new(&start);
        patch(&disk, &change()).unwrap();
        let State { bytes: new, count, .. } = disk.into_state();
        for fails in 0..count {
            let disk = Disk::failing(&start, fails);
            let error = patch(&disk, &change()).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
            let bytes = disk.into_state().bytes;
            // After the switch all is there: only that it is on the disk is not sure.
            assert!(bytes == if fails + 1 == count { &*new } else { &*start }, "step {fails} of {count}");
        }
    }
}

/// The superblock is one write, in one sector, between two syncs, and the last one of all.
#[test]
fn the_superblock_is_switched_by_one_write_between_syncs() {
    let disk = Disk::new(&flat(&[old()], &ErofsFlat::default()));
    patch(&disk, &change()).unwrap();
    let steps = disk.into_state().steps;
    let switches: Vec<_> = steps.iter().map(|step| matches!(step, Step::Write(..2048, _))).collect();
    assert_eq!(switches.iter().filter(|is_switch| **is_switch).count(), 1);
    let [.., Step::Sync, Step::Write(1024, superblock), Step::Sync] = &*steps else { panic!("{steps:?}") };
    assert_eq!(superblock.len(), 128);
    // So is the mark, without which the next patch would not know what is left.
    assert!(matches!(&*steps, [Step::Write(..), Step::Sync, Step::Write(..), ..]));
}
