//! Our reader on journals that have to be replayed, against the kernel and e2fsck, which replay them.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Mount, Run, Verdict};
use plyfold_core::ErrorKind;
use plyfold_core::files::{FileType, Files as _};
use plyfold_ext4::{Ext4Files, Ext4Upper, Summary};
use tempfile::{NamedTempFile, TempPath};

use super::{MIB, disk};

/// What is compared of a file: its path, mode, size, time and content.
type Line = (String, u16, u64, (i64, i64), Vec<u8>);

/// What the reader shows.
fn read(image: &Path) -> plyfold_core::Result<Vec<Line>> {
    let mut files = Ext4Files::new(File::open(image)?)?;
    let (mut lines, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for file in files.list(folder.as_bytes())? {
            let path = format!("{folder}/{}", String::from_utf8_lossy(&file.name));
            let mut content = file.target.map(Vec::from).unwrap_or_default();
            match file.kind {
                FileType::Directory if path != "/lost+found" => folders.push(path.clone()),
                FileType::Regular => files.read(path.as_bytes(), &mut |piece| {
                    content.extend_from_slice(piece);
                    Ok(())
                })?,
                _ => {}
            }
            lines.push((path, file.mode, file.size, (file.mtime.seconds, file.mtime.nanos.into()), content));
        }
    }
    lines.sort();
    Ok(lines)
}

/// What the kernel shows.
fn walk(root: &Path) -> Result<Vec<Line>, Failure> {
    let (mut lines, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(folder.trim_start_matches('/')))? {
            let entry = entry?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let found = entry.metadata()?;
            let mut content = Vec::new();
            if found.is_dir() {
                // Only root may read it.
                if path != "/lost+found" {
                    folders.push(path.clone());
                }
            } else if found.is_symlink() {
                content = fs::read_link(entry.path())?.into_os_string().into_encoded_bytes();
            } else {
                content = fs::read(entry.path())?;
            }
            let size = if found.is_dir() { 0 } else { found.len() };
            let time = (found.mtime(), found.mtime_nsec());
            lines.push((path, (found.mode() & 0o7777) as u16, size, time, content));
        }
    }
    lines.sort();
    Ok(lines)
}

/// The paths of lines that are not in both.
fn differences(left: &[Line], right: &[Line]) -> Vec<String> {
    let missing = |from: &[Line], of: &[Line]| {
        let lines = from.iter().filter(|line| of.binary_search(line).is_err());
        lines
            .map(|(path, mode, size, time, _)| format!("{path} {mode:o} {size} {time:?}"))
            .collect::<Vec<_>>()
    };
    [missing(left, right), missing(right, left)].concat()
}

fn copy(image: &Path) -> Result<TempPath, Failure> {
    let copy = NamedTempFile::new()?.into_temp_path();
    fs::copy(image, &copy)?;
    Ok(copy)
}

fn mke2fs(options: &str) -> Result<TempPath, Failure> {
    let image = NamedTempFile::new()?.into_temp_path();
    let made = Run::new("mke2fs").args(["-q", "-F"]).args(options.split(' '));
    made.arg(&image).arg("64M").success()?;
    Ok(image)
}

fn debugfs(image: &Path, lines: &str) -> Result<String, Failure> {
    let mut script = NamedTempFile::new()?;
    script.write_all(lines.as_bytes())?;
    Ok(Run::new("debugfs").arg("-w").arg("-f").arg(script.path()).arg(image).success()?.stdout)
}

/// Replays the journal of a copy.
fn repaired(image: &Path) -> Result<TempPath, Failure> {
    let copy = copy(image)?;
    let said = Run::new("e2fsck").arg("-fy").arg(&copy).output()?;
    assert!(said.status.code().is_some_and(|code| code <= 1), "{said}");
    assert!(said.to_string().contains("recovering journal"), "{said}");
    Ok(copy)
}

