//! What a large archive takes that comes through a pipe, and goes out as a stream, in processes whose peak is measured.

use std::env;
use std::io::{self, Write};

use futures_util::TryStreamExt as _;
use plyfold::digest::{self, Hasher};
use plyfold::save::SaveOptions;
use plyfold::{Images, LoadOptions};
use plyfold_conformance::samples::LayerBuilder;
use serde_json::json;

use super::peak;

const MIB: u64 = 1 << 20;
/// What a process may take, whatever the size of the archive.
const MOST: u64 = 64 * MIB;
const NAME: &str = "registry.example/org/large:1";
/// MiB of the layer, where another size is to be measured: beyond 8,192 the numbers of a tar's headers are too short for it.
const SIZE: &str = "PLYFOLD_MEMORY_ARCHIVE";
const STORE: &str = "PLYFOLD_MEMORY_STORE";
const WORK: &str = "PLYFOLD_MEMORY_WORK";
const TEST: &str = "archive_memory::a_large_archive_takes_little_memory_in_and_out";
const BLOCK: usize = 64 << 10;

/// A tar's header of a file of this size.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut block = LayerBuilder::new().file(name, 0o644, b"").finish();
    block.truncate(512);
    // The size as a number of 256 to the base, which has no end at 8 GiB.
    block[124..136].fill(0);
    block[124] = 0x80;
    block[128..136].copy_from_slice(&size.to_be_bytes());
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A layer of one file of so many MiB, of which no two blocks are the same.
fn write_layer(out: &mut dyn Write, mib: u64) -> io::Result<()> {
    out.write_all(&header("large", mib * MIB))?;
    let mut block = vec![b'x'; BLOCK];
    for number in 0..mib * MIB / BLOCK as u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        out.write_all(&block)?;
    }
    out.write_all(&[0; 1024])
}

/// An archive of an image with that layer.
fn write_archive(out: &mut dyn Write, mib: u64, layer: &digest::Digest) -> io::Result<()> {
    let mut member = |name: &str, content: &[u8]| {
        let tar = LayerBuilder::new().file(name, 0o644, content).finish();
        out.write_all(&tar[..tar.len() - 1024])
    };
    let blob = |digest: &digest::Digest| format!("blobs/sha256/{}", digest.digest());
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = config.to_string();
    let kind = |what: &str| format!("application/vnd.oci.image.{what}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind("manifest.v1+json"),
        "config": {
            "mediaType": kind("config.v1+json"), "size": config.len(), "digest": digest::sha256(config.as_bytes()),
        },
        "layers": [{ "mediaType": kind("layer.v1.tar"), "size": mib * MIB + 1536, "digest": layer }],
    });
    let manifest = manifest.to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": kind("manifest.v1+json"), "size": manifest.len(),
            "digest": digest::sha256(manifest.as_bytes()),
            "annotations": { "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1" },
        }],
    });
    member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    member("index.json", index.to_string().as_bytes())?;
    for document in [config, manifest] {
        member(&blob(&digest::sha256(document.as_bytes())), document.as_bytes())?;
    }
    out.write_all(&header(&blob(layer), mib * MIB + 1536))?;
    write_layer(out, mib)?;
    // To the next whole block, and the end.
    out.write_all(&[0; 1024])
}

#[test]
fn a_large_archive_takes_little_memory_in_and_out() {
    if let (Ok(store), Ok(work)) = (env::var(STORE), env::var(WORK)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(moved(&store, &work));
        return peak::tell();
    }
    let mib = size();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store").display().to_string();
    let mut hasher = Writer(Hasher::sha256());
    write_layer(&mut hasher, mib).unwrap();
    let layer = hasher.0.finish();
    let peak = |work, input: &(dyn Fn(&mut dyn Write) + Sync)| {
        peak::of(TEST, &[(STORE, &store), (WORK, work)], input)
    };
    let loaded = peak("load", &|out| write_archive(out, mib, &layer).unwrap());
    let saved = peak("save", &|_| ());
    assert!(loaded <= MOST, "a load takes {} MiB", loaded / MIB);
    assert!(saved <= MOST, "a save takes {} MiB", saved / MIB);
}

/// MiB of the layer.
fn size() -> u64 {
    env::var(SIZE).map_or(256, |text| text.parse().unwrap())
}

async fn moved(store: &str, work: &str) {
    let images = Images::open(store).await.unwrap();
    if work == "load" {
        let loaded = images.load("docker-archive:/dev/stdin", LoadOptions::default()).await.unwrap();
        return assert_eq!(loaded[0].reference.whole(), NAME);
    }
    let stream = images.save(&[NAME], &SaveOptions::default()).await.unwrap();
    let saved = stream.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len() as u64) }).await.unwrap();
    assert!(saved > size() * MIB, "{saved} bytes");
}

/// Hashes what is written.
struct Writer(Hasher);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
