//! Disks: merged images, whole images, hash trees.

use std::path::Path;

use super::shared::{LIKE_A_LAYER, described, rootfs, this_program};
use crate::compare::bench::{Bench, Found};
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::compare::{check, inputs};
use crate::result::Result;

pub(crate) fn merge(bench: &Bench) -> Result<Record> {
    let files = bench.size(50_000, 5_000);
    let (base, top) = (bench.at("base.tar"), bench.at("top.tar"));
    if !top.exists() {
        inputs::stacked(&base, &top, files)?;
    }
    let (_, mut ours) = this_program(bench, &["merge"])?;
    ours = ours.out(&bench.at("merged"));
    let mut layers = Vec::new();
    for tar in [&base, &top] {
        let layer = tar.with_extension("ours");
        bench.ours(&["layer", "--quiet", "--no-sync"]).arg(tar).arg("--out").out(&layer).run()?;
        ours = ours.arg(layer);
        layers.push(tar.with_extension("mkfs"));
    }
    let theirs = bench.rival("mkfs.erofs", "mkfs.erofs", |mkfs| {
        let converted = |tar: &Path, layer: &Path| Program::new(mkfs).args(LIKE_A_LAYER).out(layer).arg(tar);
        let merged =
            Program::new(mkfs).args(["--quiet", "--aufs", "--ovlfs-strip=1"]).out(&bench.at("merged-mkfs"));
        let both = merged.args(&layers);
        // Made once.
        if layers.iter().all(|layer| layer.exists()) {
            return both;
        }
        both.after(converted(&base, &layers[0])).after(converted(&top, &layers[1]))
    });
    let input = format!("{files} files, and {files} over them of which a tenth are whiteouts");
    let title = ("Merged image of two layers", input.as_str());
    bench.contest(title, ("plyfold", ours), vec![theirs.map(|rival| rival.goal(0.2))], || {
        let inodes = |name: &str| -> Result<u64> {
            let image = std::fs::read(bench.at(name))?;
            let bytes = image.get(1024 + 16..1024 + 24).ok_or("an EROFS image has a superblock")?;
            Ok(u64::from_le_bytes(bytes.try_into()?))
        };
        let ours = inodes("merged")?;
        match inodes("merged-mkfs") {
            Ok(theirs) if theirs != ours => Err(format!("{ours} inodes, and {theirs}").into()),
            _ => Ok(format!("Checked: the merged images have {ours} inodes.")),
        }
    })
}

pub(crate) fn flat(bench: &Bench) -> Result<Record> {
    compressed(bench, "One EROFS image of a tar", &[], &[])
}

pub(crate) fn lz4(bench: &Bench) -> Result<Record> {
    compressed(
        bench,
        "The same by LZ4 in clusters of 64 KiB",
        &["compress=lz4", "cluster=64K"],
        &["-zlz4", "-C65536"],
    )
}

pub(crate) fn lz4hc(bench: &Bench) -> Result<Record> {
    let ours = ["compress=lz4hc,9", "cluster=64K"];
    compressed(bench, "The same by LZ4HC, level 9, in clusters of 64 KiB", &ours, &["-zlz4hc,9", "-C65536"])
}

pub(crate) fn zstandard(bench: &Bench) -> Result<Record> {
    let ours = ["compress=zstd,3", "cluster=64K"];
    compressed(
        bench,
        "The same by zstd, level 3, in clusters of 64 KiB",
        &ours,
        &["-zzstd,level=3", "-C65536"],
    )
}

fn compressed(bench: &Bench, title: &str, options: &[&str], theirs: &[&str]) -> Result<Record> {
    let tar = rootfs(bench)?;
    let (out, other) = (bench.at("ours.erofs"), bench.at("mkfs.erofs"));
    let ours = bench.ours(&["layer", "--quiet", "--as", "erofs", "--no-digests", "--no-sync"]).arg(&tar);
    let ours = options.iter().fold(ours, |ours, option| ours.arg("-m").arg(option)).arg("--out").out(&out);
    let theirs = bench.rival("mkfs.erofs", "mkfs.erofs", |path| {
        Program::new(path).args(["--quiet", "--tar=f"]).args(theirs).out(&other).arg(&tar)
    });
    let rivals = vec![theirs.map(|rival| rival.goal(0.6))];
    bench.contest(
        (title, &described(bench, &tar)),
        ("plyfold layer --as erofs --no-sync", ours),
        rivals,
        || {
            let made: Vec<&Path> = [other.as_path()].into_iter().filter(|path| path.exists()).collect();
            let checked = check::images(bench, &out, &made)?;
            let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len() / 1_000_000);
            Ok(format!("{checked} Sizes: {} MB and {} MB.", size(&out), size(&other)))
        },
    )
}

pub(crate) fn whole_erofs(bench: &Bench) -> Result<Record> {
    whole(bench, "erofs", 1.2)
}

pub(crate) fn whole_ext4(bench: &Bench) -> Result<Record> {
    whole(bench, "ext4", 2.0)
}

