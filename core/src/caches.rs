//! Caches by URI scheme: what is linked into this program, and how a URI opens.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use crate::backend::{LINKING, Location};
use crate::cache::CacheProvider;
use crate::options::{self, Options};
use crate::{Error, Result};

/// A kind of place where images are kept: one entry for each crate that implements [`CacheProvider`] for something that a
/// URI names. Register it with [`register!`](crate::register).
///
/// ```
/// use plyfold_core::memory::MemoryCache;
/// use plyfold_core::{CacheEntry, Caches, Options};
///
/// plyfold_core::register!(CacheEntry {
///     schemes: &["mine"],
///     package: env!("CARGO_PKG_NAME"),
///     summary: "images in the memory of this process",
///     syntax: "mine:",
///     options: "",
///     open: |request| Box::pin(async move {
///         request.options.refuse()?;
///         Ok(Box::new(MemoryCache::new()?) as _)
///     }),
/// });
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let cache = Caches::linked()?.open("mine:", &Options::default()).await?;
/// assert_eq!(cache.list().await?, []);
/// # Ok::<(), plyfold_core::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CacheEntry {
    /// The URI schemes it opens; the first is its name, the others are aliases.
    pub schemes: &'static [&'static str],
    /// The crate it comes from: `env!("CARGO_PKG_NAME")`.
    pub package: &'static str,
    /// One line that says what it is.
    pub summary: &'static str,
    /// What follows the scheme, such as `s3://BUCKET/PREFIX`.
    pub syntax: &'static str,
    /// The options that it takes, such as `region=NAME, read-only=true|false`; empty when it takes none.
    pub options: &'static str,
    /// Opens a location. Fails at once on a malformed location or option, and before the first request.
    pub open: OpenCache,
}

/// The signature of [`CacheEntry::open`].
pub type OpenCache = fn(CacheRequest) -> BoxFuture<'static, Result<Box<dyn CacheProvider>>>;

inventory::collect!(CacheEntry);

/// What is opened as a cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheRequest {
    /// The URI, as it was written.
    pub uri: String,
    /// Its parts.
    pub location: Location,
    /// How.
    pub options: Options,
    /// Whether the cache is made where none is. Otherwise nothing is written, and that none is there is
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub makes: bool,
}

/// The caches that a program can open.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    by_scheme: BTreeMap<&'static str, CacheEntry>,
}

impl Caches {
    /// No cache at all, to add to by [`Caches::with`].
    pub fn none() -> Self {
        Self::default()
    }

    /// Every kind of cache that is linked into this program.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when two crates claim one scheme; it names both.
    pub fn linked() -> Result<Self> {
        inventory::iter::<CacheEntry>.into_iter().try_fold(Self::none(), |all, entry| all.with(*entry))
    }

    /// Adds one by hand.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when another crate claims one of its schemes; it names both.
    pub fn with(mut self, entry: CacheEntry) -> Result<Self> {
        for scheme in entry.schemes {
            match self.by_scheme.insert(scheme, entry) {
                Some(other) if other.package != entry.package => {
                    let both = format!("{} and {}", other.package, entry.package);
                    return Err(Error::config(format!("scheme {scheme}: is claimed by both {both}"))
                        .with_hint("link only one of the two crates"));
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// The same without the one that claims `scheme`, under any of its schemes.
    #[must_use]
    pub fn without(mut self, scheme: &str) -> Self {
        self.by_scheme.retain(|_, entry| !entry.schemes.contains(&scheme));
        self
    }

    /// Each once, by the name of its first scheme.
    pub fn iter(&self) -> impl Iterator<Item = &CacheEntry> {
        self.by_scheme
            .iter()
            .filter(|(scheme, entry)| entry.schemes.first() == Some(scheme))
            .map(|(_, entry)| entry)
    }

    /// The one that opens `uri`, by its scheme.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a malformed URI and for an unknown scheme, with the list of those that are
    /// linked.
    pub fn of(&self, uri: &str) -> Result<&CacheEntry> {
        self.found(uri).map(|(_, entry)| entry)
    }

    /// Opens the cache of a URI, and makes it where none is.
    ///
    /// # Errors
    /// As [`Caches::of`]; otherwise those of the crate that it comes from.
    pub async fn open(&self, uri: &str, options: &Options) -> Result<Box<dyn CacheProvider>> {
        self.open_request(uri, options, true).await
    }

    /// Opens the cache of a URI, if one is there. Nothing is written.
    ///
    /// # Errors
    /// As [`Caches::open`]; [`NotFound`](crate::ErrorKind::NotFound) where no cache is.
    pub async fn open_existing(&self, uri: &str, options: &Options) -> Result<Box<dyn CacheProvider>> {
        self.open_request(uri, options, false).await
    }

    async fn open_request(
        &self,
        uri: &str,
        options: &Options,
        makes: bool,
    ) -> Result<Box<dyn CacheProvider>> {
        let (location, entry) = self.found(uri)?;
        let request = CacheRequest { uri: uri.to_owned(), location, options: options.clone(), makes };
        (entry.open)(request).await.map_err(|e| {
            let entries =
                self.iter().map(|entry| (entry.schemes.first().copied().unwrap_or(""), entry.options));
            options::with_those_that_have(e, options, "scheme", entries)
        })
    }

    fn found(&self, uri: &str) -> Result<(Location, &CacheEntry)> {
        let known = || match self.by_scheme.keys().copied().collect::<Vec<_>>().as_slice() {
            [] => format!("no cache with a scheme is linked into this program: {LINKING}"),
            list => format!("known schemes are {}; {LINKING}", list.join(", ")),
        };
        // The hint of `Location` is about images.
        let location = Location::parse(uri).map_err(|_| {
            Error::config(format!("invalid URI of a cache {uri:?}: no scheme")).with_hint(known())
        })?;
        match self.by_scheme.get(location.scheme.as_str()) {
            Some(entry) => Ok((location, entry)),
            None => Err(Error::config(format!("unknown scheme {:?} of a cache in {uri:?}", location.scheme))
                .with_hint(known())),
        }
    }
}
