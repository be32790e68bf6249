//! Images whose content lies in tars and in the files of layers.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use plyfold_core::digest::sha256;
use plyfold_core::layer::{Hashing, LayerLimits, LayerOptions, LayerTar, TreeLimits, Warning};
use plyfold_core::tree::{
    FileData, Kind, LayerContent, LayerFile, LayerReader, LayerRun, LayerSource, LayerTree, LayerTreeBuilder,
    MergedTree, TreeFault,
};
use plyfold_core::{Error, ErrorKind, Result};

use super::archive::{Archive, gzip};
use super::merged::{bytes, content, find, sparse};

/// A tar as a file, read as such.
fn in_file(path: &Path, tar: &[u8]) -> Result<LayerSource> {
    fs::write(path, tar).unwrap();
    let open = || File::open(path).unwrap();
    LayerTar::in_file(open(), open(), LayerOptions::default()).map(LayerSource::from)
}

fn of(sources: Vec<Result<LayerSource>>, scratch: &Path) -> Result<MergedTree> {
    MergedTree::from_sources(sources, TreeLimits::default(), scratch)
}

fn files() -> Archive {
    let sizes = [0, 1, 511, 4_096, 70_000, 300_001];
    let files = sizes.iter().enumerate();
    files.fold(Archive::default(), |archive, (at, size)| archive.file(format!("f{at}"), &bytes(at, *size)))
}

#[test]
fn content_of_a_plain_tar_stays_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (long, short) = (bytes(3, 200_000), bytes(4, 7));
    let tar = sparse(files(), "s", 1 << 20, &[(100, &short), (500_000, &long)]).file("after", b"y").end();
    let scratch = folder.path().join("scratch");
    let image = of(vec![in_file(&folder.path().join("tar"), &tar)], &scratch).unwrap();
    assert!(!scratch.exists(), "a spool was made");
    assert_eq!(image.diff_ids(), [Some(sha256(&tar))]);
    for (at, size) in [0, 1, 511, 4_096, 70_000, 300_001].into_iter().enumerate() {
        let name = format!("f{at}");
        assert_eq!(content(&image, &name), bytes(at, size), "{name}");
        for extent in image.extents(find(&image, &name)) {
            let place = usize::try_from(extent.at).unwrap();
            assert_eq!(tar[place..place + size], bytes(at, size));
        }
    }
    let s = content(&image, "s");
    assert_eq!((&s[100..107], &s[500_000..700_000]), (&*short, &*long));
    assert!(s[..100].iter().chain(&s[107..500_000]).chain(&s[700_000..]).all(|byte| *byte == 0));
    assert_eq!(content(&image, "after"), b"y");
    image.check_unchanged().unwrap();
}

#[test]
fn a_tar_that_is_compressed_is_read_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    let tar = gzip(&files().end());
    let image = of(vec![in_file(&folder.path().join("tar"), &tar)], &scratch).unwrap();
    assert_eq!(content(&image, "f5"), bytes(5, 300_001));
    assert!(scratch.is_dir());
}

