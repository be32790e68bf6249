//! Mutants of what is derived from a registry: the choice of a platform, copies.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use plyfold_conformance::tree::{LayerEntry, TreeLine, stacked};
use plyfold_conformance::{Client, CoreClient};
use plyfold_core::save::ArchiveForm;
use plyfold_core::{
    Attestation, AttestationOrigin, Blob, BlobRange, Conversion, Copied, CopyFrom, CopyOptions, Descriptor,
    Digest, Document, Error, ErrorKind, ImageRegistry, ImageSource, ImageSourceExt, Platform, RawManifest,
    Reference, Result, Sparse, reference,
};

use super::base::{Content, Fault};
use super::layers;
use super::registry::{child, reserialised};
use super::tars;

#[derive(Clone, Debug)]
pub(super) struct BrokenClient {
    pub(super) fault: Fault,
    pub(super) content: Content,
}

#[async_trait]
impl Client for BrokenClient {
    async fn image(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Box<dyn ImageSource>> {
        let without = platform.clone().with_features([""]);
        let wanted = if self.fault == Fault::FeaturesIgnored { &without } else { platform };
        let sound = CoreClient.image(registry, reference, wanted).await;
        let source = |raw| -> Result<Box<dyn ImageSource>> {
            Ok(Box::new(BrokenSource {
                registry: dyn_clone::clone_box(registry),
                reference: reference.clone(),
                raw,
            }))
        };
        match (self.fault, sound) {
            (Fault::ChildNotVerified | Fault::IndexNotVerified, Err(e))
                if *e.kind() == ErrorKind::Corrupt =>
            {
                // The child is taken although something above it, or it itself, is not what it should be.
                let broken = self.broken(reference);
                if (self.fault == Fault::ChildNotVerified) == broken.is_none() {
                    return source(self.any_manifest());
                }
                Err(e)
            }
            (Fault::LayersOpenedEarly, Ok(sound)) => {
                for layer in sound.layers().unwrap_or_default() {
                    drop(registry.blob(reference, layer, BlobRange::FULL).await?);
                }
                Ok(sound)
            }
            (Fault::LayersReordered, Ok(sound)) => source(reordered(sound.raw())),
            (Fault::PlatformsHidden, Err(e)) if is_platform(&e) => Err(Error::not_found("no such image")),
            (Fault::PlatformIgnored, Err(e)) if is_platform(&e) => {
                source(registry.manifest(reference).await?)
            }
            (Fault::UnknownPlatformTaken, Err(e)) if is_platform(&e) => {
                source(self.chosen(registry, reference, |_| true).await?)
            }
            (Fault::FirstCompatibleWins, Ok(sound)) => {
                let fits = |child: &Platform| platform.distance(child).is_some();
                Ok(source(self.chosen(registry, reference, fits).await?).unwrap_or(sound))
            }
            (Fault::VariantIgnored, Ok(_) | Err(_)) => {
                let same = |child: &Platform| child.architecture() == platform.architecture();
                source(self.chosen(registry, reference, same).await?)
            }
            (Fault::PlatformlessIgnored, Ok(_)) => source(self.chosen(registry, reference, |_| true).await?),
            (Fault::NestingIgnored, Ok(sound)) => {
                let raw = registry.manifest(reference).await?;
                let nested = matches!(raw.document(), Document::Index(index)
                    if index.manifests().iter().any(|child| child.media_type().as_ref().contains("index")));
                if nested { Err(Error::not_found("no image")) } else { Ok(sound) }
            }
            (Fault::NestingUnbounded, Err(e)) if *e.kind() == ErrorKind::Limit => {
                self.wander(registry, reference).await
            }
            (_, sound) => sound,
        }
    }

    async fn layer(&self, source: &dyn ImageSource, index: usize) -> Result<Vec<LayerEntry>> {
        layers::broken(self.fault, source, index).await
    }

    async fn tree(&self, source: &dyn ImageSource) -> Result<Vec<TreeLine>> {
        let mut all = Vec::new();
        for index in 0..source.layers()?.len() {
            all.push(self.layer(source, index).await?);
        }
        if self.fault == Fault::FirstKindWins {
            layers::keep_first_kinds(&mut all);
        }
        stacked(all)
    }

    async fn merged(&self, source: &dyn ImageSource) -> Result<Vec<TreeLine>> {
        match self.fault {
            Fault::WhiteoutsIgnored => self.tree(source).await,
            _ => CoreClient.merged(source).await,
        }
    }

    async fn flat_tar(&self, source: &dyn ImageSource) -> Result<Vec<u8>> {
        let tar: Vec<_> = self.flat_reader(source).await?.try_collect().await?;
        let tar = tar.concat();
        Ok(match self.fault {
            Fault::FlatTarReversed => layers::reversed(&tar),
            Fault::FlatTarUnstable => layers::padded(tar),
            _ => tar,
        })
    }

    async fn flat_reader(&self, source: &dyn ImageSource) -> Result<BoxStream<'static, Result<Bytes>>> {
        match self.fault {
            Fault::BlobsReadTwice => {
                for layer in source.layers()? {
                    source.blob(layer, BlobRange::FULL).await?.bytes(u64::MAX).await?;
                }
            }
            Fault::ProducersOutlive => std::mem::forget(dyn_clone::clone_box(source)),
            _ => {}
        }
        match CoreClient.flat_reader(source).await {
            Err(_) if self.fault == Fault::ArtifactsAsImages => Ok(stream::empty().boxed()),
            tar => tars::broken(self.fault, tar?).await,
        }
    }

