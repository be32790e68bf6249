//! The directories of one image by skopeo and podman, and ours in their hands.

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{CopyOptions, ImageRegistry as _, copy, reference};
use plyfold_layout::{Config, Directory, Layout};
use tempfile::TempDir;

use crate::{FULL, block, source};

/// All samples of which skopeo copies every byte: an image, an index, one with types of Docker, and layers by zstd.
fn judged() -> [Sample; 4] {
    [samples::image(), samples::index(), samples::docker_image(), samples::zstandard()]
}

fn skopeo(from: &str, to: &str) -> Verdict {
    let copy = ["copy", "--quiet", "--all", "--preserve-digests"];
    Run::new("skopeo").args(copy).args([from, to]).success()?;
    Ok(())
}

/// A sample in a directory, by a copy of ours.
fn copied(folder: &Path, sample: &Sample) -> Result<String, Failure> {
    source(folder, sample)?;
    let (from, path) = (Layout::new(folder.join("source"), Config::default()), folder.join("ours"));
    let to = Directory::new(&path, Config::default())?;
    block(copy(&from, &reference::parse(FULL)?, &to, to.name(), &CopyOptions::default()))??;
    Ok(format!("dir:{}", path.display()))
}

pub(crate) fn directories_by_skopeo_are_read() -> Verdict {
    for sample in judged() {
        let folder = TempDir::new()?;
        let (from, path) = (folder.path().join("written"), folder.path().join("theirs"));
        samples::write_directory(&from, &sample)?;
        skopeo(&format!("dir:{}", from.display()), &format!("dir:{}", path.display()))?;
        let place = Directory::new(&path, Config::default())?;
        let (memory, name) = (MemoryRegistry::new("out"), reference::parse(FULL)?);
        let top = block(copy(&place, place.name(), &memory, &name, &CopyOptions::default()))??;
        assert_eq!(top.digest(), sample.top.digest(), "{}", sample.name);
        assert_eq!(block(memory.manifest(&name))??.bytes(), sample.top_bytes(), "{}", sample.name);
    }
    Ok(())
}

pub(crate) fn skopeo_reads_our_directories() -> Verdict {
    for sample in judged() {
        let folder = TempDir::new()?;
        let ours = copied(folder.path(), &sample)?;
        let raw = Run::new("skopeo").args(["inspect", "--raw", &ours]).success()?;
        assert_eq!(raw.stdout.as_bytes(), &sample.top_bytes()[..], "{}", sample.name);
        let (back, layout) = (folder.path().join("back"), folder.path().join("layout"));
        let back_uri = format!("dir:{}", back.display());
        skopeo(&ours, &back_uri)?;
        assert_eq!(fs::read(back.join("manifest.json"))?, &sample.top_bytes()[..], "{}", sample.name);
        skopeo(&ours, &format!("oci:{}:back", layout.display()))?;
        let index = fs::read_to_string(layout.join("index.json"))?;
        assert!(index.contains(sample.top.digest().as_ref()), "{}: {index}", sample.name);
        // It writes over ours, and ours over what it has written.
        skopeo(&back_uri, &ours)?;
        copied(folder.path(), &sample)?;
    }
    Ok(())
}

pub(crate) fn podman_pulls_our_directories() -> Verdict {
    let prefix = format!("plyfold-podman-{}", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir()?;
    let sample = samples::image();
    let ours = copied(folder.path(), &sample)?;
    let storage = |name: &str| folder.path().join(name).display().to_string();
    let podman = Run::new("podman").args(["--root", &storage("podman"), "--runroot", &storage("podman-run")]);
    let id = podman.args(["--storage-driver", "vfs", "pull", "--quiet", &ours]).success()?.stdout;
    assert_eq!(id.trim(), sample.images[0].config.digest().digest());
    Ok(())
}
