//! Disks in one file as qemu reads and writes them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_conformance::oracle::{Run, Verdict};
use plyfold_core::{InputArtifact, Materializer as _};
use plyfold_vmdk::{SparseDisk, VmdkStream};
use tempfile::NamedTempFile;

const MIB: u64 = 1 << 20;

/// A disk with data at the ends of grains and tables, holes between, and an end within a grain.
fn disk(size: u64) -> std::io::Result<NamedTempFile> {
    let disk = NamedTempFile::new()?;
    disk.as_file().set_len(size)?;
    let text: Vec<u8> = (0..20_000_u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    let noise: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (at, data) in [(0, &text), (5 * MIB - 7, &noise), (32 * MIB - 70_000, &noise), (97 * MIB, &text)] {
        let fits = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(data.len());
        disk.as_file().write_all_at(&data[..fits], at)?;
    }
    Ok(disk)
}

/// qemu takes it for sound and reads the disk, and nothing but zeros behind it.
pub(crate) fn a_stream_reads_back_identical() -> Verdict {
    for size in [1, 4096, 5 * MIB + 100_000, 32 * MIB, 200 * MIB + 512, (2 << 30) + 512] {
        let disk = disk(size)?;
        let path = disk.path().with_extension("vmdk");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        VmdkStream::new().level(1)?.join(&[InputArtifact::local(disk.path(), None)?], &mut file)?;
        let run = |arguments: &[&str]| Run::new("qemu-img").args(arguments).arg(&path).success();
        assert!(run(&["check", "-f", "vmdk"])?.stdout.contains("No errors were found"), "{size}");
        let info = run(&["info", "-f", "vmdk"])?.stdout;
        let expected = [
            format!("({} bytes)", size.next_multiple_of(MIB)),
            "create type: streamOptimized".to_owned(),
            "compressed: true".to_owned(),
            "cluster size: 65536".to_owned(),
            format!("cid: {}", SparseDisk::new(File::open(&path)?)?.summary().cid.unwrap_or_default()),
        ];
        assert!(expected.iter().all(|text| info.contains(text)), "{info}");
        let said = Run::new("qemu-img").args(["compare", "-f", "raw", "-F", "vmdk"]);
        let said = said.arg(disk.path()).arg(&path).success()?;
        assert!(said.stdout.contains("Images are identical"), "{said}");
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// What qemu writes in one file is read.
pub(crate) fn files_of_qemu_are_read() -> Verdict {
    for size in [MIB, 97 * MIB + 65_536 + 512, 200 * MIB] {
        let disk = disk(size)?;
        for form in ["monolithicSparse", "streamOptimized"] {
            let vmdk = NamedTempFile::new()?;
            let convert = Run::new("qemu-img").args(["convert", "-f", "raw", "-O", "vmdk"]);
            let convert = convert.arg("-o").arg(format!("subformat={form}"));
            convert.arg(disk.path()).arg(vmdk.path()).success()?;
            equal(disk.path(), vmdk.path())?;
            let read = SparseDisk::new(File::open(vmdk.path())?)?;
            assert_eq!(read.summary().is_compressed, form == "streamOptimized");
        }
    }
    Ok(())
}

fn equal(raw: &Path, vmdk: &Path) -> Verdict {
    let (mut raw, mut vmdk) = (File::open(raw)?, SparseDisk::new(File::open(vmdk)?)?);
    assert_eq!(raw.metadata()?.len(), vmdk.summary().size);
    let (mut left, mut right) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    loop {
        let count = raw.read(&mut left)?;
        if count == 0 {
            return Ok(());
        }
        vmdk.read_exact(&mut right[..count])?;
        assert!(left[..count] == right[..count], "the reader does not see what was written");
    }
}
