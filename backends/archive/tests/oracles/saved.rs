//! Archives that core saves, read by the tools of others.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage};
use plyfold_core::blocking::blocking;
use plyfold_core::digest;
use plyfold_core::save::{ArchiveForm, Contents, SaveImage, SaveOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::{FULL, block};

const FORMS: [ArchiveForm; 2] = [ArchiveForm::Oci, ArchiveForm::Docker];

/// An archive of this form with the sample.
fn saved(folder: &Path, sample: &Sample, options: &SaveOptions) -> Result<PathBuf, Failure> {
    let path = folder.join("saved.tar");
    let out = path.clone();
    block(async {
        let opened = Memory.open(&[FixtureImage::new(FULL, sample)]).await;
        let image = SaveImage::new(opened.registry.clone(), opened.references[0].clone());
        let contents = Contents::of(vec![image], options).await?;
        blocking(move |stop| {
            let mut file = fs::File::create(out).map_err(|e| plyfold_core::Error::io("making a file", e))?;
            contents.write(&mut file, stop)
        })
        .await
    })??;
    Ok(path)
}

fn of_form(form: ArchiveForm) -> Result<SaveOptions, Failure> {
    Ok(SaveOptions { form, platforms: vec!["linux/amd64".parse()?], ..SaveOptions::default() })
}

/// The manifest is the one that was saved, also in a copy that skopeo makes; Docker's list leads to the same config.
pub(crate) fn skopeo_reads_what_is_saved() -> Verdict {
    for sample in [samples::image(), samples::docker_image(), samples::zstandard(), samples::uncompressed()] {
        let folder = TempDir::new()?;
        let path = saved(folder.path(), &sample, &SaveOptions::default())?;
        // Of a layout skopeo sees no manifests of Docker's types; Docker's list has them.
        if sample.top.media_type().as_ref().contains("oci") {
            let uri = format!("oci-archive:{}:{FULL}", path.display());
            let raw = Run::new("skopeo").args(["inspect", "--raw", &uri]).success()?.stdout;
            assert_eq!(digest::sha256(raw.as_bytes()), *sample.top.digest(), "{}", sample.name);
            let copy = folder.path().join("copy");
            let to = format!("oci:{}:copy", copy.display());
            Run::new("skopeo").args(["copy", "--quiet", "--preserve-digests", &uri, &to]).success()?;
            let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json"))?)?;
            assert_eq!(index["manifests"][0]["digest"], sample.top.digest().as_ref(), "{}", sample.name);
        }
        by_dockers_list(folder.path(), &path, &sample)?;
        let path = saved(folder.path(), &sample, &of_form(ArchiveForm::Docker)?)?;
        by_dockers_list(folder.path(), &path, &sample)?;
    }
    Ok(())
}

/// Docker's list leads to the config of the sample.
pub(crate) fn by_dockers_list(folder: &Path, archive: &Path, sample: &Sample) -> Verdict {
    let (uri, copy) = (format!("docker-archive:{}:{FULL}", archive.display()), folder.join("by-list"));
    Run::new("skopeo").args(["copy", "--quiet", &uri, &format!("dir:{}", copy.display())]).success()?;
    let manifest: Value = serde_json::from_slice(&fs::read(copy.join("manifest.json"))?)?;
    assert_eq!(manifest["config"]["digest"], sample.images[0].config.digest().as_ref(), "{}", sample.name);
    fs::remove_dir_all(copy)?;
    Ok(())
}

/// All platforms of an index come through, with the index's digest.
pub(crate) fn skopeo_copies_a_saved_index() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::index());
    let path = saved(folder.path(), &sample, &SaveOptions::default())?;
    let (uri, copy) = (format!("oci-archive:{}:{FULL}", path.display()), folder.path().join("copy"));
    let to = format!("oci:{}:copy", copy.display());
    Run::new("skopeo").args(["copy", "--quiet", "--all", "--preserve-digests", &uri, &to]).success()?;
    let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json"))?)?;
    assert_eq!(index["manifests"][0]["digest"], sample.top.digest().as_ref());
    Ok(())
}

pub(crate) fn podman_loads_what_is_saved() -> Verdict {
    for sample in [samples::image(), samples::index(), samples::docker_image()] {
        for form in FORMS {
            let folder = TempDir::new()?;
            let path = saved(folder.path(), &sample, &of_form(form)?)?;
            let [root, run] = ["root", "run"].map(|name| folder.path().join(name).display().to_string());
            let podman =
                || Run::new("podman").args(["--root", &root, "--runroot", &run, "--storage-driver", "vfs"]);
            podman().args(["load", "--quiet", "--input"]).arg(&path).success()?;
            let id = podman().args(["image", "inspect", "--format", "{{.Id}}", FULL]).success()?.stdout;
            let config = sample.image_for("linux/amd64").config.digest().digest().to_owned();
            assert_eq!(id.trim(), config, "{} as {form:?}", sample.name);
        }
    }
    Ok(())
}

pub(crate) fn umoci_unpacks_what_is_saved() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let path = saved(folder.path(), &sample, &SaveOptions::default())?;
    let layout = folder.path().join("layout");
    fs::create_dir(&layout)?;
    Run::new("tar").arg("-xf").arg(&path).arg("-C").arg(&layout).success()?;
    let tags = Run::new("umoci").args(["list", "--layout"]).arg(&layout).success()?.stdout;
    assert_eq!(tags.trim(), FULL);
    let bundle = folder.path().join("bundle");
    let image = format!("{}:{FULL}", layout.display());
    Run::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle).success()?;
    assert!(fs::read_dir(bundle.join("rootfs"))?.next().is_some());
    Ok(())
}

pub(crate) fn crane_finds_no_fault_in_what_is_saved() -> Verdict {
    let folder = TempDir::new()?;
    for form in FORMS {
        let path = saved(folder.path(), &samples::image(), &of_form(form)?)?;
        Run::new("crane").args(["validate", "--tarball"]).arg(&path).success()?;
    }
    Ok(())
}
