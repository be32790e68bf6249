//! Holes: what is not read has the same tree, and takes next to no time.

use std::io;
use std::num::NonZero;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use plyfold_core::blocking::Stop;
use plyfold_core::progress::Event;
use plyfold_core::{ErrorKind, Progress, ReadAt, Slice, digest};
use plyfold_verity::{Parameters, TreeLayout, VerityFault, Work};

use crate::data::{bytes, noise, work};
use crate::file;

/// Data between holes, of any size, which says how much of it was read.
struct Holed {
    size: u64,
    /// Each with its first byte.
    runs: Vec<(u64, Vec<u8>)>,
    read: AtomicU64,
}

impl Holed {
    fn new(size: u64, runs: Vec<(u64, Vec<u8>)>) -> Self {
        Self { size, runs, read: AtomicU64::new(0) }
    }

    /// The same bytes without a hole.
    fn all(&self) -> Vec<u8> {
        let mut all = vec![0; self.size as usize];
        self.read_exact_at(&mut all, 0).unwrap();
        all
    }
}

impl ReadAt for Holed {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if offset + buffer.len() as u64 > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        for (start, run) in &self.runs {
            let (from, to) =
                ((*start).max(offset), (start + run.len() as u64).min(offset + buffer.len() as u64));
            if from < to {
                let part = &run[(from - start) as usize..(to - start) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        let behind = self.runs.iter().find(|(start, run)| start + run.len() as u64 > offset);
        Ok(behind.map(|(start, _)| (*start).max(offset)))
    }
}

fn parameters(data_block: u32, hash_block: u32) -> Parameters {
    let parameters = Parameters::default().with_data_block_size(data_block).unwrap();
    parameters.with_hash_block_size(hash_block).unwrap().with_salt_text("a1b2").unwrap()
}

const MIB: u64 = 1 << 20;

/// Several sizes, with data at both ends, in the middle, across a chunk, and nowhere.
fn each(mut check: impl FnMut(&TreeLayout, &Holed, &Work)) {
    for (data_block, hash_block) in [(4096, 4096), (512, 512), (512, 4096), (4096, 512), (1024, 2048)] {
        let run = |at: u64, size: u64| (at, noise(size as usize));
        for runs in [
            vec![],
            vec![run(0, 1)],
            vec![run(2 * MIB, 4096), run(5 * MIB - 100, 200)],
            vec![run(MIB, MIB), run(3 * MIB + 7, 1), run(6 * MIB, 5)],
            vec![run(6 * MIB + 1000, 24)],
        ] {
            for size in [4096, MIB, 6 * MIB + 4096] {
                let mut runs = runs.clone();
                runs.retain(|(start, run)| start + run.len() as u64 <= size);
                let layout = TreeLayout::beside(parameters(data_block, hash_block), size).unwrap();
                for threads in [1, 3] {
                    check(
                        &layout,
                        &Holed::new(size, runs.clone()),
                        &work().threads(NonZero::new(threads).unwrap()),
                    );
                }
            }
        }
    }
}

#[test]
fn a_tree_of_holes_is_that_of_zeros() {
    each(|layout, data, work| {
        let (tree, plain) = (file(&[]), file(&[]));
        let root = layout.write(data, &mut tree.try_clone().unwrap(), None, work).unwrap();
        let all = file(&data.all());
        assert_eq!(layout.write(&all, &mut plain.try_clone().unwrap(), None, work).unwrap(), root);
        assert!(bytes(&tree) == bytes(&plain), "{layout:?}");
        assert_eq!(layout.root_hash(data, work).unwrap(), root);
        layout.verify(&root, data, &tree, work).unwrap();
        layout.verify(&root, &all, &tree, work).unwrap();
    });
}

/// Data where the tree is of zeros, and a hole where it is of data.
#[test]
fn a_hole_in_place_of_data_is_damage() {
    let block_of = |error: plyfold_core::Error| match error.detail() {
        Some(VerityFault::DataBlock(block, _)) => *block,
        _ => panic!("{error}"),
    };
    let layout = TreeLayout::beside(parameters(4096, 4096), 32 * MIB).unwrap();
    for (at, hole) in [(0, false), (5 * MIB + 8192, false), (17 * MIB, true), (32 * MIB - 1, true)] {
        let tree = file(&[]);
        let data = Holed::new(32 * MIB, vec![(at, vec![1])]);
        let zeros = Holed::new(32 * MIB, vec![]);
        let (told, found) = if hole { (&data, &zeros) } else { (&zeros, &data) };
        let root = layout.write(told, &mut tree.try_clone().unwrap(), None, &work()).unwrap();
        let error = layout.verify(&root, found, &tree, &work()).unwrap_err();
        assert_eq!(block_of(error), at / 4096, "{at}");
    }
    // One that ends early is not taken for a hole.
    let short = Holed::new(31 * MIB, vec![]);
    assert_eq!(*layout.root_hash(&short, &work()).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// 16 TiB of zeros: all levels are complete but the topmost, which has 16 digests.
#[test]
fn tebibytes_of_holes_are_not_read() {
    let size = 16 << 40;
    let layout = TreeLayout::beside(Parameters::default().with_salt_text("-").unwrap(), size).unwrap();
    let data = Holed::new(size, vec![]);
    let root = layout.root_hash(&data, &work()).unwrap();
    assert!(data.read.load(Ordering::Relaxed) <= 2 * MIB, "{:?}", data.read);
    let hash = |block: &[u8]| -> Vec<u8> {
        let hex = digest::sha256(block).digest().to_owned();
        (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let mut digest = hash(&[0; 4096]);
    for _ in 0..4 {
        digest = hash(&digest.repeat(128));
    }
    let mut top = digest.repeat(16);
    top.resize(4096, 0);
    assert_eq!(root.to_string(), digest::sha256(&top).digest());
    // A part of it, as a partition is.
    let part = Slice::new(&data, MIB, 8 << 40);
    let layout = TreeLayout::beside(Parameters::default(), 8 << 40).unwrap();
    layout.root_hash(&part, &work()).unwrap();
    assert!(data.read.load(Ordering::Relaxed) <= 4 * MIB, "{:?}", data.read);
}

/// Holes are progress, too.
#[test]
fn progress_is_told() {
    let size = 1 << 30;
    let layout = TreeLayout::beside(Parameters::default(), size).unwrap();
    let (progress, mut events) = Progress::channel();
    let work = Work::new(&Stop::default()).progress(progress);
    let data = Holed::new(size, vec![(MIB, noise(200 << 20))]);
    layout.root_hash(&data, &work).unwrap();
    drop(work);
    let mut told = Vec::new();
    // All events are there, so that nothing has to be waited for.
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(event)) = pin!(events.next()).poll(&mut context) {
        let Event::VerifyProgress { read, total } = event else { panic!("{event:?}") };
        assert_eq!(total, size);
        told.push(read);
    }
    assert!(told.len() >= 4 && told.is_sorted(), "{told:?}");
    assert!(told.iter().all(|read| *read <= size));
}
