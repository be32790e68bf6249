//! A sample under construction. Documents are text; descriptors inside them too.

use bytes::Bytes;
use plyfold_core::Descriptor;
use plyfold_core::digest::{self, Hasher};

use super::compress::{gzip, zstd};
use super::sample::{Sample, SampleBlob, SampleImage, SampleLayer};

pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How a layer is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Packing {
    Gzip,
    /// gzip of this many members.
    GzipMembers(usize),
    Plain,
    /// zstd of two frames with a skippable one between.
    Zstd,
}

impl Packing {
    fn pack(self, tar: &[u8]) -> (&'static str, Vec<u8>) {
        match self {
            Self::Gzip => ("+gzip", gzip(&[tar])),
            Self::GzipMembers(count) => {
                // Uneven parts, so that members end inside headers and inside data.
                let parts: Vec<_> = tar.chunks(tar.len() / count + 77).collect();
                ("+gzip", gzip(&parts))
            }
            Self::Plain => ("", tar.to_vec()),
            Self::Zstd => {
                let (head, tail) = tar.split_at(tar.len() / 2 + 33);
                ("+zstd", zstd(&[head, tail]))
            }
        }
    }
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub(super) struct ImagePlan<'a> {
    pub(super) platform: &'a str,
    pub(super) layers: &'a [(Vec<u8>, Packing)],
    /// Fields to add to the manifest, each with its leading comma.
    pub(super) manifest: &'a str,
    /// Fields to add to the config, likewise.
    pub(super) config: &'a str,
    /// sha512 digests instead of sha256.
    pub(super) sha512: bool,
}

impl<'a> ImagePlan<'a> {
    pub(super) fn new(platform: &'a str, layers: &'a [(Vec<u8>, Packing)]) -> Self {
        Self { platform, layers, manifest: "", config: "", sha512: false }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    blobs: Vec<SampleBlob>,
    images: Vec<SampleImage>,
}

impl Draft {
    pub(super) fn finish(self, name: &'static str, top: Descriptor) -> Sample {
        Sample { name, top, blobs: self.blobs, images: self.images, subject: None }
    }

    /// As [`Draft::finish`] for a document whose subject is the only image.
    pub(super) fn finish_referrer(mut self, name: &'static str, top: Descriptor) -> Sample {
        let subject = self.images.pop();
        Sample { subject, ..self.finish(name, top) }
    }

    /// Adds a blob under its sha256 digest.
    pub(super) fn blob(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        self.add(media_type, bytes.into(), false)
    }

    pub(super) fn add(&mut self, media_type: &str, bytes: Bytes, sha512: bool) -> Descriptor {
        let digest = if sha512 { sha512_of(&bytes) } else { digest::sha256(&bytes) };
        let descriptor = Descriptor::new(media_type.into(), bytes.len() as u64, digest);
        if self.blobs.iter().all(|blob| blob.descriptor != descriptor) {
            self.blobs.push(SampleBlob { descriptor: descriptor.clone(), bytes });
        }
        descriptor
    }

    /// Replaces the stored bytes of a blob, so that they no longer match.
    pub(super) fn spoil(&mut self, descriptor: &Descriptor) {
        for blob in self.blobs.iter_mut().filter(|blob| blob.descriptor == *descriptor) {
            let mut bytes = blob.bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            blob.bytes = bytes.into();
        }
    }

    /// The bytes of a blob that was added.
    pub(super) fn bytes(&self, descriptor: &Descriptor) -> Bytes {
        let blob = self.blobs.iter().find(|blob| blob.descriptor == *descriptor);
        blob.map(|blob| blob.bytes.clone()).unwrap_or_default()
    }

    /// Adds layers, config and manifest of an image.
    pub(super) fn image(&mut self, plan: &ImagePlan<'_>) -> Descriptor {
        let layers: Vec<_> =
            plan.layers.iter().map(|(tar, packing)| self.layer(tar, *packing, plan.sha512)).collect();
        let config = self.config(plan, &layers);
        self.manifest(plan, config, layers)
    }

