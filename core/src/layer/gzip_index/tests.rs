//! What is decoded with an index, and while one is made, beside what the serial decoder makes of the same bytes.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression as Level, Crc, Decompress, FlushDecompress, GzBuilder, Status};

use super::super::pipeline::Uncompressed;
use super::*;
use crate::layer::{Hashing, LayerFault, LayerLimits, LayerOptions, LayerTar};
use crate::{Descriptor, ErrorKind, MediaType, ReadAt, Result, digest};

type File = Arc<Mutex<std::io::Cursor<Vec<u8>>>>;

const SPACING: u64 = 16 << 10;

/// A generator of numbers (xorshift), the same for each test.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Text, noise and zeros, and repetitions from as far back as deflate reaches.
fn content() -> Vec<u8> {
    let (mut random, mut content) = (Random(7), Vec::new());
    while content.len() < 700_000 {
        match random.next(5) {
            0 => content.extend((0..random.next(9000)).map(|_| random.0 as u8).collect::<Vec<_>>()),
            1 => content.extend(vec![0; random.next(5000)]),
            2 if content.len() > 40_000 => {
                let from = content.len() - (1 << 15) + random.next(3);
                content.extend_from_within(from..from + 2000);
            }
            _ => (0..600).for_each(|_| content.extend(format!("lib/{:x}/", random.next(1 << 30)).bytes())),
        }
    }
    content
}

fn gzip(content: &[u8], level: u32, flush: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(level));
    for part in content.chunks(flush) {
        encoder.write_all(part).unwrap();
        if flush < content.len() {
            encoder.flush().unwrap();
        }
    }
    encoder.finish().unwrap()
}

/// A member with every field that a header may have.
fn adorned(content: &[u8]) -> Vec<u8> {
    let mut blob = vec![0x1f, 0x8b, 8, 0b1_1111, 1, 2, 3, 4, 0, 255, 3, 0, b'a', 0, b'b'];
    blob.extend(b"name\0comment\0");
    let crc = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    blob.extend(&crc(&blob)[..2]);
    let mut encoder = DeflateEncoder::new(blob, Level::default());
    encoder.write_all(content).unwrap();
    let mut blob = encoder.finish().unwrap();
    blob.extend(crc(content));
    blob.extend((content.len() as u32).to_le_bytes());
    blob
}

/// Streams as many programs write them, and what they are decoded to.
fn streams() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let content = content();
    let members = |size| content.chunks(size).flat_map(|part| gzip(part, 6, usize::MAX)).collect();
    let mut mixed = gzip(&content[..9], 6, usize::MAX);
    mixed.extend(gzip(b"", 6, usize::MAX));
    mixed.extend(adorned(&content[9..500_000]));
    mixed.extend(gzip(b"", 0, usize::MAX));
    let named = GzBuilder::new().filename("layer.tar").comment("c").extra(&b"abc"[..]);
    let mut named = named.write(mixed, Level::best());
    named.write_all(&content[500_000..]).unwrap();
    let mixed = named.finish().unwrap();
    vec![
        // One block: this is level 1 of zlib-rs.
        ("level 1", gzip(&content, 1, usize::MAX), content.clone()),
        ("level 2", gzip(&content, 2, usize::MAX), content.clone()),
        ("level 6", gzip(&content, 6, usize::MAX), content.clone()),
        ("level 9", gzip(&content, 9, usize::MAX), content.clone()),
        ("stored", gzip(&content, 0, usize::MAX), content.clone()),
        ("flushed as pigz does", gzip(&content, 6, 128 << 10), content.clone()),
        ("small blocks", gzip(&content, 6, 300), content.clone()),
        ("members as bgzip writes", members(65_280), content.clone()),
        ("small members", members(700), content.clone()),
        ("mixed members", mixed, content.clone()),
        ("every field", adorned(&content), content),
        ("zeros", gzip(&vec![0; 1 << 20], 9, usize::MAX), vec![0; 1 << 20]),
        ("empty", gzip(b"", 6, usize::MAX), vec![]),
    ]
}

