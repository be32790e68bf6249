//! Checksums of blocks, of files that are written in any way.

use std::fs::File;
use std::io::{IoSlice, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use plyfold_core::block_sums::{BLOCK, BlockSums, Checksum, Reading, SummedFile, damaged, mismatch, of_file};
use plyfold_core::blocking::Stop;
use plyfold_core::{ErrorKind, Output};

const MIB: usize = BLOCK as usize;

/// Bytes without a pattern, the same for the same seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(2).wrapping_add(1) | 1;
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The checksums of what was written, the bytes that were read again for them, and the file.
fn written(write: impl FnOnce(&mut dyn Output)) -> (BlockSums, u64, File) {
    let (sums, again, file) = written_sparse(write);
    let read = of_file(&file, &Reading::on_all_cores(&Stop::default())).unwrap();
    assert_eq!(sums.to_bytes(), read.to_bytes(), "what was hashed on the way is not what is there");
    let mut from_start = plyfold_core::reopened(&file).unwrap();
    from_start.rewind().unwrap();
    let in_order = BlockSums::read_all(from_start).unwrap();
    assert_eq!((sums.size(), sums.checksum()), (in_order.size(), in_order.checksum()));
    assert!(found(&file, &sums).is_empty());
    (sums, again, file)
}

/// The same without a look at all of the file.
fn written_sparse(write: impl FnOnce(&mut dyn Output)) -> (BlockSums, u64, File) {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let same = file.try_clone().unwrap();
    let mut out = SummedFile::new(file);
    write(&mut out);
    let (again, stop) = (AtomicU64::new(0), Stop::default());
    let read = |count| _ = again.fetch_add(count, Ordering::Relaxed);
    let sums = out.sums(&Reading { read: &read, ..Reading::on_all_cores(&stop) }).unwrap();
    (sums, again.into_inner(), same)
}

fn found(file: &File, sums: &BlockSums) -> Vec<Range<u64>> {
    let stop = Stop::default();
    let mut outcomes = [1, 2, 3]
        .map(|threads| damaged(file, sums, &Reading { threads, ..Reading::on_all_cores(&stop) }).unwrap());
    assert!(outcomes[0] == outcomes[1] && outcomes[0] == outcomes[2], "{outcomes:?}");
    std::mem::take(&mut outcomes[0])
}

#[test]
fn what_is_written_in_order_is_not_read_again() {
    let content = bytes(1, 3 * MIB + 12_345);
    for piece in [1000, 4096, 65_537, MIB, 5 * MIB] {
        let (sums, again, _) = written(|out| {
            for piece in content.chunks(piece) {
                out.write_all(piece).unwrap();
            }
        });
        assert_eq!((again, sums.size(), sums.to_bytes().len()), (0, content.len() as u64, 4 * 8), "{piece}");
    }
    let (_, again, _) = written(|out| {
        for pair in content.chunks(200_000) {
            let (one, other) = pair.split_at(pair.len() / 3);
            let mut slices = [IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(other)];
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let count = out.write_vectored(left).unwrap();
                IoSlice::advance_slices(&mut left, count);
            }
        }
    });
    assert_eq!(again, 0);
}

#[test]
fn several_places_that_grow_in_turn_are_not_read_again() {
    let content = bytes(2, 8 * MIB);
    let (_, again, _) = written(|out| {
        for at in (0..MIB).step_by(MIB / 16) {
            for place in 0..8 {
                let at = place * MIB + at;
                out.seek(SeekFrom::Start(at as u64)).unwrap();
                out.write_all(&content[at..at + MIB / 16]).unwrap();
            }
        }
    });
    assert_eq!(again, 0);
}

