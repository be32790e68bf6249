//! Manifests, indexes and configs: raw bytes first, documents second.

use std::io::Read;

use bytes::Bytes;
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, Platform as PlatformDocument};
use serde_json::{Map, Value, json};

use crate::digest::Hasher;
use crate::go_json::{CONFIG, DOCUMENT, PLATFORM_NAMES, is_zero};
use crate::strict::{self, DocumentFault, invalid};
use crate::{Descriptor, Digest, Error, MediaType, Mismatch, Platform, Result, Size, digest};

/// Bounds on documents. Memory follows these, never what an input declares.
pub mod limits {
    /// Bytes of a manifest or an index (registries commonly accept 4 MiB). A backend reads one byte more at most:
    /// [`RawManifest::read`](super::RawManifest::read) and [`RawManifest::verified`](super::RawManifest::verified) then
    /// refuse what is longer.
    pub const MANIFEST: u64 = 4 << 20;
    /// Bytes of an image configuration.
    pub const CONFIG: u64 = 4 << 20;
    /// Layers of one image.
    pub const LAYERS: usize = 1024;
    /// Children of one index.
    pub const INDEX_ENTRIES: usize = 4096;
    /// Indexes within indexes.
    pub const NESTING: usize = 4;
    /// How deep documents may refer to documents that refer to an image: a signature of an SBOM is two deep.
    pub const REFERRERS: usize = 64;
    /// Documents that may refer to an image, and to those, in all.
    pub const ALL_REFERRERS: usize = INDEX_ENTRIES;
}

/// The media type of a Docker manifest list, an index by another name.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of a Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of a Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Whether content of this type is an index of other manifests.
pub fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || media_type.as_ref() == DOCKER_MANIFEST_LIST
}

/// Whether content of this type is an image manifest.
pub fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || media_type.as_ref() == DOCKER_MANIFEST
}

/// Whether content of this type is a manifest or an index: a document, not a blob.
pub fn is_document(media_type: &MediaType) -> bool {
    is_manifest(media_type) || is_index(media_type)
}

/// Whether a layer is non-distributable (OCI image spec, `layer.md#non-distributable-layers`) or a Docker foreign
/// layer: it need not be where its manifest is.
pub fn is_foreign(media_type: &MediaType) -> bool {
    let name = media_type.as_ref();
    name.contains(".nondistributable.") || name.contains(".image.rootfs.foreign.")
}

/// A manifest or an index exactly as it was received: these bytes are what its digest is the hash of, and they
/// are what every copy carries on.
///
/// A value of this type has passed the strict parser, so [`document`](Self::document) is unambiguous.
///
/// Two are equal when their types and bytes are.
#[derive(Clone, Debug)]
pub struct RawManifest {
    descriptor: Descriptor,
    bytes: Bytes,
    document: Document,
    platform: Option<PlatformDocument>,
}

impl Eq for RawManifest {}

impl PartialEq for RawManifest {
    fn eq(&self, other: &Self) -> bool {
        self.descriptor == other.descriptor && self.bytes == other.bytes
    }
}

/// What a [`RawManifest`] says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful exist at a time; boxing would burden every caller")]
pub enum Document {
    /// Several images or artifacts under one name.
    Index(ImageIndex),
    /// One image or artifact.
    Manifest(ImageManifest),
}

