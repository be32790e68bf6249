//! Compression, digests, limits of the stream, and threads that fail.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use plyfold_core::layer::{Compression, Hashing, LayerLimits, LayerOptions, LayerTar, Warning};
use plyfold_core::{Descriptor, ErrorKind, MediaType, digest};

use super::archive::{Archive, gzip, names, open, read, read_with};

fn tar() -> Vec<u8> {
    let noise: Vec<u8> = (0..700_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Archive::default().file("a", b"first").file("b", &noise).end()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn kind(bytes: &[u8]) -> ErrorKind {
    read(bytes).unwrap_err().kind().clone()
}

/// Rows 28, 30: by magic, of many members and frames.
#[test]
fn every_compression_gives_the_same_layer() {
    let tar = tar();
    let (head, tail) = tar.split_at(300_001);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for (form, bytes, compression) in [
        ("plain", tar.clone(), Compression::None),
        ("gzip", gzip(&tar), Compression::Gzip),
        ("members", [gzip(head), gzip(b""), gzip(tail)].concat(), Compression::Gzip),
        ("zstd", zstd(&tar), Compression::Zstd),
        ("frames", [zstd(head), skippable.clone(), zstd(tail)].concat(), Compression::Zstd),
        ("skippable first", [skippable.clone(), zstd(&tar), skippable].concat(), Compression::Zstd),
    ] {
        let (seen, summary) = read_with(&bytes, LayerOptions::default()).unwrap();
        assert_eq!(seen.len(), 2, "{form}");
        assert_eq!(summary.compression, compression, "{form}");
        assert_eq!((summary.diff_id, summary.size), (Some(digest::sha256(&tar)), tar.len() as u64), "{form}");
        assert_eq!(
            (summary.blob, summary.blob_size),
            (Some(digest::sha256(&bytes)), bytes.len() as u64),
            "{form}"
        );
        assert_eq!(summary.warnings, [], "{form}");
    }
}

/// Digests that are not needed are not computed; expected digests are always checked.
#[test]
fn hashing_is_a_choice_that_expectations_overrule() {
    let tar = tar();
    let digest = digest::sha256(&tar);
    for bytes in [tar.clone(), gzip(&tar)] {
        let plain = bytes == tar;
        let read = |options| read_with(&bytes, options).map(|(_, summary)| (summary.diff_id, summary.blob));
        let by = |hashing| LayerOptions { hashing, ..LayerOptions::default() };
        assert_eq!(read(by(Hashing::Nothing)).unwrap(), (None, None));
        // The bytes of a plain layer are its tar: one digest is the other.
        let blob = plain.then(|| digest.clone());
        assert_eq!(read(by(Hashing::Tar)).unwrap(), (Some(digest.clone()), blob));
        let expected = LayerOptions { diff_id: Some(digest.clone()), ..by(Hashing::Nothing) };
        assert_eq!(read(expected).unwrap().0, Some(digest.clone()));
        let wrong = LayerOptions { diff_id: Some(digest::sha256(b"")), ..by(Hashing::Nothing) };
        assert!(read(wrong).unwrap_err().detail::<plyfold_core::Mismatch>().is_some());
        let blob = Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, digest::sha256(b""));
        let wrong = LayerOptions { blob: Some(blob), ..by(Hashing::Nothing) };
        assert!(read(wrong).unwrap_err().detail::<plyfold_core::Mismatch>().is_some());
    }
}

/// A `diff_id` is a sha256, unless the config names another: it is not the blob's digest whatever that is hashed by.
#[test]
fn the_diff_id_of_a_plain_layer_is_a_sha256_whatever_its_blob_is_named_by() {
    let tar = tar();
    let mut hasher =
        digest::Hasher::like(&digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap()).unwrap();
    hasher.update(&tar);
    let sha512 = hasher.finish();
    let blob = Descriptor::new(MediaType::ImageLayer, tar.len() as u64, sha512.clone());
    for (diff_id, expected) in [
        (None, digest::sha256(&tar)),
        (Some(digest::sha256(&tar)), digest::sha256(&tar)),
        (Some(sha512.clone()), sha512.clone()),
    ] {
        for hashing in [Hashing::Both, Hashing::Tar] {
            let options = LayerOptions {
                blob: Some(blob.clone()),
                diff_id: diff_id.clone(),
                hashing,
                ..LayerOptions::default()
            };
            let summary = read_with(&tar, options).unwrap().1;
            assert_eq!((summary.diff_id.as_ref(), summary.blob.as_ref()), (Some(&expected), Some(&sha512)));
        }
    }
}

/// Rows 29, 31, 32.
#[test]
fn broken_compression() {
    let tar = tar();
    let (gz, zst) = (gzip(&tar), zstd(&tar));
    for bytes in [&gz, &zst] {
        for length in [1, 5, 17, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(kind(&bytes[..length]), ErrorKind::Corrupt, "{length}");
        }
        for garbage in [&b"garbage"[..], b"\0\0\0\0", b"\x1f", b"\x1f\x8b", b"\x28"] {
            assert_eq!(kind(&[bytes, garbage].concat()), ErrorKind::Corrupt, "{garbage:?}");
        }
    }
    for at in [8, 1] {
        // The CRC, then the length, of an otherwise complete member.
        let mut bytes = gz.clone();
        let end = bytes.len();
        bytes[end - at] ^= 1;
        assert_eq!(kind(&bytes), ErrorKind::Corrupt);
    }
    // RFC 8878 section 3.1.1.1: descriptor 0 and a window of 2^31; then a dictionary id of one byte.
    assert_eq!(kind(&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0]), ErrorKind::Limit);
    assert_eq!(kind(&[0x28, 0xb5, 0x2f, 0xfd, 1, 0, 7, 1, 0, 0]), ErrorKind::Corrupt);
}