/// Counts the bytes that are read.
struct Counted(File, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

fn unhashed(path: &Path, tar: &[u8], limits: LayerLimits) -> (Result<LayerTar>, Arc<AtomicU64>) {
    fs::write(path, tar).unwrap();
    let open = || File::open(path).unwrap();
    let read = Arc::new(AtomicU64::new(0));
    let options = LayerOptions { hashing: Hashing::Nothing, limits, ..LayerOptions::default() };
    (LayerTar::in_file_unhashed(Counted(open(), read.clone()), open(), options), read)
}

#[test]
fn content_of_a_tar_that_is_not_hashed_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, scratch) = (folder.path().join("tar"), folder.path().join("scratch"));
    let (long, large) = (bytes(3, 200_000), bytes(9, 3_000_000));
    let tar = sparse(files(), "s", 1 << 20, &[(100, b"short"), (500_000, &long)]);
    let tar = tar.file("large", &large).file("after", b"y").end();
    let (reader, read) = unhashed(&path, &tar, LayerLimits::default());
    let image = of(vec![reader.map(LayerSource::from)], &scratch).unwrap();
    assert_eq!(image.diff_ids(), [None]);
    for (at, size) in [0, 1, 511, 4_096, 70_000, 300_001].into_iter().enumerate() {
        assert_eq!(content(&image, &format!("f{at}")), bytes(at, size));
    }
    assert_eq!((content(&image, "large"), content(&image, "after")), (large.clone(), b"y".to_vec()));
    assert_eq!(content(&image, "s")[500_000..700_000], long);
    assert!(!scratch.exists(), "a spool was made");
    let read = read.load(Ordering::Relaxed);
    assert!(read < 300_000, "{read} of {} bytes were read", tar.len());

    // Who asks for the content gets it, and the end is looked at.
    let (reader, _) = unhashed(&path, &[&tar, &b"behind"[..]].concat(), LayerLimits::default());
    let mut reader = reader.unwrap();
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.path.as_bytes() == b"large" {
            let mut data = Vec::new();
            let mut take = |bytes: &[u8]| {
                data.extend_from_slice(bytes);
                Ok(())
            };
            reader.copy_data(large.len() as u64, &mut take).unwrap();
            assert!(data == large);
        }
    }
    let summary = reader.finish().unwrap();
    assert_eq!((summary.size, summary.diff_id), (tar.len() as u64 + 6, None));
    assert_eq!(summary.warnings, [Warning::TrailingData]);
}

#[test]
fn a_tar_that_is_not_hashed_is_checked_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tar");
    let tar = Archive::default().file("large", &bytes(9, 3_000_000)).file("after", b"y").end();
    let error = |tar: &[u8], limits| {
        let (reader, _) = unhashed(&path, tar, limits);
        of(vec![reader.map(LayerSource::from)], folder.path()).unwrap_err().kind().clone()
    };
    for end in [1_000, 2_000_000, 3_000_000, 3_001_000] {
        assert_eq!(error(&tar[..end], LayerLimits::default()), ErrorKind::Corrupt, "{end}");
    }
    let small = LayerLimits { uncompressed: 1 << 20, ..LayerLimits::default() };
    assert_eq!(error(&tar, small), ErrorKind::Limit);
    // Compressed: by other threads.
    let (reader, _) = unhashed(&path, &gzip(&tar), LayerLimits::default());
    let image = of(vec![reader.map(LayerSource::from)], folder.path()).unwrap();
    assert_eq!(content(&image, "after"), b"y");
    let hashed = LayerTar::in_file_unhashed(io::empty(), File::open(&path).unwrap(), LayerOptions::default());
    assert_eq!(*hashed.unwrap_err().kind(), ErrorKind::Config);
}

/// What was hashed is not what is used.
#[test]
fn a_tar_that_changes_is_an_error() {
    let changed = |error: Error| {
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        assert!(matches!(error.detail(), Some(TreeFault::Changed)), "{error}");
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tar");
    let tar = files().end();
    let writable = || File::options().write(true).open(&path).unwrap();
    let later = SystemTime::now() + Duration::from_secs(100);

    let image = of(vec![in_file(&path, &tar)], folder.path()).unwrap();
    // Caches note that a blob is used.
    writable().set_modified(later).unwrap();
    image.check_unchanged().unwrap();
    writable().write_all_at(b"changed", 600).unwrap();
    writable().set_modified(later + Duration::from_secs(1)).unwrap();
    changed(image.check_unchanged().unwrap_err());

    let image = of(vec![in_file(&path, &tar)], folder.path()).unwrap();
    writable().set_len(1).unwrap();
    changed(image.check_unchanged().unwrap_err());

    // Before it was read.
    let source = in_file(&path, &tar);
    writable().set_len(tar.len() as u64 + 1).unwrap();
    changed(of(vec![source], folder.path()).unwrap_err());
    // Another name is no change.
    let image = of(vec![in_file(&path, &tar)], folder.path()).unwrap();
    fs::hard_link(&path, folder.path().join("link")).unwrap();
    fs::remove_file(&path).unwrap();
    image.check_unchanged().unwrap();
    assert_eq!(content(&image, "f4"), bytes(4, 70_000));
}

/// The files of this process in a folder.
fn open_files(folder: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|link| fs::read_link(link.path()).is_ok_and(|path| path.starts_with(folder))).count()
}

