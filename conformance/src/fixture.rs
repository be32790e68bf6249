//! Fixtures: how a suite puts samples into a medium and opens it with the backend under test.

use std::any::Any;
use std::fmt::{self, Debug};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use plyfold_core::copy::{Copied, CopyFrom, CopyOptions, copy, copy_from};
use plyfold_core::edit::Edit;
use plyfold_core::save::{ArchiveForm, SaveOptions};
use plyfold_core::{
    Attestation, Blob, BlobRange, CacheProvider, CacheProviderExt, Descriptor, Digest, FlatImage,
    FlatOptions, ImageAttestations as _, ImageRegistry, ImageRegistryExt as _, ImageSource, ImageSourceExt,
    ImageSourceTars as _, LoadOptions, Loaded, Opened, Platform, PullOptions, PullResult, Reference,
    RegistrySource, Result, blocking,
};

use crate::samples::Sample;
use crate::tree::{LayerEntry, TreeLine, read_layer, stacked};

pub use archive::ArchiveFixture;
pub(crate) use cache::overwrite;
pub use cache::{CacheFixture, CacheMedium, CacheUnderTest, LayoutFixture};
pub use disk::{DiskFixture, ReadBack};
pub use materializer::{FormatFidelity, MaterializerFixture, path_of};

mod archive;
mod cache;
mod disk;
mod materializer;

/// A medium with a backend that reads it: what [`registry_suite!`](crate::registry_suite) judges.
///
/// Samples are to be written as they are: a sample may hold bytes that do not match their digest.
/// [`fixtures`](crate::fixtures) has fixtures for the media that many backends read.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// How much of a sample the medium keeps.
    fn fidelity(&self) -> Fidelity {
        Fidelity::Exact
    }

    /// Whether images of any host can be held, each under its full name; otherwise the host in names is replaced by the
    /// medium's own.
    fn holds_any_host(&self) -> bool {
        true
    }

    /// Whether the medium holds several repositories; otherwise its names are bare tags of the one that it has, and the
    /// rules use other tags where they would use another repository.
    fn holds_any_repository(&self) -> bool {
        true
    }

    /// Whether the medium holds several images; otherwise what is stored takes the place of its image, under the one name
    /// that there is.
    fn holds_several_images(&self) -> bool {
        true
    }

    /// Whether the medium says the digest of what a name leads to; otherwise that is computed of the bytes, with sha256.
    fn states_digests(&self) -> bool {
        true
    }

    /// A fresh medium with these images, opened. A backend whose names are its own gives the names of the images in
    /// [`BackendUnderTest::references`], in order: with the tags of the images, and with as many repositories.
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest;

    /// The same with images beside them that no name leads to; `None` when the medium knows no such images, or its
    /// reader can ask for what has a name alone.
    async fn open_with_untagged(
        &self,
        images: &[FixtureImage<'_>],
        untagged: &[&Sample],
    ) -> Option<BackendUnderTest> {
        let _ = (images, untagged);
        None
    }

    /// The same under a condition; `None` when the medium knows no such condition.
    async fn open_under(&self, image: &FixtureImage<'_>, condition: Condition) -> Option<BackendUnderTest> {
        let _ = (image, condition);
        None
    }

    /// The names of the rules of which something cannot be judged here. The suite says so in its output, and
    /// fails for a rule that is not judged and not listed, and for one that is listed and judged.
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }

    /// The rules that the backend does not keep, each with the reason: for a backend over a client of others, which
    /// leaves it no choice. The suite says so in its output, and fails for a rule that is listed and kept.
    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// How much of a sample a medium keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fidelity {
    /// Configs and uncompressed layers of single images; manifests are made up (docker-archive).
    DiffIds,
    /// Every byte.
    Exact,
}

/// A sample and its name.
#[derive(Clone, Debug)]
pub struct FixtureImage<'a> {
    /// The name, with a tag.
    pub reference: Reference,
    /// The content.
    pub sample: &'a Sample,
}

