//! The verbs that follow from a cache's methods.

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    CacheProvider, CacheRegistry, CacheTarget, Completeness, LoadOptions, Loaded, NameChange, attach,
    content, edit, gzip_index, index, load, push, registry,
};
use crate::backend::Opened;
use crate::copy::{Copied, CopyOptions};
use crate::edit::Edit;
use crate::layer::LayerLimits;
use crate::layer::gzip_index::GzipIndex;
use crate::manifest::RawManifest;
use crate::pull::{self, PullOptions, PullResult};
use crate::registry::{ImageRegistry, ImageRegistryExt};
use crate::save::SaveImage;
use crate::source::RegistrySource;
use crate::{Blob, Descriptor, Digest, Error, ErrorKind, MediaType, Platform, Reference, Result, reference};

/// What follows from [`CacheProvider`]'s methods, the same for every cache.
#[async_trait]
pub trait CacheProviderExt: CacheProvider {
    /// Brings an image of a registry here: [`pull`](fn@crate::pull).
    ///
    /// # Contract
    /// C 49 `pull_if_present_does_no_network_io`, C 50 `always_pull_refreshes_moved_tag`, C 51
    /// `pull_fetches_only_missing_blobs`, C 52 `adding_second_platform_keeps_index_digest`, C 53
    /// `platform_is_part_of_the_answer_on_hit`, C 54 `verification_policy_applies_on_hit`.
    ///
    /// # Errors
    /// As [`pull`](fn@crate::pull).
    async fn image_pull(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<PullResult> {
        pull::pull(registry, reference, self.as_provider(), options).await
    }

    /// Pulls an image again and verifies what the cache has of it: [`PullOptions::force`].
    ///
    /// # Errors
    /// As [`pull`](fn@crate::pull).
    async fn force_pull(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<PullResult> {
        pull::pull(registry, reference, self.as_provider(), &PullOptions { force: true, ..options.clone() })
            .await
    }

    /// Whether an image is here whole for a platform: manifest, config and every layer, sizes checked.
    ///
    /// # Contract
    /// C 47 `contains_means_complete_for_platform`, C 53 `platform_is_part_of_the_answer_on_hit`.
    ///
    /// # Errors
    /// As [`CacheProviderExt::completeness`].
    async fn image_in_cache(&self, reference: &Reference, platform: &Platform) -> Result<bool> {
        Ok(self.completeness(reference, platform).await? == Completeness::Complete)
    }

    /// What an image lacks here for a platform: config and layers, sizes checked.
    ///
    /// # Contract
    /// C 47 `contains_means_complete_for_platform`, C 48 `missing_layer_reported_by_digest`.
    ///
    /// # Errors
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound) when the index is here and has no such image;
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn completeness(&self, reference: &Reference, platform: &Platform) -> Result<Completeness> {
        registry::completeness(self.as_provider(), reference, platform).await
    }

    /// Whether a registry has an image for a platform. An outage is an error, not `false`; so are credentials that
    /// are refused.
    ///
    /// # Errors
    /// As [`ImageRegistryExt::fetch_manifest`], absence excepted.
    async fn image_in_registry(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<bool> {
        match registry.fetch_manifest(reference, platform).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PlatformNotFound { .. }) => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Brings images of an opened archive or layout here: all of them or, with an error, none. These are the
    /// [images](LoadOptions::images) that are asked for, the one that was chosen when it was opened, or all. Of an index
    /// everything is loaded that is there, or some [platforms](LoadOptions::platforms), which have to be complete; and what
    /// refers to an image, where that is [listed](ImageRegistry::referrers). Images without a name come last, by their
    /// digests, those excepted that came because they refer to another one. Nothing is asked of a network.
    ///
    /// Content that is missing is looked for before anything is stored, and what is in the cache already need not be in
    /// the archive. All names are set in one step at the end, together with the lists of what refers to the images, as far
    /// as those lists are no larger than one may be; larger ones are set before, and lead to what is complete.
    ///
    /// The last progress event is [`Event::Finished`](crate::progress::Event::Finished), always: also when the future is
    /// dropped, unless it was never polled.
    ///
    /// # Contract
    /// C 281 `a_load_says_what_it_replaces`, C 282 `a_load_brings_all_platforms_that_are_there`, C 283
    /// `a_load_is_all_or_nothing`, X 104 `import_performs_zero_network_io`, X 107
    /// `delta_archive_missing_blobs_reported_and_satisfied_by_cache`.
    ///
    /// # Errors
    /// No name is changed with any of them. [`NotFound`](crate::ErrorKind::NotFound) when there is no image, or something
    /// is missing, with all that is as the detail [`MissingContent`](super::MissingContent);
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound) for a platform that one of the images is not for;
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`PushSession::LIMIT`](crate::PushSession::LIMIT); those of the place and of
    /// the cache.
    async fn image_load(&self, from: &Opened, options: &LoadOptions) -> Result<Vec<Loaded>> {
        load::load(self.as_provider(), from, options).await
    }

