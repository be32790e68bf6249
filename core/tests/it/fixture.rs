//! Small images, and a registry that counts requests and fails on demand.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use plyfold_core::layer::LayerTar;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Format, ImageRegistry, ImageRegistryExt as _,
    Input, Made, Materializer, MediaType, PullOptions, PullPolicy, RawManifest, Reference, Result, Role,
    Sink, digest, reference,
};
use serde_json::{Value, json};

pub(crate) const AMD64: &str = "linux/amd64";

pub(crate) fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

/// A pull for amd64 that waits no time between two attempts.
pub(crate) fn options(policy: PullPolicy) -> PullOptions {
    let mut options = PullOptions { platform: AMD64.parse().unwrap(), policy, ..PullOptions::default() };
    options.retry.base = Duration::from_millis(1);
    options
}

/// The same, reading again what is here.
pub(crate) fn verifying(policy: PullPolicy) -> PullOptions {
    PullOptions { verify: true, ..options(policy) }
}

/// A tar of one file.
pub(crate) fn layer(path: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    let content: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
    tar.append_data(&mut header, path, content.as_slice()).unwrap();
    tar.into_inner().unwrap()
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest::sha256(content).to_string(), "size": content.len() })
}

/// The image under `reference` as a child of an index.
pub(crate) async fn child(registry: &MemoryRegistry, reference: &Reference, architecture: &str) -> Value {
    let raw = registry.manifest(reference).await.unwrap();
    let mut child = descriptor(MediaType::ImageManifest.as_ref(), raw.bytes());
    child["platform"] = json!({ "os": "linux", "architecture": architecture });
    child
}

/// The index of these under `reference`, with an attestation of each of the first two; its entries.
pub(crate) async fn put_attested(
    registry: &MemoryRegistry,
    reference: &Reference,
    mut children: Vec<Value>,
) -> Vec<Descriptor> {
    for subject in [0, 1] {
        put_image(registry, reference, ("unknown", "unknown"), &[layer(&format!("note {subject}"), 5)]);
        let raw = registry.manifest(reference).await.unwrap();
        let mut document: Value = serde_json::from_slice(raw.bytes()).unwrap();
        document["layers"][0]["mediaType"] = json!("application/vnd.in-toto+json");
        put_document(registry, reference, MediaType::ImageManifest, &document);
        let mut attestation = child(registry, reference, "unknown").await;
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": children[subject]["digest"],
        });
        children.push(attestation);
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": children });
    put_document(registry, reference, MediaType::ImageIndex, &index);
    registry.fetch_index(reference).await.unwrap().manifests().clone()
}

/// An image of one compressed layer under `reference`.
pub(crate) fn put_compressed(registry: &MemoryRegistry, reference: &Reference, tar: &[u8], gzip: &[u8]) {
    let diff_id = digest::sha256(tar).to_string();
    let rootfs = json!({ "type": "layers", "diff_ids": [diff_id] });
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor(MediaType::ImageConfig.as_ref(), &config),
        "layers": [descriptor(MediaType::ImageLayerGzip.as_ref(), gzip)],
    });
    registry.insert_blob(reference, digest::sha256(&config), config);
    registry.insert_blob(reference, digest::sha256(gzip), gzip.to_vec());
    put_document(registry, reference, MediaType::ImageManifest, &manifest);
}

/// An image of plain tar layers under `reference`; the digests of its layers.
pub(crate) fn put_image(
    registry: &MemoryRegistry,
    reference: &Reference,
    platform: (&str, &str),
    layers: &[Vec<u8>],
) -> (Digest, Vec<Digest>) {
    let digests: Vec<Digest> = layers.iter().map(|layer| digest::sha256(layer)).collect();
    let config = json!({
        "os": platform.0, "architecture": platform.1,
        "rootfs": { "type": "layers", "diff_ids": digests.iter().map(ToString::to_string).collect::<Vec<_>>() },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor(MediaType::ImageConfig.as_ref(), &config),
        "layers": layers.iter().map(|l| descriptor(MediaType::ImageLayer.as_ref(), l)).collect::<Vec<_>>(),
    });
    registry.insert_blob(reference, digest::sha256(&config), config);
    for layer in layers {
        registry.insert_blob(reference, digest::sha256(layer), layer.clone());
    }
    (put_document(registry, reference, MediaType::ImageManifest, &manifest), digests)
}

/// An index of images for linux, given by architecture and layers, under `reference`; its digest.
pub(crate) async fn index_of(
    registry: &MemoryRegistry,
    reference: &Reference,
    images: &[(&str, &[Vec<u8>])],
) -> Digest {
    let mut children = Vec::new();
    for (architecture, layers) in images {
        put_image(registry, reference, ("linux", architecture), layers);
        let raw = registry.manifest(reference).await.unwrap();
        let mut child = descriptor(MediaType::ImageManifest.as_ref(), raw.bytes());
        child["platform"] = json!({ "os": "linux", "architecture": architecture });
        children.push(child);
    }
    let index = json!({ "schemaVersion": 2, "manifests": children });
    put_document(registry, reference, MediaType::ImageIndex, &index)
}

