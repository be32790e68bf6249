//! The inputs, the same bytes on every machine.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use plyfold::backends::layout::Store;
use plyfold::{CacheProvider as _, Descriptor, MediaType, NameChange, Reference, digest, reference};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::result::Result;

/// A root file system of so many small files, with a large one, links, and attributes.
pub(crate) fn tree(files: usize) -> Result<Vec<u8>> {
    let mut tar = Tar::default();
    tar.directories(files.div_ceil(50))?;
    for index in 0..files {
        let name = format!("tree/{:03}/file-{index:06}", index / 50);
        let content: Vec<u8> = name.bytes().cycle().take(index * 7 % 9_000).collect();
        match index % 20 {
            0 => tar.file(&name, &content)?.link(&format!("{name}.hard"), EntryType::Link, &name)?,
            1 => tar.link(&name, EntryType::Symlink, "../000/file-000000")?,
            2 => tar.attribute("user.guard", &name)?.file(&name, &content)?,
            _ => tar.file(&name, &content)?,
        };
    }
    tar.file("tree/large", &vec![7; files * 1000])?.finish()
}

/// A layer of 4,000 files, and one of 3,600 files and 400 whiteouts to put over it, in no order of names. Half of the upper
/// files are also in the lower layer.
pub(crate) fn stacked() -> Result<[Vec<u8>; 2]> {
    let name = |index: usize| format!("tree/{:03}/file-{index:06}", index % 100);
    let (mut base, mut top) = (Tar::default(), Tar::default());
    base.directories(100)?;
    top.directories(100)?;
    // 2,741 is prime.
    for index in (0..4_000).map(|index| index * 2_741 % 4_000) {
        base.file(&name(index), &[1; 100])?;
        match index {
            0..400 => top.file(&format!("tree/{:03}/.wh.file-{index:06}", index % 100), b"")?,
            _ => top.file(&name(index + 1_800), &[2; 100])?,
        };
    }
    Ok([base.finish()?, top.finish()?])
}

pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

/// A layout directory with an image of these layers, `latest`.
pub(crate) fn layout(folder: &Path, layers: &[Vec<u8>]) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let keep = |media_type: &str, content: &[u8]| -> Result<_> {
        let digest = digest::sha256(content);
        fs::write(blobs.join(digest.digest()), content)?;
        Ok(json!({ "mediaType": media_type, "size": content.len(), "digest": digest.to_string() }))
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest::sha256(layer).to_string()).collect();
    let packed = |layer: &Vec<u8>| keep("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(layer)?);
    let layers = layers.iter().map(packed).collect::<Result<Vec<_>>>()?;
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = keep("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut manifest = keep(media_type, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    Ok(())
}

/// A name of the large store.
pub(crate) fn name(index: usize) -> Result<Reference> {
    Ok(reference::parse(&format!("registry.example/team-{}/service-{index}:1.{index}", index % 50))?)
}

/// A store of so many names of one document.
pub(crate) async fn fill(path: &Path, names: usize) -> Result<()> {
    let store = Store::open(path)?;
    let document = br#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = digest::sha256(document);
    fs::create_dir_all(path.join("blobs/sha256"))?;
    fs::write(path.join("blobs/sha256").join(digest.digest()), document)?;
    let index = Descriptor::new(MediaType::ImageIndex, document.len() as u64, digest);
    let set = |number| Ok(NameChange::Set(name(number)?, index.clone()));
    let changes = (0..names).map(set).collect::<Result<Vec<_>>>()?;
    Ok(store.update(&changes).await?)
}

struct Tar(Builder<Vec<u8>>);

impl Default for Tar {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Tar {
    fn directories(&mut self, count: usize) -> Result<()> {
        self.entry("tree", EntryType::Directory, b"")?;
        for folder in 0..count {
            self.entry(&format!("tree/{folder:03}"), EntryType::Directory, b"")?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<&mut Self> {
        self.entry(name, EntryType::Regular, content)
    }

    fn link(&mut self, name: &str, kind: EntryType, target: &str) -> Result<&mut Self> {
        self.0.append_link(&mut header(kind), name, target)?;
        Ok(self)
    }

    /// Of the next entry.
    fn attribute(&mut self, name: &str, value: &str) -> Result<&mut Self> {
        let key = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(key.as_str(), value.as_bytes())])?;
        Ok(self)
    }

    fn entry(&mut self, name: &str, kind: EntryType, content: &[u8]) -> Result<&mut Self> {
        let mut header = header(kind);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content)?;
        Ok(self)
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        self.0.finish()?;
        Ok(self.0.get_ref().clone())
    }
}

fn header(kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}
