//! Measured halves: this program again, where the command does more than what is compared.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::{Decompress, FlushDecompress, Status};
use plyfold_core::layer::TreeLimits;
use plyfold_core::page_buffer::PageBuffer;
use plyfold_core::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use plyfold_core::{InputArtifact, Materializer as _, Role};
use plyfold_erofs::{ErofsFlat, ErofsMerged};
use plyfold_ext4::Ext4Rootfs;

use crate::result::Result;

/// The images of layers to one of metadata: the command merges only what it has pulled.
pub(crate) fn merge(out: &Path, layers: &[OsString]) -> Result<()> {
    let artifact = |path: &OsString| Ok(InputArtifact::local(Path::new(path), None)?);
    let layers = layers.iter().map(artifact).collect::<Result<Vec<_>>>()?;
    ErofsMerged::default().join(&layers, &mut created(out)?)?;
    Ok(())
}

/// From the image of a layer to one of the whole, as after a pull.
pub(crate) fn whole(format: &str, out: &Path, layer: &Path) -> Result<()> {
    let mut readers = LayerReader::linked().filter(|reader| reader.format == "erofs-layers");
    let reader = *readers.next().ok_or("no reader of layers is linked")?;
    let layer = LayerFile::new(File::open(layer)?, reader, None).map(LayerSource::from);
    let folder = out.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let image = MergedTree::from_sources([layer], TreeLimits::default(), &folder)?;
    let mut out = created(out)?;
    match format {
        "ext4" => {
            let rootfs = Ext4Rootfs::new();
            rootfs.image(&image, &mut out)?;
            rootfs.adapt(Role::Image, &mut out)?;
        }
        _ => drop(ErofsFlat::default().image(&image, &mut out)?),
    }
    Ok(image.check_unchanged()?)
}

/// The least that a gzip layer takes: its one member is inflated into a buffer that stays in the cache of the processor. How
/// many bytes that is.
pub(crate) fn inflate(gzip: &Path) -> Result<u64> {
    let mut file = File::open(gzip)?;
    let (mut input, mut output) = (PageBuffer::new(256 << 10), PageBuffer::new(256 << 10));
    // The window of RFC 1951, behind the header of RFC 1952.
    let (mut inflate, mut at, mut filled) = (Decompress::new_gzip(15), 0, 0);
    loop {
        if at == filled {
            (at, filled) = (0, file.read(&mut input)?);
            if filled == 0 {
                return Err("the member is cut".into());
            }
        }
        let before = inflate.total_in();
        let status = inflate.decompress(&input[at..filled], &mut output, FlushDecompress::None)?;
        at += (inflate.total_in() - before) as usize;
        if status == Status::StreamEnd {
            return Ok(inflate.total_out());
        }
    }
}

fn created(path: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).create_new(true).open(path)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_member_is_inflated_to_its_end() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&vec![b'x'; 3_000_000]).unwrap();
        let packed = encoder.finish().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &packed).unwrap();
        assert_eq!(inflate(file.path()).unwrap(), 3_000_000);
        std::fs::write(file.path(), &packed[..packed.len() / 2]).unwrap();
        assert!(inflate(file.path()).is_err());
    }
}
