//! Where images are kept: verified content, names, and the files made from them.

use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use dyn_clone::DynClone;

use crate::registry::Page;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, Descriptor, Digest, Error, Reference, Result,
};

pub use absent::with_platforms_here;
pub use buffer::BlobBuffer;
pub use collect::{Collect, Collected, ImageUsage, Missed, PartialBlob, Usage};
pub use content::MissingBlob;
pub use ext::CacheProviderExt;
pub use find::find_among;
pub use inventory::{Head, Held, HeldArtifact, Holdings, Inventory};
pub use lease::Lease;
pub use listing::CachedNames;
pub use load::{ListedImage, LoadOptions, Loaded, MissingContent, list_images};
pub use name_table::NameTable;
pub use naming::{check_names, lacking};
pub use needs::{Need, Needs};
pub use plan::Plan;
pub use registry::{CacheRegistry, Completeness};
pub(crate) use registry::{completeness, source_of};
pub use report::{Damage, DamagedPart, Remains, Verified, Verify};
pub use target::CacheTarget;
pub use verify::{ArtifactProof, KeptArtifact, needed, selected, verify_artifacts, verify_names};

mod absent;
mod attach;
mod buffer;
mod collect;
pub(crate) mod content;
mod edit;
mod ext;
mod find;
mod forward;
pub(crate) mod gzip_index;
mod index;
mod inventory;
pub(crate) mod lease;
mod listing;
mod load;
mod name_table;
mod naming;
mod needs;
mod plan;
mod push;
mod registry;
mod report;
mod target;
mod verify;

/// A name to set or to remove, or what that depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NameChange {
    /// The name is never [evicted](CacheProvider::collect) from now on, whatever it will stand for. A name that is
    /// not there is [`NotFound`](crate::ErrorKind::NotFound).
    Pin(Reference),
    /// The name is gone; its absence already is a success (rule C 62).
    Remove(Reference),
    /// Content that has to be here, with config and layers of a manifest, or none of the changes is made: what an index
    /// leads to when the index gets its name.
    Require(Descriptor),
    /// The name stands for this content from now on, whatever it stood for before.
    Set(Reference, Descriptor),
    /// The name may be evicted again; that it may already is a success.
    Unpin(Reference),
}

/// The result of [`CacheProvider::ingest`].
#[derive(Debug)]
pub enum Ingest {
    /// The blob is there, whole.
    Present,
    /// The blob is missing, and this caller alone may write it now.
    Vacant(Box<dyn BlobWriter>),
}

/// One blob being written. Dropping it without [`commit`](Self::commit), [`suspend`](Self::suspend) or
/// [`set_resumable`](Self::set_resumable) leaves nothing behind (rule C 45), unless something was there before it; that
/// may take a moment, which [`discard`](Self::discard) waits for.
#[async_trait]
pub trait BlobWriter: Debug + Send {
    /// Bytes already held, in order from 0: more than 0 when an earlier attempt was suspended or killed. They have
    /// been hashed again.
    fn offset(&self) -> u64;

    /// The rest of the blob, from [`offset`](Self::offset) on, where the cache has it elsewhere, such as in another
    /// [tier](crate::Tiered): it is to be written as that of a backend would be, which need not be asked then. `None` when the
    /// blob has to come from a backend.
    ///
    /// # Errors
    /// Those of reading there.
    async fn held_elsewhere(&mut self) -> Result<Option<Blob>> {
        Ok(None)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) beyond the declared size, [`Io`](crate::ErrorKind::Io).
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Forgets all bytes, to begin again at 0.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn restart(&mut self) -> Result<()>;

    /// Verifies size and digest, makes the content durable, then visible.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) with a [`Mismatch`](crate::Mismatch): nothing
    /// becomes visible. [`Io`](crate::ErrorKind::Io): likewise, and the bytes are dropped.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Drops the writer, and waits until everything that is not kept for a resumption is removed.
    async fn discard(self: Box<Self>) {}

