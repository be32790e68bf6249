//! Archives that images are pushed into, read by the tools of others.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_archive::{Archive, Config};
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage};
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::{digest, reference};
use serde_json::Value;
use tempfile::TempDir;

use super::saved::by_dockers_list;
use super::{FULL, block, source};

/// An image that is there before.
const FIRST: &str = "registry.example/library/first:1";

/// Pushes the sample into an archive.
fn push(path: &Path, name: &str, sample: &Sample) -> Verdict {
    block(async {
        let opened = Memory.open(&[FixtureImage::new(name, sample)]).await;
        let (archive, name) = (Archive::new(path, Config::default()), reference::parse(name)?);
        copy(&*opened.registry, &name, &archive, &name, &CopyOptions::default()).await
    })??;
    Ok(())
}

/// An archive of its own, with the sample.
fn pushed(folder: &Path, sample: &Sample) -> Result<PathBuf, Failure> {
    let path = folder.join("pushed.tar");
    push(&path, FULL, sample)?;
    Ok(path)
}

/// What skopeo has written stays beside what is pushed, and both are what they were.
pub(crate) fn skopeo_reads_what_is_pushed() -> Verdict {
    for form in ["docker-archive", "oci-archive"] {
        for sample in [samples::image(), samples::index(), samples::zstandard()] {
            let folder = TempDir::new()?;
            let path = folder.path().join("pushed.tar");
            let first = samples::uncompressed();
            let from = source(folder.path(), &first)?;
            let to = format!("{form}:{}:{FIRST}", path.display());
            Run::new("skopeo").args(["copy", "--quiet", &from, &to]).success()?;
            push(&path, FULL, &sample)?;
            let uri = format!("oci-archive:{}:{FULL}", path.display());
            let raw = Run::new("skopeo").args(["inspect", "--raw", &uri]).success()?.stdout;
            assert_eq!(digest::sha256(raw.as_bytes()), *sample.top.digest(), "{} beside {form}", sample.name);
            let copy = folder.path().join("copy");
            let copied = format!("oci:{}:copy", copy.display());
            let all = ["copy", "--quiet", "--all", "--preserve-digests", &uri, &copied];
            Run::new("skopeo").args(all).success()?;
            let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json"))?)?;
            assert_eq!(index["manifests"][0]["digest"], sample.top.digest().as_ref(), "{}", sample.name);
            // The image that was there: its config is the same in both forms.
            let back = folder.path().join("back");
            let kept = format!("dir:{}", back.display());
            Run::new("skopeo").args(["copy", "--quiet", &to, &kept]).success()?;
            let manifest: Value = serde_json::from_slice(&fs::read(back.join("manifest.json"))?)?;
            let config = first.images[0].config.digest();
            assert_eq!(manifest["config"]["digest"], config.as_ref(), "{} beside {form}", sample.name);
        }
    }
    for sample in [samples::docker_image(), samples::image()] {
        let folder = TempDir::new()?;
        let path = pushed(folder.path(), &sample)?;
        by_dockers_list(folder.path(), &path, &sample)?;
    }
    Ok(())
}

pub(crate) fn podman_loads_what_is_pushed() -> Verdict {
    for sample in [samples::image(), samples::index(), samples::docker_image()] {
        let folder = TempDir::new()?;
        let path = pushed(folder.path(), &sample)?;
        push(&path, FIRST, &samples::uncompressed())?;
        let [root, run] = ["root", "run"].map(|name| folder.path().join(name).display().to_string());
        let podman =
            || Run::new("podman").args(["--root", &root, "--runroot", &run, "--storage-driver", "vfs"]);
        podman().args(["load", "--quiet", "--input"]).arg(&path).success()?;
        for (name, sample) in [(FULL, &sample), (FIRST, &samples::uncompressed())] {
            let id = podman().args(["image", "inspect", "--format", "{{.Id}}", name]).success()?.stdout;
            let config = sample.image_for("linux/amd64").config.digest().digest().to_owned();
            assert_eq!(id.trim(), config, "{name} of {}", sample.name);
        }
    }
    Ok(())
}

pub(crate) fn umoci_unpacks_what_is_pushed() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let path = pushed(folder.path(), &sample)?;
    push(&path, FIRST, &samples::zstandard())?;
    let layout = folder.path().join("layout");
    fs::create_dir(&layout)?;
    Run::new("tar").arg("-xf").arg(&path).arg("-C").arg(&layout).success()?;
    let tags = Run::new("umoci").args(["list", "--layout"]).arg(&layout).success()?.stdout;
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, [FULL, FIRST]);
    let bundle = folder.path().join("bundle");
    let image = format!("{}:{FULL}", layout.display());
    Run::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle).success()?;
    assert!(fs::read_dir(bundle.join("rootfs"))?.next().is_some());
    Ok(())
}

pub(crate) fn crane_finds_no_fault_in_what_is_pushed() -> Verdict {
    let folder = TempDir::new()?;
    let path = pushed(folder.path(), &samples::image())?;
    Run::new("crane").args(["validate", "--tarball"]).arg(&path).success()?;
    Ok(())
}
