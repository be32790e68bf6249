//! Tars behind an index, as the kernel sees them.

use std::fs::{self, File};
use std::io::Cursor;

use plyfold_conformance::oracle::{LoopDevice, Mount, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::Materializer as _;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_erofs::{ErofsTar, Summary};
use tempfile::NamedTempFile;

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
        let mut file = NamedTempFile::new()?;
        let mut layer = LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default())?;
        ErofsTar::default().layer(&mut layer, file.as_file_mut())?;
        let image = file.into_temp_path();
        equal(expected.path(), Mount::new("erofs", &image, "loop,ro")?.path(), &[])?;
        let summary = Summary::read(File::open(&image)?)?;
        let start = usize::try_from(summary.blocks * 512)?;
        let bytes = fs::read(&image)?;
        assert!(bytes[start..][..tar.len()] == *tar, "the tar is not behind its index");
        let (index, device) = (NamedTempFile::new()?, NamedTempFile::new()?);
        fs::write(&index, &bytes[..start])?;
        fs::write(&device, &bytes[start..])?;
        let device = LoopDevice::new(device.path())?;
        let options = format!("loop,ro,device={}", device.path().display());
        equal(expected.path(), Mount::new("erofs", index.path(), &options)?.path(), &[])?;
    }
    Ok(())
}
