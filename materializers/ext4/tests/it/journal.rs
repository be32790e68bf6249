//! Journals that have to be replayed.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::files::Files as _;
use plyfold_core::{ErrorKind, Result};
use plyfold_ext4::{Ext4Fault, Ext4Files, Ext4Rootfs, Journal, Summary};

use crate::common::smallest;
use crate::log::{BLOCK, FILLED, Form, LEAST, Step, inode, journal, sum};

const FORM: Form = Form { checksums: 3, is_wide: true, is_async: false, start: 1, sequence: 1 };

/// An image with the file `f` of eight blocks, each of its number as a digit, and one that becomes the journal.
fn image(journal_blocks: usize) -> Vec<u8> {
    let digits: Vec<u8> = (0..8).flat_map(|number| [b'0' + number; BLOCK]).collect();
    let layer = LayerBuilder::new().file("f", 0o644, &digits);
    let layer = layer.file("journal", 0o600, &vec![FILLED; journal_blocks * BLOCK]).finish();
    let rootfs = Ext4Rootfs::new().journal(Journal::None).unwrap();
    fs::read(smallest(&[layer], &rootfs).unwrap()).unwrap()
}

/// The block of the image that a block of `f` is.
fn block(image: &[u8], number: u8) -> u64 {
    image.chunks(BLOCK).position(|block| *block == [b'0' + number; BLOCK]).unwrap() as u64
}

fn write(image: &[u8], number: u8, content: u8) -> Step {
    Step::Write(block(image, number), vec![content; BLOCK])
}

/// The first byte of each block of `f`.
fn read(image: Vec<u8>) -> Result<String> {
    let mut files = Ext4Files::new(Cursor::new(image))?;
    let mut first = String::new();
    files.read(b"f", &mut |piece| {
        first.extend(piece.chunks(BLOCK).map(|block| char::from(block[0])));
        Ok(())
    })?;
    Ok(first)
}

fn replayed(form: Form, log: impl FnOnce(&[u8]) -> Vec<Step>) -> Result<String> {
    let mut image = image(LEAST);
    let log = log(&image);
    journal(&mut image, form, &log);
    read(image)
}