    /// Points a name to an index of these manifests, and returns the index. If the name points to an index already,
    /// that one is updated: a manifest takes the place of those for the same platform (variant, OS version and
    /// features included) or of the same digest, others are added, and attestations whose subject is no longer in the
    /// index are removed. An image without a platform gets the one of its config.
    ///
    /// The same manifests give the same bytes, in whatever order they come: images first, sorted by platform, then
    /// what has none, then attestations. Nothing is written when all of it is in the index already.
    ///
    /// # Contract
    /// C 55 `index_write_create_update_replace_by_full_platform`, C 56 `index_write_drops_dangling_attestations`,
    /// C 57 `index_write_is_deterministic`.
    ///
    /// # Errors
    /// Nothing is changed with any of them. [`NotFound`](crate::ErrorKind::NotFound) with the digests when content
    /// is not here that the given manifests need; [`Ambiguous`](crate::ErrorKind::Ambiguous) when two of them are
    /// for one platform; [`Config`](crate::ErrorKind::Config) for a name with a digest and for no manifests;
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`limits`](crate::manifest::limits);
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the name stands for a single image;
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn index_write(&self, name: &Reference, manifests: &[Descriptor]) -> Result<Descriptor> {
        index::write(self.as_provider(), name, manifests).await
    }

    /// Points a name to content that is in the cache, whatever it pointed to before.
    ///
    /// # Contract
    /// C 58 `descriptor_write_requires_name_and_replaces`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with the digests when content is not here that it needs;
    /// [`Config`](crate::ErrorKind::Config) when the name has another digest; [`Corrupt`](crate::ErrorKind::Corrupt)
    /// and [`Unsupported`](crate::ErrorKind::Unsupported) when it is neither an image nor an index;
    /// [`Io`](crate::ErrorKind::Io).
    async fn descriptor_write(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        if reference::digest_of(name)?.is_some_and(|digest| digest != *descriptor.digest()) {
            let message = format!("the name's digest is not that of the content, {}", descriptor.digest());
            return Err(Error::config(message).with_image(name));
        }
        let at = |e: Error| e.with_image(name).with_endpoint(self);
        let _lease =
            index::present(self.as_provider(), std::slice::from_ref(descriptor), &[]).await.map_err(at)?;
        self.update(&[NameChange::Set(name.clone(), descriptor.clone())]).await
    }

    /// Makes an image of another one that is here: layers added, other values in its configuration. `name` stands for it then,
    /// whatever it stood for before; it may be the name of the first image. Layers and everything that is not changed stay as
    /// they are, and the same edit gives the same digests.
    ///
    /// Attestations of an index are left out, since they are about other images; so are, with a warning, the images of it that
    /// are not here.
    ///
    /// # Contract
    /// C 290 `an_edit_keeps_what_it_does_not_change`, C 291 `an_edit_is_the_same_twice`.
    ///
    /// # Errors
    /// No name is changed with any of them. [`NotFound`](crate::ErrorKind::NotFound) when the image is not here;
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound); [`Config`](crate::ErrorKind::Config) and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for what no image can have, with an [`EditFault`](crate::edit::EditFault);
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`limits`](crate::manifest::limits);
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn edit(&self, image: &Reference, edit: &Edit, name: &Reference) -> Result<Descriptor> {
        edit::edit(self.as_provider(), image, edit, name).await
    }

    /// Stores a document that refers to a manifest of the repository of `name`, as an artifact of this media type, and
    /// returns the artifact's manifest. It is in the list of what refers to the subject, the index `ALGORITHM-HEX` of the
    /// repository (distribution-spec, "Referrers Tag Schema"): a [copy](crate::CopyOptions::referrers) of the image can
    /// have it. It is kept as long as the subject; when that is gone, a [collection](CacheProvider::collect) removes the
    /// list. The same document is listed once.
    ///
    /// # Errors
    /// As [`index_write`](Self::index_write).
    async fn attach(
        &self,
        name: &Reference,
        subject: &Descriptor,
        media_type: &MediaType,
        document: &[u8],
    ) -> Result<Descriptor> {
        attach::attach(self.as_provider(), name, subject, media_type, document).await
    }

    /// Puts stored manifests that have subjects into the lists of what refers to those, in the repository of `name`: the
    /// indexes that [`attach`](Self::attach) writes. Each list is written once, and all names are set together as far as
    /// the lists together are no larger than one may be. A manifest without a subject changes nothing.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with the digests when content is not here that a manifest needs;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when other processes keep changing the lists; otherwise as
    /// [`index_write`](Self::index_write).
    async fn list_referrers(&self, name: &Reference, referrers: &[RawManifest]) -> Result<()> {
        attach::list(self.as_provider(), name, referrers).await
    }

    /// Copies an image to a registry: everything that its name stands for, or some platforms. Digests are unchanged,
    /// unless [`Sparse::Rewrite`](crate::Sparse::Rewrite) asks for an index of what is here, or a
    /// [conversion](CopyOptions::conversion) is asked for.
    ///
    /// # Contract
    /// C 75 `index_lists_platform_subset_modes_sparse_vs_rewritten`, X 99
    /// `copy_a_to_b_preserves_digests_or_refuses`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the image is not here, or, listing them, when images of its
    /// index are not; otherwise as [`copy`](fn@crate::copy). The target's name is not touched then.
    async fn push(
        &self,
        name: &Reference,
        registry: &dyn ImageRegistry,
        target: &Reference,
        options: &CopyOptions,
    ) -> Result<Copied> {
        push::push(self.as_provider(), name, registry, target, options).await
    }

    /// An image that is here, opened for reading. No network.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with the missing digest as context `blob`;
    /// [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound), [`Corrupt`](crate::ErrorKind::Corrupt).
    async fn new_source(&self, reference: &Reference, platform: &Platform) -> Result<RegistrySource> {
        registry::new_source(self.as_provider(), reference, platform).await
    }

    /// The image for a platform that a descriptor leads to, opened for reading under the name `image`, whatever that
    /// name stands for by now. No network.
    ///
    /// # Errors
    /// As [`CacheProviderExt::new_source`].
    async fn source_of(
        &self,
        image: &Reference,
        top: &Descriptor,
        platform: &Platform,
    ) -> Result<RegistrySource> {
        registry::source_of(self.as_provider(), image, top, platform).await
    }

    /// This cache seen as a registry of what it holds.
    fn as_registry(&self) -> CacheRegistry {
        registry::as_registry(self.as_provider())
    }

    /// This cache seen as a registry that stores, for copies into it.
    fn as_target(&self) -> CacheTarget {
        CacheTarget(dyn_clone::clone_box(self.as_provider()))
    }

    /// The verified content of a stored document of at most `limit` bytes.
    ///
    /// # Contract
    /// C 68 `get_content_is_verified_or_flagged_raw`.
    ///
    /// # Errors
    /// As [`CacheProvider::open`] and [`Blob::bytes`].
    async fn content(&self, blob: &Descriptor, limit: u64) -> Result<Bytes> {
        content::read(self.as_provider(), blob, limit).await
    }

    /// The verified content of a stored document of at most `limit` bytes, by its digest alone.
    ///
    /// # Contract
    /// C 68 `get_content_is_verified_or_flagged_raw`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); otherwise as [`CacheProviderExt::content`].
    async fn get_content(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        content::read_digest(self.as_provider(), digest, limit).await
    }

    /// Stores a whole blob. Content that is here already is read and verified; damaged content is replaced.
    ///
    /// # Contract
    /// C 43 to C 46.
    ///
    /// # Errors
    /// As [`CacheProvider::ingest`], [`BlobWriter::commit`](super::BlobWriter::commit) and the errors of `blob`'s
    /// stream: nothing is visible then, and nothing is left behind.
    async fn put(&self, blob: Blob) -> Result<()> {
        content::put(self.as_provider(), blob).await
    }

    /// As [`put`](Self::put), for a transfer that may be cut: what has arrived is [kept](CacheProvider::partial) then, and a blob
    /// that has an [offset](Blob::offset) continues it. Both together are verified.
    ///
    /// # Errors
    /// As [`put`](Self::put), and nothing is kept with [`Corrupt`](crate::ErrorKind::Corrupt);
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when what was kept ends before the offset.
    async fn put_resumable(&self, blob: Blob) -> Result<()> {
        content::put_resumable(self.as_provider(), blob).await
    }

    /// Reads a stored blob to its end, to verify it.
    ///
    /// # Errors
    /// As [`CacheProvider::open`].
    async fn verify_blob(&self, blob: &Descriptor) -> Result<()> {
        content::verify(self.as_provider(), blob).await
    }

    /// The [index](crate::layer::gzip_index) of a gzip blob that is kept with it, if there is one that is sound. It is
    /// an artifact that is made from the blob, by the blob's digest, and is kept as long as an image needs the blob.
    ///
    /// # Contract
    /// C 292 `the_index_of_a_blob_is_kept_with_it`.
    ///
    /// # Errors
    /// As [`CacheProvider::find_artifact`].
    async fn find_gzip_index(&self, blob: &Descriptor) -> Result<Option<GzipIndex>> {
        gzip_index::find(self.as_provider(), blob).await
    }

    /// The same, made and kept if there is none: the blob is read and decoded for it. `None` for a blob that is no gzip
    /// stream.
    ///
    /// # Errors
    /// As [`CacheProvider::open`] and [`CacheProvider::artifact`]; [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Limit`](crate::ErrorKind::Limit).
    async fn make_gzip_index(&self, blob: &Descriptor, limits: &LayerLimits) -> Result<Option<GzipIndex>> {
        gzip_index::make(self.as_provider(), blob, limits).await
    }

    /// Removes a name; content stays until it is collected (rules C 61, C 62).
    ///
    /// # Errors
    /// As [`CacheProvider::update`].
    async fn remove(&self, reference: &Reference) -> Result<()> {
        self.update(&[NameChange::Remove(reference.clone())]).await
    }

    /// An image of the cache that is to be saved: what the name stands for now, which is kept as long as it is read.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such name; [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Io`](crate::ErrorKind::Io).
    async fn save_image(&self, name: &Reference) -> Result<SaveImage> {
        let cache = self.as_provider();
        let (root, lease) = push::in_hand(cache, name).await?;
        let fixed = registry::as_registry(cache).fixed(name.clone(), root);
        Ok(SaveImage::new(Box::new(fixed), name.clone()).leased(lease))
    }
}

impl<T: CacheProvider + ?Sized> CacheProviderExt for T {}
