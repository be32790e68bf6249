//! What `inspect` says of disks, and what their own tools say.

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Mount, Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder};
use serde_json::Value;

fn plyfold(words: &[&str], dir: &Path) -> Result<String, Failure> {
    let run = Run::new(env!("CARGO_BIN_EXE_plyfold")).args(words);
    Ok(run.arg("--store").arg(dir.join("store")).success()?.stdout)
}

fn inspected(path: &Path) -> Result<Value, Failure> {
    let said = Run::new(env!("CARGO_BIN_EXE_plyfold")).arg("inspect").arg(path).arg("--json").success()?;
    Ok(serde_json::from_str(&said.stdout)?)
}

fn sample(options: &str, dir: &Path) -> Verdict {
    let sample = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../examples/sample:latest");
    let mut words = vec!["materialize", sample, "--platform", "linux/amd64", "-q"];
    words.extend(options.split(' '));
    plyfold(&words, dir).map(drop)
}

/// The text behind a label in lines of `label: text`.
fn field<'a>(lines: &'a str, label: &str) -> &'a str {
    let found = lines.lines().find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(':'));
    found.unwrap_or_default().trim()
}

/// Partitions, in a disk of their own and in the VMDKs that QEMU reads.
pub(crate) fn partitions_are_those_of_sfdisk() -> Verdict {
    let dir = tempfile::tempdir()?;
    for (format, file) in [
        ("gpt -m verity=partition", "rootfs.gpt"),
        ("vmdk-gpt -m verity=append", "rootfs.vmdk"),
        ("vmdk-stream -m of=gpt", "rootfs.vmdk"),
    ] {
        let out = dir.path().join(format.replace(' ', "_"));
        sample(&format!("--as {format} --out {}", out.display()), dir.path())?;
        let found = inspected(&out.join(file))?;
        let raw = dir.path().join("raw");
        let (found, disk) = if file.ends_with("vmdk") {
            let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]);
            convert.arg(out.join(file)).arg(&raw).success()?;
            (&found["disk"], raw)
        } else {
            (&found, out.join(file))
        };
        let told: Value =
            serde_json::from_str(&Run::new("sfdisk").arg("--json").arg(&disk).success()?.stdout)?;
        let told = &told["partitiontable"];
        let same = |ours: &Value, theirs: &Value| {
            let theirs = theirs.as_str().unwrap_or_default().to_lowercase();
            assert_eq!(ours.as_str(), Some(theirs.as_str()), "{format}");
        };
        same(&found["guid"], &told["id"]);
        let (ours, theirs) =
            (found["partitions"].as_array().unwrap(), told["partitions"].as_array().unwrap());
        assert!(ours.len() == theirs.len() && ours.len() >= 3, "{format}: {found}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            same(&ours["guid"], &theirs["uuid"]);
            same(&ours["type"], &theirs["type"]);
            assert_eq!(ours["name"], theirs["name"], "{format}");
            for (key, of) in [("start", "start"), ("size", "size")] {
                assert_eq!(ours[key].as_u64(), theirs[of].as_u64().map(|sectors| sectors * 512), "{format}");
            }
            let number = ours["number"].to_string();
            let said = Run::new("sgdisk").args(["-i", &number]).arg(&disk).success()?.stdout;
            same(&ours["guid"], &field(&said, "Partition unique GUID").into());
        }
    }
    Ok(())
}