impl RawManifest {
    /// Parses bytes whose origin declared `media_type` (a Content-Type, a descriptor), if it declared one, and
    /// names them by their sha256.
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) for documents with two readings,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for invalid ones or another type than declared,
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`limits`], [`Unsupported`](crate::ErrorKind::Unsupported) for
    /// Docker schema 1.
    pub fn new(bytes: impl Into<Bytes>, media_type: Option<&MediaType>) -> Result<Self> {
        let bytes = bytes.into();
        let digest = digest::sha256(&bytes);
        check_size(bytes.len() as u64, &digest)?;
        Self::named(bytes, media_type, digest)
    }

    /// As [`RawManifest::verified`] for what a file or another reader yields. Of content that is too long it reads one
    /// byte more than [`limits::MANIFEST`].
    ///
    /// # Errors
    /// As [`RawManifest::verified`], and what the reader reports.
    ///
    /// ```
    /// use plyfold_core::{ErrorKind, RawManifest, digest};
    ///
    /// let wanted = digest::sha256(b"{}");
    /// let error = RawManifest::read(std::io::repeat(b' '), None, &wanted).unwrap_err();
    /// assert_eq!(*error.kind(), ErrorKind::Limit);
    /// ```
    pub fn read(content: impl Read, media_type: Option<&MediaType>, digest: &Digest) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = content.take(limits::MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("reading a manifest", e))?;
        Self::verified(bytes, media_type, digest)
    }

    /// As [`RawManifest::new`] for bytes that must hash to `digest`. The length is checked first, so that the start of
    /// content that is too long is no mismatch.
    ///
    /// # Errors
    /// As [`RawManifest::new`]; [`Corrupt`](crate::ErrorKind::Corrupt) with
    /// a [`Mismatch`] when they do not, [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that
    /// cannot be verified.
    pub fn verified(
        bytes: impl Into<Bytes>,
        media_type: Option<&MediaType>,
        digest: &Digest,
    ) -> Result<Self> {
        let (bytes, mut hasher) = (bytes.into(), Hasher::like(digest)?);
        check_size(bytes.len() as u64, digest)?;
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Error::from(Mismatch {
                expected: digest.clone(),
                actual: Some(actual),
                expected_size: None,
                actual_size: bytes.len() as u64,
            }));
        }
        Self::named(bytes, media_type, actual)
    }

    /// As [`RawManifest::verified`] for the content of a descriptor: digest, size and media type must hold.
    ///
    /// # Errors
    /// As [`RawManifest::verified`].
    pub fn described(bytes: impl Into<Bytes>, descriptor: &Descriptor) -> Result<Self> {
        let bytes = bytes.into();
        check_size(bytes.len() as u64, descriptor.digest())?;
        if bytes.len() as u64 != descriptor.size() {
            return Err(Mismatch::of(descriptor, None, bytes.len() as u64).into());
        }
        let raw = Self::verified(bytes, Some(descriptor.media_type()), descriptor.digest())?;
        Ok(raw.with_platform(descriptor.platform().clone()))
    }

    /// Keeps what an index or a descriptor says of the image's platform, for a config that does not say it.
    #[must_use]
    pub fn with_platform(mut self, platform: Option<PlatformDocument>) -> Self {
        self.platform = platform;
        self
    }

    fn named(bytes: Bytes, declared: Option<&MediaType>, digest: Digest) -> Result<Self> {
        let (media_type, document) =
            parse(&bytes, declared).map_err(|e| e.with_context("manifest", &digest))?;
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, digest);
        Ok(Self { descriptor, bytes, document, platform: None })
    }

    /// Media type, digest and size; no annotations, no platform.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// What the descriptor that led here says of the image's platform.
    pub fn platform(&self) -> Option<&PlatformDocument> {
        self.platform.as_ref()
    }

    /// The digest of [`RawManifest::bytes`].
    pub fn digest(&self) -> &Digest {
        self.descriptor.digest()
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The parsed document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The image manifest.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when this is an index.
    pub fn image(&self) -> Result<&ImageManifest> {
        match &self.document {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(DocumentFault::Index(self.digest().clone()).into()),
        }
    }

    /// What this document is about, if it is a referrer (OCI image spec, `manifest.md`, `subject`).
    pub fn subject(&self) -> Option<&Descriptor> {
        match &self.document {
            Document::Index(index) => index.subject().as_ref(),
            Document::Manifest(manifest) => manifest.subject().as_ref(),
        }
    }

    /// Everything this document refers to: children of an index, config and layers of a manifest.
    pub fn references(&self) -> Vec<Descriptor> {
        match &self.document {
            Document::Index(index) => index.manifests().clone(),
            Document::Manifest(manifest) => {
                std::iter::once(manifest.config()).chain(manifest.layers()).cloned().collect()
            }
        }
    }

    /// What has to be where this document is: config and layers of a manifest, those aside that may not be
    /// redistributed. An index may list images that are elsewhere.
    pub fn requirements(&self) -> Vec<Descriptor> {
        let mut references = self.references();
        references.retain(|blob| !is_foreign(blob.media_type()));
        if matches!(self.document, Document::Index(_)) { Vec::new() } else { references }
    }
}

/// Refuses a manifest that is too long.
pub(crate) fn check_size(bytes: u64, digest: &Digest) -> Result<()> {
    if bytes > limits::MANIFEST {
        let message = format!("manifest {digest} has more than {}", Size(limits::MANIFEST));
        return Err(DocumentFault::Long(message).into());
    }
    Ok(())
}

fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<(MediaType, Document)> {
    let fields = strict::read(bytes, &DOCUMENT)?;
    let schema1 = declared
        .is_some_and(|name| name.as_ref().starts_with("application/vnd.docker.distribution.manifest.v1"));
    if fields["schemaVersion"] == 1 || schema1 {
        return Err(DocumentFault::DockerSchema1.into());
    }
    if fields["schemaVersion"] != 2 {
        return Err(invalid("schemaVersion is not 2"));
    }
    let stated = fields["mediaType"].as_str().map(MediaType::from);
    // A generic type on the wire says nothing about the document.
    let declared = declared.filter(|name| is_document(name) || name.as_ref().contains("vnd."));
    if let (Some(stated), Some(declared)) = (&stated, declared)
        && stated != declared
    {
        let why = format!("declared {declared}, the document says {stated}");
        return Err(DocumentFault::MediaType(why).into());
    }
    let (is_there, is_set) = (|key| fields.get(key).is_some(), |key: &str| !is_zero(&fields[key]));
    let is_image = is_set("layers") || is_set("config") || is_there("layers") && !is_there("manifests");
    let shape = match stated.as_ref().or(declared).filter(|name| !is_document(name)) {
        _ if is_image => MediaType::ImageManifest,
        _ if is_there("manifests") => MediaType::ImageIndex,
        Some(other) => return Err(DocumentFault::Other(other.clone()).into()),
        None => return Err(invalid("neither \"layers\" nor \"manifests\"")),
    };
    let media_type = stated.or_else(|| declared.cloned()).unwrap_or_else(|| shape.clone());
    if is_index(&media_type) != (shape == MediaType::ImageIndex) {
        return Err(DocumentFault::MediaType(format!("{media_type} has the fields of {shape}")).into());
    }
    let document = if shape == MediaType::ImageIndex {
        serde_json::from_value(fields).map(Document::Index)
    } else {
        serde_json::from_value(fields).map(Document::Manifest)
    };
    let document = document.map_err(invalid)?;
    let (count, limit, what) = match &document {
        Document::Index(index) => (index.manifests().len(), limits::INDEX_ENTRIES, "manifests"),
        Document::Manifest(manifest) => (manifest.layers().len(), limits::LAYERS, "layers"),
    };
    if count > limit {
        return Err(DocumentFault::Long(format!("document has {count} {what}, the limit is {limit}")).into());
    }
    Ok((media_type, document))
}

/// An image configuration exactly as it was received, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct RawConfig {
    descriptor: Descriptor,
    bytes: Bytes,
    document: ImageConfiguration,
}

impl RawConfig {
    /// Parses verified bytes of the config that `manifest` names.
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) and [`Corrupt`](crate::ErrorKind::Corrupt) for a document with
    /// two readings or none, also when it does not have one `diff_id` for each layer;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the manifest is an artifact without an image
    /// configuration, or a `diff_id` cannot be verified.
    pub fn new(manifest: &ImageManifest, bytes: Bytes) -> Result<Self> {
        let descriptor = manifest.config().clone();
        check_is_image(manifest)?;
        let at = |e: Error| e.with_context("config", descriptor.digest());
        if has_generic_config(manifest) && !has_rootfs(&bytes) {
            return Err(not_an_image(manifest));
        }
        let document = configuration(&bytes).map_err(at)?;
        let (layers, diff_ids) = (manifest.layers().len(), document.rootfs().diff_ids().len());
        if layers != diff_ids {
            let why = format!("{diff_ids} diff_ids for {layers} layers");
            return Err(at(DocumentFault::Config(why).into()));
        }
        let config = Self { descriptor: descriptor.clone(), bytes, document };
        config.diff_ids().map_err(at)?;
        Ok(config)
    }

    /// The config's descriptor in the manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The bytes as received, unknown fields included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The parsed configuration.
    pub fn document(&self) -> &ImageConfiguration {
        &self.document
    }

    /// The digests of the uncompressed layers, bottom first: one for each layer of the manifest.
    ///
    /// # Errors
    /// None after [`RawConfig::new`] has accepted the document.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        self.document.rootfs().diff_ids().iter().map(|text| digest::parse(text)).collect()
    }

    /// The platform that the image was made for; `None` when the configuration does not name it whole.
    pub fn platform(&self) -> Option<Platform> {
        let document = &self.document;
        let (os, architecture) = (document.os().to_string(), document.architecture().to_string());
        let is_whole = !os.is_empty() && !architecture.is_empty();
        let platform = Platform::new(&os, &architecture, document.variant().as_deref());
        is_whole.then(|| platform.with_features(document.os_features().iter().flatten()))
    }

    /// The platform that the image was made for. What the configuration does not name is taken from `told`, the
    /// platform in an index or a descriptor, or else from this host (its baseline, without a variant).
    pub fn platform_or(&self, told: Option<&PlatformDocument>) -> Platform {
        let host = Platform::host();
        let host = Platform::new(host.os(), host.architecture(), None);
        let told = told.map_or(host, Platform::from);
        let (os, architecture) = (self.document.os().to_string(), self.document.architecture().to_string());
        let os = if os.is_empty() { told.os() } else { &os };
        let platform = match architecture.as_str() {
            "" => Platform::new(os, told.architecture(), told.variant()),
            named => Platform::new(os, named, self.document.variant().as_deref()),
        };
        platform.with_features(self.document.os_features().as_deref().unwrap_or(told.features()))
    }
}

