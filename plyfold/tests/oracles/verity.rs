//! Hash trees of what `materialize` makes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use plyfold::materializers::verity::TreeLayout;
use plyfold::{Materializers, Options, PartitionRange, Rootfs, TreePlace, VerifiedFile};
use plyfold_conformance::oracle::{Aspect, Failure, Mount, Run, Verdict};

use super::Work;

/// The file in the store that a layer is a link to stays as it is, and the layer can be mounted with a tree behind it.
pub(crate) fn layers_have_the_trees_of_veritysetup() -> Verdict {
    let work = Work::new();
    let disks = work.disks_at(&Rootfs::erofs_layers(), &work.dir.path().join("set"));
    let layer = disks.layers.first().ok_or_else(|| Failure::new("no layer"))?;
    let (before, inode) = (fs::read(layer)?, fs::metadata(layer)?.ino());
    let stored = work.dir.path().join("stored");
    fs::hard_link(layer, &stored)?;
    let tree = work.dir.path().join("tree");
    let program = env!("CARGO_BIN_EXE_plyfold");
    let verity = |more: &[&str]| Run::new(program).arg("verity").arg(layer).args(["--json"]).args(more);
    let value = |said: &str, key: &str| {
        let document: serde_json::Value = serde_json::from_str(said)?;
        let found = document.get("hash_tree").unwrap_or(&document);
        Ok::<_, Failure>(found[key].to_string().trim_matches('"').to_owned())
    };
    let beside = verity(&["--hash-tree"]).arg(&tree).success()?;
    let root = value(&beside.stdout, "root_hash")?;
    Run::new("veritysetup").arg("verify").args([layer, &tree]).arg(&root).success()?;

    let appended = verity(&["--append", "--sidecar"]).success()?;
    assert_eq!(value(&appended.stdout, "root_hash")?, root);
    let offset = value(&appended.stdout, "hash_offset")?;
    let judge = Run::new("veritysetup").arg("verify").args([layer, layer]).arg(&root);
    judge.arg(format!("--hash-offset={offset}")).success()?;
    let sidecar = fs::read_to_string(format!("{}.dmverity", layer.display()))?;
    assert_eq!((value(&sidecar, "roothash")?, value(&sidecar, "hashoffset")?), (root.clone(), offset));
    verity(&["--check", &root]).success()?;
    assert!(fs::read(&stored)? == before && fs::metadata(layer)?.ino() != inode);
    Mount::new("erofs", layer, "ro,loop")?.unmount()?;
    Ok(())
}

/// A large disk that is mostly holes: its tree and root hash are those that veritysetup makes of all of it.
pub(crate) fn disks_of_holes_have_the_trees_of_veritysetup() -> Verdict {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (disk, ours, theirs) = (path("disk"), path("ours"), path("theirs"));
    let (file, size) = (File::create(&disk)?, 3_u64 << 30);
    file.set_len(size)?;
    for (number, offset) in [5, 1 << 20, (700 << 20) - 3, 1 << 30, size - 4096].into_iter().enumerate() {
        file.write_all_at(
            &vec![number as u8 + 1; 300 << (number * 2)][..4096.min(300 << (number * 2))],
            offset,
        )?;
    }
    let verity = |more: &[&str]| {
        Run::new(env!("CARGO_BIN_EXE_plyfold")).arg("verity").arg(&disk).args(["--json"]).args(more)
    };
    let made: serde_json::Value =
        serde_json::from_str(&verity(&["--hash-tree"]).arg(&ours).success()?.stdout)?;
    let text = |key: &str| made["hash_tree"][key].as_str().unwrap_or_default().to_owned();
    Run::new("veritysetup")
        .arg("format")
        .args([&disk, &theirs])
        .args([format!("--salt={}", text("salt")), format!("--uuid={}", text("uuid"))])
        .success()?;
    assert!(fs::read(&ours)? == fs::read(&theirs)?, "another tree than veritysetup's");
    let root = text("root_hash");
    verity(&["--check", &root]).success()?;
    verity(&["--check", &root, "--hash-tree"]).arg(&theirs).success()?;
    // A byte where there was a hole.
    file.write_all_at(&[1], 2 << 30)?;
    for tree in [&["--hash-tree".as_ref(), theirs.as_os_str()][..], &[]] {
        let said = verity(&["--check", &root]).args(tree).output()?;
        assert_eq!(said.status.code(), Some(5), "{said:?}");
    }
    Ok(())
}

