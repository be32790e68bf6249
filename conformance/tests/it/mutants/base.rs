//! A sound backend in memory that knows every condition, for mutants to break.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::samples::Sample;
use plyfold_conformance::{BackendUnderTest, Condition, Fixture, FixtureImage, RetryAfter};
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ErrorKind, ImageRegistry, MediaType, Names,
    Page, RawManifest, Reference, Result, reference,
};

use super::client::BrokenClient;
use super::registry::break_answer;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    ArtifactsAsImages,
    BlobNotVerified,
    BlobsClaimed,
    BlobsReadTwice,
    CapabilitiesLie,
    ChildNotVerified,
    ConversionForgotten,
    CopyRecompresses,
    CopyReserialises,
    CosignTagsLost,
    DelayLost,
    DiffIdIgnored,
    ErrorsEndTheLayer,
    ErrorsSwallowed,
    FeaturesIgnored,
    FirstCompatibleWins,
    FlatLinksLost,
    FlatTarReversed,
    FlatTarUnstable,
    FirstKindWins,
    ForwardLinksLost,
    HardLinksCopied,
    IndexNotVerified,
    LayersOpenedEarly,
    LayersReordered,
    LibraryForgotten,
    LinksLast,
    ManifestNotVerifiedByDigest,
    ManifestNotVerifiedByTag,
    ManifestReserialised,
    MediaTypeTrusted,
    MismatchLost,
    NameNotOverridden,
    NamesHidden,
    NamesOneByOne,
    NamesPlaceByPlace,
    NestingIgnored,
    NestingUnbounded,
    None,
    OciTarMislabelled,
    OnePlatformSearched,
    OneSbomOnly,
    OutageNotRetryable,
    ParentsForced,
    PartsForgotten,
    PartsNotVerified,
    PlatformIgnored,
    PlatformlessIgnored,
    PlatformsHidden,
    PredicatesWrapped,
    ProducersOutlive,
    PushReserialises,
    PushUnverified,
    ReferenceNotChecked,
    ReferrersForgotten,
    ReferrersLost,
    ReferrersUnlisted,
    ResolvesElsewhere,
    SecondPushFails,
    SourceLost,
    StatementsReadEarly,
    SubsetForgetsAttestations,
    SubsetLosesItsDigest,
    TagBeforeContent,
    TagWins,
    TagsMixed,
    TarsEndEarly,
    TarsStamped,
    UnknownTypeIsAbsent,
    UntaggedHidden,
    UnknownPlatformTaken,
    VariantIgnored,
    WhiteoutsByOrder,
    WhiteoutsIgnored,
    WhiteoutsLast,
    XattrsLost,
}

/// Opens samples in memory, with one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken(pub(super) Fault);

/// The bytes of all samples, for mutants that do not verify.
pub(super) type Content = Arc<HashMap<Digest, (MediaType, Bytes)>>;

#[async_trait]
impl Fixture for Broken {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        self.subject(images, &[], None).await
    }

    async fn open_with_untagged(
        &self,
        images: &[FixtureImage<'_>],
        untagged: &[&Sample],
    ) -> Option<BackendUnderTest> {
        Some(self.subject(images, untagged, None).await)
    }

    async fn open_under(&self, image: &FixtureImage<'_>, condition: Condition) -> Option<BackendUnderTest> {
        Some(self.subject(std::slice::from_ref(image), &[], Some(condition)).await)
    }
}