impl<'a> FixtureImage<'a> {
    /// A sample under a full name such as `registry.example/library/app:1.2`.
    ///
    /// # Panics
    /// When `name` is no reference: a mistake in the calling test.
    pub fn new(name: &str, sample: &'a Sample) -> Self {
        let reference = plyfold_core::reference::parse(name);
        Self { reference: reference.expect("a valid reference"), sample }
    }
}

/// What may be wrong with a medium as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// Good credentials without the permission.
    Denied,
    /// The medium states digests beside its content, and they are wrong.
    DigestLies,
    /// The medium states no digests beside its content.
    DigestUnstated,
    /// 429 with `Retry-After`.
    RateLimited(RetryAfter),
    /// No credentials or wrong ones.
    Unauthorized,
    /// The medium fails for now.
    Unavailable,
}

/// The three shapes of a `Retry-After` (RFC 9110 10.2.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryAfter {
    /// An HTTP date, 30 seconds from now.
    Date,
    /// None at all.
    Missing,
    /// `7`.
    Seconds,
}

/// An opened medium.
#[derive(Debug)]
pub struct BackendUnderTest {
    /// The backend under test.
    pub registry: Box<dyn ImageRegistry>,
    /// The names of its images, in order.
    pub references: Vec<Reference>,
    /// What is derived from the backend. Only mutants replace it.
    pub client: Box<dyn Client>,
    medium: Option<Box<dyn Any + Send + Sync>>,
    breaks: Option<Box<dyn Break>>,
}

/// What makes a medium fail.
trait Break: FnOnce() + Send + Sync {}

impl<F: FnOnce() + Send + Sync> Break for F {}

impl Debug for dyn Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Break")
    }
}

impl BackendUnderTest {
    /// A backend that has been opened on `medium`, with what it needs: a server, a temporary directory.
    pub fn new(
        registry: Box<dyn ImageRegistry>,
        references: Vec<Reference>,
        medium: impl Any + Send + Sync,
    ) -> Self {
        Self {
            registry,
            references,
            client: Box::new(CoreClient),
            medium: Some(Box::new(medium)),
            breaks: None,
        }
    }

    /// The name of the first image.
    pub fn reference(&self) -> &Reference {
        &self.references[0]
    }

    /// The same with how the medium is made to fail. Otherwise it is dropped, and where its content is then only missing,
    /// the rule about I/O errors is not judged.
    #[must_use]
    pub fn with_failure(mut self, fail: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.breaks = Some(Box::new(fail));
        self
    }

    /// Takes the medium away: from now on any input or output fails.
    pub fn unplug(&mut self) {
        match self.breaks.take() {
            Some(fail) => fail(),
            None => self.medium = None,
        }
    }

    /// Opens the first image for a platform.
    ///
    /// # Errors
    /// Those of the backend and of the derived methods.
    pub async fn image(&self, platform: &str) -> Result<Box<dyn ImageSource>> {
        let platform = platform.parse()?;
        self.client.image(&*self.registry, self.reference(), &platform).await
    }
}