    /// Adds the manifest of an image whose config and layers were added.
    pub(super) fn manifest(
        &mut self,
        plan: &ImagePlan<'_>,
        config: Descriptor,
        layers: Vec<SampleLayer>,
    ) -> Descriptor {
        let fields: Vec<_> = layers.iter().map(|layer| json(&layer.descriptor)).collect();
        let manifest = manifest_text(&json(&config), &fields, plan.manifest);
        let manifest = self.add(MANIFEST, manifest.into(), plan.sha512);
        self.note(SampleImage {
            platform: plan.platform.to_owned(),
            manifest: manifest.clone(),
            config,
            layers,
        });
        manifest
    }

    /// Notes an image whose documents were added one by one.
    pub(super) fn note(&mut self, image: SampleImage) {
        self.images.push(image);
    }

    pub(super) fn layer(&mut self, tar: &[u8], packing: Packing, sha512: bool) -> SampleLayer {
        let (suffix, stored) = packing.pack(tar);
        let descriptor = self.add(&format!("{LAYER}{suffix}"), stored.into(), sha512);
        SampleLayer { descriptor, diff_id: digest::sha256(tar), tar: tar.to_vec().into() }
    }

    pub(super) fn config(&mut self, plan: &ImagePlan<'_>, layers: &[SampleLayer]) -> Descriptor {
        let mut platform = plan.platform.split('/');
        let os = platform.next().unwrap_or_default();
        let architecture = platform.next().unwrap_or_default();
        let variant = platform.next().map_or(String::new(), |variant| format!(r#","variant":"{variant}""#));
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
        let text = format!(
            r#"{{"created":"2024-01-02T03:04:05Z", "architecture":"{architecture}"{variant},"os":"{os}",
 "config":{{"Env":["PATH=/bin"],"Cmd":["/bin/tool"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}{}}}"#,
            diff_ids.join(","),
            plan.config,
        );
        self.add(CONFIG, text.into(), plan.sha512)
    }

    /// Adds an index of these descriptors, written as JSON.
    pub(super) fn index(&mut self, children: &[String], fields: &str) -> Descriptor {
        let children = children.join(",\n  ");
        self.blob(
            INDEX,
            format!(r#"{{ "schemaVersion":2,"mediaType":"{INDEX}", "manifests":[{children}]{fields} }}"#),
        )
    }
}

/// A manifest as text, with a space where no serialiser writes one.
pub(super) fn manifest_text(config: &str, layers: &[String], fields: &str) -> String {
    let layers = layers.join(",\n  ");
    format!(
        r#"{{"schemaVersion": 2,"mediaType":"{MANIFEST}",
 "config":{config},"layers":[{layers}]{fields}}}"#
    )
}

/// A descriptor as JSON.
pub(super) fn json(descriptor: &Descriptor) -> String {
    with(descriptor, "")
}

/// A descriptor as JSON with more fields, each with its leading comma.
pub(super) fn with(descriptor: &Descriptor, fields: &str) -> String {
    let (media_type, digest, size) = (descriptor.media_type(), descriptor.digest(), descriptor.size());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{fields}}}"#)
}

/// The descriptor of an index child with its platform.
pub(super) fn for_platform(descriptor: &Descriptor, platform: &str) -> String {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let variant = parts.next().map_or(String::new(), |variant| format!(r#","variant":"{variant}""#));
    with(descriptor, &format!(r#","platform":{{"architecture":"{architecture}","os":"{os}"{variant}}}"#))
}

fn sha512_of(bytes: &[u8]) -> plyfold_core::Digest {
    let like = format!("sha512:{}", "0".repeat(128));
    let hasher = digest::parse(&like).and_then(|like| Hasher::like(&like));
    let mut hasher = hasher.expect("sha512 is supported");
    hasher.update(bytes);
    hasher.finish()
}