/// As flate2 decodes it, which compares the checksums itself.
fn serial(blob: &[u8]) -> Result<Vec<u8>> {
    let broken = || LayerFault::Malformed("the gzip data is broken");
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < blob.len() {
        if at > 0 && blob[at] != 0x1f {
            return Err(LayerFault::Malformed("trailing data after the end of the compressed layer").into());
        }
        let mut member = Decompress::new_gzip(15);
        let mut buffer = vec![0; 4096];
        loop {
            let (before, written) = (member.total_in(), member.total_out());
            let status = member.decompress(&blob[at..], &mut buffer, FlushDecompress::None);
            let status = status.map_err(|_| broken())?;
            at += (member.total_in() - before) as usize;
            let written = (member.total_out() - written) as usize;
            decoded.extend(&buffer[..written]);
            match status {
                Status::StreamEnd => break,
                _ if at == blob.len() && written < buffer.len() => {
                    return Err(LayerFault::Malformed("the gzip data is truncated").into());
                }
                _ => {}
            }
        }
    }
    Ok(decoded)
}

/// As a layer is decoded without an index.
fn layer(blob: &[u8]) -> Result<Vec<u8>> {
    let options = LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() };
    let mut uncompressed = Uncompressed::new(std::io::Cursor::new(blob.to_vec()), &options);
    let mut decoded = Vec::new();
    while uncompressed.ready()? > 0 {
        let count = uncompressed.peek().len();
        decoded.extend(uncompressed.peek());
        uncompressed.consume(count);
    }
    Ok(decoded)
}

/// Decodes by a maker of an index, in pieces of these sizes.
fn indexing(blob: &[u8], input: usize, output: usize) -> Result<(Vec<u8>, GzipIndex)> {
    let mut indexing = GzipIndexing::spaced(SPACING);
    let (mut decoded, mut buffer) = (Vec::new(), vec![0; output]);
    for part in blob.chunks(input) {
        let mut at = 0;
        loop {
            let (read, written) = indexing.step(&part[at..], &mut buffer)?;
            decoded.extend(&buffer[..written]);
            at += read;
            if at == part.len() && written < output {
                break;
            }
        }
    }
    Ok((decoded, indexing.finish()?))
}

fn indexed(blob: &[u8], index: &GzipIndex, threads: usize) -> Result<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut reader = IndexedGzip::new(file(blob), Arc::new(index.clone()), threads)?;
    loop {
        let piece = reader.piece()?;
        if piece.is_empty() {
            return Ok(decoded);
        }
        decoded.extend(piece);
    }
}

fn file(blob: &[u8]) -> File {
    Arc::new(Mutex::new(std::io::Cursor::new(blob.to_vec())))
}

fn descriptor(blob: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayerGzip, blob.len() as u64, digest::sha256(blob))
}

/// Whether a layer is decoded to what flate2 decodes it to, with its error.
fn is_same(found: &Result<Vec<u8>>, expected: &Result<Vec<u8>>) -> bool {
    match (found, expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(found), Err(expected)) => {
            let fault = |e: &crate::Error| match e.detail() {
                Some(LayerFault::Malformed(what)) => Some(*what),
                _ => None,
            };
            fault(found).is_some() && fault(found) == fault(expected)
        }
        _ => false,
    }
}

/// Whether a result is that of the serial decoder, or names the index.
fn is_right(found: &Result<Vec<u8>>, expected: &Result<Vec<u8>>) -> bool {
    match (found, expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(found), _) if matches!(found.detail(), Some(LayerFault::GzipIndex(_))) => true,
        (Err(found), Err(expected)) => found.kind() == expected.kind(),
        _ => false,
    }
}

#[test]
fn an_index_changes_no_byte() {
    for (name, blob, content) in streams() {
        assert!(serial(&blob).unwrap() == content, "{name}");
        assert!(layer(&blob).unwrap() == content, "{name}");
        let (decoded, index) = indexing(&blob, 10_000, 9_000).unwrap();
        assert!(decoded == content, "{name}");
        let (decoded, same) = indexing(&blob, 1 << 20, 1 << 16).unwrap();
        assert!(decoded == content, "{name}");
        assert_eq!((index.size(), index.blob_size()), (content.len() as u64, blob.len() as u64), "{name}");
        let many = if ["empty", "level 1", "zeros"].contains(&name) { 1 } else { 4 };
        assert!(index.spans() >= many && same.spans() >= many, "{name}: {index:?}, {same:?}");
        for threads in 1..5 {
            assert!(indexed(&blob, &index, threads).unwrap() == content, "{name}, {threads} threads");
            assert!(indexed(&blob, &same, threads).unwrap() == content, "{name}, {threads} threads");
        }
    }
}

