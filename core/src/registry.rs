//! Where images come from and go to.

use std::fmt::{Debug, Display};

use async_trait::async_trait;
use dyn_clone::DynClone;

use crate::cache::lease::Lease;
use crate::manifest::RawManifest;
use crate::{Blob, BlobRange, Descriptor, Digest, Error, MediaType, Reference, Result, reference};

pub use ext::ImageRegistryExt;
pub use listing::{Names, Page, TagTable};
pub use session::PushSession;

mod ext;
mod listing;
mod session;

crate::fault! {
    /// How the transfer of a blob fails, where the next attempt depends on it.
    pub enum TransferFault;
    Cut => (Unavailable, "the connection closed before the end of the blob"),
    NoRange => (Unavailable, "the registry answered a range before, and now does not"),
    OtherContent => (Unavailable, "the mirror sent other content than was asked for"),
    OtherRange => (Unavailable, "the registry sent another range than it was asked for"),
}

/// What a registry can do beyond reading; known without I/O.
///
/// What is `false` here answers [`Unsupported`](crate::ErrorKind::Unsupported) at once (rule E 113
/// `read_only_backend_returns_unsupported_statically`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one independent yes or no for each optional method")]
pub struct Capabilities {
    /// [`ImageRegistry::push_names`] sets all of the names or none of them.
    pub atomic_names: bool,
    /// [`ImageRegistry::delete`].
    pub delete: bool,
    /// [`ImageRegistry::mount_blob`].
    pub mount: bool,
    /// [`ImageRegistry::partial_blob`]: a push of a blob that was cut is continued.
    pub partial_blobs: bool,
    /// [`ImageRegistry::push_blob`] and [`ImageRegistry::push_manifest`].
    pub push: bool,
    /// [`ImageRegistry::referrers`].
    pub referrers: bool,
    /// [`ImageRegistry::repositories`].
    pub repositories: bool,
    /// [`ImageRegistry::push_sparse`].
    pub sparse: bool,
    /// [`ImageRegistry::tags`].
    pub tags: bool,
}

impl Capabilities {
    /// Manifests and blobs, nothing else.
    pub const READ: Self = Self {
        atomic_names: false,
        delete: false,
        mount: false,
        partial_blobs: false,
        push: false,
        referrers: false,
        repositories: false,
        sparse: false,
        tags: false,
    };
}

