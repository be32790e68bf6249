//! Samples in the media that images travel in: layout directories and archives.

use std::fs;
use std::io;
use std::path::Path;

use super::{LayerBuilder, Sample, SampleImage};

/// Writes an OCI layout directory (OCI image spec, `image-layout.md`) with these images by full name.
///
/// # Errors
/// Those of the file system.
pub fn write_layout(directory: &Path, images: &[(String, &Sample)]) -> io::Result<()> {
    for (path, content) in layout_files(images) {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    fs::create_dir_all(directory.join("blobs/sha256"))
}

/// The directory of one image, as skopeo's `dir:` has it: the top as `manifest.json`, what it lists as
/// `HEX.manifest.json`, and blobs as `HEX`.
///
/// # Errors
/// Those of writing files.
pub fn write_directory(directory: &Path, sample: &Sample) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("version"), "Directory Transport Version: 1.1\n")?;
    for blob in &sample.blobs {
        let hex = blob.descriptor.digest().digest();
        let name = match (blob.descriptor.digest() == sample.top.digest(), blob.is_manifest()) {
            (true, _) => "manifest.json".to_owned(),
            (false, true) => format!("{hex}.manifest.json"),
            (false, false) => hex.to_owned(),
        };
        fs::write(directory.join(name), &blob.bytes)?;
    }
    Ok(())
}

/// An oci-archive: the tar of a layout directory.
pub fn oci_archive(images: &[(String, &Sample)]) -> Vec<u8> {
    tar_of(layout_files(images))
}

/// A docker-archive as Docker 25 and later save it: a layout with a `manifest.json` that points into its blobs.
pub fn hybrid_archive(images: &[(String, &Sample)]) -> Vec<u8> {
    let mut files = layout_files(images);
    let path = |digest: &plyfold_core::Digest| format!("blobs/{}", digest.to_string().replace(':', "/"));
    let manifest = docker_manifest(images, |image| {
        let layers = image.layers.iter().map(|layer| path(layer.descriptor.digest())).collect();
        (path(image.config.digest()), layers)
    });
    files.push(("manifest.json".to_owned(), manifest));
    tar_of(files)
}

/// A docker-archive as Docker up to 24 saved it: a folder for each layer, uncompressed; a layer that another
/// image has too is a symbolic link to it.
pub fn docker_archive(images: &[(String, &Sample)]) -> Vec<u8> {
    let mut archive = LayerBuilder::new();
    let mut written: Vec<String> = Vec::new();
    let mut folders = 0;
    let mut members = Vec::new();
    for (_, sample) in images {
        for image in &sample.images {
            let mut paths = Vec::new();
            for layer in &image.layers {
                folders += 1;
                let folder = format!("{folders:064x}");
                archive = archive.dir(&folder, 0o755).file(format!("{folder}/VERSION"), 0o644, b"1.0");
                archive = archive.file(format!("{folder}/json"), 0o644, b"{}");
                let path = format!("{folder}/layer.tar");
                let first = written.iter().position(|digest| *digest == layer.diff_id.to_string());
                archive = match first {
                    Some(index) => archive.symlink(&path, &format!("../{:064x}/layer.tar", index + 1)),
                    None => archive.file(&path, 0o644, &layer.tar),
                };
                written.push(layer.diff_id.to_string());
                paths.push(path);
            }
            let config = format!("{}.json", image.config.digest().digest());
            if !members.contains(&config) {
                let content =
                    sample.blob(image.config.digest()).map(|bytes| bytes.to_vec()).unwrap_or_default();
                archive = archive.file(&config, 0o644, &content);
                members.push(config.clone());
            }
        }
    }
    let mut folders = 0;
    let manifest = docker_manifest(images, |image| {
        let layers = image.layers.iter().map(|_| {
            folders += 1;
            format!("{folders:064x}/layer.tar")
        });
        let layers = layers.collect();
        (format!("{}.json", image.config.digest().digest()), layers)
    });
    archive.file("manifest.json", 0o644, &manifest).file("repositories", 0o644, b"{}").finish()
}

/// The `manifest.json` of a docker-archive; `paths` says where config and layers of an image are.
fn docker_manifest(
    images: &[(String, &Sample)],
    mut paths: impl FnMut(&SampleImage) -> (String, Vec<String>),
) -> Vec<u8> {
    let mut entries = Vec::new();
    for (name, sample) in images {
        for image in &sample.images {
            let (config, layers) = paths(image);
            let layers: Vec<_> = layers.iter().map(|path| format!("\"{path}\"")).collect();
            let layers = layers.join(",");
            let names = if name.is_empty() { "null".to_owned() } else { format!("[\"{name}\"]") };
            entries.push(format!(r#"{{"Config":"{config}","RepoTags":{names},"Layers":[{layers}]}}"#));
        }
    }
    format!("[{}]\n", entries.join(",")).into()
}

fn layout_files(images: &[(String, &Sample)]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut children = Vec::new();
    for (name, sample) in images {
        for blob in &sample.blobs {
            let path = format!("blobs/{}", blob.descriptor.digest().to_string().replace(':', "/"));
            if files.iter().all(|(other, _)| *other != path) {
                files.push((path, blob.bytes.to_vec()));
            }
        }
        let top = &sample.top;
        let (media_type, digest, size) = (top.media_type(), top.digest(), top.size());
        let annotations = match &**name {
            "" => String::new(),
            name => format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#),
        };
        children.push(format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{annotations}}}"#
        ));
    }
    let children = children.join(",");
    files
        .push(("index.json".to_owned(), format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#).into()));
    files
}

fn tar_of(files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let archive = files
        .into_iter()
        .fold(LayerBuilder::new(), |archive, (path, content)| archive.file(path, 0o644, &content));
    archive.finish()
}