/// The oracles show that what e2fsck and the kernel write is read; this is what they do not write here.
#[test]
fn a_log_is_read_around_the_end_of_the_journal_and_of_numbers() {
    for (checksums, is_wide) in [(0, false), (0, true), (2, false), (2, true), (3, false), (3, true)] {
        let form = Form { checksums, is_wide, start: LEAST - 5, sequence: u32::MAX, ..FORM };
        let found = replayed(form, |image| {
            let mut escaped = vec![b'e'; BLOCK];
            escaped[..4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
            vec![
                write(image, 1, b'a'),
                write(image, 2, b'b'),
                Step::Commit(5),
                Step::Write(block(image, 3), escaped),
                Step::Commit(5),
                write(image, 4, b'c'),
            ]
        });
        assert_eq!(found.unwrap(), "0ab\u{c0}4567", "{form:?}");
    }
}

#[test]
fn blocks_that_are_revoked_keep_what_they_have() {
    let found = replayed(FORM, |image| {
        let revoke = |number| Step::Revoke(vec![block(image, number)]);
        // Written before, in the same transaction, and never. The log takes all of the journal.
        let first = [write(image, 1, b'a'), write(image, 2, b'b'), Step::Commit(1)];
        let second = [revoke(1), revoke(2), revoke(3), write(image, 3, b'c'), Step::Commit(2)];
        // What is written again and again fills the rest.
        let rest = vec![write(image, 1, b'x'); (LEAST - 12) / 2];
        [&rest[..], &first, &second].concat()
    });
    assert_eq!(found.unwrap(), "01234567");
    let found = replayed(FORM, |image| {
        let revoke = Step::Revoke(vec![block(image, 2)]);
        vec![write(image, 2, b'b'), revoke, Step::Commit(2), write(image, 2, b'd'), Step::Commit(2)]
    });
    assert_eq!(found.unwrap(), "01d34567");
}

/// The superblock and the inodes may be newer in the journal.
#[test]
fn a_superblock_in_the_journal_counts() {
    let mut image = image(LEAST);
    let mut first = image[..BLOCK].to_vec();
    first[1024 + 0x60] |= 0x4; // needs_recovery
    first[1024 + 0x62] |= 0x80; // No feature that is known.
    sum(&mut first[1024..2048]);
    journal(&mut image, FORM, &[Step::Write(0, first), Step::Commit(1)]);
    assert!(Summary::read(Cursor::new(&image)).unwrap().needs_recovery);
    assert_eq!(*read(image).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_damaged_transaction_is_told_from_the_end_of_the_log() {
    let changed = |form: Form, times: [u64; 2], at: usize| {
        let mut image = image(LEAST);
        let log =
            [write(&image, 1, b'a'), Step::Commit(times[0]), write(&image, 2, b'b'), Step::Commit(times[1])];
        let area = journal(&mut image, form, &log);
        image[area.start + at] ^= 1;
        read(image).map_err(|error| error.kind().clone())
    };
    // 4 is the descriptor of the second transaction, 5 its data, 6 its commit block.
    for checksums in [2, 3] {
        let form = Form { checksums, ..FORM };
        for at in [4 * BLOCK + 100, 5 * BLOCK + 100, 6 * BLOCK + 100] {
            assert_eq!(changed(form, [1, 2], at), Err(ErrorKind::Corrupt), "{form:?} {at}");
        }
        // Older than what is before it: left from an earlier use. Its data is read only where it counts.
        for at in [4 * BLOCK + 100, 6 * BLOCK + 100] {
            assert_eq!(changed(form, [2, 1], at), Ok("0a234567".to_owned()), "{form:?} {at}");
        }
        let form = Form { is_async: true, ..form };
        assert_eq!(changed(form, [1, 2], 6 * BLOCK + 100), Ok("0a234567".to_owned()));
        assert_eq!(changed(form, [1, 2], 4 * BLOCK + 100), Err(ErrorKind::Corrupt));
    }
    let form = Form { checksums: 0, ..FORM };
    assert_eq!(changed(form, [1, 2], 6 * BLOCK + 100), Ok("0ab34567".to_owned()));
    // Another number, or another kind of block.
    for at in [4 * BLOCK + 11, 4 * BLOCK + 3, 6 * BLOCK + 11] {
        assert_eq!(changed(form, [1, 2], at), Ok("0a234567".to_owned()), "{at}");
    }
}

#[test]
fn a_journal_beyond_the_bounds_is_refused() {
    let mut many = image(LEAST);
    let blocks: Vec<u64> = (1000..1001 + (1 << 19)).collect();
    let form = Form { is_wide: false, ..FORM };
    journal(&mut many, form, &[Step::Revoke(blocks.clone()), Step::Commit(1)]);
    assert_eq!(read(many.clone()).unwrap_err().detail(), Some(&Ext4Fault::Log(1 << 19)));
    // One less.
    let mut many = image(LEAST);
    journal(&mut many, form, &[Step::Revoke(blocks[1..].to_vec()), Step::Commit(1)]);
    assert_eq!(read(many).unwrap(), "01234567");
    let beyond = replayed(FORM, |_| vec![Step::Write(1 << 40, vec![0; BLOCK]), Step::Commit(1)]);
    assert_eq!(*beyond.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Descriptors that describe more blocks than the journal has, without an end.
#[test]
fn a_circle_of_blocks_ends() {
    let mut image = image(LEAST);
    let form = Form { checksums: 0, ..FORM };
    let area = journal(&mut image, form, &[]);
    for number in 1..LEAST {
        let block = &mut image[area.clone()][number * BLOCK..][..BLOCK];
        block[..12].copy_from_slice(&[
            0xc0,
            0x3b,
            0x39,
            0x98,
            0,
            0,
            0,
            if number % 2 == 0 { 1 } else { 5 },
            0,
            0,
            0,
            1,
        ]);
        block[12..].fill(0);
    }
    assert_eq!(read(image).unwrap(), "01234567");
}

/// Also where the commit is older than the one before: Linux does not take it for the end of the log.
#[test]
fn revocations_beyond_their_block_are_damage() {
    for (checksums, most) in [(0, BLOCK), (2, BLOCK - 4), (3, BLOCK - 4)] {
        let found = |bytes: usize, last: &[Step]| {
            let form = Form { checksums, ..FORM };
            let found = replayed(form, |image| {
                let first = [write(image, 1, b'a'), Step::Commit(2), Step::Revoked(bytes as u32)];
                [&first[..], last].concat()
            });
            found.map_err(|error| error.kind().clone())
        };
        assert_eq!(found(most + 1, &[Step::Commit(1)]), Err(ErrorKind::Corrupt), "{checksums}");
        assert_eq!(found(most + 1, &[Step::Commit(3)]), Err(ErrorKind::Corrupt), "{checksums}");
        assert_eq!(found(most, &[Step::Commit(1)]), Ok("0a234567".to_owned()), "{checksums}");
        // Not committed.
        assert_eq!(found(most + 1, &[]), Ok("0a234567".to_owned()), "{checksums}");
    }
}

/// Linux replays one transaction after the other, and verifies all that it writes.
#[test]
fn a_block_with_a_wrong_checksum_is_damage_also_where_it_is_written_again() {
    for checksums in [2, 3] {
        let found = |again: &dyn Fn(&[u8]) -> Step| {
            let mut image = image(LEAST);
            let log = [write(&image, 1, b'a'), Step::Commit(1), again(&image), Step::Commit(2)];
            let area = journal(&mut image, Form { checksums, ..FORM }, &log);
            image[area.start + 2 * BLOCK + 100] ^= 1;
            read(image).map_err(|error| error.kind().clone())
        };
        assert_eq!(found(&|image| write(image, 1, b'b')), Err(ErrorKind::Corrupt), "{checksums}");
        assert_eq!(found(&|image| write(image, 2, b'b')), Err(ErrorKind::Corrupt), "{checksums}");
        let revoked = found(&|image| Step::Revoke(vec![block(image, 1)]));
        assert_eq!(revoked, Ok("01234567".to_owned()), "{checksums}");
    }
}

/// One that is read in circles takes more time than its blocks.
#[test]
fn a_journal_of_blocks_that_repeat_is_damaged() {
    let mut image = image(LEAST);
    let log = [write(&image, 1, b'a'), Step::Commit(1)];
    journal(&mut image, FORM, &log);
    let node = &mut inode(&mut image)[0x28..0x28 + 60];
    assert_eq!((node[2], node[6], node[16]), (1, 0, 0), "one extent of 1,024 blocks");
    let mut second: [u8; 12] = node[12..24].try_into().unwrap();
    node[2] = 2; // eh_entries
    node[17] = 2; // ee_len: 512
    (second[1], second[5]) = (2, 2); // ee_block and ee_len
    node[24..36].copy_from_slice(&second);
    assert_eq!(*read(image.clone()).unwrap_err().kind(), ErrorKind::Corrupt);
    // The same blocks, each once.
    let node = &mut inode(&mut image)[0x28..0x28 + 60];
    let start = u32::from_le_bytes(second[8..].try_into().unwrap()) + 512;
    node[32..36].copy_from_slice(&start.to_le_bytes());
    assert_eq!(read(image).unwrap(), "0a234567");
}

#[test]
fn journals_that_linux_refuses_are_refused() {
    let changed = |change: &dyn Fn(&mut [u8], usize)| {
        let mut image = image(LEAST + 10);
        let log = [write(&image, 1, b'a'), Step::Commit(1)];
        let area = journal(&mut image, Form { checksums: 0, ..FORM }, &log);
        change(&mut image, area.start);
        sum(&mut image[1024..2048]);
        read(image).map_err(|error| error.kind().clone())
    };
    let blocks = |blocks: usize| {
        changed(&|image, at| image[at + 0x10..at + 0x14].copy_from_slice(&(blocks as u32).to_be_bytes()))
    };
    assert_eq!(blocks(LEAST), Ok("0a234567".to_owned()));
    assert_eq!(blocks(LEAST - 1), Err(ErrorKind::Corrupt));
    // Those of fast commits do not count.
    let fast = |blocks: u8| {
        changed(&|image, at| {
            image[at + 0x2b] |= 0x20;
            image[at + 0x57] = blocks;
        })
    };
    assert_eq!(fast(10), Ok("0a234567".to_owned()));
    assert_eq!(fast(11), Err(ErrorKind::Corrupt));
    // i_links_count and s_journal_dev.
    assert_eq!(changed(&|image, _| inode(image)[0x1a] = 0), Err(ErrorKind::Corrupt));
    assert_eq!(changed(&|image, _| image[1024 + 0xe4] = 1), Err(ErrorKind::Corrupt));
}

/// Any byte of a journal may be wrong: an error or other content, never a panic and never an endless loop.
#[test]
fn no_damage_of_a_journal_panics() {
    for checksums in [0, 3] {
        let mut image = image(LEAST);
        let log = [
            Step::Revoke(vec![block(&image, 3)]),
            write(&image, 1, b'a'),
            Step::Commit(1),
            write(&image, 2, b'b'),
            Step::Commit(2),
        ];
        let area = journal(&mut image, Form { checksums, ..FORM }, &log);
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&image, 0).unwrap();
        let used = area.take(12 * BLOCK).filter(|at| at % BLOCK < 64 || at % BLOCK > BLOCK - 8);
        for (turn, at) in used.enumerate() {
            let before = image[at];
            for value in [before ^ 1 << (turn % 8), 0xff] {
                disk.write_all_at(&[value], at as u64).unwrap();
                if let Ok(mut files) = Ext4Files::new(disk.try_clone().unwrap()) {
                    let _ = files.read(b"f", &mut |_| Ok(()));
                }
            }
            disk.write_all_at(&[before], at as u64).unwrap();
        }
    }
}