#[test]
fn holes_and_zeros_take_neither_time_nor_room() {
    let tebibyte = 1 << 40;
    let begun = std::time::Instant::now();
    let (sums, again, file) = written_sparse(|out| {
        out.set_len(tebibyte).unwrap();
        for place in [5, 700 << 30, tebibyte - 9] {
            out.seek(SeekFrom::Start(place)).unwrap();
            out.write_all(b"data").unwrap();
        }
    });
    // Three blocks with data, and the holes before, between and behind them.
    assert_eq!((again, sums.size(), sums.to_bytes().len()), (0, tebibyte, 3 * 8 + 2 * 16));
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let parsed = BlockSums::parse(tebibyte, &sums.to_bytes()).unwrap();
    assert_eq!(parsed.checksum(), sums.checksum());
    file.write_all_at(b"!", 8).unwrap();
    file.write_all_at(&[0], tebibyte - 9).unwrap();
    drop(file);

    // Zeros that are written are those of a hole.
    let zeros = vec![0; 2 * MIB + 77];
    let (wrote, again, _) = written(|out| out.write_all(&zeros).unwrap());
    let (hole, _, file) = written(|out| out.set_len(zeros.len() as u64).unwrap());
    assert_eq!((wrote.to_bytes(), again), (hole.to_bytes(), 0));
    for at in [0, MIB as u64, zeros.len() as u64 - 1] {
        file.write_all_at(b"x", at).unwrap();
        let start = at / BLOCK * BLOCK;
        let block = start..hole.size().min(start + BLOCK);
        assert_eq!(found(&file, &hole), vec![block; 1], "a byte in a hole, at {at}");
        file.write_all_at(&[0], at).unwrap();
        assert_eq!(found(&file, &hole), [], "zeros in place of a hole");
    }
}

#[test]
fn what_is_written_in_another_order_is_read_again_and_nothing_else() {
    let content = bytes(3, 4 * MIB);
    let over = |at: u64, length: usize| {
        let (_, again, file) = written(|out| {
            out.write_all(&content).unwrap();
            out.seek(SeekFrom::Start(at)).unwrap();
            out.write_all(&bytes(4, length)).unwrap();
        });
        let mut now = vec![0; length];
        file.read_exact_at(&mut now, at).unwrap();
        assert_eq!(now, bytes(4, length));
        again / BLOCK
    };
    assert_eq!(over(10, 20), 1);
    assert_eq!(over(2 * BLOCK - 1, 2), 2);
    // A block that is written anew from its start to its end is known.
    assert_eq!(over(BLOCK, MIB), 0);
    assert_eq!(over(BLOCK - 1, 2 * MIB), 2);

    // Shorter, then longer: what was cut off is zeros.
    for (cut, blocks) in [(2 * BLOCK, 0), (2 * BLOCK + 5, 1), (BLOCK - 1, 1), (0, 0)] {
        let (sums, again, file) = written(|out| {
            out.write_all(&content).unwrap();
            out.set_len(cut).unwrap();
            out.set_len(4 * BLOCK).unwrap();
        });
        assert_eq!((again / BLOCK, sums.size()), (blocks, 4 * BLOCK), "{cut}");
        let mut last = [1];
        file.read_exact_at(&mut last, 4 * BLOCK - 1).unwrap();
        assert_eq!(last, [0]);
    }

    let mut source = tempfile::tempfile().unwrap();
    source.write_all(&content).unwrap();
    let (_, again, _) = written(|out| {
        out.write_all(b"head").unwrap();
        out.copy_range(&source, 7, 2 * BLOCK).unwrap();
        out.write_all(b"tail").unwrap();
        // One that ends in the middle.
        out.copy_range(&source, 3 * BLOCK, 2 * BLOCK).unwrap_err();
        out.copy_range(&source, u64::MAX - 1, 1).unwrap_err();
    });
    assert!(again >= 3 * BLOCK, "{again}");
}

