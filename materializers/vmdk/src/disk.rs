//! The bytes of a disk, out of the files that its descriptor names.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use plyfold_core::{Beneath, Result, seek_to};

use crate::descriptor::{Descriptor, Extent, beneath};

/// A disk that a [`Descriptor`] describes, to read from. One file is open at a time.
#[derive(Debug)]
pub struct FlatDisk {
    folder: Beneath,
    /// Each with its first byte on the disk.
    extents: Vec<(u64, Extent)>,
    size: u64,
    position: u64,
    open: Option<(String, File)>,
}

impl FlatDisk {
    /// The disk of a descriptor in `folder`. Files are opened when they are read.
    ///
    /// # Errors
    /// As [`Descriptor::check`].
    pub fn new(descriptor: &Descriptor, folder: &Path) -> Result<Self> {
        let mut extents = Vec::with_capacity(descriptor.extents().len());
        let mut start = 0;
        for extent in descriptor.extents() {
            extents.push((start, extent.clone()));
            start += extent.size();
        }
        let folder = beneath(folder)?;
        descriptor.check_in(&folder)?;
        Ok(Self { folder, extents, size: descriptor.size(), position: 0, open: None })
    }

    /// The first byte at `offset` or behind it that is in no hole of a file; `None` where there is none.
    ///
    /// # Errors
    /// Those of reading.
    pub fn data_from(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mut offset = offset;
        while let Some((start, extent)) = self.extent_at(offset) {
            let within = extent.start() + (offset - start);
            let found = plyfold_core::data_from(self.file_of(&extent)?, within)?;
            match found.filter(|at| *at < extent.start() + extent.size()) {
                Some(at) => return Ok(Some(start + (at - extent.start()))),
                None => offset = start + extent.size(),
            }
        }
        Ok(None)
    }

    /// The extent of a byte, and its first byte on the disk.
    fn extent_at(&self, offset: u64) -> Option<(u64, Extent)> {
        let at = self.extents.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        self.extents.get(at).filter(|_| offset < self.size).cloned()
    }

    /// The file of an extent, which stays open until another is needed.
    fn file_of(&mut self, extent: &Extent) -> io::Result<&mut File> {
        let open = match self.open.take().filter(|(open, _)| open == extent.path()) {
            Some(open) => open,
            None => (extent.path().to_owned(), extent.open(&self.folder)?),
        };
        Ok(&mut self.open.insert(open).1)
    }
}

impl Read for FlatDisk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((start, extent)) = self.extent_at(self.position) else { return Ok(0) };
        let within = self.position - start;
        let left = extent.size() - within;
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let file = self.file_of(&extent)?;
        file.seek(SeekFrom::Start(extent.start() + within))?;
        let count = file.read(&mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for FlatDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.size)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, symlink};

    use super::*;

    fn disk(folder: &Path, lines: &str) -> Result<FlatDisk> {
        let text = format!("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n{lines}");
        FlatDisk::new(&Descriptor::parse(&text)?, folder)
    }

    #[test]
    fn the_disk_is_what_its_extents_are() {
        let folder = tempfile::tempdir().unwrap();
        let sectors = |first: u8| -> Vec<u8> { (first..first + 4).flat_map(|byte| [byte; 512]).collect() };
        std::fs::write(folder.path().join("a"), sectors(0)).unwrap();
        std::fs::write(folder.path().join("b"), sectors(10)).unwrap();
        let lines = "RW 2 FLAT \"a\" 1\nRW 4 FLAT \"b\" 0\nRW 1 FLAT \"a\" 0\n";
        let mut disk = disk(folder.path(), lines).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(disk.read_to_end(&mut bytes).unwrap(), 7 * 512);
        let firsts: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(firsts, [1, 2, 10, 11, 12, 13, 0]);
        assert_eq!(disk.seek(SeekFrom::End(-513)).unwrap(), 6 * 512 - 1);
        let mut two = [0; 2];
        disk.read_exact(&mut two).unwrap();
        assert_eq!(two, [13, 0]);
        assert_eq!(disk.seek(SeekFrom::Start(1 << 40)).unwrap(), 1 << 40);
        assert_eq!(disk.read(&mut two).unwrap(), 0);
        assert!(disk.seek(SeekFrom::End(-4000)).is_err());
    }

    /// Holes of the files are those of the disk, across their ends.
    #[test]
    fn holes_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let holed = |name: &str, data: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_len(8 << 20).unwrap();
            file.write_all_at(&[1; 4096], data).unwrap();
        };
        holed("a", 4 << 20);
        holed("b", 6 << 20);
        // Without the data of `a` at first; `b` in front of its data, with it, and behind it.
        let lines =
            "RW 8192 FLAT \"a\" 0\nRW 8192 FLAT \"b\" 0\nRW 8192 FLAT \"b\" 8192\nRW 2048 FLAT \"b\" 14336\n";
        let mut disk = disk(folder.path(), lines).unwrap();
        let data = (8 + 2) << 20;
        for (from, found) in
            [(0, Some(data)), (5 << 20, Some(data)), (data + 5, Some(data + 5)), (data + 4096, None)]
        {
            assert_eq!(disk.data_from(from).unwrap(), found, "{from}");
        }
        assert_eq!(disk.data_from(1 << 40).unwrap(), None);
    }

    #[test]
    fn no_file_outside_of_the_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("a"), [0; 512]).unwrap();
        for path in ["../a", "x/../../a"] {
            let error = disk(&folder.path().join("in"), &format!("RW 1 FLAT \"{path}\" 0\n")).unwrap_err();
            assert_eq!(*error.kind(), plyfold_core::ErrorKind::Unsupported, "{path}: {error}");
        }
        // Neither by a link, nor by one that comes after the look at the file.
        let inside = folder.path().join("in");
        symlink("../a", inside.join("link")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        for path in ["link", "up/a", "up"] {
            let error = disk(&inside, &format!("RW 1 FLAT \"{path}\" 0\n")).unwrap_err();
            assert_eq!(*error.kind(), plyfold_core::ErrorKind::Unsupported, "{path}: {error}");
        }
        std::fs::write(inside.join("b"), [1; 512]).unwrap();
        let mut disk = disk(&inside, "RW 1 FLAT \"b\" 0\n").unwrap();
        std::fs::remove_file(inside.join("b")).unwrap();
        symlink("../a", inside.join("b")).unwrap();
        let error = disk.read(&mut [0; 512]).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
}