/// Row 27.
#[test]
fn bombs_end_at_the_cap() {
    let zeros = Archive::default().file("z", &vec![0; 8 << 20]).end();
    for bytes in [zeros.clone(), gzip(&zeros), zstd(&zeros)] {
        let under = |uncompressed| {
            let limits = LayerLimits { uncompressed, ..LayerLimits::default() };
            read_with(&bytes, LayerOptions { limits, ..LayerOptions::default() })
        };
        assert!(under(zeros.len() as u64).is_ok());
        assert_eq!(under(zeros.len() as u64 - 1).unwrap_err().kind(), &ErrorKind::Limit);
    }
}

#[test]
fn digests_and_sizes_are_checked_at_the_end() {
    let tar = tar();
    let bytes = gzip(&tar);
    let wrong = digest::sha256(b"wrong");
    let size = bytes.len() as u64;
    let blob = |size, digest| Some(Descriptor::new(MediaType::ImageLayerGzip, size, digest));
    let good = LayerOptions {
        diff_id: Some(digest::sha256(&tar)),
        blob: blob(size, digest::sha256(&bytes)),
        ..LayerOptions::default()
    };
    assert_eq!(read_with(&bytes, good.clone()).unwrap().1.warnings, []);
    for options in [
        LayerOptions { diff_id: Some(wrong.clone()), ..good.clone() },
        LayerOptions { blob: blob(size, wrong.clone()), ..good.clone() },
        LayerOptions { blob: blob(size - 1, digest::sha256(&bytes)), ..good.clone() },
        LayerOptions { blob: blob(size + 1, digest::sha256(&bytes)), ..good.clone() },
    ] {
        // Whether entries are read or not, the verdict is the same.
        for entries in [true, false] {
            let mut layer = open(&bytes, options.clone());
            let mut verdict = Ok(());
            while entries && verdict.is_ok() {
                match layer.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(e) => verdict = Err(e),
                }
            }
            let error = verdict.and_then(|()| layer.finish()).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Corrupt);
            assert_eq!(layer.finish().unwrap_err().kind(), &ErrorKind::Corrupt, "a failure stays");
        }
    }
    let mut plain = open(&tar, LayerOptions { diff_id: Some(wrong), ..LayerOptions::default() });
    assert!(plain.finish().unwrap_err().detail::<plyfold_core::Mismatch>().is_some());
}