impl Broken {
    async fn subject(
        &self,
        images: &[FixtureImage<'_>],
        untagged: &[&Sample],
        condition: Option<Condition>,
    ) -> BackendUnderTest {
        let inner = Fixture::open(&Memory, images).await;
        let mut by_digest = Vec::new();
        for sample in untagged {
            by_digest.push(push_untagged(&*inner.registry, sample).await);
        }
        let blobs = images.iter().flat_map(|image| &image.sample.blobs);
        let blobs = blobs.map(|blob| {
            let media_type = blob.descriptor.media_type().clone();
            (blob.descriptor.digest().clone(), (media_type, blob.bytes.clone()))
        });
        let content: Content = Arc::new(blobs.collect());
        let tops = images.iter().map(|image| (image.reference.whole(), image.sample.top.digest().clone()));
        let medium = Arc::new(());
        let registry = BrokenRegistry {
            inner: inner.registry,
            content: content.clone(),
            tops: Arc::new(tops.collect()),
            condition,
            fault: self.0,
            medium: Arc::downgrade(&medium),
            pushed: Arc::default(),
            untagged: by_digest.into(),
        };
        let mut subject = BackendUnderTest::new(Box::new(registry), inner.references, medium);
        subject.client = Box::new(BrokenClient { fault: self.0, content });
        subject
    }
}

#[derive(Clone, Debug)]
pub(super) struct BrokenRegistry {
    pub(super) inner: Box<dyn ImageRegistry>,
    pub(super) content: Content,
    pub(super) tops: Arc<HashMap<String, Digest>>,
    condition: Option<Condition>,
    pub(super) fault: Fault,
    medium: Weak<()>,
    pub(super) pushed: Arc<Mutex<HashSet<Digest>>>,
    untagged: Arc<[Reference]>,
}

/// Stores an image without a tag; its name by digest.
async fn push_untagged(registry: &dyn ImageRegistry, sample: &Sample) -> Reference {
    let repository = reference::parse("registry.example/library/untagged").unwrap();
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let content = Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes).unwrap();
        registry.push_blob(&repository, content).await.unwrap();
    }
    let raw = RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())).unwrap();
    let name = reference::by_digest(&repository, raw.digest());
    registry.push_manifest(&name, &raw).await.unwrap();
    name
}

impl BrokenRegistry {
    /// What a sound backend answers under the condition and with its medium gone.
    fn ready(&self, blob: bool) -> Result<()> {
        let error = |kind| Err(Error::new(kind, "as the condition demands"));
        let outcome = match self.condition {
            _ if self.medium.strong_count() == 0 => {
                Err(Error::io("reading the medium", io::ErrorKind::BrokenPipe.into()))
            }
            Some(Condition::Denied) => error(ErrorKind::Denied),
            Some(Condition::DigestLies) if !blob => {
                Err(Error::corrupt("the digest beside the content is wrong"))
            }
            Some(Condition::RateLimited(shape)) => error(ErrorKind::RateLimited {
                retry_after: match shape {
                    RetryAfter::Date => Some(Duration::from_secs(29)),
                    RetryAfter::Missing => None,
                    RetryAfter::Seconds => Some(Duration::from_secs(7)),
                },
            }),
            Some(Condition::Unauthorized) => error(ErrorKind::Auth),
            Some(Condition::Unavailable) => error(ErrorKind::Unavailable),
            _ => Ok(()),
        };
        outcome.map_err(|e| self.distorted(e))
    }

    /// An error as the mutant tells it.
    fn distorted(&self, error: Error) -> Error {
        let kind = match (self.fault, error.kind()) {
            (Fault::DelayLost, ErrorKind::RateLimited { .. }) => ErrorKind::RateLimited { retry_after: None },
            (Fault::ErrorsSwallowed, _) | (Fault::UnknownTypeIsAbsent, ErrorKind::Unsupported) => {
                ErrorKind::NotFound
            }
            (Fault::OutageNotRetryable, ErrorKind::Unavailable) | (Fault::SourceLost, ErrorKind::Io) => {
                ErrorKind::Io
            }
            _ => return error,
        };
        Error::new(kind, "told in another way")
    }
}

