//! Tars behind an index, as the kernel sees them.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, LoopDevice, Mount, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::Materializer as _;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_erofs::{ErofsTar, Summary};
use tempfile::{NamedTempFile, TempPath};

use super::common::rich_layer;
use super::{base, equal, extracted};

/// As one file, and as two: the index, whose device is the tar.
pub(crate) fn a_tar_behind_its_index_is_what_tar_extracts() -> Verdict {
    const MIB: u64 = 1 << 20;
    // Runs of whole blocks: others GNU tar reads from other places.
    let runs: [(u64, &[u8]); 2] = [(1536, &[b'a'; 512]), (5 * MIB - 512, &[b'b'; 512])];
    let sparse = LayerBuilder::new().dir("./", 0o755).sparse_file("disk", 0o644, 5 * MIB, &runs);
    for tar in [rich_layer(), base(), sparse.finish()] {
        let expected = extracted(&tar)?;
        let image = behind_its_index(&tar)?;
        equal(expected.path(), Mount::new("erofs", &image, "loop,ro")?.path(), &[])?;
        let (index, device) = index_and_tar(&image)?;
        assert!(fs::read(&device)?[..tar.len()] == *tar, "the tar is not behind its index");
        let device = LoopDevice::new(&device)?;
        let options = format!("loop,ro,device={}", device.path().display());
        equal(expected.path(), Mount::new("erofs", &index, &options)?.path(), &[])?;
    }
    Ok(())
}

/// The image of a tar.
pub(crate) fn behind_its_index(tar: &[u8]) -> Result<TempPath, Failure> {
    let mut file = NamedTempFile::new()?;
    let mut layer = LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default())?;
    ErofsTar::default().layer(&mut layer, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The two parts of an image, each in a file.
pub(crate) fn index_and_tar(image: &Path) -> Result<(TempPath, TempPath), Failure> {
    let summary = Summary::read(File::open(image)?)?;
    let bytes = fs::read(image)?;
    let (index, tar) = bytes.split_at(usize::try_from(summary.blocks * 512)?);
    let file = |bytes: &[u8]| -> Result<TempPath, Failure> {
        let file = NamedTempFile::new()?;
        fs::write(&file, bytes)?;
        Ok(file.into_temp_path())
    };
    Ok((file(index)?, file(tar)?))
}
