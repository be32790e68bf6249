//! The inputs, the same bytes on every machine.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use plyfold_core::digest::Hasher;
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::result::Result;

/// A root file system of about so many MB: files of text and of noise in the sizes that such have.
pub(crate) fn rootfs(tar: &Path, megabytes: usize) -> Result<()> {
    let mut tar = Tar::create(tar)?;
    tar.directory("usr")?;
    let (mut written, mut index) = (0, 0);
    while written < megabytes * 1_000_000 {
        if index % 100 == 0 {
            tar.directory(&format!("usr/{:03}", index / 100))?;
        }
        let size = match index % 40 {
            0 => 900_000,
            1..4 => 120_000,
            _ => 1_000 + index * 997 % 30_000,
        };
        let content = if index % 5 == 0 { noise(index as u64, size) } else { text(index as u64, size) };
        tar.file(&format!("usr/{:03}/file-{index:06}", index / 100), &content)?;
        (written, index) = (written + size, index + 1);
    }
    tar.finish()
}

/// So many files of one or two KB in folders of a hundred.
pub(crate) fn small(tar: &Path, files: usize) -> Result<()> {
    let mut tar = Tar::create(tar)?;
    tar.directory("opt")?;
    for index in 0..files {
        if index % 100 == 0 {
            tar.directory(&format!("opt/{:05}", index / 100))?;
        }
        tar.file(
            &format!("opt/{:05}/file-{index:07}", index / 100),
            &text(index as u64, 600 + index * 37 % 2_000),
        )?;
    }
    tar.finish()
}

/// So many files of 100 bytes in one directory, out of order.
pub(crate) fn flat(tar: &Path, files: usize) -> Result<()> {
    let mut tar = Tar::create(tar)?;
    tar.directory("flat")?;
    for index in scattered(files) {
        tar.file(&format!("flat/entry-{index:07}"), &[b'x'; 100])?;
    }
    tar.finish()
}

/// A layer of so many files, and one over it of nine tenths as many and whiteouts of a tenth. Half of the upper files are also
/// in the lower layer.
pub(crate) fn stacked(base: &Path, top: &Path, files: usize) -> Result<()> {
    let name = |index: usize| format!("tree/{:03}/file-{index:07}", index % 500);
    let (mut base, mut top) = (Tar::create(base)?, Tar::create(top)?);
    for tar in [&mut base, &mut top] {
        tar.directory("tree")?;
        (0..500).try_for_each(|folder| tar.directory(&format!("tree/{folder:03}")))?;
    }
    for index in scattered(files) {
        base.file(&name(index), &[1; 1000])?;
        if index < files / 10 {
            top.file(&format!("tree/{:03}/.wh.file-{index:07}", index % 500), b"")?;
        } else {
            top.file(&name(index + files * 9 / 20), &[2; 1000])?;
        }
    }
    base.finish()?;
    top.finish()
}

/// One layer of many, with a file of so many bytes of noise.
pub(crate) fn one_of_many(tar: &Path, number: usize, bytes: usize) -> Result<()> {
    let mut tar = Tar::create(tar)?;
    tar.directory("many")?;
    tar.file(&format!("many/layer-{number:03}"), &noise(number as u64, bytes))?;
    tar.finish()
}

/// A file of so many bytes with 64 KiB of noise in each 16 MiB and at the end, and holes between.
pub(crate) fn sparse(tar: &Path, bytes: u64) -> Result<()> {
    let mut header = header(EntryType::Regular, bytes);
    header.set_path("large")?;
    header.set_cksum();
    let file = File::create(tar)?;
    file.write_all_at(header.as_bytes(), 0)?;
    // Also at the end: fsck.erofs 1.9.4 leaves out a hole there when it extracts.
    let runs = (0..bytes).step_by(16 << 20).chain([bytes - (64 << 10)]);
    for (number, offset) in runs.enumerate() {
        file.write_all_at(&noise(number as u64, 64 << 10), 512 + offset)?;
    }
    Ok(file.set_len(512 + bytes.next_multiple_of(512) + 1024)?)
}

/// A file of so many bytes of which no two blocks are the same.
pub(crate) fn blocks(path: &Path, bytes: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    // An odd multiplier: no two words are the same.
    for word in 0..bytes / 8 {
        file.write_all(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    Ok(file.flush()?)
}

/// Compresses a file as registries do.
pub(crate) fn gzip(from: &Path, to: &Path) -> Result<()> {
    let mut encoder = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::default());
    io::copy(&mut File::open(from)?, &mut encoder)?;
    Ok(encoder.finish()?.flush()?)
}

/// By level 3.
pub(crate) fn zstandard(from: &Path, to: &Path) -> Result<()> {
    Ok(zstd::stream::copy_encode(File::open(from)?, File::create(to)?, 3)?)
}

/// A layout directory with an image of these compressed layers, `latest`.
pub(crate) fn layout(folder: &Path, layers: &[PathBuf]) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let hashed = |source: &mut dyn Read| -> Result<_> {
        let mut hasher = Hasher::sha256();
        let size = hasher.read_all(source)?;
        Ok((hasher.finish(), size))
    };
    let keep = |media_type: &str, text: String| -> Result<_> {
        let (digest, size) = hashed(&mut text.as_bytes())?;
        fs::write(blobs.join(digest.digest()), text)?;
        Ok(json!({ "mediaType": media_type, "size": size, "digest": digest.to_string() }))
    };
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for layer in layers {
        let (digest, size) = hashed(&mut File::open(layer)?)?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(json!({ "mediaType": media_type, "size": size, "digest": digest.to_string() }));
        diff_ids.push(hashed(&mut MultiGzDecoder::new(BufReader::new(File::open(layer)?)))?.0.to_string());
        let blob = blobs.join(digest.digest());
        if !blob.exists() && fs::hard_link(layer, &blob).is_err() {
            fs::copy(layer, blob)?;
        }
    }
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": architecture(), "os": "linux", "rootfs": rootfs });
    let config = keep("application/vnd.oci.image.config.v1+json", config.to_string())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors });
    let mut manifest = keep(media_type, manifest.to_string())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    Ok(())
}

/// This machine's, as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// 0 to `count` - 1 once each, out of order, as archivers that follow a hashed directory yield them.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    // Prime, and no factor of the counts.
    (0..count).map(move |index| index * 30_011 % count)
}

/// Bytes that nothing compresses.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Bytes that gzip makes about a third of.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let words = [
        "layer",
        "image ",
        "\n",
        "0x",
        "root",
        " of the ",
        "digest",
        "-",
        "block",
        "/usr/lib/",
        "e",
        "file system ",
    ];
    let mut text = Vec::with_capacity(bytes + 16);
    for (at, byte) in noise(seed, bytes / 3 + 1).into_iter().enumerate() {
        text.extend_from_slice(words[usize::from(byte) % words.len()].as_bytes());
        if at % 3 == 0 {
            text.push(byte);
        }
    }
    text.truncate(bytes);
    text.resize(bytes, b'.');
    text
}

struct Tar(Builder<BufWriter<File>>);

impl Tar {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(Builder::new(BufWriter::new(File::create(path)?))))
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Directory, 0), name, io::empty())?)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Regular, content.len() as u64), name, content)?)
    }

    fn finish(mut self) -> Result<()> {
        self.0.finish()?;
        Ok(self.0.into_inner()?.flush()?)
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header
}