/// The image configuration that these bytes are. Where it names no operating system or no architecture, these are
/// empty; where it has no `rootfs`, that has no layers.
///
/// # Errors
/// [`Ambiguous`](crate::ErrorKind::Ambiguous) and [`Corrupt`](crate::ErrorKind::Corrupt) for a document with two
/// readings or none.
pub fn configuration(bytes: &[u8]) -> Result<ImageConfiguration> {
    let mut value = strict::read(bytes, &CONFIG)?;
    // Fields that Go's types have for every configuration, and that some writers leave out when they are empty.
    if let Value::Object(fields) = &mut value {
        let rootfs = fields.entry("rootfs").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(rootfs) = rootfs {
            rootfs.entry("type").or_insert_with(|| "layers".into());
            rootfs.entry("diff_ids").or_insert_with(|| json!([]));
        }
    }
    Ok(serde_json::from_value(value).map_err(|e| DocumentFault::Config(e.to_string()))?)
}

/// A descriptor as it stands in a document, whose platform's fields have the names of the specification.
pub(crate) fn descriptor_json(descriptor: &Descriptor) -> Value {
    let mut document = serde_json::to_value(descriptor).unwrap_or_default();
    if let Some(Value::Object(platform)) = document.get_mut("platform") {
        for (of_spec, own) in PLATFORM_NAMES {
            if let Some(value) = platform.remove(own) {
                platform.insert(of_spec.to_owned(), value);
            }
        }
    }
    document
}

/// JSON with the keys of every object sorted and no blanks: the same bytes for the same content.
pub fn canonical_json(value: &Value) -> Vec<u8> {
    sorted(value).to_string().into_bytes()
}

/// The same value with the keys of every object in order. `serde_json::Map` may keep the order of insertion, depending
/// on the features that other crates of the build enable.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        scalar => scalar.clone(),
    }
}

/// Whether a manifest's config is an image configuration.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) when it is an artifact, [`Limit`](crate::ErrorKind::Limit) when
/// the config is too large to be one.
pub fn check_is_image(manifest: &ImageManifest) -> Result<()> {
    let config = manifest.config();
    let name = config.media_type();
    if *name != MediaType::ImageConfig && name.as_ref() != DOCKER_CONFIG && !has_generic_config(manifest) {
        return Err(not_an_image(manifest));
    }
    if config.size() > limits::CONFIG {
        let sizes = Size(config.size()).beyond(Size(limits::CONFIG));
        return Err(DocumentFault::Long(format!("config declares {sizes}")).into());
    }
    Ok(())
}

/// Whether this error says that the manifest is an artifact without an image configuration.
pub(crate) fn is_artifact(error: &Error) -> bool {
    matches!(error.detail(), Some(DocumentFault::NotAnImage(_)))
}

/// Whether the config has a type that says nothing: none, or in a Docker manifest one of those that old registries
/// wrote. Whether it is an image's is seen by what is in it.
fn has_generic_config(manifest: &ImageManifest) -> bool {
    const GENERIC: [&str; 4] = ["application/json", "application/octet-stream", "text/html", "text/plain"];
    let is_docker = manifest.media_type().as_ref().is_some_and(|name| name.as_ref() == DOCKER_MANIFEST);
    let name = manifest.config().media_type().as_ref();
    name.is_empty() || is_docker && GENERIC.contains(&name.split(';').next().unwrap_or_default().trim())
}

/// Whether these bytes are a document with the one field that every image configuration has.
fn has_rootfs(bytes: &[u8]) -> bool {
    let fields: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
    fields.is_some_and(|fields| fields.get("rootfs").is_some_and(Value::is_object))
}

/// The error of an artifact where an image is needed.
pub(crate) fn not_an_image(manifest: &ImageManifest) -> Error {
    DocumentFault::NotAnImage(manifest.config().media_type().clone()).into()
}