#[test]
fn after_any_operations_the_checksums_are_those_of_the_file() {
    let content = bytes(5, 2 * MIB);
    let mut source = tempfile::tempfile().unwrap();
    source.write_all(&content).unwrap();
    for seed in 1..24 {
        let mut random = Random(seed);
        let name = format!("seed {seed}");
        let (sums, _, file) = written(|out| {
            let mut buffer = vec![0; 3000];
            for _ in 0..=random.below(40) {
                let place = SeekFrom::Start(random.below(5 * BLOCK));
                let (from, long) = (random.below(BLOCK), random.below(BLOCK) as usize);
                let short = &content[from as usize..][..random.below(5000) as usize];
                match random.below(10) {
                    0 => drop(out.seek(place).unwrap()),
                    1 => out.set_len(random.below(5 * BLOCK)).unwrap(),
                    2 => out.copy_range(&source, from, long as u64).unwrap(),
                    3 => drop(out.read(&mut buffer).unwrap()),
                    4 => drop(out.data_from(from).unwrap()),
                    5 => drop(out.write_vectored(&[IoSlice::new(short), IoSlice::new(&content)]).unwrap()),
                    6 => out.write_all(&content[..long]).unwrap(),
                    7 => out.write_all(&vec![0; long]).unwrap(),
                    _ => out.write_all(short).unwrap(),
                }
            }
        });
        let parsed = BlockSums::parse(sums.size(), &sums.to_bytes()).unwrap();
        assert!(found(&file, &parsed).is_empty(), "{name}");
        if sums.size() > 0 {
            let (at, mut byte) = (random.below(sums.size()), [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).unwrap();
            let start = at / BLOCK * BLOCK;
            let block = start..sums.size().min(start + BLOCK);
            assert_eq!(found(&file, &parsed), vec![block; 1], "{name}: at {at}");
        }
    }
}

#[test]
fn damage_is_named_by_its_place() {
    let (sums, _, file) = written(|out| out.write_all(&bytes(6, 5 * MIB + 100)).unwrap());
    for at in [1, BLOCK, 2 * BLOCK - 2, 5 * BLOCK + 98] {
        file.write_all_at(b"\0\0", at).unwrap();
    }
    let ranges = found(&file, &sums);
    assert_eq!(ranges, [0..2 * BLOCK, 5 * BLOCK..5 * BLOCK + 100]);
    assert_eq!(mismatch(&ranges[..1]).unwrap(), "checksum mismatch: 2097152 bytes at 0");
    assert_eq!(mismatch(&[]), None);
    let many: Vec<_> = (0..7).map(|block| block * 10..block * 10 + 1).collect();
    let shown = "1 bytes at 0, 1 bytes at 10, 1 bytes at 20, 1 bytes at 30 and in 3 more places";
    assert_eq!(mismatch(&many).unwrap(), format!("checksum mismatch: {shown}"));
    let stop = Stop::default();
    let now = of_file(&file, &Reading::on_all_cores(&stop)).unwrap();
    let expected = "checksum mismatch: 2097152 bytes at 0, 100 bytes at 5242880";
    assert_eq!((sums.differences(&now).unwrap(), sums.differences(&sums)), (expected.to_owned(), None));
    for length in [sums.size() + 1, sums.size() - 1, BLOCK, 0] {
        file.set_len(length).unwrap();
        let now = of_file(&file, &Reading::on_all_cores(&stop)).unwrap();
        let expected = format!("size mismatch: recorded with 5242980 bytes, it has {length}");
        assert_eq!(sums.differences(&now).unwrap(), expected);
        let error = damaged(&file, &sums, &Reading::on_all_cores(&stop)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn what_are_no_checksums_is_refused() {
    let (sums, ..) = written(|out| {
        out.write_all(&bytes(7, MIB + 1)).unwrap();
        out.set_len(9 * BLOCK).unwrap();
        out.seek(SeekFrom::End(0)).unwrap();
        out.write_all(b"end").unwrap();
    });
    let (size, bytes) = (sums.size(), sums.to_bytes());
    assert_eq!(bytes.len(), 3 * 8 + 16);
    assert_eq!(BlockSums::parse(size, &bytes).unwrap().to_bytes(), bytes);
    for length in 0..bytes.len() {
        assert!(BlockSums::parse(size, &bytes[..length]).is_none(), "{length}");
    }
    let none = [0; 16];
    let endless = [[0; 8], [0xff; 8]].concat();
    for other in [[&*bytes, &none].concat(), [&*bytes, &endless].concat(), [&endless, &*bytes].concat()] {
        assert!(BlockSums::parse(size, &other).is_none());
    }
    for other in [0, size - BLOCK, size + BLOCK, u64::MAX] {
        assert!(BlockSums::parse(other, &bytes).is_none(), "{other}");
        assert_ne!(Checksum::of(other, &bytes), sums.checksum());
    }
    let empty = BlockSums::read_all(std::io::empty()).unwrap();
    assert_eq!((empty.size(), empty.to_bytes().len()), (0, 0));
    assert!(BlockSums::parse(0, &[]).is_some());
    let text = sums.checksum().to_string();
    for wrong in
        ["", "xxh3-1m:", &text[1..], &text[..text.len() - 1], &text.to_uppercase(), &format!("{text}0")]
    {
        assert!(wrong.parse::<Checksum>().is_err(), "{wrong}");
    }
    assert!(text.parse::<Checksum>().is_ok_and(|checksum| checksum == sums.checksum()));
}

#[test]
fn one_who_is_not_waited_for_stops() {
    let (sums, _, file) = written(|out| out.write_all(&bytes(8, 3 * MIB)).unwrap());
    let waiting = plyfold_core::blocking::blocking(move |stop| {
        stop.flag().store(true, Ordering::Relaxed);
        damaged(&file, &sums, &Reading::on_all_cores(stop))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(*runtime.block_on(waiting).unwrap_err().kind(), ErrorKind::Cancelled);
}