#[test]
fn more_layers_than_are_held_open_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let layers = (0..MergedTree::OPEN_FILES + 12).map(|layer| {
        let tar = Archive::default().file(format!("{layer}"), &bytes(layer, 5_000)).end();
        let path = folder.path().join(format!("{layer}.tar"));
        if layer % 2 == 0 { in_file(&path, &tar) } else { layer_file(&path, &tar) }
    });
    let scratch = tempfile::tempdir().unwrap();
    let image = MergedTree::from_sources(layers, TreeLimits::default(), scratch.path()).unwrap();
    // The thread that has read the last layer may still be ending.
    let begun = Instant::now();
    while open_files(folder.path()) > MergedTree::OPEN_FILES && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_files(folder.path()), MergedTree::OPEN_FILES);
    for layer in 0..MergedTree::OPEN_FILES + 12 {
        assert_eq!(content(&image, &layer.to_string()), bytes(layer, 5_000));
    }
    image.check_unchanged().unwrap();
}

/// A tar as the file of a format: files are in pieces, and one in five is kept elsewhere, as if it were compressed.
const TARS: LayerReader = LayerReader { format: "tars", package: "test", read: read_tar };

fn layer_file(path: &Path, tar: &[u8]) -> Result<LayerSource> {
    fs::write(path, tar).unwrap();
    LayerFile::new(File::open(path).unwrap(), TARS, Some(sha256(tar))).map(LayerSource::File)
}

fn read_tar(layer: &mut LayerContent<'_, '_>, limits: TreeLimits) -> Result<LayerTree<FileData>> {
    let mut file = layer.file();
    let mut tar = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut tar)).unwrap();
    let mut tar = LayerTar::new(Cursor::new(tar), LayerOptions::default())?;
    let mut builder = LayerTreeBuilder::within(limits);
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        builder.insert(entry, |size, _| {
            let start = tar.position();
            number += 1;
            if number % 5 == 0 {
                return layer.keep(size, |take| tar.copy_data(size, take));
            }
            let pieces = (0..size).step_by(1_000).map(|offset| {
                let length = (size - offset).min(1_000);
                LayerRun { at: start + offset, offset, length }
            });
            layer.lies_in(size, &pieces.collect::<Vec<_>>())
        })?;
    }
    builder.finish()
}

#[test]
fn a_layers_file_is_read_where_it_is_beside_tars() {
    let folder = tempfile::tempdir().unwrap();
    let tar = files().end();
    let scratch = tempfile::tempdir().unwrap();
    let upper = Archive::default().file("f1", b"upper").file(".wh.f2", b"").end();
    let sources = vec![
        layer_file(&folder.path().join("lower"), &tar),
        LayerTar::new(Cursor::new(gzip(&upper)), LayerOptions::default()).map(LayerSource::from),
    ];
    let image = of(sources, scratch.path()).unwrap();
    // It is held open, whatever becomes of its name.
    fs::remove_file(folder.path().join("lower")).unwrap();
    let paths: Vec<_> = image.tree().walk().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["/", "/f0", "/f1", "/f3", "/f4", "/f5"]);
    assert_eq!(image.diff_ids(), [Some(sha256(&tar)), Some(sha256(&upper))]);
    assert_eq!(content(&image, "f1"), b"upper");
    for (at, size) in [(0, 0), (3, 4_096), (4, 70_000), (5, 300_001)] {
        assert_eq!(content(&image, &format!("f{at}")), bytes(at, size));
    }
    assert!(image.extents(find(&image, "f5")).count() > 300);
}