/// Every form that has hash trees, of the whole sample: they are those that veritysetup makes, it verifies them and refuses
/// what was changed, and the kernel mounts what they are of.
pub(crate) fn every_form_has_the_trees_of_veritysetup() -> Verdict {
    let (work, formats) = (Work::new(), Materializers::linked()?);
    for (format, options, images) in [
        ("erofs", &["verity=append"][..], 1),
        ("erofs", &["verity=beside"], 1),
        ("erofs", &["verity=append", "block-size=512"], 1),
        ("erofs-layers", &["verity=append"], 2),
        ("erofs-layers", &["verity=beside"], 2),
        ("erofs-merged", &["verity=append"], 3),
        ("erofs-merged", &["verity=append", "block-size=1024"], 3),
        ("erofs-merged", &["verity=beside", "block-size=1024"], 3),
        ("erofs-tar", &["verity=append"], 2),
        ("erofs-tar", &["verity=beside"], 2),
        ("ext4", &["verity=append"], 1),
        ("ext4", &["verity=beside", "size=96M", "journal=4M"], 1),
        ("raw", &["verity=append"], 1),
        ("raw", &["verity=beside"], 1),
        ("raw", &["verity=beside", "block-size=512"], 1),
    ] {
        let case = format!("{format} {options:?}");
        let rootfs = Rootfs::named(format, &Options::parse(options.iter().copied())?, &formats)?;
        let disks = work.disks(&rootfs.clone().verified(true));
        let verified: Vec<VerifiedFile<'_>> = disks.verified().collect();
        // What overlayfs cannot show of the sample is merged, too.
        assert!(verified.len() >= images, "{case}: {verified:?}");
        for found in verified {
            judge(&work, &found).map_err(|e| Failure::new(format!("{case}: {e:?}")))?;
        }
        if let Some(disk) = &disks.ext4 {
            // It has no upper, and a directory that is e2fsck's.
            Run::new("e2fsck").arg("-fn").arg(disk).success()?;
            continue;
        }
        // The top layer says nothing of the root directory; an overlay of images alone shows that.
        let ignored: &[Aspect] = if format == "erofs-tar" { &[Aspect::Mtime] } else { &[] };
        work.mounted(&disks, ignored)?;
        let stacked = work.disks(&rootfs.verified(true).upper(64 << 20));
        work.mounted(&stacked, &[])?;
    }
    Ok(())
}

/// The trees on the disk that QEMU reads out of a VMDK, behind it or in its partitions.
pub(crate) fn vmdks_have_the_trees_of_veritysetup() -> Verdict {
    let formats = Materializers::linked()?;
    for (format, options) in [
        ("vmdk", &["verity=append"][..]),
        ("vmdk", &["verity=beside", "split=true"]),
        ("vmdk-gpt", &["verity=append"]),
        ("vmdk-gpt", &["verity=partition", "block-size=512"]),
        ("vmdk-stream", &["verity=append"]),
        ("vmdk-stream", &["of=erofs", "verity=append"]),
        ("vmdk-stream", &["of=gpt", "verity=partition"]),
    ] {
        let (work, case) = (Work::new(), format!("{format} {options:?}"));
        let rootfs = Rootfs::named(format, &Options::parse(options.iter().copied())?, &formats)?;
        let disks = work.disks(&rootfs.verified(true));
        let raw = work.dir.path().join("disk.raw");
        let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]);
        convert.arg(disks.vmdk.as_ref().unwrap_or(&disks.files[0].path)).arg(&raw).success()?;
        let partitions = disks.verified_partitions();
        if !partitions.is_empty() {
            let checked = Run::new("sgdisk").arg("-v").arg(&raw).success()?;
            assert!(checked.stdout.contains("No problems found"), "{case}: {}", checked.stdout);
        }
        let disk = File::open(&raw)?;
        let part = |name: &str, range: &PartitionRange| {
            let (path, mut bytes) = (work.dir.path().join(name), vec![0; range.size as usize]);
            disk.read_exact_at(&mut bytes, range.start)?;
            fs::write(&path, bytes)?;
            Ok::<_, Failure>(path)
        };
        let mut found = Vec::new();
        for of in disks.verified().filter(|of| !["erofs-layers", "erofs-merged"].contains(&&*of.disk.format))
        {
            // All of the disk is verified, but for the tree on it, and zeros behind that.
            let is_behind = of.tree.place == TreePlace::Append;
            let end = if is_behind { of.tree.hash_offset } else { fs::metadata(&raw)?.len() };
            assert_eq!(of.tree.data_size(), end, "{case}");
            let holder = if is_behind { raw.clone() } else { of.tree_file.to_owned() };
            found.push((raw.clone(), holder, of.tree.clone()));
        }
        for of in partitions {
            let name = |what| format!("{what}-{}", of.image.number);
            found.push((part(&name("image"), &of.image)?, part(&name("tree"), &of.holder)?, of.tree.clone()));
        }
        assert!(!found.is_empty(), "{case}: nothing is verified");
        for (image, holder, tree) in found {
            let verify = Run::new("veritysetup").arg("verify").args([&image, &holder]).arg(tree.root_hash());
            let verify = verify.arg(format!("--hash-offset={}", tree.hash_offset));
            verify.success().map_err(|e| Failure::new(format!("{case}: {e:?}")))?;
        }
    }
    Ok(())
}