/// Named images: a registry, a layout directory, an archive.
///
/// Two methods make a backend: [`manifest`](Self::manifest) and [`blob`](Self::blob); everything else has a
/// provided body. Clones are cheap and share state. `Display` is the backend's URI without secrets, and goes
/// into every error.
///
/// The conformance suite judges each method by the rules that its contract names.
#[async_trait]
#[expect(unused_variables, reason = "provided bodies do nothing with what they are given")]
pub trait ImageRegistry: DynClone + Debug + Display + Send + Sync + 'static {
    /// The manifest or index that `reference` names, bytes exactly as stored.
    ///
    /// It has at most [`limits::MANIFEST`](crate::manifest::limits::MANIFEST) bytes, whatever the medium declares. A
    /// backend reads one byte more at most, and checks the length before the digest: [`RawManifest::read`] does so for
    /// a reader, [`RawManifest::verified`] for bytes.
    ///
    /// # Contract
    /// R 1 `pull_by_tag_returns_exact_manifest_bytes`, R 2
    /// `pull_by_digest_verifies_against_requested_digest_not_header`, R 3, R 4, R 7
    /// `tag_plus_digest_uses_digest_only`, R 8, E 108, and the inputs of `hostile_suite!`; over HTTP R 39
    /// `content_type_mismatch_with_body_mediatype_rejected`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such name or content,
    /// [`Limit`](crate::ErrorKind::Limit) for a manifest that is too long, [`Corrupt`](crate::ErrorKind::Corrupt) when
    /// bytes and digest disagree, and what the medium reports.
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest>;

    /// A blob of the repository that `reference` names, or a range of one.
    ///
    /// A backend that cannot start at the range's first byte starts at 0; [`Blob::offset`] tells.
    ///
    /// # Contract
    /// E 110 `digest_mismatch_carries_expected_actual_size`; of archives X 106
    /// `hybrid_docker25_archive_prefers_oci_side`, X 288 `an_archive_through_a_pipe_is_the_same`;
    /// over HTTP R 17 to R 21, about ranges, and R 171 `content_encoding_does_not_decide`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and on the stream [`Corrupt`](crate::ErrorKind::Corrupt) with
    /// a [`Mismatch`](crate::Mismatch) in place of the end.
    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob>;

    /// The descriptor that `reference` stands for now, without the content where the medium can tell.
    ///
    /// # Contract
    /// R 38 `head_without_body_support_falls_back_to_get`.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`].
    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        Ok(self.manifest(reference).await?.descriptor().clone())
    }

    /// What this backend can do beyond reading. No I/O.
    fn capabilities(&self) -> Capabilities {
        Capabilities::READ
    }

    /// How many blobs can be read from this backend, or stored in it, at the same time; further callers
    /// wait. No I/O.
    ///
    /// # Contract
    /// R 28 `concurrency_bound_reached_never_exceeded`.
    fn concurrency(&self) -> usize {
        usize::MAX
    }

    /// How many blobs can be [stored](Self::push_blob) at the same time, where that is fewer than can be read; further callers
    /// wait. No I/O.
    fn push_concurrency(&self) -> usize {
        self.concurrency()
    }

    /// Tags of a repository (`registry/repository`).
    ///
    /// # Contract
    /// R 36 `tag_list_pagination_follows_link_same_host_only`, E 113.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`NotFound`](crate::ErrorKind::NotFound).
    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        Err(self.unsupported("list tags"))
    }

    /// The repositories (`registry/repository`) that this backend holds.
    ///
    /// # Contract
    /// E 113.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn repositories(&self, page: Page) -> Result<Names> {
        Err(self.unsupported("list repositories"))
    }

    /// The images that no tag leads to, each by its digest. A medium that lists only what has a name, such as a
    /// registry, answers with an empty list.
    ///
    /// # Contract
    /// X 105 `multi_image_archive_enumerates_and_selects`.
    ///
    /// # Errors
    /// What the medium reports.
    async fn untagged(&self) -> Result<Vec<Reference>> {
        Ok(Vec::new())
    }

    /// What this medium was made against, and leaves out the blobs of: the bases of a delta archive, in the words of its
    /// writer. Documents are never left out.
    ///
    /// # Contract
    /// X 107 `delta_archive_missing_blobs_reported_and_satisfied_by_cache`.
    ///
    /// # Errors
    /// What the medium reports.
    async fn bases(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Manifests whose subject is `subject`, of one artifact type or of all.
    ///
    /// # Contract
    /// R 37 `referrers_api_and_tag_fallback_equal`, E 113.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        Err(self.unsupported("list referrers"))
    }

    /// Stores a blob in the repository that `reference` names. A blob that is there already is a success.
    ///
    /// A blob that begins at its first byte takes the place of a [part](Self::partial_blob). One with an
    /// [offset](Blob::offset) continues the part, and the backend verifies both together; bytes that the part has as well are
    /// passed over.
    ///
    /// # Contract
    /// E 116 `already_exists_is_not_failure`, X 223 `a_pushed_blob_is_what_its_descriptor_says`, X 278
    /// `a_push_goes_on_where_it_stopped`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Denied`](crate::ErrorKind::Denied), and the errors of
    /// `blob`'s own stream: nothing is stored then, and with [`Corrupt`](crate::ErrorKind::Corrupt) no part is kept;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the part ends before the offset.
    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        Err(self.unsupported("store blobs"))
    }

    /// How many first bytes of a blob a [push](Self::push_blob) that was cut has left, also by a process that was killed. Zero
    /// is always allowed. They are not verified.
    ///
    /// # Contract
    /// X 278 `a_push_goes_on_where_it_stopped`.
    ///
    /// # Errors
    /// What the medium reports.
    async fn partial_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<u64> {
        Ok(0)
    }

    /// Whether the repository that `reference` names is known to have a blob, for a caller that would otherwise store
    /// it. `false` is always allowed.
    ///
    /// # Errors
    /// [`Denied`](crate::ErrorKind::Denied), and what the medium reports.
    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    /// Makes a blob of another repository of the same registry available here without moving bytes; `false`
    /// when the registry refuses, and the blob must be pushed.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Denied`](crate::ErrorKind::Denied).
    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        Err(self.unsupported("mount blobs"))
    }

    /// Stores a manifest whose content is already there, under the reference's tag, or by digest alone. A tag is set
    /// only when everything that the manifest or index leads to is there, where the medium can tell; a [`PushSession`]
    /// sees to it everywhere. One with a subject is among its [referrers](Self::referrers) from then on.
    ///
    /// # Contract
    /// X 99 `copy_a_to_b_preserves_digests_or_refuses`, X 224 `a_pushed_tag_waits_for_its_content`, X 269
    /// `a_pushed_referrer_is_listed_by_its_subject`; in a layout directory K 180
    /// `push_beside_collection_leaves_whole_images`, K 181 `a_pushed_name_waits_for_all_that_it_needs`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Denied`](crate::ErrorKind::Denied),
    /// [`NotFound`](crate::ErrorKind::NotFound) with the digests when content is missing.
    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        Err(self.unsupported("store manifests"))
    }

    /// Stores manifests whose content is already there, each under the tag of its reference: as
    /// [`push_manifest`](Self::push_manifest) for each. Where [`atomic_names`](Capabilities::atomic_names) says so, an error
    /// leaves every tag as it was; other backends set one after the other, and an error leaves those that were set.
    ///
    /// # Contract
    /// X 274 `names_are_set_together_or_not_at_all`; in an archive X 285 `a_written_archive_reads_back_exactly`, X 286
    /// `an_archive_is_the_old_one_or_the_new_one`, X 287 `a_layer_is_written_once`.
    ///
    /// # Errors
    /// As [`push_manifest`](Self::push_manifest), with the name in its context.
    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        for (at, (name, manifest)) in names.iter().enumerate() {
            self.push_manifest(name, manifest).await.map_err(|e| after(&names[..at], e))?;
        }
        Ok(())
    }

    /// Stores manifests as [`push_names`](Self::push_names), of which indexes list documents that are `absent`: these are not
    /// there, and are not needed.
    ///
    /// # Contract
    /// X 275 `a_subset_is_sparse_or_rewritten`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported); otherwise as [`push_names`](Self::push_names).
    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        Err(self.unsupported("store an index of which not all is there"))
    }

    /// Stores manifests that have a subject, by their digests, whose content is already there: as
    /// [`push_manifest`](Self::push_manifest) for each. A backend that keeps lists of [referrers](Self::referrers) writes
    /// each list once for all of them.
    ///
    /// # Contract
    /// X 280 `referrers_pushed_together_are_all_listed`.
    ///
    /// # Errors
    /// As [`push_manifest`](Self::push_manifest); some may be stored and listed then.
    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        for manifest in manifests {
            self.push_manifest(&reference::by_digest(repository, manifest.digest()), manifest).await?;
        }
        Ok(())
    }

    /// Looks whether images can be stored here, as far as that can be seen without storing anything: for what is said of a
    /// push before it is made.
    ///
    /// The provided body is for media that say so only when something is pushed.
    ///
    /// # Errors
    /// Those of [`push_blob`](Self::push_blob) that are known already: [`NotFound`](crate::ErrorKind::NotFound) for a file in a folder
    /// that is not there, [`Config`](crate::ErrorKind::Config) where something else is, [`Io`](crate::ErrorKind::Io).
    async fn check_target(&self) -> Result<()> {
        Ok(())
    }

    /// Protects content from being collected until the lease is dropped, present or not: for a push, which relies on
    /// what it has found or stored until a name points to it.
    ///
    /// The provided body is for media that remove nothing while an image is pushed.
    ///
    /// # Contract
    /// K 180 `push_beside_collection_leaves_whole_images`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be
    /// verified.
    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        Ok(Lease::none())
    }

    /// Removes a name, or with a digest reference the manifest. What a [lease](Self::lease) protects stays; its names
    /// go.
    ///
    /// # Contract
    /// K 182 `deletion_leaves_what_is_leased`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), also when the manifest has no name and something else needs it;
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete(&self, reference: &Reference) -> Result<()> {
        Err(self.unsupported("delete"))
    }

    /// Removes a blob from the repository that `reference` names.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), [`Denied`](crate::ErrorKind::Denied),
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        Err(self.unsupported("delete blobs"))
    }

    /// The error for what [`capabilities`](Self::capabilities) does not list.
    fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("this backend cannot {what}")).with_endpoint(self)
    }
}

