//! Damaged disks: what the kernel shows of one is what the reader shows, or one of the two refuses it.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_core::files::{FileInfo, FileType, Files};
use plyfold_core::{Error, Result};
use plyfold_ext4::Ext4Files;

/// Disks of each form.
const ROUNDS: usize = 120;
/// Larger files, and more of them, are not compared.
const MOST: u64 = 1 << 24;

/// What makes all disks the same.
const TIME: &str = "1700000000";
const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// Path, type, mode, owner, group, seconds and nanoseconds, size, target or content.
type Line = (Vec<u8>, FileType, u16, u32, u32, i64, i64, u64, Vec<u8>);

pub(crate) fn a_damaged_disk_is_the_same_to_the_kernel() -> Verdict {
    // A linear congruential generator: the same damage every time.
    let mut state = 5_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let disk = tempfile::NamedTempFile::new()?.into_temp_path();
    for options in ["-t ext2", "-t ext4 -O ^metadata_csum,^has_journal", "-t ext4 -O ^has_journal"] {
        let made = Run::new("mke2fs").env("E2FSPROGS_FAKE_TIME", TIME).args(["-q", "-F", "-b", "1024"]);
        let made = made.args(["-U", UUID, "-E", &format!("hash_seed={UUID}")]).args(options.split(' '));
        made.arg(&disk).arg("4M").success()?;
        fill(&disk)?;
        let sound = fs::read(&disk)?;
        // Most of what is not zero is metadata here.
        let used: Vec<usize> = (1024..sound.len()).filter(|at| sound[*at] != 0).collect();
        let (mut same, mut refused) = (0, [0, 0]);
        for round in 0..ROUNDS {
            let mut bytes = sound.clone();
            for _ in 0..=random(2) {
                let at = (used[random(used.len())] + random(3) - 1).min(bytes.len() - 1);
                bytes[at] = [0, 0xff, 1, 0x80, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(6)];
            }
            fs::write(&disk, &bytes)?;
            let ours = by_reader(&disk);
            let kernels = ours.as_ref().and_then(|_| by_kernel(&disk));
            match (ours, kernels) {
                (Some(ours), Some(kernels)) => {
                    let different = ours.iter().zip(&kernels).find(|(ours, kernels)| ours != kernels);
                    assert_eq!(different, None, "{options}, round {round}: left ours, right the kernel's");
                    assert_eq!(ours.len(), kernels.len(), "{options}, round {round}: number of names");
                    same += 1;
                }
                (ours, _) => refused[usize::from(ours.is_some())] += 1,
            }
        }
        assert!(same > ROUNDS / 8, "{options}: {same} are the same; refused {refused:?}");
    }
    Ok(())
}

/// Makes every kind of file, and directories and files that take more than their inodes.
fn fill(disk: &Path) -> Verdict {
    let source = tempfile::tempdir()?;
    let (text, holes, script) =
        (source.path().join("text"), source.path().join("holes"), source.path().join("script"));
    fs::write(&text, "some text")?;
    let file = File::create(&holes)?;
    for number in 0..9 {
        file.write_all_at(b"data", number * 300_000)?;
    }
    let (text, holes, dots) = (text.display(), holes.display(), "./".repeat(50));
    let many: Vec<String> = (0..60).map(|number| format!("write {text} many/{number:030}\n")).collect();
    let commands = format!(
        "mkdir a\nmkdir a/b\nmkdir a/b/c\nmkdir many\n{}write {text} a/text\nwrite {holes} a/holes\n\
         symlink a/b/short ../a/text\nsymlink a/long {dots}\nln a/text a/b/same\nsif a/text links_count 2\n\
         cd a/b/c\nmknod fifo p\nmknod device c 1 3\n",
        many.concat()
    );
    fs::write(&script, commands)?;
    let made = Run::new("debugfs").env("E2FSPROGS_FAKE_TIME", TIME).arg("-w").arg("-f").arg(&script);
    made.arg(disk).success()?;
    Run::new("e2fsck").args(["-f", "-n"]).arg(disk).success()?;
    Ok(())
}

fn by_reader(path: &Path) -> Option<Vec<Line>> {
    let mut files = Ext4Files::new(File::open(path).ok()?).ok()?;
    let mut lines = Vec::new();
    read_below(&mut files, b"", &mut lines).ok()?;
    Some(sorted(lines))
}

fn read_below(files: &mut Ext4Files, directory: &[u8], lines: &mut Vec<Line>) -> Result<()> {
    for listed in files.list(directory)? {
        let path = [directory, b"/", &listed.name].concat();
        // By its path, as the kernel finds it.
        let file = files.file(&path, false)?;
        let text = match file.kind {
            FileType::Regular => content(files, &path, &file)?,
            _ => file.target.as_deref().map(<[u8]>::to_vec).unwrap_or_default(),
        };
        // A damaged directory may be in itself.
        if lines.len() as u64 > MOST / 1024 || path.len() > 100 {
            return Err(Error::limit("so many files are not read here"));
        }
        let time = file.mtime;
        let size = if file.kind == FileType::Directory { 0 } else { file.size };
        lines.push((
            path.clone(),
            file.kind,
            file.mode,
            file.uid,
            file.gid,
            time.seconds,
            time.nanos.into(),
            size,
            text,
        ));
        if file.kind == FileType::Directory {
            read_below(files, &path, lines)?;
        }
    }
    Ok(())
}

fn content(files: &mut Ext4Files, path: &[u8], file: &FileInfo) -> Result<Vec<u8>> {
    if file.size > MOST {
        return Err(Error::limit("a file of that size is not read here"));
    }
    let mut bytes = Vec::new();
    files.read(path, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

fn by_kernel(path: &Path) -> Option<Vec<Line>> {
    let mount = Mount::new("ext4", path, "loop,ro,errors=continue").ok()?;
    let mut lines = Vec::new();
    show_below(mount.path(), b"", &mut lines).ok()?;
    Some(sorted(lines))
}

fn show_below(folder: &Path, directory: &[u8], lines: &mut Vec<Line>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (at, path) = (entry.path(), [directory, b"/", &entry.file_name().into_vec()].concat());
        let found = fs::symlink_metadata(&at)?;
        let kind = found.file_type();
        let (kind, text) = match () {
            () if kind.is_dir() => (FileType::Directory, Vec::new()),
            () if kind.is_file() => (FileType::Regular, fs::read(&at)?),
            () if kind.is_symlink() => {
                (FileType::Symlink, fs::read_link(&at)?.as_os_str().as_bytes().to_vec())
            }
            () if kind.is_fifo() => (FileType::Fifo, Vec::new()),
            () if kind.is_socket() => (FileType::Socket, Vec::new()),
            () if kind.is_char_device() => (FileType::CharDevice, Vec::new()),
            () => (FileType::BlockDevice, Vec::new()),
        };
        let size = if matches!(kind, FileType::Regular | FileType::Symlink) { found.len() } else { 0 };
        lines.push((
            path.clone(),
            kind,
            (found.mode() & 0o7777) as u16,
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            size,
            text,
        ));
        if kind == FileType::Directory {
            show_below(&at, &path, lines)?;
        }
    }
    Ok(())
}

fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}
