//! Caches around other ones.

/// Implements [`CacheProvider`](crate::CacheProvider) for a cache around another one: what is listed forwards to the one
/// within, the rest is written out. A method that is neither is an error of clippy, because a provided body knows
/// nothing of the cache within. The crate needs no dependency for it.
///
/// ```
/// use std::{fmt, path::{Path, PathBuf}};
///
/// use plyfold_core::cache::{CachedNames, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified, Verify};
/// use plyfold_core::{
///     Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Descriptor, Digest, Page, Reference, Result,
/// };
///
/// /// A cache that cannot be changed.
/// #[derive(Clone, Debug)]
/// struct Shown(Box<dyn CacheProvider>);
///
/// plyfold_core::forward_cache! {
///     Shown, |shown| shown.0;
///     async stat(digest: &Digest) -> Result<Option<u64>>;
///     async is_away(digest: &Digest) -> Result<bool>;
///     async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
///     async ingest(blob: &Descriptor) -> Result<Ingest>;
///     async partial(digest: &Digest) -> Result<u64>;
///     async quarantine(digest: &Digest) -> Result<()>;
///     async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
///     async list() -> Result<Vec<(Reference, Descriptor)>>;
///     async update(changes: &[NameChange]) -> Result<()>;
///     async artifact(key: &ArtifactKey) -> Result<Artifact>;
///     async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
///     async lease(content: &[Digest]) -> Result<Lease>;
///     async single_flight(work: &str) -> Result<Lease>;
///     async free() -> Result<Option<u64>>;
///     async pins() -> Result<Vec<Reference>>;
///     async usage() -> Result<Usage>;
///     async collect(policy: &Collect) -> Result<Collected>;
///     async verify(what: &Verify) -> Result<Verified>;
///     async list_page(page: &Page) -> Result<CachedNames>;
///     async settle() -> ();
///     sync layout() -> Option<&Path>;
///     sync scratch() -> Option<PathBuf>;
///     {
///         fn is_read_only(&self) -> bool {
///             true
///         }
///     }
/// }
///
/// impl fmt::Display for Shown {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         self.0.fmt(f)
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_cache {
    ($($forwarded:tt)*) => { $crate::forward! { $crate::CacheProvider, $($forwarded)* } };
}

/// As [`forward_cache!`], for any trait of boxed objects.
#[doc(hidden)]
#[macro_export]
macro_rules! forward {
    (
        $of:path, $outer:ty, |$this:ident| $inner:expr;
        $(async $method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*
        $(sync $question:ident($($asked:ident: $asked_type:ty),*) -> $answer:ty;)*
        $({ $($own:tt)* })?
    ) => {
        #[deny(clippy::missing_trait_methods)]
        #[$crate::async_trait]
        impl $of for $outer {
            $(async fn $method(&self, $($argument: $type),*) -> $result {
                let $this = self;
                $inner.$method($($argument),*).await
            })*
            $(fn $question(&self, $($asked: $asked_type),*) -> $answer {
                let $this = self;
                $inner.$question($($asked),*)
            })*
            $($($own)*)?
        }
    };
}