/// A file system that was mounted and written to, one with a journal to replay, and one without a journal.
pub(crate) fn file_systems_are_those_of_dumpe2fs() -> Verdict {
    let dir = tempfile::tempdir()?;
    sample(&format!("--as ext4 -m size=64M -m label=root --out {}/made", dir.path().display()), dir.path())?;
    let made = dir.path().join("made/rootfs.ext4");
    let theirs = dir.path().join("theirs.ext4");
    Run::new("mkfs.ext4")
        .args(["-q", "-L", "theirs", "-O", "^has_journal"])
        .arg(&theirs)
        .arg("32M")
        .success()?;
    let mounted = dir.path().join("mounted.ext4");
    fs::copy(&made, &mounted)?;
    let at = Mount::new("ext4", &mounted, "loop")?;
    fs::write(at.path().join("written"), vec![7; 3 << 20])?;
    let unclean = dir.path().join("unclean.ext4");
    Run::new("sync").arg("-f").arg(at.path()).success()?;
    fs::copy(&mounted, &unclean)?;
    at.unmount()?;
    for disk in [&made, &theirs, &mounted, &unclean] {
        let (ours, said) = (inspected(disk)?, Run::new("dumpe2fs").arg("-h").arg(disk).success()?.stdout);
        let case = format!("{}: {ours}\n{said}", disk.display());
        let theirs = |label| field(&said, label);
        for (key, label) in [
            ("blocks", "Block count"),
            ("free_blocks", "Free blocks"),
            ("reserved_blocks", "Reserved block count"),
            ("block_size", "Block size"),
            ("inodes", "Inode count"),
            ("free_inodes", "Free inodes"),
            ("inode_size", "Inode size"),
            ("mounts", "Mount count"),
        ] {
            assert_eq!(ours[key].to_string(), theirs(label), "{key} of {case}");
        }
        let text = |key: &str| ours[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("uuid"), theirs("Filesystem UUID"), "{case}");
        assert_eq!(text("label"), theirs("Filesystem volume name").replace("<none>", ""), "{case}");
        assert_eq!(text("mounted_on"), theirs("Last mounted on").replace("<not available>", ""), "{case}");
        let features = |text: &str| {
            let mut names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            names.sort();
            names
        };
        let listed: Vec<&str> =
            ours["features"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(features(&listed.join(" ")), features(theirs("Filesystem features")), "{case}");
        assert_eq!(ours["clean"], theirs("Filesystem state") == "clean", "{case}");
        assert_eq!(ours["mounted"].is_null(), ["n/a", ""].contains(&theirs("Last mount time")), "{case}");
        let journal = match (listed.contains(&"has_journal"), listed.contains(&"needs_recovery")) {
            (_, true) => "needs-recovery",
            (true, false) => "clean",
            (false, false) => "none",
        };
        assert_eq!(text("journal"), journal, "{case}");
    }
    assert_eq!(inspected(&unclean)?["journal"], "needs-recovery");
    assert_eq!(inspected(&mounted)?["journal"], "clean");
    Ok(())
}

/// What `dump.erofs -s` says of images, compressed and not.
pub(crate) fn images_are_those_of_dump_erofs() -> Verdict {
    let dir = tempfile::tempdir()?;
    let text = b"what is said twice takes less room\n".repeat(8000);
    let image = samples::of_layers("text", &[LayerBuilder::new().file("text", 0o644, &text).finish()]);
    let layout = dir.path().join("layout");
    samples::write_layout(&layout, &[("localhost/text:1".to_owned(), &image)])?;
    for options in ["", " -m mtime=7", " -m compress=lz4", " -m compress=zstd -m cluster=16K"] {
        let out = dir.path().join(format!("out{}", options.replace([' ', '='], "_")));
        let line = format!(
            "materialize oci:{} --platform linux/amd64 -q --as erofs{options} -m label=root --out {}",
            layout.display(),
            out.display()
        );
        plyfold(&line.split(' ').collect::<Vec<_>>(), dir.path())?;
        let disk = out.join("rootfs.erofs");
        let (ours, said) = (inspected(&disk)?, Run::new("dump.erofs").arg("-s").arg(&disk).success()?.stdout);
        let case = format!("{options}: {ours}\n{said}");
        assert_eq!(ours["uuid"].as_str(), Some(field(&said, "Filesystem UUID")), "{case}");
        assert_eq!(ours["inodes"].to_string(), field(&said, "Filesystem inode count"), "{case}");
        assert_eq!(ours["blocks"].to_string(), field(&said, "Filesystem blocks"), "{case}");
        let wanted = match options {
            " -m compress=lz4" => "lz4",
            " -m compress=zstd -m cluster=16K" => "zstd",
            _ => "",
        };
        let algorithms: Vec<&str> =
            ours["algorithms"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(algorithms.join(" "), wanted, "{case}");
    }
    Ok(())
}