    async fn archive(
        &self,
        source: &dyn ImageSource,
        name: &Reference,
        form: ArchiveForm,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let other = reference::parse("registry.example/another:1")?;
        let name = if self.fault == Fault::NameNotOverridden { &other } else { name };
        if self.fault == Fault::ProducersOutlive {
            std::mem::forget(dyn_clone::clone_box(source));
        }
        tars::broken(self.fault, CoreClient.archive(source, name, form).await?).await
    }

    async fn sboms(&self, source: &dyn ImageSource) -> Result<Vec<Attestation>> {
        let mut found = CoreClient.sboms(source).await?;
        match self.fault {
            Fault::OneSbomOnly => found.truncate(1),
            Fault::ReferrersForgotten => found.retain(|one| one.origin() == AttestationOrigin::Index),
            Fault::StatementsReadEarly => {
                for one in &found {
                    one.statement().await?;
                }
            }
            _ => {}
        }
        Ok(found)
    }

    async fn predicate(&self, attestation: &Attestation) -> Result<Bytes> {
        if self.fault == Fault::PredicatesWrapped {
            return attestation.statement().await;
        }
        CoreClient.predicate(attestation).await
    }

    async fn image_blob(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        digest: &Digest,
        range: BlobRange,
    ) -> Result<Blob> {
        if self.fault == Fault::OnePlatformSearched {
            let source =
                CoreClient.image(registry, reference, &Platform::new("linux", "amd64", None)).await?;
            if !source.layers()?.iter().chain([source.manifest()?.config()]).any(|own| own.digest() == digest)
            {
                return Err(Error::not_found("no such blob"));
            }
        }
        CoreClient.image_blob(registry, reference, digest, range).await
    }

    async fn copy(
        &self,
        from: &dyn ImageRegistry,
        image: &Reference,
        to: &dyn ImageRegistry,
        target: &Reference,
    ) -> Result<Descriptor> {
        let sound = CoreClient.copy(from, image, to, target).await?;
        if self.fault != Fault::CopyReserialises {
            return Ok(sound);
        }
        let raw = reserialised(&from.manifest(image).await?);
        to.push_manifest(target, &raw).await?;
        Ok(raw.descriptor().clone())
    }