    /// Says whether dropping this writer, as happens to a pull that is cancelled, keeps the bytes as
    /// [`suspend`](Self::suspend) does. At first it does so when it begins beyond 0. A cache that cannot keep them
    /// ignores it.
    fn set_resumable(&mut self, resumable: bool) {
        let _ = resumable;
    }

    /// Keeps the bytes for a later attempt to resume.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn suspend(self: Box<Self>) -> Result<()>;
}

/// Verified content and names, on this machine or shared by a fleet.
///
/// Nothing is visible before it is complete, verified and durable. Clones are cheap and share state. `Display` is
/// where the cache lives, and goes into every error. Whatever a method calls back, such as the source of a blob that is
/// being stored, may use the cache (rule K 123 `callback_reentry_no_deadlock`).
#[async_trait]
#[expect(unused_variables, reason = "provided bodies do nothing with what they are given")]
pub trait CacheProvider: AsCacheProvider + DynClone + Debug + Display + Send + Sync + 'static {
    /// The size of a blob that is here; `None` when it is not (rule C 40 `absent_is_ok_none_not_error`).
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be
    /// verified.
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Whether a blob, if it is here, has to be [brought](BlobWriter::held_elsewhere) from elsewhere before this machine can do
    /// without that place, such as another [tier](crate::Tiered). A pull brings such blobs. The provided body is for caches in
    /// one place.
    ///
    /// # Errors
    /// As [`CacheProvider::stat`].
    async fn is_away(&self, digest: &Digest) -> Result<bool> {
        Ok(false)
    }

    /// Reads a blob that is here.
    ///
    /// # Contract
    /// C 68 `get_content_is_verified_or_flagged_raw`, K 120 `reader_never_sees_partial_blob_or_index`, K 126
    /// `open_reader_survives_remove`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Corrupt`](crate::ErrorKind::Corrupt), also on the stream, when
    /// the stored content is damaged.
    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob>;

    /// Begins to store a blob. One writer for each digest at a time, across tasks and processes: others wait here
    /// until the writer ends, and take over when it fails.
    ///
    /// # Contract
    /// C 43, C 44, C 45 `put_…_publishes_nothing`, C 46 `put_existing_is_idempotent_and_repairs_corrupt_existing`, K
    /// 118 `n_threads_same_blob_one_write`, K 119 `winner_cancelled_waiter_succeeds`, K 121
    /// `two_handles_one_process_exclude_each_other`, K 122 `nested_write_keeps_outer_lock`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that cannot be
    /// verified.
    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest>;

    /// Bytes of a blob that an [`ingest`](Self::ingest) has left for a later one to go on from: room that is taken
    /// already. Not hashed again yet.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn partial(&self, digest: &Digest) -> Result<u64> {
        Ok(0)
    }

    /// Quarantines damaged content, so that the next [`ingest`](Self::ingest) finds it missing. Absence
    /// is a success.
    ///
    /// # Contract
    /// C 46 `put_existing_is_idempotent_and_repairs_corrupt_existing`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn quarantine(&self, digest: &Digest) -> Result<()>;

    /// What a name stands for: a tag, a digest under a name of the same repository, or the digest of a child of
    /// such an index. `None` when it stands for nothing.
    ///
    /// # Contract
    /// C 40, C 41 `find_by_tag_digest_and_child_digest`, C 42 `find_scoped_to_repository`.
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) when the name stands twice,
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>>;

    /// Every name and what it stands for, sorted by name (rule C 67 `list_sorted_and_stable`).
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>>;

    /// Changes names in one atomic, durable transaction, safe beside other processes. A name is set only for content
    /// that is here: what it stands for and, of a manifest, config and layers, and so is what it
    /// [requires](NameChange::Require); see [`check_names`]. The caller takes a [lease](Self::lease) on it before it
    /// looks for the content, and holds it until the name is set.
    ///
    /// # Contract
    /// C 58 to C 62, C 183 `a_name_needs_its_content`, K 117 `n_processes_add_n_tags_all_survive`, K 120
    /// `reader_never_sees_partial_blob_or_index`.
    ///
    /// # Errors
    /// Nothing is changed with any of them. [`NotFound`](crate::ErrorKind::NotFound) for a pin on a name that is not
    /// there, and with the digests for content that is not here; [`Io`](crate::ErrorKind::Io).
    async fn update(&self, changes: &[NameChange]) -> Result<()>;

    /// A file made from a layer or from an image, or the right to make it: one maker for each key, so that the files of
    /// one format do not exclude each other. Other files may be hard links to it, so a file that was written to since it
    /// was made is not handed out as it is (rule C 185 `a_changed_artifact_is_made_again`). Nor is one whose bytes are no
    /// longer those that were committed, where they lie in no file of this machine: it is made again, or reading it fails
    /// (rule C 220). Two keys that differ in any field are two artifacts (rule C 222
    /// `artifacts_whose_keys_differ_are_kept_apart`).
    /// Keys that print alike are two artifacts (rule C 210 `artifacts_whose_keys_print_alike_are_kept_apart`).
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact>;

    /// A file made from a layer or from an image, if it is here and could be handed out by
    /// [`artifact`](Self::artifact) as it is. It takes no right, and waits for no maker: what is being made is not here.
    ///
    /// By it a format of a whole image finds the files of the layers, and uses their content. The provided body is for
    /// caches whose files are not of this machine, or that do not tell: content is read from the layers then.
    ///
    /// # Contract
    /// C 267 `a_look_for_an_artifact_takes_no_right_and_never_waits`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        Ok(None)
    }

    /// Protects content from [collection](Self::collect) until the lease is dropped or this process ends, and
    /// counts as the use of the blobs that are here of it. A document that is here protects what it leads to. To be
    /// taken before looking whether content is here, and held until
    /// a name stands for it. `diff_id`s protect the artifacts that are made from those layers, a
    /// [ChainID](crate::digest::chain_id) those of an image. Waits for a running collection, never for a pull.
    ///
    /// The provided body is for caches that remove nothing by themselves.
    ///
    /// # Contract
    /// C 63 `gc_keeps_reachable_incl_nested_referrers_and_leases`, C 64 `gc_skips_in_flight_ingest`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        Ok(Lease::none())
    }

    /// Waits until no other task or process holds the right to do `work`, such as a pull of one image for one
    /// platform. The caller then holds that right until the lease is dropped or this process ends. Nothing else in the
    /// cache waits for it.
    ///
    /// The provided body is for caches in which doing the work twice is harmless.
    ///
    /// # Contract
    /// K 118 `n_threads_same_blob_one_write`, K 121 `two_handles_one_process_exclude_each_other`, K 124
    /// `lock_not_held_over_network`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn single_flight(&self, work: &str) -> Result<Lease> {
        Ok(Lease::none())
    }

    /// Bytes that can still be stored; `None` when it is not known.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    async fn free(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The names that are never evicted, sorted.
    ///
    /// # Errors
    /// As [`CacheProvider::list`].
    async fn pins(&self) -> Result<Vec<Reference>> {
        Ok(Vec::new())
    }

    /// What takes how much room (rule C 66 `size_counts_blob_once`), partial downloads included (rule C 184
    /// `partial_downloads_are_counted_and_dropped`).
    ///
    /// # Errors
    /// As [`CacheProvider::list`]; [`Unsupported`](crate::ErrorKind::Unsupported) where it is not counted.
    async fn usage(&self) -> Result<Usage> {
        Err(Error::unsupported("this cache does not count what it holds").with_endpoint(self))
    }

    /// Removes what neither a name nor a lease needs: names need their manifests, nested indexes and what these
    /// refer to, referrers of all these (manifests whose `subject` they are), and artifacts of their layers and of the
    /// images themselves. With a
    /// [budget](Collect::budget) it first removes the names that were not used for longest, until the rest fits or no
    /// more can go: never a pinned one, one whose content is leased, or one that shares all its content with such a
    /// name. A name was used when what it stands for was stored or leased last. What killed writers have left is
    /// removed, too, partial downloads [after a while](Collect::resumable). A name `sha256-HEX` that is a list of referrers
    /// goes with its subject, unless it is pinned or in use. Safe beside pulls in other processes.
    ///
    /// # Contract
    /// C 63 to C 65, K 125 `gc_vs_pull_vs_remove_stress`, K 126 `open_reader_survives_remove`.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), and nothing is removed, when a document is damaged that says what is
    /// needed; [`Io`](crate::ErrorKind::Io); [`Unsupported`](crate::ErrorKind::Unsupported) where content is removed by
    /// other means.
    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        Err(Error::unsupported("this cache does not collect").with_endpoint(self))
    }

    /// Reads content again and says what is damaged or missing; [repairs](Verify::repair) if asked to. What writers
    /// that were killed have left behind is no damage: it is [counted](Verified::remains).
    ///
    /// Caches that cannot list their blobs read what names need: [`verify_names`]. Artifacts that a cache keeps by itself
    /// are read by [`verify_artifacts`]: nothing else finds damage in them before they are used.
    ///
    /// # Contract
    /// C 220 `a_damaged_artifact_is_found_and_never_handed_out`, D 133 `truncated_or_bitflipped_blob_detected_on_read_and_by_fsck_and_refetched`, C 74
    /// `corrupt_index_quarantined_not_destroyed`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an image that is not here, [`Io`](crate::ErrorKind::Io). Damage
    /// is part of the result, not an error.
    async fn verify(&self, what: &Verify) -> Result<Verified>;

    /// A page of the names and what they stand for: all pages together are the [list](Self::list), while no name is
    /// changed. A name that is changed between two pages may be on none of them or on both.
    ///
    /// The provided body lists all names. Caches of many names have one of their own, and make the list of pages.
    ///
    /// # Contract
    /// C 190 `pages_of_names_add_up_to_the_list`.
    ///
    /// # Errors
    /// As [`CacheProvider::list`].
    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        Ok(CachedNames::of(self.list().await?, page))
    }

    /// Waits until what this process has dropped of the cache, such as leases and writers, is ended there, too: for a program
    /// that is about to end. What another machine has to be asked for ends behind a drop. A cache waits for a few seconds at
    /// most; what has not ended by then expires. The provided body is for caches that end everything as it is dropped.
    async fn settle(&self) {}

    /// The OCI layout directory that this cache is, if it is one: other programs read images there by their names.
    ///
    /// # Contract
    /// C 191 `what_is_said_of_the_disk_is_true`.
    fn layout(&self) -> Option<&Path> {
        None
    }

    /// A folder for the temporary files of callers, on a disk that holds as much as the cache does; files are made
    /// without a name there, folders are removed by who makes them. `None` when the cache has no such folder, or
    /// nothing can be written there.
    ///
    /// # Contract
    /// C 191 `what_is_said_of_the_disk_is_true`.
    fn scratch(&self) -> Option<PathBuf> {
        None
    }

    /// Whether nothing can be stored here by this process. What is here can be read.
    ///
    /// # Contract
    /// C 191 `what_is_said_of_the_disk_is_true`.
    fn is_read_only(&self) -> bool {
        false
    }
}

dyn_clone::clone_trait_object!(CacheProvider);

/// Any cache as a trait object, for what is the same for all of them.
pub trait AsCacheProvider {
    /// The cache itself.
    fn as_provider(&self) -> &dyn CacheProvider;
}

impl<T: CacheProvider> AsCacheProvider for T {
    fn as_provider(&self) -> &dyn CacheProvider {
        self
    }
}

// A boxed cache is a cache: every method forwards.
crate::forward_cache! {
    Box<dyn CacheProvider>, |cache| (**cache);
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync layout() -> Option<&Path>;
    sync scratch() -> Option<PathBuf>;
    sync is_read_only() -> bool;
}