#[test]
fn runs_that_are_none_are_refused() {
    fn read(layer: &mut LayerContent<'_, '_>, _: TreeLimits) -> Result<LayerTree<FileData>> {
        let run = |at, offset, length| LayerRun { at, offset, length };
        let bad: [(u64, &[LayerRun]); 7] = [
            (10, &[run(0, 0, 0)]),
            (10, &[run(0, 0, 11)]),
            (10, &[run(0, 5, 2), run(0, 6, 2)]),
            (10, &[run(0, 5, 2), run(0, 0, 2)]),
            (10, &[run(95, 0, 10)]),
            (10, &[run(u64::MAX, 0, 2)]),
            (10, &[run(0, u64::MAX, 2)]),
        ];
        for (size, runs) in bad {
            let error = layer.lies_in(size, runs).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{runs:?}");
        }
        layer.lies_in(0, &[])?;
        layer.lies_in(10, &[])?;
        layer.lies_in(10, &[run(90, 0, 10)])?;
        for written in [&b"123"[..], b"12345"] {
            let error = layer.keep(4, |take| take(written)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt);
        }
        // Nothing is kept of what comes beyond the size.
        let (mut pieces, piece) = (0, vec![1; 1 << 16]);
        let endless = layer.keep(1 << 20, |take| {
            loop {
                take(&piece)?;
                pieces += 1;
                assert!(pieces <= 16, "it is kept");
            }
        });
        assert_eq!(*endless.unwrap_err().kind(), ErrorKind::Corrupt);
        LayerTreeBuilder::new().finish()
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 100]).unwrap();
    let reader = LayerReader { format: "bad", package: "test", read };
    let scratch = tempfile::tempdir().unwrap();
    of(vec![LayerFile::new(file, reader, None).map(LayerSource::File)], scratch.path()).unwrap();
}

#[test]
fn what_is_copied_is_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (long, short) = (bytes(3, 200_000), bytes(4, 700));
    let runs: [(u64, &[u8]); 4] =
        [(0, &short), (100_000, &long), (400_000, &short), (400_700 + 65_536, &long[..70_000])];
    let tar = sparse(files(), "s", 700_000, &runs).end();
    let plain = || LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()).map(LayerSource::from);
    for source in [plain(), in_file(&folder.path().join("tar"), &tar)] {
        let image = of(vec![source], folder.path()).unwrap();
        for name in ["f0", "f1", "f4", "f5", "s"] {
            let (id, whole) = (find(&image, name), content(&image, name));
            for start in [0, 1, 99_000, 100_000, 299_999, 466_236] {
                for length in [0, 1, 65_535, 65_536, 100_000, 700_000] {
                    let from = start.min(whole.len());
                    let length = length.min(whole.len() - from);
                    let mut out = tempfile::tempfile().unwrap();
                    out.write_all(b"before").unwrap();
                    image.copy_to(id, from as u64, length as u64, &mut out).unwrap();
                    out.write_all(b"after").unwrap();
                    let mut written = vec![0; length + 11];
                    out.read_exact_at(&mut written, 0).unwrap();
                    assert_eq!(out.metadata().unwrap().len(), length as u64 + 11);
                    assert!(written == [b"before", &whole[from..from + length], b"after"].concat());
                }
            }
            let beyond = image.copy_to(id, 0, whole.len() as u64 + 1, &mut tempfile::tempfile().unwrap());
            assert_eq!(*beyond.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

/// Against a look at every byte.
#[test]
fn a_file_without_holes_is_told_for_certain() {
    const BLOCK: usize = 4_096;
    let mut seed = 7_u32;
    for size in [1, 4_095, 4_096, 20 * BLOCK, 20 * BLOCK + 1, 33 * BLOCK - 1] {
        for round in 0..40 {
            let mut data = bytes(round, size);
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (start, length) = (seed as usize % size, (seed >> 8) as usize % (12 * BLOCK));
            let end = (start + length).min(size);
            data[start..end].fill(0);
            let image = of(
                vec![
                    LayerTar::new(
                        Cursor::new(Archive::default().file("f", &data).end()),
                        LayerOptions::default(),
                    )
                    .map(LayerSource::from),
                ],
                tempfile::tempdir().unwrap().path(),
            );
            let image = image.unwrap();
            let id = find(&image, "f");
            let Kind::File { .. } = image.tree().node(id).kind else { panic!("no file") };
            for blocks in 1..8 {
                let zeros: Vec<bool> =
                    data.chunks(BLOCK).map(|block| block.iter().all(|byte| *byte == 0)).collect();
                let has = zeros.windows(blocks).any(|run| run.iter().all(|zero| *zero));
                let may = image.may_have_holes(id, blocks as u64).unwrap();
                assert!(may || !has, "{size} {start} {end} {blocks}");
                assert!(!may || zeros.contains(&true), "nothing but data");
            }
        }
    }
}