#[test]
fn sha512_digests_are_computed_beside_sha256() {
    let tar = tar();
    let mut hasher =
        digest::Hasher::like(&digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap()).unwrap();
    hasher.update(&tar);
    let sha512 = hasher.finish();
    let blob = Some(Descriptor::new(MediaType::ImageLayer, tar.len() as u64, sha512.clone()));
    let options = LayerOptions { blob, diff_id: Some(digest::sha256(&tar)), ..LayerOptions::default() };
    let summary = read_with(&tar, options).unwrap().1;
    assert_eq!((summary.blob, summary.diff_id), (Some(sha512), Some(digest::sha256(&tar))));
}

#[test]
fn oddities_are_warned_of() {
    let tar = tar();
    let options = |media_type| {
        let bytes = gzip(&tar);
        let blob = Some(Descriptor::new(media_type, bytes.len() as u64, digest::sha256(&bytes)));
        LayerOptions { blob, ..LayerOptions::default() }
    };
    let warnings = |bytes: &[u8], options| read_with(bytes, options).unwrap().1.warnings;
    let mismatch =
        Warning::CompressionMismatch { media_type: MediaType::ImageLayer, found: Compression::Gzip };
    assert_eq!(warnings(&gzip(&tar), options(MediaType::ImageLayer)), [mismatch]);
    let no_end = &tar[..tar.len() - 1024];
    assert_eq!(warnings(no_end, LayerOptions::default()), [Warning::MissingEnd]);
    let half_end = &tar[..tar.len() - 512];
    assert_eq!(warnings(half_end, LayerOptions::default()), [Warning::MissingEnd]);
    let more = [tar.as_slice(), b"more"].concat();
    assert_eq!(warnings(&more, LayerOptions::default()), [Warning::TrailingData]);
}

#[test]
fn nothing_and_zeros_are_empty_layers() {
    for bytes in [Vec::new(), vec![0; 512], vec![0; 1024], vec![0; 10_240], gzip(b""), zstd(b"")] {
        let (seen, summary) = read_with(&bytes, LayerOptions::default()).unwrap();
        // Zeros are the end of a tar.
        let expected = if summary.size == 0 { vec![Warning::Empty] } else { Vec::new() };
        assert_eq!((seen.len(), summary.warnings), (0, expected), "{} bytes", bytes.len());
    }
}

#[test]
fn data_that_is_not_consumed_is_skipped() {
    let mut tar = open(&gzip(&tar()), LayerOptions::default());
    assert_eq!(tar.next_entry().unwrap().unwrap().path.as_bytes(), b"a");
    assert_eq!(tar.data().unwrap(), b"first");
    tar.consume(2);
    assert_eq!(tar.data().unwrap(), b"rst");
    assert_eq!(tar.next_entry().unwrap().unwrap().path.as_bytes(), b"b");
    tar.consume(usize::MAX);
    assert!(tar.next_entry().unwrap().is_none());
    assert!(tar.next_entry().unwrap().is_none());
    assert!(tar.data().unwrap().is_empty());
    tar.finish().unwrap();
    tar.finish().unwrap();
}

/// A source that does something else after its bytes.
struct Then<F>(io::Cursor<Vec<u8>>, F);

impl<F: FnMut() -> io::Result<usize>> Read for Then<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => (self.1)(),
            count => Ok(count),
        }
    }
}