/// From the image of a layer, as it is kept after a pull, beside a copy of the result.
fn whole(bench: &Bench, format: &str, goal: f64) -> Result<Record> {
    let tar = rootfs(bench)?;
    let (layer, result) = (bench.at("rootfs.layer"), bench.at("result"));
    bench.ours(&["layer", "--quiet", "--no-sync"]).arg(&tar).arg("--out").out(&layer).run()?;
    let ours = |out: &Path| {
        Ok::<_, Box<dyn std::error::Error>>(
            this_program(bench, &["whole-of", format])?.1.out(out).arg(&layer),
        )
    };
    ours(&result)?.run()?;
    let mut rivals = vec![bench.rival("cp", "cp --reflink=never of the result", |path| {
        Program::new(path).arg("--reflink=never").arg(&result).out(&bench.at("copied"))
    })];
    rivals[0] = std::mem::replace(&mut rivals[0], Err(String::new())).map(|rival| rival.goal(goal));
    if format == "ext4" {
        rivals.push(mke2fs(bench, &tar)?.map(|rival| rival.goal(0.5)));
    }
    let title = format!("One {format} image of a layer's image");
    bench.contest((&title, &described(bench, &tar)), ("plyfold", ours(&bench.at("whole"))?), rivals, || {
        let same = check::listings(bench, &bench.at("whole"), &layer)?;
        Ok(format!("Checked: the image lists the same {same} entries as the layer's."))
    })
}

pub(crate) fn ext4_of_tar(bench: &Bench) -> Result<Record> {
    let tar = rootfs(bench)?;
    let ours = bench.ours(&["layer", "--quiet", "--as", "ext4", "-m", "size=4G", "--no-sync"]).arg(&tar);
    let ours = ours.arg("--out").out(&bench.at("whole"));
    let tree = unpacked(bench, &tar)?;
    let copy = bench.rival("cp", "cp -a of its tree", |path| {
        Program::new(path).args(["-a", "--reflink=never"]).arg(&tree).out(&bench.at("copied"))
    });
    let rivals = vec![mke2fs(bench, &tar)?, copy.map(|rival| rival.goal(2.0))];
    let input = described(bench, &tar);
    bench.contest(("ext4 of a tar", &input), ("plyfold layer --as ext4 --no-sync", ours), rivals, || {
        let found = check::entries(bench, &bench.at("whole"))?;
        Ok(format!("Checked: the disk lists {found} entries."))
    })
}

fn mke2fs(bench: &Bench, tar: &Path) -> Result<Found> {
    let tree = unpacked(bench, tar)?;
    Ok(bench.rival("mke2fs", "mke2fs -d of its tree", |path| {
        Program::new(path)
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&tree)
            .out(&bench.at("whole.mke2fs"))
            .arg("4G")
    }))
}

fn unpacked(bench: &Bench, tar: &Path) -> Result<std::path::PathBuf> {
    bench.input("tree", |path| {
        std::fs::create_dir_all(path)?;
        Program::new("tar").args(["--numeric-owner", "-xpf"]).arg(tar).arg("-C").arg(path).run()?;
        Ok(())
    })
}

pub(crate) fn verity(bench: &Bench) -> Result<Record> {
    let bytes = bench.size(800 << 20, 200 << 20);
    let data = bench.input("verity.data", |path| inputs::blocks(path, bytes))?;
    let tree = bench.at("verity.tree");
    let ours = bench.ours(&["verity", "--quiet"]).arg(&data).arg("--no-sync").arg("--hash-tree").out(&tree);
    let rivals = vec![
        bench
            .rival("openssl", "openssl dgst -sha256, which writes nothing", |path| {
                Program::new(path).args(["dgst", "-sha256"]).arg(&data)
            })
            .map(|rival| rival.goal(1.2)),
        bench.rival("veritysetup", "veritysetup format", |path| {
            Program::new(path).arg("format").arg(&data).out(&bench.at("verity.theirs"))
        }),
    ];
    let input = format!("a file of {} MiB", bytes >> 20);
    bench.contest(("dm-verity hash tree", &input), ("plyfold verity --no-sync", ours), rivals, || match bench
        .peers
        .find("veritysetup")
    {
        Ok(verify) => {
            let root = bench.ours(&["verity", "--json"]).arg(&data).output()?;
            let root: serde_json::Value = serde_json::from_slice(&root)?;
            let root = root["hash_tree"]["root_hash"].as_str().ok_or("plyfold says no root hash")?.to_owned();
            Program::new(&verify.path).arg("verify").arg(&data).arg(&tree).arg(root).run()?;
            Ok("Checked: veritysetup verifies the file by plyfold's tree.".to_owned())
        }
        Err(reason) => Ok(format!("The tree was not checked, since {reason}.")),
    })
}

pub(crate) fn upper(bench: &Bench) -> Result<Record> {
    let ours = bench.ours(&["disk", "--quiet", "--size", "1T", "--no-sync", "--out"]).out(&bench.at("upper"));
    let theirs = bench.rival("mke2fs", "mke2fs", |path| {
        Program::new(path).args(["-q", "-t", "ext4"]).out(&bench.at("upper.mke2fs")).arg("1T")
    });
    let rivals: Vec<Found> = vec![theirs];
    bench.contest(("Empty ext4 of 1 TiB", "none"), ("plyfold disk --no-sync", ours), rivals, || {
        Program::new("e2fsck").args(["-f", "-n"]).arg(bench.at("upper")).run()?;
        Ok("Checked: e2fsck finds nothing.".to_owned())
    })
}