#[test]
fn places_are_at_every_bit_of_a_byte() {
    let (content, mut bits) = (content(), [0; 8]);
    for level in 2..10 {
        let blob = gzip(&content, level, usize::MAX);
        for input in [10_000, 7001] {
            let (_, index) = indexing(&blob, input, 5000).unwrap();
            index.points.iter().for_each(|point| bits[(point.bit % 8) as usize] += 1);
        }
    }
    assert!(bits.iter().all(|count| *count > 0), "{bits:?}");
}

#[test]
fn a_range_is_read_without_the_rest() {
    let mut random = Random(3);
    for (name, blob, content) in streams() {
        let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
        let file = file(&blob);
        for _ in 0..20 {
            let offset = random.next(content.len() + 10);
            let mut buffer = vec![0; random.next(70_000)];
            let count = index.read_at(&*file, &mut buffer, offset as u64).unwrap();
            let expected = content.get(offset..).unwrap_or_default();
            let expected = &expected[..expected.len().min(buffer.len())];
            assert!(&buffer[..count] == expected, "{name}: {offset}");
        }
    }
}

#[test]
fn the_bytes_of_an_index_say_the_same_and_belong_to_one_blob() {
    for (name, blob, _) in streams() {
        let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
        let bytes = index.to_bytes(&descriptor(&blob));
        assert_eq!(GzipIndex::parse(&bytes, &descriptor(&blob)).unwrap(), index, "{name}");
        let another = Descriptor::new(MediaType::ImageLayerGzip, blob.len() as u64, digest::sha256(b""));
        let longer = Descriptor::new(MediaType::ImageLayerGzip, 1, digest::sha256(&blob));
        for other in [another, longer] {
            let error = GzipIndex::parse(&bytes, &other).unwrap_err();
            assert!(matches!(error.detail(), Some(LayerFault::GzipIndex(_))), "{name}: {error:?}");
        }
        for at in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(GzipIndex::parse(&bytes[..at], &descriptor(&blob)).is_err(), "{name}: {at} bytes");
        }
    }
}

#[test]
fn damaged_blobs_are_decoded_as_without_an_index() {
    let (mut random, mut refused) = (Random(11), 0);
    for (name, blob, _) in streams() {
        let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
        let mut cases = Vec::new();
        for _ in 0..20 {
            let mut case = blob.clone();
            // Headers and trailers, more often than their size says.
            let at = match random.next(3) {
                0 => random.next(blob.len().min(40)),
                1 => blob.len() - 1 - random.next(blob.len().min(12)),
                _ => random.next(blob.len()),
            };
            match random.next(3) {
                0 => case.truncate(at),
                1 => case[at] ^= 1 << random.next(8),
                _ => case[at] = random.0 as u8,
            }
            cases.push(case);
        }
        for tail in [&[0][..], &[0x1f], &[0x1f, 0x8b], b"garbage", &gzip(b"more", 6, 9), &[0; 1024]] {
            cases.push([&blob, tail].concat());
        }
        for (number, case) in cases.iter().enumerate() {
            let expected = serial(case);
            refused += usize::from(expected.is_err());
            // What does not begin as gzip is another layer.
            let found = if case.starts_with(&[0x1f, 0x8b]) { layer(case) } else { serial(case) };
            assert!(is_same(&found, &expected), "{name}, {number}: {found:?} {expected:?}");
            let made = indexing(case, 9_999, 10_001).map(|(decoded, _)| decoded);
            assert!(is_right(&made, &expected), "{name}, {number}: {made:?} {expected:?}");
            let found = indexed(case, &index, 2);
            assert!(is_right(&found, &expected), "{name}, {number}: {found:?} {expected:?}");
        }
    }
    assert!(refused > 150, "{refused}");
}

/// What comes last in a span is the end of a block, which yields no byte.
#[test]
fn spans_are_decoded_to_their_last_bit() {
    let (mut damaged, mut refused) = (0, 0);
    for (name, blob, _) in streams() {
        let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
        for point in index.points.iter().filter(|point| point.within.is_some()) {
            for bit in point.bit - 8..point.bit {
                let mut case = blob.clone();
                case[(bit / 8) as usize] ^= 1 << (bit % 8);
                let expected = serial(&case);
                (damaged, refused) = (damaged + 1, refused + u32::from(expected.is_err()));
                let found = indexed(&case, &index, 2);
                let told = (found.as_ref().map(Vec::len), expected.as_ref().map(Vec::len));
                assert!(is_right(&found, &expected), "{name}, bit {bit}: {told:?}");
            }
        }
    }
    assert!(damaged > 100 && refused > damaged / 2, "{refused} of {damaged}");
}

