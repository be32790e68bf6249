//! Journals that have to be replayed.

use std::fs;
use std::io::Cursor;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::files::Files as _;
use plyfold_core::{ErrorKind, Result};
use plyfold_ext4::{Ext4Fault, Ext4Files, Ext4Rootfs, Journal, Summary};

use crate::common::smallest;
use crate::log::{BLOCK, FILLED, Form, Step, journal, sum};

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
    let mut image = image(12);
    let log = log(&image);
    journal(&mut image, form, &log);
    read(image)
}

/// The oracles show that what e2fsck and the kernel write is read; this is what they do not write here.
#[test]
fn a_log_is_read_around_the_end_of_the_journal_and_of_numbers() {
    for (checksums, is_wide) in [(0, false), (0, true), (2, false), (2, true), (3, false), (3, true)] {
        let form = Form { checksums, is_wide, start: 7, sequence: u32::MAX, ..FORM };
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
        [&first[..], &second].concat()
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
    let mut image = image(12);
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
        let mut image = image(12);
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
    let mut many = image(600);
    let blocks: Vec<u64> = (1000..1001 + (1 << 19)).collect();
    let form = Form { is_wide: false, ..FORM };
    journal(&mut many, form, &[Step::Revoke(blocks.clone()), Step::Commit(1)]);
    assert_eq!(read(many.clone()).unwrap_err().detail(), Some(&Ext4Fault::Log(1 << 19)));
    // One less.
    let mut many = image(600);
    journal(&mut many, form, &[Step::Revoke(blocks[1..].to_vec()), Step::Commit(1)]);
    assert_eq!(read(many).unwrap(), "01234567");
    let beyond = replayed(FORM, |_| vec![Step::Write(1 << 40, vec![0; BLOCK]), Step::Commit(1)]);
    assert_eq!(*beyond.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Descriptors that describe more blocks than the journal has, without an end.
#[test]
fn a_circle_of_blocks_ends() {
    let mut image = image(12);
    let form = Form { checksums: 0, ..FORM };
    let area = journal(&mut image, form, &[]);
    for number in 1..12 {
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

/// Any byte of a journal may be wrong: an error or other content, never a panic and never an endless loop.
#[test]
fn no_damage_of_a_journal_panics() {
    for checksums in [0, 3] {
        let mut image = image(12);
        let log = [
            Step::Revoke(vec![block(&image, 3)]),
            write(&image, 1, b'a'),
            Step::Commit(1),
            write(&image, 2, b'b'),
            Step::Commit(2),
        ];
        let area = journal(&mut image, Form { checksums, ..FORM }, &log);
        let used: Vec<usize> = area.filter(|at| at % BLOCK < 64 || at % BLOCK > BLOCK - 8).collect();
        for (turn, at) in used.into_iter().enumerate() {
            let before = image[at];
            for value in [before ^ 1 << (turn % 8), 0xff] {
                image[at] = value;
                let _ = read(image.clone());
            }
            image[at] = before;
        }
    }
}
