//! Our reader against the kernel and e2fsprogs.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::rc::Rc;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_core::ErrorKind;
use plyfold_core::files::{FileType, Files as _};
use plyfold_ext4::{Ext4Files, Ext4Upper, Summary};

use super::{MIB, disk};

/// A large directory, a file of many extents, one with holes, links, names that are no text.
pub(crate) fn files_are_those_that_the_kernel_wrote() -> Verdict {
    let path = disk(&Ext4Upper::new(256 * MIB)?)?;
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mount = Mount::new("ext4", &path, "loop")?;
    let root = mount.path().join("upper");
    fs::create_dir_all(root.join("many"))?;
    for number in 0..3000 {
        fs::write(root.join(format!("many/{number:04}")), number.to_string())?;
    }
    fs::write(root.join("large"), &content)?;
    File::create(root.join("sparse"))?.write_all_at(b"end", (1 << 32) + 5)?;
    symlink("many/../large", root.join("short"))?;
    symlink(format!("{}large", "./".repeat(100)), root.join("long"))?;
    fs::write(root.join(OsStr::from_bytes(b"\xff\n")), "no text")?;
    let time = fs::metadata(root.join("large"))?;
    drop(mount);

    let mut files = Ext4Files::new(File::open(&path)?)?;
    let many = files.list(b"upper/many")?;
    let names: Vec<_> = many.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect();
    assert_eq!(names, (0..3000).map(|number| format!("{number:04}")).collect::<Vec<_>>());
    let mut read = |path: &[u8]| {
        let mut bytes = Vec::new();
        files.read(path, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok::<_, plyfold_core::Error>(bytes)
    };
    for path in ["upper/large", "upper/short", "upper/long", "/upper/long/../../upper/large"] {
        let found = read(path.as_bytes());
        // `long/..` goes through a file.
        assert_eq!(found.is_ok_and(|found| found == content), !path.contains("long/.."), "{path}");
    }
    assert_eq!(read(b"upper/many/2999")?, b"2999");
    assert_eq!(read(b"upper/\xff\n")?, b"no text");
    let (mut at, mut last) = (0_u64, Vec::new());
    files.read(b"upper/sparse", &mut |piece| {
        at += piece.len() as u64;
        last = piece.to_vec();
        Ok(())
    })?;
    assert_eq!((at, last.ends_with(b"\0end")), ((1 << 32) + 8, true));
    let large = files.file(b"upper/large", false)?;
    assert_eq!((large.kind, large.size), (FileType::Regular, time.len()));
    assert_eq!((large.mtime.seconds, i64::from(large.mtime.nanos)), (time.mtime(), time.mtime_nsec()));
    let long = files.file(b"upper/long", false)?;
    assert_eq!((long.kind, long.target.map(|target| target.len())), (FileType::Symlink, Some(205)));
    Ok(())
}

/// File systems of other forms: block maps with holes, small blocks and inodes, groups of their own tables, no checksums.
pub(crate) fn files_are_those_that_mke2fs_wrote() -> Verdict {
    let tree = tempfile::tempdir()?;
    let root = tree.path();
    // Beyond what a map of one level and one of two levels hold with blocks of 1 KiB.
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(root.join("large"), &content)?;
    let holes = File::create(root.join("holes"))?;
    for at in [5_000_u64, 300_000, 40 << 20, 70 << 20] {
        holes.write_all_at(b"data", at)?;
    }
    holes.set_len((80 << 20) + 3)?;
    drop(holes);
    fs::create_dir(root.join("many"))?;
    for number in 0..500 {
        fs::write(root.join(format!("many/{number:0100}")), number.to_string())?;
    }
    symlink("many/../large", root.join("short"))?;
    symlink(format!("{}large", "./".repeat(100)), root.join("long"))?;
    let expected = [("large", content.clone()), ("long", content.clone()), ("short", content)];
    let holes = fs::read(root.join("holes"))?;
    for options in [
        "-t ext2",
        "-t ext2 -b 4096",
        "-t ext2 -r 0 -I 128",
        "-t ext3",
        "-t ext4 -b 1024",
        "-t ext4 -b 2048 -I 512",
        "-t ext4 -O ^extents,^64bit",
        "-t ext4 -O meta_bg,^resize_inode -b 1024 -g 1024",
        "-t ext4 -O ^metadata_csum,uninit_bg",
        "-t ext4 -O metadata_csum_seed,large_dir,mmp",
    ] {
        let disk = tempfile::NamedTempFile::new()?.into_temp_path();
        let made = Run::new("mke2fs").args(["-q", "-F"]).args(options.split(' ')).arg("-d").arg(root);
        made.arg(&disk).arg("128M").success()?;
        let mut files = Ext4Files::new(File::open(&disk)?)?;
        let mut read = |path: &str| {
            let mut bytes = Vec::new();
            files.read(path.as_bytes(), &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            Ok::<_, plyfold_core::Error>(bytes)
        };
        for (path, content) in &expected {
            assert!(read(path)? == *content, "{options}: {path}");
        }
        assert!(read("holes")? == holes, "{options}");
        for number in [0, 250, 499] {
            assert_eq!(read(&format!("many/{number:0100}"))?, number.to_string().as_bytes(), "{options}");
        }
        assert_eq!(files.list(b"many")?.len(), 500, "{options}");
    }
    Ok(())
}

/// A file, and how many bytes were read of it.
struct Counted(File, Rc<Cell<u64>>);

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(bytes)?;
        self.1.set(self.1.get() + count as u64);
        Ok(count)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Trees of one and two levels by each hash, over signed and unsigned characters.
pub(crate) fn names_are_found_by_each_hash() -> Verdict {
    for (hash, flags) in
        [("legacy", 1), ("half_md4", 1), ("tea", 1), ("legacy", 2), ("half_md4", 2), ("tea", 2)]
    {
        let image = tempfile::NamedTempFile::new()?.into_temp_path();
        let made = Run::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-b", "1024"]);
        made.arg(&image).arg("64M").success()?;
        Run::new("tune2fs").arg("-E").arg(format!("hash_alg={hash}")).arg(&image).success()?;
        Run::new("debugfs").args(["-w", "-R", &format!("ssv flags {flags}")]).arg(&image).success()?;
        let mount = Mount::new("ext4", &image, "loop")?;
        let names = |count: u32| {
            (0..count).map(|at| [&b"\xff\x80-a-long-name-of-"[..], at.to_string().as_bytes()].concat())
        };
        for (folder, count) in [("one", 1000), ("two", 8000)] {
            let folder = mount.path().join(folder);
            fs::create_dir(&folder)?;
            for name in names(count) {
                File::create(folder.join(OsStr::from_bytes(&name)))?;
            }
        }
        mount.unmount()?;
        let read = Rc::new(Cell::new(0));
        let mut files = Ext4Files::new(Counted(File::open(&image)?, Rc::clone(&read)))?;
        for (folder, count) in [("one", 1000), ("two", 8000)] {
            read.set(0);
            for name in names(count).step_by(7) {
                let path = [folder.as_bytes(), b"/", &name].concat();
                let found = files.file(&path, false);
                assert!(found.is_ok_and(|file| file.name == name), "{hash} {flags}: {}", path.escape_ascii());
            }
            let each = read.get() / u64::from(count / 7);
            assert!(each < 12 << 10, "{hash} {flags}: {each} bytes are read for a name");
            let missing = files.file(format!("{folder}/none").as_bytes(), false);
            assert!(missing.is_err_and(|error| *error.kind() == ErrorKind::NotFound));
        }
    }
    Ok(())
}

pub(crate) fn a_summary_is_what_dumpe2fs_says() -> Verdict {
    let path = disk(&Ext4Upper::new(300 * MIB)?.label("a label")?)?;
    let said = Run::new("dumpe2fs").arg("-h").arg(&path).success()?.stdout;
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("dumpe2fs has the field");
        line.trim_start_matches(':').trim().to_owned()
    };
    let summary = Summary::read(File::open(&path)?)?;
    assert_eq!(field("Filesystem features"), summary.features.join(" "));
    for (name, ours) in [
        ("Inode count", summary.inodes.to_string()),
        ("Block count", summary.blocks.to_string()),
        ("Free blocks", summary.free_blocks.to_string()),
        ("Free inodes", summary.free_inodes.to_string()),
        ("Block size", summary.block_size.to_string()),
        ("Inode size", summary.inode_size.to_string()),
        ("Filesystem volume name", String::from_utf8_lossy(&summary.label).into_owned()),
        ("Filesystem state", if summary.is_clean { "clean" } else { "not clean" }.to_owned()),
        ("Filesystem UUID", uuid(summary.uuid)),
    ] {
        assert_eq!(field(name), ours, "{name}");
    }
    Ok(())
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