/// A block that says it is the last one of its member, and is not.
#[test]
fn a_block_before_a_place_is_not_the_last_one() {
    let content = content();
    let blob = gzip(&content, 0, usize::MAX);
    let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
    let mut blocks = 0;
    // Behind a header of 10 bytes there are blocks of 5 bytes and their data.
    let mut at = 10;
    while at < blob.len() - 8 {
        let mut case = blob.clone();
        case[at] ^= 1;
        let (found, expected) = (indexed(&case, &index, 2), serial(&case));
        assert!(expected.is_err() && is_right(&found, &expected), "{at}");
        at += 5 + usize::from(u16::from_le_bytes([blob[at + 1], blob[at + 2]]));
        blocks += 1;
    }
    assert!(blocks > 5 && index.spans() > 3, "{blocks} {index:?}");
}

/// The bytes of numbers of so many bits, the lowest bit first, as deflate has them.
fn bits(numbers: &[(u32, usize)]) -> Vec<u8> {
    let bits = numbers.iter().flat_map(|(number, bits)| (0..*bits).map(move |at| number >> at & 1 == 1));
    let bits: Vec<bool> = bits.collect();
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

/// Deflate data that RFC 1951 does not allow, behind 300 KiB that it does and at once.
#[test]
fn wrong_deflate_data_is_refused_by_all() {
    // The last block with codes of its own: how many literals, distances and lengths it has; then the lengths.
    let own = |literals, distances, lengths: &[u32]| {
        let head = [(1, 1), (2, 2), (literals, 5), (distances, 5), (lengths.len() as u32 - 4, 4)];
        bits(&head.into_iter().chain(lengths.iter().map(|length| (*length, 3))).collect::<Vec<_>>())
    };
    let cases = [
        ("a block of type 3", bits(&[(1, 1), (3, 2)])),
        (
            "a stored block whose length is not confirmed",
            [bits(&[(1, 1), (0, 2)]), vec![4, 0, 4, 0]].concat(),
        ),
        ("a distance to before the first byte", bits(&[(1, 1), (1, 2), (0x40, 7), (0x1f, 5), (0x1fff, 13)])),
        ("over-subscribed codes of lengths", own(0, 0, &[1; 19])),
        ("incomplete codes of lengths", own(0, 0, &[0, 0, 0, 7])),
        ("no codes of lengths", own(0, 0, &[0; 4])),
        ("too many literals", own(31, 0, &[1; 4])),
        ("too many distances", own(0, 31, &[1; 4])),
        // Of 16 and 0, each with one bit: the first is 16, which repeats what is not there.
        ("a repetition of nothing", own(0, 0, &[1, 0, 0, 1])),
    ];
    let content = content()[..300 << 10].to_vec();
    let mut before = DeflateEncoder::new(Vec::new(), Level::new(6));
    before.write_all(&content).unwrap();
    before.flush().unwrap();
    // The flush ends with an empty stored block, and so with a byte.
    let before = before.get_ref().clone();
    for (name, data) in cases {
        for (start, is_far) in [(&[][..], false), (&before[..], true)] {
            let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
            let blob = [&head[..], start, &data, &[0xff; 600]].concat();
            let expected = serial(&blob);
            // Behind enough bytes the distance is one that deflate has.
            assert!(is_far || expected.is_err(), "{name}: {expected:?}");
            assert!(is_same(&layer(&blob), &expected), "{name}");
            let made = indexing(&blob, 999, 10_001).map(|(decoded, _)| decoded);
            assert!(is_same(&made, &expected), "{name}: {made:?}");
            let index = indexing(&gzip(&content, 6, 5000), 10_000, 9_000).unwrap().1;
            let found = indexed(&blob, &GzipIndex { blob_size: blob.len() as u64, ..index }, 2);
            assert!(is_right(&found, &expected), "{name}: {found:?}");
        }
    }
}

/// A wrong CRC-32 is the first error, whatever follows it.
#[test]
fn a_wrong_checksum_comes_before_what_follows() {
    let content = content();
    let wrong = |content: &[u8]| {
        let mut member = gzip(content, 6, usize::MAX);
        let crc = member.len() - 8;
        member[crc] ^= 1;
        member
    };
    let sound = gzip(&content, 6, usize::MAX);
    for part in [&content[..], &content[..1 << 18], &content[..10], &[]] {
        for tail in [&b""[..], b"garbage", &sound, &sound[..1000], &sound[..sound.len() - 3]] {
            for head in [&[][..], &sound] {
                let blob = [head, &wrong(part), tail].concat();
                let found = layer(&blob).unwrap_err();
                assert_eq!(found.to_string(), serial(&blob).unwrap_err().to_string());
                assert_eq!(found.to_string(), LayerFault::Malformed("the gzip data is broken").to_string());
            }
        }
    }
}

#[test]
fn an_altered_index_gives_no_other_bytes() {
    let (mut random, mut used) = (Random(5), 0);
    for (name, blob, content) in [&streams()[2], &streams()[9]] {
        let descriptor = descriptor(blob);
        let bytes = indexing(blob, 10_000, 9_000).unwrap().1.to_bytes(&descriptor);
        let (head, all) = (1500.min(bytes.len()), bytes.len() - 8);
        for at in (0..head).step_by(7).chain((head..all).step_by(2003)) {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << random.next(8);
            assert!(GzipIndex::parse(&altered, &descriptor).is_err(), "{name}: byte {at}");
            let mut sum = crate::xxh3::Xxh3::default();
            sum.update(&altered[..all]);
            altered[all..].copy_from_slice(&sum.finish().to_le_bytes());
            let Ok(index) = GzipIndex::parse(&altered, &descriptor) else { continue };
            let found = indexed(blob, &index, 2);
            used += 1;
            assert!(is_right(&found, &Ok(content.clone())), "{name}: byte {at}: {found:?}");
            let mut buffer = vec![0; 30_000];
            let offset = random.next(content.len() - buffer.len());
            if let Err(e) = index.read_at(&*file(blob), &mut buffer, offset as u64) {
                assert_eq!(*e.kind(), ErrorKind::Corrupt, "{name}: byte {at}: {e:?}");
            }
        }
    }
    assert!(used > 100, "{used}");
}

#[test]
fn wrong_bytes_that_were_read_are_named() {
    let content = content().repeat(3);
    let blob = gzip(&content, 6, usize::MAX);
    let mut indexing = GzipIndexing::spaced(700_000);
    let (mut buffer, mut at) = (vec![0; 1 << 16], 0);
    while at < blob.len() {
        at += indexing.step(&blob[at..], &mut buffer).unwrap().0;
    }
    let mut index = indexing.finish().unwrap();
    assert!(indexed(&blob, &index, 2).unwrap() == content);
    let point = index.points.first_mut().unwrap();
    let (sum, mut compressor) = (point.within.as_ref().unwrap().sum, zstd::bulk::Compressor::new(1).unwrap());
    // A window of other bytes, which the span reaches into at once, and which ends long after the first piece.
    point.within = Some(point::Within::new(sum, &vec![0x55; 1 << 15], &mut compressor).unwrap());
    let found = indexed(&blob, &index, 2);
    assert!(matches!(found.unwrap_err().detail(), Some(LayerFault::GzipIndex(_))));
    let file = file(&blob);
    let error = index.read_at(&*file, &mut [0; 10], index.points[0].offset).unwrap_err();
    assert!(matches!(error.detail(), Some(LayerFault::GzipIndex(_))));
    // One that is not reached.
    assert_eq!(index.read_at(&*file, &mut [0; 10], 100).unwrap(), 10);
}

#[test]
fn an_index_stays_small() {
    let mut random = Random(9);
    let noise: Vec<u8> = (0..14 << 20).map(|_| random.next(256) as u8).collect();
    let blob = gzip(&noise, 0, usize::MAX);
    let (_, index) = indexing(&blob, 1 << 20, 1 << 18).unwrap();
    assert!(index.to_bytes(&descriptor(&blob)).len() <= GzipIndex::MAX_BYTES);
    assert!((20..260).contains(&index.spans()), "{index:?}");
    assert!(indexed(&blob, &index, 2).unwrap() == noise);
    // A thousand zeros for each byte.
    let blob = gzip(&vec![0; 64 << 20], 9, usize::MAX);
    let mut indexing = GzipIndexing::default();
    let (mut buffer, mut at) = (vec![0; 1 << 18], 0);
    while at < blob.len() {
        at += indexing.step(&blob[at..], &mut buffer).unwrap().0;
    }
    assert_eq!(indexing.finish().unwrap().spans(), 1);
}

#[test]
fn members_are_found_without_decoding_them() {
    let mut random = Random(13);
    let noise: Vec<u8> = (0..6 << 20).map(|_| random.next(256) as u8).collect();
    let mut named = GzBuilder::new().extra(&b"SG"[..]).write(Vec::new(), Level::none());
    named.write_all(b"a footer").unwrap();
    let footer = named.finish().unwrap();
    let members = |size| noise.chunks(size).flat_map(|part| gzip(part, 0, usize::MAX)).collect::<Vec<_>>();
    let found = |blob: &[u8]| GzipIndex::of_members(&*file(blob)).unwrap();
    for blob in [members(65_280), members(1 << 20), [members(5000), footer].concat()] {
        let index = found(&blob).unwrap();
        assert!(index.spans() >= 3, "{index:?}");
        let expected = serial(&blob).unwrap();
        assert_eq!(index.size(), expected.len() as u64);
        // Not by starting again.
        let mut decoder = decoder::Decoder::new(blob.len() as u64);
        let (point, end) = index.span(index.spans() - 1).unwrap();
        decoder.enter(&*file(&blob), point).unwrap();
        let mut buffer = vec![0; 8 << 20];
        assert!(decoder.fill(&*file(&blob), &mut buffer, end).unwrap().1);
        for threads in [1, 3] {
            assert!(indexed(&blob, &index, threads).unwrap() == expected);
        }
    }
    // One member, and few long ones.
    assert_eq!(found(&gzip(&noise, 0, usize::MAX)), None);
    assert_eq!(found(&members(5 << 20)), None);
    assert_eq!(found(&members(5000)[..1000]), None);
    // What looks as members in a stored block, and a member that says too much.
    let mut inner = gzip(&members(65_280), 0, usize::MAX);
    assert!(indexed(&inner, &found(&inner).unwrap(), 2).unwrap() == serial(&inner).unwrap());
    inner.truncate(inner.len() - 5);
    assert!(is_right(&indexed(&inner, &found(&inner).unwrap(), 2), &serial(&inner)));
}

#[test]
fn the_threads_end_with_the_reader() {
    let (_, blob, _) = &streams()[2];
    let (_, index) = indexing(blob, 10_000, 9_000).unwrap();
    let file = file(blob);
    let mut reader = IndexedGzip::new(file.clone(), Arc::new(index), 3).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    let start = Instant::now();
    while Arc::strong_count(&file) > 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "the threads go on");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(file.size().unwrap() > 0);
}