    async fn copy_from(
        &self,
        jobs: &[CopyFrom<'_>],
        to: &dyn ImageRegistry,
        options: &CopyOptions,
    ) -> Result<Vec<Copied>> {
        if self.fault != Fault::NamesPlaceByPlace {
            return CoreClient.copy_from(jobs, to, options).await;
        }
        let mut copied = Vec::new();
        for job in jobs {
            copied.extend(CoreClient.copy_from(std::slice::from_ref(job), to, options).await?);
        }
        Ok(copied)
    }

    async fn copy_part(
        &self,
        from: &dyn ImageRegistry,
        image: &Reference,
        to: &dyn ImageRegistry,
        target: &Reference,
        options: &CopyOptions,
    ) -> Result<Descriptor> {
        let mut options = options.clone();
        if self.fault == Fault::SubsetLosesItsDigest && options.sparse == Sparse::Keep {
            options.sparse = Sparse::Rewrite;
        }
        match self.fault {
            Fault::ConversionForgotten => options.conversion = None,
            Fault::CopyRecompresses => {
                options.conversion.get_or_insert(Conversion { compress: Some("zstd".parse()?), form: None });
            }
            _ => {}
        }
        let sound = CoreClient.copy_part(from, image, to, target, &options).await?;
        if self.fault == Fault::CosignTagsLost && options.referrers {
            let tag = format!("{}.sig", sound.digest().as_ref().replace(':', "-"));
            let (host, repository) = (target.registry().to_owned(), target.repository().to_owned());
            to.delete(&Reference::with_tag(host, repository, tag)).await?;
        }
        if self.fault != Fault::SubsetForgetsAttestations || options.sparse != Sparse::Rewrite {
            return Ok(sound);
        }
        let raw = to.manifest(target).await?;
        let mut index: serde_json::Value = serde_json::from_slice(raw.bytes()).unwrap();
        index["manifests"].as_array_mut().unwrap().retain(|child| child["annotations"].is_null());
        let raw = RawManifest::new(index.to_string(), None)?;
        to.push_manifest(target, &raw).await?;
        Ok(raw.descriptor().clone())
    }
}

impl BrokenClient {
    /// The first child of an index with a platform that `fits`.
    async fn chosen(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        fits: impl Fn(&Platform) -> bool + Send,
    ) -> Result<RawManifest> {
        let raw = registry.manifest(reference).await?;
        let Document::Index(index) = raw.document() else { return Ok(raw) };
        let found = index
            .manifests()
            .iter()
            .find(|child| child.platform().as_ref().map(Platform::from).is_some_and(|p| fits(&p)));
        let Some(found) = found else {
            return Err(Error::new(ErrorKind::PlatformNotFound { available: vec![] }, "none"));
        };
        registry.manifest(&child(reference, found)).await
    }

    /// Looks at everything below an index, however deep.
    async fn wander(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
    ) -> Result<Box<dyn ImageSource>> {
        let mut todo = vec![reference.clone()];
        while let Some(name) = todo.pop() {
            if let Document::Index(index) = registry.manifest(&name).await?.document() {
                todo.extend(index.manifests().iter().map(|descriptor| child(reference, descriptor)));
            }
        }
        Err(Error::new(ErrorKind::Limit, "that was a lot"))
    }

    /// The digest of an index in the content that its bytes do not hash to.
    fn broken(&self, _: &Reference) -> Option<()> {
        let mut indexes =
            self.content.iter().filter(|(_, (media_type, _))| media_type.as_ref().contains("index"));
        indexes.find(|(digest, (_, bytes))| plyfold_core::digest::sha256(bytes) != **digest).map(|_| ())
    }

    /// Some image manifest of the content, as it is.
    fn any_manifest(&self) -> RawManifest {
        let mut manifests = self.content.values().filter(|(kind, _)| kind.as_ref().contains("manifest"));
        let (media_type, bytes) = manifests.next().unwrap();
        RawManifest::new(bytes.clone(), Some(media_type)).unwrap()
    }
}

fn is_platform(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PlatformNotFound { .. })
}

/// The manifest with its layers upside down.
fn reordered(raw: &RawManifest) -> RawManifest {
    let mut value: serde_json::Value = serde_json::from_slice(raw.bytes()).unwrap();
    value["layers"].as_array_mut().unwrap().reverse();
    RawManifest::new(value.to_string(), None).unwrap()
}

/// An image of whatever manifest.
#[derive(Clone, Debug)]
struct BrokenSource {
    registry: Box<dyn ImageRegistry>,
    reference: Reference,
    raw: RawManifest,
}

#[async_trait]
impl ImageSource for BrokenSource {
    fn raw(&self) -> &RawManifest {
        &self.raw
    }

    async fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.registry.blob(&self.reference, blob, range).await
    }
}

impl fmt::Display for BrokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}
