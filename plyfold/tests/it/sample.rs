//! `examples/sample`: the image of the README, generated here.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold::{Descriptor, MediaType, digest};
use plyfold_conformance::samples::{LayerBuilder, Sample, SampleBlob, gzip, write_layout};

use super::baseline;

#[test]
fn the_bundled_image_is_what_the_generator_makes() {
    let made = tempfile::tempdir().unwrap();
    write_layout(made.path(), &[("latest".to_owned(), &sample())]).unwrap();
    let mut files = Vec::new();
    for file in files_below(made.path()) {
        let name = file.strip_prefix(made.path()).unwrap();
        baseline::check(Path::new("examples/sample").join(name), &fs::read(&file).unwrap());
        files.push(name.to_owned());
    }
    let committed = baseline::root().join("examples/sample");
    let names =
        files_below(&committed).into_iter().map(|path| path.strip_prefix(&committed).unwrap().to_owned());
    assert_eq!(names.collect::<Vec<_>>(), files);
}

/// Two layers.
fn sample() -> Sample {
    of_layers(&layers())
}

/// Gzip layers, for both processors that most machines have.
pub(crate) fn of_layers(tars: &[Vec<u8>]) -> Sample {
    let mut blobs: Vec<SampleBlob> = Vec::new();
    let mut add = |kind: &str, content: Vec<u8>| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        let (size, digest) = (content.len(), digest::sha256(&content));
        let field = format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#);
        let descriptor = Descriptor::new(MediaType::from(media_type.as_str()), size as u64, digest);
        blobs.push(SampleBlob { descriptor, bytes: content.into() });
        field
    };
    let diff_ids: Vec<_> = tars.iter().map(|tar| format!("\"{}\"", digest::sha256(tar))).collect();
    let layers: Vec<_> = tars.iter().map(|tar| add("layer.v1.tar+gzip", gzip(&[tar]))).collect();
    let (diff_ids, layers) = (diff_ids.join(","), layers.join(","));
    let children = ["amd64", "arm64"].map(|architecture| {
        let platform = format!(r#""architecture":"{architecture}","os":"linux""#);
        let config = format!(
            r#"{{{platform},"config":{{"Cmd":["/bin/hello"]}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
        );
        let config = add("config.v1+json", config.into());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layers}]}}"#
        );
        let manifest = add("manifest.v1+json", manifest.into());
        format!(r#"{},"platform":{{{platform}}}}}"#, manifest.trim_end_matches('}'))
    });
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
        children.join(",")
    );
    add("index.v1+json", index.into());
    let top = blobs.last().unwrap().descriptor.clone();
    Sample { name: "sample", top, blobs, images: Vec::new(), subject: None }
}

/// A program with two names, a note that the upper layer deletes, and another, with an attribute, that it changes.
fn layers() -> [Vec<u8>; 2] {
    let lower = LayerBuilder::new()
        .dir(".", 0o755)
        .dir("bin", 0o755)
        .file("bin/hello", 0o755, b"#!/bin/sh\necho hello from plyfold\n")
        .hard_link("bin/hi", "bin/hello")
        .dir("etc", 0o755)
        .file("etc/draft", 0o600, b"not for everybody\n")
        .file("etc/motd", 0o644, b"welcome\n")
        .finish();
    let upper = LayerBuilder::new()
        .dir("etc", 0o755)
        .whiteout("etc/draft")
        .xattr("user.author", "plyfold")
        .file("etc/motd", 0o644, b"welcome to a block device\n")
        .finish();
    [lower, upper]
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}