/// A layer that is decoded by an index is checked as any other.
#[test]
fn a_layer_by_its_index_is_proved_by_its_diff_id_and_bounded() {
    // The end of a tar, and what comes behind it.
    let tar = [&[0; 1024][..], &content()].concat();
    let blob = gzip(&tar, 6, usize::MAX);
    let (_, index) = indexing(&blob, 10_000, 9_000).unwrap();
    let read = |options| {
        let decoded = IndexedGzip::new(file(&blob), Arc::new(index.clone()), 2)?;
        LayerTar::indexed(decoded, options)?.finish()
    };
    let options = |hashing| LayerOptions { hashing, ..LayerOptions::default() };
    let expected = LayerTar::new(std::io::Cursor::new(blob.clone()), options(Hashing::Tar)).unwrap().finish();
    assert_eq!(read(options(Hashing::Tar)).unwrap(), expected.unwrap());
    let unhashed = read(options(Hashing::Nothing)).unwrap();
    assert_eq!((unhashed.diff_id, unhashed.size), (None, tar.len() as u64));
    let right = LayerOptions { diff_id: Some(digest::sha256(&tar)), ..options(Hashing::Nothing) };
    assert_eq!(read(right.clone()).unwrap().diff_id, right.diff_id);
    let wrong = LayerOptions { diff_id: Some(digest::sha256(b"another")), ..right.clone() };
    let small = LayerLimits { uncompressed: tar.len() as u64 - 1, ..LayerLimits::default() };
    for (options, kind) in [
        (wrong, ErrorKind::Corrupt),
        (LayerOptions { limits: small, ..right }, ErrorKind::Limit),
        (options(Hashing::Both), ErrorKind::Config),
    ] {
        assert_eq!(*read(options).unwrap_err().kind(), kind);
    }
}