fn judge(work: &Work, found: &VerifiedFile<'_>) -> Verdict {
    let (tree, offset) = (found.tree, found.tree.hash_offset.to_string());
    let at = |run: Run| if offset == "0" { run } else { run.arg(format!("--hash-offset={offset}")) };
    let verify = |data: &std::path::Path, tree_file: &std::path::Path| {
        at(Run::new("veritysetup").arg("verify").args([data, tree_file]).arg(tree.root_hash()))
    };
    let (image, holder) = (found.disk.path.as_path(), found.tree_file);
    verify(image, holder).success()?;
    let dump = at(Run::new("veritysetup").arg("dump").arg(holder)).success()?.stdout;
    let field = |name: &str| {
        let line = dump.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    assert_eq!(field("Salt"), tree.salt);
    assert_eq!(field("Data blocks"), tree.data_blocks.to_string());
    assert_eq!(field("Data block size").trim_end_matches(" [bytes]"), tree.data_block_size.to_string());

    // Its own tree of the same data, with this salt and this UUID.
    let (data, theirs) = (work.dir.path().join("data"), work.dir.path().join("theirs"));
    let bytes = fs::read(image)?;
    let size = tree.data_size() as usize;
    fs::write(&data, &bytes[..size])?;
    let _ = fs::remove_file(&theirs);
    Run::new("veritysetup")
        .arg("format")
        .args([&data, &theirs])
        .arg(format!("--salt={}", tree.salt))
        .arg(format!("--uuid={}", field("UUID")))
        .arg(format!("--data-block-size={}", tree.data_block_size))
        .arg(format!("--hash-block-size={}", tree.hash_block_size))
        .success()?;
    let ours = &fs::read(holder)?[tree.hash_offset as usize..];
    assert!(ours == fs::read(&theirs)?, "another tree than veritysetup's");

    // All of the image is verified: nothing is between its data and the tree.
    assert_eq!(
        if tree.place == TreePlace::Append { tree.hash_offset } else { bytes.len() as u64 },
        size as u64
    );
    let copy = work.dir.path().join("copy");
    fs::write(&copy, &bytes)?;
    let file = File::options().read(true).write(true).open(&copy)?;
    let holder = if holder == image { copy.as_path() } else { holder };
    for changed in [0, 1024, size / 2, size - 1] {
        file.write_all_at(&[!bytes[changed]], changed as u64)?;
        assert!(!verify(&copy, holder).output()?.status.success(), "byte {changed} was changed");
        file.write_all_at(&bytes[changed..=changed], changed as u64)?;
    }
    verify(&copy, holder).success()?;
    if tree.place == TreePlace::Append {
        let (layout, _) = TreeLayout::find(&file)?.ok_or_else(|| Failure::new("our tree is not found"))?;
        assert_eq!((layout.data_size(), layout.hash_offset()), (tree.data_size(), tree.hash_offset));
    }
    Ok(())
}