/// A manifest or an index, valid or not, under `reference`.
pub(crate) fn put_document(
    registry: &MemoryRegistry,
    reference: &Reference,
    media_type: MediaType,
    document: &Value,
) -> Digest {
    let bytes = document.to_string().into_bytes();
    let digest = digest::sha256(&bytes);
    registry.insert_manifest(reference, media_type, &digest, bytes);
    digest
}

/// One thing that goes wrong with one blob read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The stream breaks after so many bytes.
    Breaks(u64),
    /// The byte at the first place is another one, and the stream breaks after so many.
    FlipsAndBreaks(usize, u64),
    /// Ranges are ignored: the whole blob comes.
    IgnoresRange,
    /// The answer is that it is not allowed.
    Refuses,
    /// The stream never yields anything.
    Stalls,
}

/// A registry that counts what it is asked and plays a script of faults, one for each blob read.
#[derive(Clone)]
pub(crate) struct Scripted {
    inner: MemoryRegistry,
    pub(crate) log: Arc<Log>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) manifests: AtomicUsize,
    pub(crate) resolves: AtomicUsize,
    layers: AtomicUsize,
    pub(crate) blobs: Mutex<Vec<(Digest, BlobRange)>>,
    faults: Mutex<Vec<Fault>>,
}

impl Scripted {
    pub(crate) fn new(inner: &MemoryRegistry, faults: &[Fault]) -> Self {
        let log = Log { faults: Mutex::new(faults.iter().rev().copied().collect()), ..Log::default() };
        Self { inner: inner.clone(), log: Arc::new(log) }
    }

    pub(crate) fn requests(&self) -> usize {
        let log = &self.log;
        log.manifests.load(Ordering::Relaxed)
            + log.resolves.load(Ordering::Relaxed)
            + log.blobs.lock().unwrap().len()
    }

    pub(crate) fn manifest_requests(&self) -> usize {
        self.log.manifests.load(Ordering::Relaxed)
    }

    /// Reads of layers, whichever.
    pub(crate) fn layer_reads(&self) -> usize {
        self.log.layers.load(Ordering::Relaxed)
    }

    pub(crate) fn reads_of(&self, digest: &Digest) -> usize {
        self.log.blobs.lock().unwrap().iter().filter(|(read, _)| read == digest).count()
    }
}

#[async_trait]
impl ImageRegistry for Scripted {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.log.manifests.fetch_add(1, Ordering::Relaxed);
        // As over a network, others come in between.
        tokio::task::yield_now().await;
        self.inner.manifest(reference).await
    }

    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        self.log.resolves.fetch_add(1, Ordering::Relaxed);
        Ok(self.inner.manifest(reference).await?.descriptor().clone())
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.log.blobs.lock().unwrap().push((blob.digest().clone(), range));
        let is_layer = blob.media_type().as_ref().contains("layer");
        self.log.layers.fetch_add(usize::from(is_layer), Ordering::Relaxed);
        let fault = if is_layer { self.log.faults.lock().unwrap().pop() } else { None };
        match fault {
            None => self.inner.blob(reference, blob, range).await,
            Some(Fault::IgnoresRange) => self.inner.blob(reference, blob, BlobRange::FULL).await,
            Some(Fault::Refuses) => Err(Error::new(ErrorKind::Denied, "not allowed")),
            Some(Fault::Stalls) => Blob::new(blob, stream::pending()),
            Some(Fault::FlipsAndBreaks(at, after)) => {
                let head = self.inner.blob(reference, blob, BlobRange::new(0, after)).await?;
                let mut head = head.bytes(after).await?.to_vec();
                head[at] ^= 1;
                let broken = Error::new(ErrorKind::Unavailable, "connection reset");
                Blob::new(blob, stream::iter([Ok(head.into()), Err(broken)]))
            }
            Some(Fault::Breaks(after)) => {
                let start = range.resolve(blob.size())?.start;
                let head = BlobRange::new(start, (start + after).min(blob.size()));
                let head = self.inner.blob(reference, blob, head).await?.unverified();
                let broken =
                    stream::iter([Err::<Bytes, _>(Error::new(ErrorKind::Unavailable, "connection reset"))]);
                Blob::ranged(blob, start..blob.size(), head.chain(broken))
            }
        }
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted:")
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

/// Keeps nothing of a layer that is sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain;

impl Materializer for Drain {
    fn format(&self) -> Format {
        Format { name: "drain", version: 1, options: String::new(), extension: "empty" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        out.output(Role::Image)?;
        tar.finish()?;
        Ok(Made::default())
    }
}