#[async_trait]
impl ImageRegistry for BrokenRegistry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        if self.fault != Fault::ReferenceNotChecked {
            reference::digest_of(reference)?;
        }
        self.ready(false)?;
        let sound = self.inner.manifest(reference).await;
        break_answer(self, reference, sound).await.map_err(|e| self.distorted(e))
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.ready(true)?;
        match (self.fault, self.content.get(blob.digest())) {
            (Fault::BlobNotVerified, Some((media_type, bytes))) => {
                let size = bytes.len() as u64;
                let actual = Descriptor::new(media_type.clone(), size, plyfold_core::digest::sha256(bytes));
                Blob::from_bytes(&actual, range, bytes)
            }
            (Fault::MismatchLost, Some((_, bytes)))
                if plyfold_core::digest::sha256(bytes) != *blob.digest() =>
            {
                Err(Error::corrupt("something is wrong"))
            }
            _ => self.inner.blob(reference, blob, range).await,
        }
    }

    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let honest = self.manifest(reference).await?.descriptor().clone();
        if self.fault != Fault::ResolvesElsewhere {
            return Ok(honest);
        }
        let elsewhere = plyfold_core::digest::sha256(b"elsewhere");
        Ok(Descriptor::new(honest.media_type().clone(), honest.size(), elsewhere))
    }

    fn capabilities(&self) -> Capabilities {
        let referrers = self.fault != Fault::CapabilitiesLie;
        let mut capabilities = self.inner.capabilities();
        capabilities.referrers = referrers;
        capabilities
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let mut honest = self.inner.tags(repository, page).await?;
        if self.fault == Fault::NamesHidden {
            honest.names.truncate(1);
        }
        Ok(honest)
    }

    async fn bases(&self) -> Result<Vec<String>> {
        self.inner.bases().await
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        if self.fault == Fault::UntaggedHidden { Ok(Vec::new()) } else { Ok(self.untagged.to_vec()) }
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.inner.repositories(page).await
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let mut found = self.inner.referrers(reference, subject, artifact_type).await?;
        found.retain(|_| self.fault != Fault::ReferrersUnlisted);
        Ok(found)
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let digest = blob.descriptor().digest().clone();
        let first = self.pushed.lock().unwrap().insert(digest);
        if self.fault == Fault::SecondPushFails && !first {
            return Err(Error::new(ErrorKind::Denied, "it exists"));
        }
        if self.fault == Fault::PartsNotVerified && blob.offset() > 0 {
            // As one that takes whatever fills the length: here that of a part whose rest is wrong.
            let _ = self.inner.push_blob(reference, blob).await;
            return Ok(());
        }
        let blob = if self.fault == Fault::PushUnverified { blob.unverified() } else { blob };
        self.inner.push_blob(reference, blob).await
    }

    async fn partial_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<u64> {
        match self.fault {
            Fault::PartsForgotten => Ok(0),
            _ => self.inner.partial_blob(reference, blob).await,
        }
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(self.fault == Fault::BlobsClaimed || self.inner.has_blob(reference, blob).await?)
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        self.inner.mount_blob(reference, blob, from).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        if self.fault == Fault::PushReserialises && reference.tag().is_some() {
            return self.inner.push_manifest(reference, &super::registry::reserialised(manifest)).await;
        }
        let pushed = self.inner.push_manifest(reference, manifest).await;
        if self.fault == Fault::TagBeforeContent && pushed.is_err() {
            // As one that notices too late: the tag is there.
            for blob in manifest.requirements() {
                let invented = Bytes::from(vec![0; usize::try_from(blob.size()).unwrap()]);
                let invented = Blob::from_bytes(&blob, BlobRange::FULL, &invented)?.unverified();
                self.inner.push_blob(reference, invented).await?;
            }
            self.inner.push_manifest(reference, manifest).await?;
        }
        pushed
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        if self.fault == Fault::NamesOneByOne || names.len() == 1 {
            for (name, manifest) in names {
                self.push_manifest(name, manifest).await?;
            }
            return Ok(());
        }
        self.inner.push_names(names).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        self.inner.push_sparse(names, absent).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        let kept = if self.fault == Fault::ReferrersLost { manifests.len().min(1) } else { manifests.len() };
        self.inner.push_referrers(repository, &manifests[..kept]).await
    }

    async fn delete(&self, reference: &Reference) -> Result<()> {
        self.inner.delete(reference).await
    }
}

impl fmt::Display for BrokenRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