/// Rules S 92, 93: errors, panics and cancellation of a stage never look like the end.
#[test]
fn a_stage_that_fails_is_an_error() {
    let error = || Err(io::ErrorKind::ConnectionReset.into());
    let panics = || panic!("a panic that this test wants");
    for bytes in [tar(), gzip(&tar()), zstd(&tar()), Vec::new()] {
        let source = Then(io::Cursor::new(bytes.clone()), error);
        let mut layer = LayerTar::new(source, LayerOptions::default()).unwrap();
        assert_eq!(layer.finish().unwrap_err().kind(), &ErrorKind::Io);
        let source = Then(io::Cursor::new(bytes), panics);
        let mut layer = LayerTar::new(source, LayerOptions::default()).unwrap();
        assert_eq!(layer.finish().unwrap_err().kind(), &ErrorKind::Internal);
    }
}

/// A source that notes the names of the threads that read it.
struct ReadBy(io::Cursor<Vec<u8>>, Arc<Mutex<Vec<String>>>);

impl Read for ReadBy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let mut names = self.1.lock().unwrap();
        if names.last() != Some(&name) {
            names.push(name);
        }
        drop(names);
        self.0.read(buffer)
    }
}

/// A thread is started for what takes long: to inflate more than the first read brings.
#[test]
fn only_what_is_inflated_and_long_has_a_thread_of_its_own() {
    let own = thread::current().name().unwrap_or_default().to_owned();
    let small = Archive::default().file("a", b"first").end();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let large = Archive::default().file("a", &noise.take(8 << 20).collect::<Vec<_>>()).end();
    for (bytes, is_long) in [
        (small.clone(), false),
        (gzip(&small), false),
        (zstd(&small), false),
        (large.clone(), false),
        (gzip(&large), true),
        (zstd(&large), true),
    ] {
        let names = Arc::<Mutex<Vec<String>>>::default();
        let source = ReadBy(io::Cursor::new(bytes), names.clone());
        let mut tar = LayerTar::new(source, LayerOptions::default()).unwrap();
        tar.next_entry().unwrap();
        // More than what is inflated on this thread.
        let mut read = 0;
        while is_long && read < 5 << 19 {
            let count = tar.data().unwrap().len();
            tar.consume(count);
            read += count;
        }
        // The other thread goes on while this one neither reads nor hashes.
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_long && names.lock().unwrap().len() < 2 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        tar.finish().unwrap();
        let names: BTreeSet<_> = names.lock().unwrap().iter().cloned().collect();
        let expected = if is_long { vec![own.as_str(), "layer-inflate"] } else { vec![own.as_str()] };
        assert_eq!(names, expected.into_iter().map(str::to_owned).collect());
    }
}

/// Rule S 93: dropping the reader lets go of the source.
#[test]
fn a_dropped_reader_stops_its_threads() {
    struct Endless(Arc<AtomicBool>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }
    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    for head in [Archive::default().0, gzip(&vec![0; 64 << 20])] {
        let dropped = Arc::new(AtomicBool::new(false));
        let source = io::Cursor::new(head).chain(Endless(dropped.clone()));
        let mut layer = LayerTar::new(source, LayerOptions::default()).unwrap();
        let _ = layer.next_entry();
        drop(layer);
        let start = Instant::now();
        while !dropped.load(Ordering::SeqCst) {
            assert!(start.elapsed() < Duration::from_secs(10), "the source is still held");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn sources_may_be_slow_and_interrupted() {
    struct Crumbs(io::Cursor<Vec<u8>>, bool);
    impl Read for Crumbs {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(7);
            self.0.read(&mut buffer[..length])
        }
    }
    let bytes = gzip(&Archive::default().file("a", b"x").end());
    let mut layer = LayerTar::new(Crumbs(io::Cursor::new(bytes), false), LayerOptions::default()).unwrap();
    assert!(layer.next_entry().unwrap().is_some());
    layer.finish().unwrap();
    assert_eq!(names(&Archive::default().file("a", b"x").end()).len(), 1);
}