/// Writes files so that all of it is in the journal, and most of it not yet in its place.
fn write_files(root: &Path, turn: u32) -> Verdict {
    let synced = |path: &Path, content: &[u8]| {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    let folder = root.join(format!("folder-{turn}"));
    fs::create_dir(&folder)?;
    for number in 0..400 {
        fs::write(folder.join(format!("a-long-name-of-a-file-{number}")), number.to_string())?;
    }
    // Blocks that look like those of a journal, and more than the journal holds.
    let escaped = [&0xc03b_3998_u32.to_be_bytes()[..], &[turn as u8; 4092]].concat().repeat(20);
    synced(&folder.join("escaped"), &escaped)?;
    for number in 0..8 {
        synced(&root.join(format!("large-{number}")), &vec![(turn * 8 + number) as u8; 500_000])?;
    }
    // Directories that are gone: their blocks are revoked, and become those of files.
    let gone = root.join("gone");
    fs::create_dir(&gone)?;
    for number in 0..600 {
        fs::write(gone.join(format!("another-long-name-of-a-file-{number}")), "")?;
    }
    File::open(&gone)?.sync_all()?;
    fs::remove_dir_all(&gone)?;
    synced(&root.join(format!("reused-{turn}")), &vec![0xa5; 2_000_000])?;
    std::os::unix::fs::symlink("../large-1", folder.join("link"))?;
    Ok(synced(&folder.join("last"), b"last")?)
}

pub(crate) fn a_journal_of_the_kernel_is_read_as_if_it_was_replayed() -> Verdict {
    for (options, mounted) in [
        ("", "loop"),
        ("-t ext4 -J size=4", "loop"),
        ("-t ext4 -J size=16", "loop,data=journal"),
        ("-t ext4 -J size=14 -b 1024 -O ^64bit", "loop,data=journal"),
        ("-t ext4 -J size=8 -O ^metadata_csum", "loop"),
        ("-t ext4 -J size=8 -O ^metadata_csum", "loop,journal_checksum"),
        ("-t ext4 -J size=8", "loop,data=writeback,journal_async_commit"),
        ("-t ext3 -J size=4 -b 1024", "loop"),
        ("-t ext3 -J size=20", "loop,data=journal"),
    ] {
        let image = if options.is_empty() { disk(&Ext4Upper::new(64 * MIB)?)? } else { mke2fs(options)? };
        let mount = Mount::new("ext4", &*image, mounted)?;
        let case = format!("{options} {mounted}");
        for turn in 0..3 {
            write_files(mount.path(), turn)?;
            // What a crash leaves.
            let crashed = copy(&image)?;
            assert!(Summary::read(File::open(&crashed)?)?.needs_recovery, "{case}");
            let found = read(&crashed).map_err(|e| Failure::new(format!("{case}: {e:?}")))?;
            let other = copy(&crashed)?;
            let replayed = Mount::new("ext4", &*other, "loop")?;
            let expected = walk(replayed.path())?;
            replayed.unmount()?;
            assert_eq!(differences(&found, &expected), [""; 0], "{case}");
            assert!(found.iter().any(|line| line.0 == format!("/folder-{turn}/last")), "{case}");
            // Without its journal it is another.
            debugfs(&crashed, "feature -needs_recovery\n")?;
            assert!(read(&crashed).map_or(true, |files| files != expected), "without {case} {turn}");
        }
        mount.unmount()?;
    }
    Ok(())
}

/// Journals of each version of checksums, with blocks that are revoked, not committed, and that begin with the journal's magic.
pub(crate) fn journals_of_all_versions_are_read_as_e2fsck_replays_them() -> Verdict {
    let escaped = NamedTempFile::new()?;
    fs::write(&escaped, [&0xc03b_3998_u32.to_be_bytes()[..], &[1; 1020], &[2; 3072]].concat())?;
    let wrong = NamedTempFile::new()?;
    fs::write(&wrong, vec![b'!'; 16384])?;
    let tree = tempfile::tempdir()?;
    fs::write(tree.path().join("file"), vec![b'.'; 12 * 4096])?;
    for (features, version) in [
        ("^metadata_csum,64bit", ""),
        ("^metadata_csum,^64bit", ""),
        ("^metadata_csum,64bit", "-c"),
        ("^metadata_csum,^64bit", "-c"),
        ("metadata_csum,64bit", "-c -v 2"),
        ("metadata_csum,^64bit", "-c -v 2"),
        ("metadata_csum,64bit", "-c -v 3"),
        ("metadata_csum,^64bit", "-c -v 3"),
    ] {
        for block_size in [1024, 4096] {
            let case = format!("{features} {version} {block_size}");
            let folder = tree.path().display();
            let image = mke2fs(&format!("-t ext4 -b {block_size} -O {features} -d {folder}"))?;
            let said = debugfs(&image, "blocks /file\n")?;
            let all = said.lines().last().unwrap_or_default().split_ascii_whitespace();
            let all: Vec<u64> = all.map(|block| block.parse().expect("a block")).collect();
            assert_eq!(all.len(), 12 * 4096 / block_size, "{said}");
            let [escaped, wrong] = [&escaped, &wrong].map(|file| file.path().display());
            // debugfs makes no right checksums of version 1 where blocks are revoked.
            let (reused, revoke) =
                if version == "-c" { (8, String::new()) } else { (3, format!("jw -r {}\n", all[3])) };
            let lines = [
                format!("jo {version}\njw -b {},{} {wrong}\n", all[2], all[reused]),
                format!("jw -b {} {escaped}\n{revoke}jw -b {} {escaped}\n", all[0], all[4]),
                revoke.clone(),
                format!("jw -b {} -c {wrong}\njc\n", all[7]),
            ];
            debugfs(&image, &lines.concat())?;
            let found = read(&image).map_err(|e| Failure::new(format!("{case}: {e:?}")))?;
            assert_eq!(differences(&found, &read(&repaired(&image)?)?), [""; 0], "{case}");
            let content = &found.iter().find(|line| line.0 == "/file").expect("it is there").4;
            let kinds: Vec<u8> = content.chunks(block_size).map(|block| block[8]).collect();
            assert_eq!(kinds[..8], [1, b'.', b'!', b'.', 1, b'.', b'.', b'.'], "{case}");
            assert_eq!(content[..4], 0xc03b_3998_u32.to_be_bytes(), "{case}");
            if (block_size == 1024) == features.ends_with("^64bit") {
                damage(&image, version, &case)?;
            }
        }
    }
    Ok(())
}

/// What e2fsck finds damaged in a journal is damaged here.
fn damage(image: &Path, version: &str, case: &str) -> Verdict {
    let layout = debugfs(image, "logdump -S\nbmap <8> 0\nbmap <8> 1\nbmap <8> 2\nbmap <8> 4\n")?;
    let places: Vec<u64> = layout.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let [superblock, descriptor, data, commit] = places[..] else {
        return Err(Failure::new(layout));
    };
    let size = u64::from(Summary::read(File::open(image)?)?.block_size);
    let has_sums = !version.is_empty();
    // Bytes of its superblock, a descriptor, data, and a commit block.
    for (block, byte, is_bad) in [
        (superblock, 0x03, true),
        (superblock, 0x0d, true),
        (superblock, 0x10, true),
        (superblock, 0x2f, true),
        (superblock, 0x60, version.contains('v')),
        (descriptor, 200, has_sums),
        (data, 1000, has_sums),
        (commit, 0x33, version.contains('v')),
    ] {
        let damaged = copy(image)?;
        let file = File::options().read(true).write(true).open(&damaged)?;
        let (mut value, at) = ([0], block * size + byte);
        file.read_exact_at(&mut value, at)?;
        file.write_all_at(&[value[0] ^ 1], at)?;
        let found = read(&damaged);
        let kind = found.as_ref().map_err(|e| e.kind().clone()).map(drop);
        let expected = match byte {
            _ if !is_bad => Ok(()),
            0x2f => Err(ErrorKind::Unsupported),
            _ => Err(ErrorKind::Corrupt),
        };
        assert_eq!(kind, expected, "{case}: byte {byte} of {block}");
        if byte != 0x2f {
            let said = Run::new("e2fsck").arg("-fy").arg(&damaged).output()?.to_string();
            let is_told = ["invalid journal", "was corrupt", "checksum error", "Journal superblock"];
            let is_told = is_told.iter().any(|told| said.contains(told));
            assert_eq!(is_told, is_bad, "{case}: byte {byte} of {block}: {said}");
        }
    }
    Ok(())
}

pub(crate) fn fast_commits_and_journals_elsewhere_are_refused() -> Verdict {
    let image = mke2fs("-t ext4 -J size=8 -O fast_commit")?;
    let mount = Mount::new("ext4", &*image, "loop")?;
    fs::write(mount.path().join("first"), "first")?;
    rustix::fs::sync();
    assert!(read(&copy(&image)?)?.iter().any(|line| line.0 == "/first"));
    let mut file = File::create(mount.path().join("fast"))?;
    file.write_all(b"fast")?;
    file.sync_all()?;
    drop(file);
    let error = read(&copy(&image)?).expect_err("fast commits are refused");
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("e2fsck")), "{error:?}");
    mount.unmount()?;
    assert!(read(&image)?.iter().any(|line| line.0 == "/fast"));

    let journal = mke2fs("-b 4096 -O journal_dev")?;
    assert_eq!(*read(&journal).expect_err("it has no files").kind(), ErrorKind::Unsupported);
    let image = mke2fs("-t ext4 -b 4096 -O ^has_journal,^metadata_csum")?;
    let file = File::options().read(true).write(true).open(&image)?;
    for (feature, kind) in [(0x60, ErrorKind::Corrupt), (0x5c, ErrorKind::Unsupported)] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1024 + feature)?;
        file.write_all_at(&[byte[0] | 4], 1024 + feature)?;
        assert_eq!(*read(&image).expect_err("its journal is not there").kind(), kind);
    }
    Ok(())
}
