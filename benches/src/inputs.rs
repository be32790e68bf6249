//! The tars that are measured, the same bytes on every machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::measure::Result;

/// 100,000 files of 100 bytes in one directory.
pub(crate) fn flat(tar: &Path) -> Result<()> {
    let mut tar = Tar::create(tar)?;
    tar.directory("flat")?;
    for index in scattered(100_000) {
        tar.file(&format!("flat/entry-{index:06}"), 100)?;
    }
    tar.finish()
}

/// A layer of 50,000 files, and one of 45,000 files and 5,000 whiteouts to put over it. Half of the upper files are
/// also in the lower layer.
pub(crate) fn stacked(base: &Path, top: &Path) -> Result<()> {
    let name = |index: u32| format!("tree/{:03}/file-{index:06}", index % 500);
    let (mut base, mut top) = (Tar::create(base)?, Tar::create(top)?);
    for tar in [&mut base, &mut top] {
        tar.directory("tree")?;
        (0..500).try_for_each(|folder| tar.directory(&format!("tree/{folder:03}")))?;
    }
    for index in scattered(50_000) {
        base.file(&name(index), 1000)?;
        match index {
            0..5_000 => top.file(&format!("tree/{:03}/.wh.file-{index:06}", index % 500), 0)?,
            _ => top.file(&name(index + 22_500), 1000)?,
        }
    }
    base.finish()?;
    top.finish()
}

/// Compresses a file as registries do.
pub(crate) fn gzip(from: &Path, to: &Path) -> Result<()> {
    let mut encoder = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::default());
    io::copy(&mut File::open(from)?, &mut encoder)?;
    Ok(encoder.finish()?.flush()?)
}

/// 0 to `count` - 1 once each, out of order, as archivers that follow a hashed directory yield them.
fn scattered(count: u32) -> impl Iterator<Item = u32> {
    // 30,011 is prime and no factor of the counts.
    (0..count).map(move |index| (u64::from(index) * 30_011 % u64::from(count)) as u32)
}

struct Tar(Builder<BufWriter<File>>);

impl Tar {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(Builder::new(BufWriter::new(File::create(path)?))))
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, EntryType::Directory, 0o755, 0)
    }

    fn file(&mut self, name: &str, size: usize) -> Result<()> {
        self.entry(name, EntryType::Regular, 0o644, size)
    }

    fn entry(&mut self, name: &str, kind: EntryType, mode: u32, size: usize) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header.set_mtime(1_700_000_000);
        let content: Vec<u8> = name.bytes().cycle().take(size).collect();
        Ok(self.0.append_data(&mut header, name, content.as_slice())?)
    }

    fn finish(mut self) -> Result<()> {
        self.0.finish()?;
        Ok(self.0.into_inner()?.flush()?)
    }
}