/// The error of a name, and how many were set before it.
fn after(set: &[(Reference, RawManifest)], error: Error) -> Error {
    match set {
        [] => error,
        [.., (last, _)] => {
            error.with_context("set before", format!("{} names, the last is {last}", set.len()))
        }
    }
}

dyn_clone::clone_trait_object!(ImageRegistry);

// A boxed backend is a backend.
crate::forward! {
    ImageRegistry, Box<dyn ImageRegistry>, |registry| (**registry);
    async manifest(reference: &Reference) -> Result<RawManifest>;
    async blob(reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async resolve(reference: &Reference) -> Result<Descriptor>;
    async tags(repository: &str, page: Page) -> Result<Names>;
    async repositories(page: Page) -> Result<Names>;
    async untagged() -> Result<Vec<Reference>>;
    async bases() -> Result<Vec<String>>;
    async referrers(of: &Reference, subject: &Digest, kind: Option<&MediaType>) -> Result<Vec<Descriptor>>;
    async push_blob(reference: &Reference, blob: Blob) -> Result<()>;
    async partial_blob(reference: &Reference, blob: &Descriptor) -> Result<u64>;
    async has_blob(reference: &Reference, blob: &Descriptor) -> Result<bool>;
    async mount_blob(reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool>;
    async push_manifest(reference: &Reference, manifest: &RawManifest) -> Result<()>;
    async push_names(names: &[(Reference, RawManifest)]) -> Result<()>;
    async push_sparse(names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()>;
    async push_referrers(repository: &Reference, manifests: &[RawManifest]) -> Result<()>;
    async check_target() -> Result<()>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async delete(reference: &Reference) -> Result<()>;
    async delete_blob(reference: &Reference, digest: &Digest) -> Result<()>;
    sync capabilities() -> Capabilities;
    sync concurrency() -> usize;
    sync push_concurrency() -> usize;
    sync unsupported(what: &str) -> Error;
}
