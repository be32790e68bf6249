//! Images that a copy has changed, in the eyes of other tools.

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{docker_image, image, uncompressed, write_layout, zstandard};
use serde_json::Value;

use super::registry::DockerRegistry;

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfold");

/// A layout of samples as they are.
fn originals(layout: &Path) -> Result<(), Failure> {
    let samples =
        [("gzip", image()), ("plain", uncompressed()), ("zstd", zstandard()), ("docker", docker_image())];
    let named = samples.each_ref().map(|(tag, sample)| ((*tag).to_owned(), sample));
    Ok(write_layout(layout, &named)?)
}

fn convert(from: &str, to: &str, how: &[&str]) -> Result<(), Failure> {
    Run::new(PROGRAM).args(["copy", "-q", from, to]).args(how).success()?;
    Ok(())
}

fn of(layout: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", layout.display())
}

fn skopeo(verb: &str, arguments: &[&str]) -> Result<String, Failure> {
    let insecure = if verb == "copy" { "--src-tls-verify=false" } else { "--tls-verify=false" };
    Ok(Run::new("skopeo").args([verb, insecure]).args(arguments).success()?.stdout)
}

/// Into a registry.
fn push(from: &str, target: &str, how: &[&str]) -> Result<(), Failure> {
    let options = [how, &["-o", "plain-http=127.0.0.1"]].concat();
    convert(from, &format!("registry:{target}"), &options)
}

/// The media types that skopeo sees: of the manifest, its configuration and its layers.
fn types(image: &str) -> Result<Vec<String>, Failure> {
    let raw: Value = serde_json::from_str(&skopeo("inspect", &["--raw", image])?)?;
    let layers = raw["layers"].as_array().into_iter().flatten();
    let described = [&raw, &raw["config"]].into_iter().chain(layers);
    let kinds = described.map(|one| one["mediaType"].as_str().unwrap_or_default().rsplit("vnd.").next());
    Ok(kinds.map(|kind| kind.unwrap_or_default().to_owned()).collect())
}

/// skopeo copies what a copy has changed, verifies it, and sees the types that were asked for; and expanded by skopeo its layers are
/// those that the configuration lists.
pub(crate) fn skopeo_reads_converted_images() -> Verdict {
    let dir = tempfile::tempdir()?;
    let from = dir.path().join("from");
    originals(&from)?;
    // A layout of skopeo's has no manifests of Docker.
    let registry = DockerRegistry::start("", "")?;
    let docker = ["docker.distribution.manifest.v2+json", "docker.container.image.v1+json"];
    let oci = ["oci.image.manifest.v1+json", "oci.image.config.v1+json"];
    let cases: [(&str, &[&str], [&str; 2], &str); 6] = [
        ("gzip", &["--compress", "zstd:7"], oci, "oci.image.layer.v1.tar+zstd"),
        ("plain", &["--compress", "zstd"], oci, "oci.image.layer.v1.tar+zstd"),
        ("zstd", &["--compress", "gzip"], oci, "oci.image.layer.v1.tar+gzip"),
        (
            "plain",
            &["--format", "docker", "--compress", "gzip:9"],
            docker,
            "docker.image.rootfs.diff.tar.gzip",
        ),
        ("gzip", &["--format", "docker"], docker, "docker.image.rootfs.diff.tar.gzip"),
        ("docker", &["--format", "oci", "--compress", "zstd:19"], oci, "oci.image.layer.v1.tar+zstd"),
    ];
    for (at, (tag, how, documents, layer)) in cases.into_iter().enumerate() {
        let copy = dir.path().join(format!("copy-{at}"));
        let target = format!("{}/converted:{at}", registry.host());
        push(&of(&from, tag), &target, how)?;
        let image = format!("docker://{target}");
        assert_eq!(types(&image)?, [documents[0], documents[1], layer, layer], "{tag} {how:?}");
        skopeo("copy", &["--dest-decompress", &image, &format!("dir:{}", copy.display())])?;
        let said = skopeo("inspect", &["--config", "--raw", &image])?;
        let config: Value = serde_json::from_str(&said)?;
        for diff_id in config["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
            let hex = diff_id.as_str().and_then(|text| text.strip_prefix("sha256:")).unwrap_or_default();
            let tar = fs::read(copy.join(hex))?;
            assert_eq!(plyfold::digest::sha256(&tar).digest(), hex, "{tag} {how:?}");
        }
    }
    Ok(())
}

/// The root file system that umoci unpacks of a converted image is that of the image before; and of one that was converted to
/// zstd and back.
pub(crate) fn umoci_unpacks_the_same_of_converted_images() -> Verdict {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let (from, to) = (path("from"), path("to"));
    originals(&from)?;
    convert(&of(&from, "zstd"), &of(&to, "of-zstd"), &["--compress", "gzip:1"])?;
    convert(&of(&from, "gzip"), &of(&to, "there"), &["--compress", "zstd:19"])?;
    convert(&of(&to, "there"), &of(&to, "and-back"), &["--compress", "gzip"])?;
    convert(&of(&from, "docker"), &of(&to, "of-docker"), &["--format", "oci"])?;
    let unpack = |layout: &Path, tag: &str| {
        let (image, bundle) = (format!("{}:{tag}", layout.display()), path(&format!("bundle-{tag}")));
        Run::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle).success()?;
        Ok::<_, Failure>(bundle.join("rootfs"))
    };
    let wanted = unpack(&from, "gzip")?;
    for tag in ["of-zstd", "and-back", "of-docker"] {
        Run::new("diff").args(["-r", "--no-dereference"]).args([&wanted, &unpack(&to, tag)?]).success()?;
    }
    Ok(())
}

/// crane reads every layer of what was converted on its way into a registry: digests, sizes and `diff_id`s. It reads no zstd.
pub(crate) fn crane_finds_no_fault_in_converted_images() -> Verdict {
    let dir = tempfile::tempdir()?;
    originals(dir.path())?;
    let registry = DockerRegistry::start("", "")?;
    let cases: [(&str, &[&str]); 3] = [
        ("plain", &["--compress", "gzip"]),
        ("zstd", &["--compress", "gzip", "--format", "docker"]),
        ("docker", &["--format", "oci"]),
    ];
    for (tag, how) in cases {
        let target = format!("{}/converted:{tag}", registry.host());
        push(&of(dir.path(), tag), &target, how)?;
        Run::new("crane").args(["validate", "--insecure", "--remote", &target]).success()?;
    }
    Ok(())
}
