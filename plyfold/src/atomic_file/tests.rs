//! Nothing is visible before it is published, and nothing is replaced that must not be.

use super::*;

#[test]
fn nothing_is_visible_before_publish() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    std::fs::write(&target, "old").unwrap();
    let stop = Stop::default();
    let mut file = AtomicFile::create(&target, FileOptions::default(), &stop).unwrap();
    file.write_all(b"half").unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    drop(file);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);

    let mut file = AtomicFile::create(&target, FileOptions::default(), &stop).unwrap();
    file.write_all(b"whole").unwrap();
    assert_eq!(file.publish().unwrap(), 5);
    assert_eq!(std::fs::read(&target).unwrap(), b"whole");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn a_new_file_replaces_none() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let stop = Stop::default();
    let new = || AtomicFile::create_new(&target, FileOptions::default(), &stop);
    let mut late = new().unwrap();
    late.write_all(b"late").unwrap();
    let mut first = new().unwrap();
    first.write_all(b"first").unwrap();
    first.publish().unwrap();
    assert_eq!(*late.publish().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(*new().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(std::fs::read(&target).unwrap(), b"first");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::remove_file(&target).unwrap();
    std::os::unix::fs::symlink("nowhere", &target).unwrap();
    assert_eq!(*new().unwrap_err().kind(), ErrorKind::Config);
}

/// A file of a cache elsewhere.
#[derive(Clone, Debug)]
struct Remote(Vec<u8>, u64);

impl ArtifactHandle for Remote {
    fn size(&self) -> u64 {
        self.1
    }

    fn made(&self) -> &plyfold_core::Made {
        unreachable!("a copy is of bytes")
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // A few bytes at a time, never whole blocks.
        let left = self.0.get(offset as usize..).unwrap_or_default();
        let count = left.len().min(buffer.len()).min(100_001);
        buffer[..count].copy_from_slice(&left[..count]);
        Ok(count)
    }
}

#[test]
fn a_file_of_a_cache_elsewhere_is_copied_whole_but_for_its_zeros() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempfile::tempdir().unwrap();
    let (target, stop) = (dir.path().join("out"), Stop::default());
    let create = || AtomicFile::create(&target, FileOptions::default(), &stop).unwrap();
    let mut content = vec![0; 8 << 20];
    content[5_000_000] = 7;
    content.extend_from_slice(b"the end");
    let remote = Remote(content.clone(), content.len() as u64);
    let mut file = create();
    file.fill_from(&remote).unwrap();
    assert_eq!(file.publish().unwrap(), remote.1);
    assert!(std::fs::read(&target).unwrap() == content);
    assert!(std::fs::metadata(&target).unwrap().blocks() * 512 < 1 << 20, "zeros are written");
    // One that ends early is no disk with zeros at its end.
    let error = create().fill_from(&Remote(content, remote.1 + 1)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("8388615 of 8388616 bytes"), "{error}");
}

#[test]
fn only_files_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let stop = Stop::default();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for target in [dir.path(), Path::new("/dev/null"), &link] {
        let error = AtomicFile::create(target, FileOptions::default(), &stop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{}", target.display());
    }
    let error = AtomicFile::create(&dir.path().join("no/out"), FileOptions::default(), &stop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
}