/// What core derives from a backend's own methods. The rules go through it so that they can be tried on broken
/// derivations too.
#[async_trait]
pub trait Client: Debug + Send + Sync {
    /// One image for one platform.
    async fn image(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Box<dyn ImageSource>> {
        Ok(Box::new(RegistrySource::open(dyn_clone::clone_box(registry), reference, platform).await?))
    }

    /// A blob of an image, by its digest alone.
    async fn image_blob(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        digest: &Digest,
        range: BlobRange,
    ) -> Result<Blob> {
        registry.fetch_image_blob(reference, digest, range).await
    }

    /// A copy of an image, with everything that belongs to it.
    async fn copy(
        &self,
        from: &dyn ImageRegistry,
        image: &Reference,
        to: &dyn ImageRegistry,
        target: &Reference,
    ) -> Result<Descriptor> {
        copy(from, image, to, target, &CopyOptions::default()).await
    }

    /// A copy of an image with what the options say of it.
    async fn copy_part(
        &self,
        from: &dyn ImageRegistry,
        image: &Reference,
        to: &dyn ImageRegistry,
        target: &Reference,
        options: &CopyOptions,
    ) -> Result<Descriptor> {
        copy(from, image, to, target, options).await
    }

    /// A copy of images of several places.
    async fn copy_from(
        &self,
        jobs: &[CopyFrom<'_>],
        to: &dyn ImageRegistry,
        options: &CopyOptions,
    ) -> Result<Vec<Copied>> {
        copy_from(jobs, to, options).await
    }

    /// The entries of a layer, read to its verified end.
    async fn layer(&self, source: &dyn ImageSource, index: usize) -> Result<Vec<LayerEntry>> {
        let mut tar = source.layer_tar(index).await?;
        let entries = tokio::task::spawn_blocking(move || read_layer(&mut tar)).await;
        entries.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// The root file system of an image.
    async fn tree(&self, source: &dyn ImageSource) -> Result<Vec<TreeLine>> {
        let mut layers = Vec::new();
        for index in 0..source.layers()?.len() {
            layers.push(self.layer(source, index).await?);
        }
        stacked(layers)
    }

    /// The root file system of an image as the tree that formats are made from.
    async fn merged(&self, source: &dyn ImageSource) -> Result<Vec<TreeLine>> {
        let image = FlatImage::of(source, &FlatOptions::default()).await?;
        blocking::alone("merged tree", move |stop| crate::tree::merged(&image.tree(stop)?)).await
    }

    /// The root file system of an image as one tar.
    async fn flat_tar(&self, source: &dyn ImageSource) -> Result<Vec<u8>> {
        Ok(self.flat_reader(source).await?.try_collect::<Vec<_>>().await?.concat())
    }

    /// The same as a stream.
    async fn flat_reader(&self, source: &dyn ImageSource) -> Result<BoxStream<'static, Result<Bytes>>> {
        Ok(source.tar_reader(&FlatOptions::default()).await?.boxed())
    }

    /// An image as an archive of one form, under a name.
    async fn archive(
        &self,
        source: &dyn ImageSource,
        name: &Reference,
        form: ArchiveForm,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let options = SaveOptions::default();
        Ok(match form {
            ArchiveForm::Docker => source.v1_tar_reader(name, &options).await?.boxed(),
            _ => source.oci_tar_reader(name, &options).await?.boxed(),
        })
    }

    /// The SBOMs of an image.
    async fn sboms(&self, source: &dyn ImageSource) -> Result<Vec<Attestation>> {
        source.sboms().await
    }

    /// The provenance of an image.
    async fn provenance(&self, source: &dyn ImageSource) -> Result<Vec<Attestation>> {
        source.provenance().await
    }

    /// What an attestation says.
    async fn predicate(&self, attestation: &Attestation) -> Result<Bytes> {
        attestation.predicate().await
    }

    /// An image into a cache.
    async fn pull(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        cache: &dyn CacheProvider,
        options: &PullOptions,
    ) -> Result<PullResult> {
        plyfold_core::pull(registry, reference, cache, options).await
    }

    /// Images of an archive into a cache.
    async fn load(
        &self,
        from: &Opened,
        cache: &dyn CacheProvider,
        options: &LoadOptions,
    ) -> Result<Vec<Loaded>> {
        dyn_clone::clone_box(cache).image_load(from, options).await
    }

    /// An image of a cache, made of another one.
    async fn edit(
        &self,
        cache: &dyn CacheProvider,
        image: &Reference,
        edit: &Edit,
        name: &Reference,
    ) -> Result<Descriptor> {
        dyn_clone::clone_box(cache).edit(image, edit, name).await
    }

    /// An index of a cache's manifests, under a name.
    async fn index_write(
        &self,
        cache: &dyn CacheProvider,
        name: &Reference,
        manifests: &[Descriptor],
    ) -> Result<Descriptor> {
        cache.index_write(name, manifests).await
    }

    /// An image out of a cache.
    async fn push(
        &self,
        cache: &dyn CacheProvider,
        name: &Reference,
        registry: &dyn ImageRegistry,
        target: &Reference,
        options: &CopyOptions,
    ) -> Result<Descriptor> {
        Ok(dyn_clone::clone_box(cache).push(name, registry, target, options).await?.descriptor)
    }
}

/// The derivations of `plyfold-core`.
#[derive(Clone, Copy, Debug)]
pub struct CoreClient;

impl Client for CoreClient {}
