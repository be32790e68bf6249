//! Backends by URI scheme: what is linked into this program, and how a URI opens.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use futures_util::future::BoxFuture;

use crate::beside::is_beside;
use crate::credential::Credential;
use crate::options::{self, Options};
use crate::registry::{Capabilities, ImageRegistry, Names, Page};
use crate::shared::Shared;
use crate::{Digest, Error, Reference, Result, digest, reference, select};

/// A kind of place that images come from: one entry for each crate that implements
/// [`ImageRegistry`]. Register it with [`register!`](crate::register).
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// The URI schemes it opens; the first is its name, the others are aliases.
    pub schemes: &'static [&'static str],
    /// The crate it comes from: `env!("CARGO_PKG_NAME")`.
    pub package: &'static str,
    /// One line for `plyfold backends`.
    pub summary: &'static str,
    /// What follows the scheme, such as `oci:DIRECTORY[:TAG]`.
    pub syntax: &'static str,
    /// The options that it takes, such as `catalogue=FILE, depth=NUMBER`; empty when it takes none.
    pub options: &'static str,
    /// What it can do at most.
    pub capabilities: Capabilities,
    /// Whether it uses [`OpenRequest::credential`]. One that does not is never opened with a credential.
    pub takes_credentials: bool,
    /// Opens a location. Reads no image yet, and fails at once on a malformed location or option.
    pub open: Open,
}

/// The signature of [`Backend::open`].
pub type Open = fn(OpenRequest) -> BoxFuture<'static, Result<Opened>>;

/// What a backend opens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenRequest {
    /// Where.
    pub location: Location,
    /// How.
    pub options: Options,
    /// Who asks, when that is not for the options and the machine to say: then nothing that belongs to another
    /// credential may be used for it, such as tokens, and answers that were given to another.
    pub credential: Option<Credential>,
    /// What the program's backends share: connections, limits of a host, and tokens of one credential.
    pub shared: Shared,
}

inventory::collect!(Backend);

/// Links a [`Backend`], a [`CacheEntry`](crate::CacheEntry) or a [`FormatEntry`](crate::FormatEntry) into every program that
/// links the calling crate.
///
/// A line in Cargo.toml does not link a crate: the program has to name it, by `use my_backend as _;` if it uses nothing
/// else of it. Static libraries drop link-time entries: there, [`Backends::with`], [`Caches::with`](crate::Caches::with) and
/// [`Materializers::with`](crate::Materializers::with) add them.
#[macro_export]
macro_rules! register {
    ($entry:expr) => {
        $crate::inventory::submit! { $entry }
    };
}

/// A parsed URI: `scheme ":" rest`, as containers/image spells transports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// The scheme that was written; one of the backend's.
    pub scheme: String,
    /// Everything after the colon, without a leading `//`.
    pub rest: String,
}

impl Location {
    /// Parses a URI.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when there is no scheme.
    pub fn parse(uri: &str) -> Result<Self> {
        let invalid = || {
            Error::config(format!("invalid image URI {uri:?}: no scheme")).with_hint(
                "write scheme:rest, such as registry:docker.io/library/alpine:latest or oci:DIR:TAG",
            )
        };
        let (scheme, rest) = uri.split_once(':').ok_or_else(invalid)?;
        let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if scheme.is_empty() || !scheme.bytes().all(valid) {
            return Err(invalid());
        }
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        Ok(Self { scheme: scheme.to_owned(), rest: rest.to_owned() })
    }

    /// A path and what follows the first colon after it, as in `oci:DIR:TAG` and `oci-archive:FILE:TAG`; the digest
    /// of `oci:DIR@DIGEST` with its `@`.
    pub fn path_and_image(&self) -> (&str, Option<&str>) {
        match self.rest.split_once(':') {
            Some((path, image)) => match path.rsplit_once('@') {
                // The first colon stands within the digest.
                Some((path, "sha256" | "sha384" | "sha512")) => (path, self.rest.get(path.len()..)),
                _ => (path, Some(image).filter(|image| !image.is_empty())),
            },
            None => (&self.rest, None),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.rest)
    }
}

/// At most this many names are compared to see whether all refer to one image.
const ALIASES: usize = 20;

/// An opened location.
#[derive(Debug)]
pub struct Opened {
    /// The place.
    pub registry: Box<dyn ImageRegistry>,
    /// The image that the URI names; `None` when it names the place only.
    pub reference: Option<Reference>,
}

impl Opened {
    /// The image that the URI names, or the only one that there is, by the first of its names.
    ///
    /// # Errors
    /// When the URI names none: [`Ambiguous`](crate::ErrorKind::Ambiguous) when there are several, which it lists,
    /// [`Config`](crate::ErrorKind::Config) when nothing can be listed there,
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none; and those of the listing.
    pub async fn reference(&self) -> Result<Reference> {
        if let Some(reference) = &self.reference {
            return Ok(reference.clone());
        }
        if !self.registry.capabilities().repositories {
            let hint = format!("append the name of the image: {}:NAME", self.registry);
            return Err(Error::config("the URI names no image")
                .with_endpoint(&self.registry)
                .with_hint(hint));
        }
        let mut found = self.images().await?;
        let is_image = |name: &Reference| !reference::is_about_images(name);
        if found.iter().any(is_image) {
            found.retain(is_image);
        }
        match found.len() {
            0 => Err(self.nameless()),
            1 => Ok(found.remove(0)),
            2..=ALIASES if self.are_one(&found).await? => Ok(found.remove(0)),
            _ => {
                let names: Vec<String> = found.iter().take(20).map(Reference::whole).collect();
                let message = format!("the URI matches several images: {}", names.join(", "));
                let hint = match (found[0].tag(), found[0].digest()) {
                    (None, Some(digest)) => {
                        format!("choose one by its digest, such as {}@{digest}", self.registry)
                    }
                    _ => format!("append the name of one, such as {}:{}", self.registry, names[0]),
                };
                Err(Error::ambiguous(message).with_endpoint(&self.registry).with_hint(hint))
            }
        }
    }

    /// Whether all of these names stand for one image.
    async fn are_one(&self, names: &[Reference]) -> Result<bool> {
        let mut first: Option<Digest> = None;
        for name in names {
            let digest = self.registry.resolve(name).await?.digest().clone();
            if first.get_or_insert_with(|| digest.clone()) != &digest {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn nameless(&self) -> Error {
        let hint = format!("choose an image without a name by its digest: {}@sha256:…", self.registry);
        Error::not_found("no image has a name here").with_endpoint(&self.registry).with_hint(hint)
    }

    /// Every image here, as a load takes them: those that have a name, sorted, then those without one. Lists of what refers
    /// to an image are none.
    ///
    /// # Errors
    /// As [`references`](Self::references) and [`ImageRegistry::untagged`].
    pub async fn images(&self) -> Result<Vec<Reference>> {
        let mut found = self.references().await?;
        if self.registry.capabilities().referrers {
            found.retain(|name| !reference::is_list_of_referrers(name));
        }
        found.extend(self.registry.untagged().await?);
        Ok(found)
    }

    /// As [`images`](Self::images), without what comes with another image: cosign's tags, and what has no name and refers to a
    /// document that is here.
    ///
    /// # Errors
    /// As [`images`](Self::images), and those of the documents.
    pub async fn images_without_referrers(&self) -> Result<Vec<Reference>> {
        let mut images = Vec::new();
        for name in self.images().await? {
            if reference::is_about_images(&name) {
                continue;
            }
            if name.tag().is_none()
                && let Some(raw) = Error::found(select::raw(&self.registry, &name).await)?
                && is_beside(&*self.registry, &name, &raw).await?
            {
                continue;
            }
            images.push(name);
        }
        Ok(images)
    }

    /// Every image that has a name here, sorted.
    ///
    /// # Errors
    /// As [`ImageRegistry::repositories`] and [`ImageRegistry::tags`], and those of [`Pages::advance`].
    pub async fn references(&self) -> Result<Vec<Reference>> {
        let mut found = Vec::new();
        let mut pages = Pages::default();
        while let Some(page) = pages.page() {
            let repositories = self.registry.repositories(page).await?;
            for repository in &repositories.names {
                found.extend(self.tags_of(repository).await?);
                if found.len() > Pages::NAMES {
                    return Err(Pages::too_many().with_endpoint(&self.registry));
                }
            }
            pages.advance(&repositories).map_err(|e| e.with_endpoint(&self.registry))?;
        }
        Ok(found)
    }

    async fn tags_of(&self, repository: &str) -> Result<Vec<Reference>> {
        let mut found = Vec::new();
        let mut pages = Pages::default();
        while let Some(page) = pages.page() {
            let tags = self.registry.tags(repository, page).await?;
            for tag in &tags.names {
                found.push(reference::parse(&format!("{repository}:{tag}"))?);
            }
            pages.advance(&tags).map_err(|e| e.with_endpoint(&self.registry))?;
        }
        Ok(found)
    }
}

/// The pages of one listing of tags or repositories, each of them once, and a bounded number: a registry's links may
/// lead in a circle, or on without end.
///
/// ```
/// use plyfold_core::{Names, backend::Pages};
///
/// let mut pages = Pages::default();
/// assert_eq!(pages.page().unwrap().after, None);
/// pages.advance(&Names { names: vec!["a".to_owned()], next: Some("a".to_owned()) })?;
/// assert_eq!(pages.page().unwrap().after.as_deref(), Some("a"));
/// pages.advance(&Names { names: vec!["b".to_owned()], next: None })?;
/// assert!(pages.page().is_none());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Pages {
    next: Option<Page>,
    /// Hashes of the places where pages began.
    seen: HashSet<Digest>,
    names: usize,
    /// Pages without a name that came last, one after the other.
    empty: usize,
}

impl Default for Pages {
    /// Before the first page.
    fn default() -> Self {
        Self { next: Some(Page::default()), seen: HashSet::new(), names: 0, empty: 0 }
    }
}

impl Pages {
    /// Names that one listing may have, with room for the repositories that have the most tags.
    pub const NAMES: usize = 1 << 17;
    /// Pages that it may have.
    pub const PAGES: usize = 1 << 14;
    /// Pages without a name that may follow each other: each is a request.
    pub const EMPTY: usize = 16;

    /// The page to ask for next; `None` after the last one.
    pub fn page(&mut self) -> Option<Page> {
        self.next.take()
    }

    /// Goes on to the page behind this one, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when it leads back to a page that was there before;
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`Pages::NAMES`], [`Pages::PAGES`] and [`Pages::EMPTY`].
    pub fn advance(&mut self, page: &Names) -> Result<()> {
        self.names += page.names.len();
        if self.names > Self::NAMES {
            return Err(Self::too_many());
        }
        let Some(after) = &page.next else { return Ok(()) };
        if !self.seen.insert(digest::sha256(after.as_bytes())) {
            return Err(Error::corrupt("the links between pages form a loop"));
        }
        self.empty = if page.names.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > Self::EMPTY {
            let message = format!("more than {} pages without a name, one after the other", Self::EMPTY);
            return Err(Error::limit(message));
        }
        if self.seen.len() >= Self::PAGES {
            return Err(Error::limit(format!("more than {} pages of names", Self::PAGES)));
        }
        self.next = Some(Page { after: Some(after.clone()), ..Page::default() });
        Ok(())
    }

    fn too_many() -> Error {
        Error::limit(format!("more than {} names", Self::NAMES)).with_hint("name the images")
    }
}

/// What adds a scheme to a program.
pub(crate) const LINKING: &str =
    "a crate in Cargo.toml is linked only if the program names it: `use CRATE as _;`";

/// The backends a program can open.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    by_scheme: BTreeMap<&'static str, Backend>,
}

impl Backends {
    /// No backend at all, to add to by [`Backends::with`].
    pub fn none() -> Self {
        Self::default()
    }

    /// Every backend that is linked into this program.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when two crates claim one scheme; it names both.
    pub fn linked() -> Result<Self> {
        inventory::iter::<Backend>.into_iter().try_fold(Self::none(), |all, backend| all.with(*backend))
    }

    /// Adds a backend by hand.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when another crate claims one of its schemes; it names both.
    pub fn with(mut self, backend: Backend) -> Result<Self> {
        for scheme in backend.schemes {
            match self.by_scheme.insert(scheme, backend) {
                Some(other) if other.package != backend.package => {
                    return Err(Error::config(format!(
                        "scheme {scheme}: is claimed by both {} and {}",
                        other.package, backend.package
                    ))
                    .with_hint("link only one of the two crates"));
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// The same without the backend that claims `scheme`, under any of its schemes.
    #[must_use]
    pub fn without(mut self, scheme: &str) -> Self {
        self.by_scheme.retain(|_, backend| !backend.schemes.contains(&scheme));
        self
    }

    /// The backends, each once, by the name of their first scheme.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.by_scheme
            .iter()
            .filter(|(scheme, backend)| backend.schemes.first() == Some(scheme))
            .map(|(_, b)| b)
    }

    /// Whether `uri` begins with the scheme of one of them.
    pub fn knows(&self, uri: &str) -> bool {
        self.of(uri).is_some()
    }

    /// The backend that opens `uri`, by its scheme.
    pub fn of(&self, uri: &str) -> Option<&Backend> {
        self.by_scheme.get(Location::parse(uri).ok()?.scheme.as_str())
    }

    /// Opens a URI.
    ///
    /// # Errors
    /// As [`Backends::open_with`].
    pub async fn open(&self, uri: &str, options: &Options) -> Result<Opened> {
        self.open_with(uri, options, None, &Shared::default()).await
    }

    /// Opens a URI with a credential, and with what other openings [share](OpenRequest::shared).
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a malformed URI, for an unknown scheme, with the list of those that
    /// are linked, and for a credential that the backend does not [take](Backend::takes_credentials); otherwise those
    /// of the backend.
    pub async fn open_with(
        &self,
        uri: &str,
        options: &Options,
        credential: Option<Credential>,
        shared: &Shared,
    ) -> Result<Opened> {
        let location = Location::parse(uri)?;
        let Some(backend) = self.by_scheme.get(location.scheme.as_str()) else {
            let known: Vec<&str> = self.by_scheme.keys().copied().collect();
            let hint = match known.as_slice() {
                [] => format!("no backend is linked into this program: {LINKING}"),
                list => format!("known schemes are {}; {LINKING}", list.join(", ")),
            };
            return Err(
                Error::config(format!("unknown scheme {:?} in {uri:?}", location.scheme)).with_hint(hint)
            );
        };
        if credential.is_some() && !backend.takes_credentials {
            return Err(Error::config(format!("{}: takes no credential", location.scheme)));
        }
        let given = options.clone();
        let opened =
            (backend.open)(OpenRequest { location, options: given, credential, shared: shared.clone() });
        opened.await.map_err(|e| {
            let entries =
                self.iter().map(|backend| (backend.schemes.first().copied().unwrap_or(""), backend.options));
            options::with_those_that_have(e, options, "scheme", entries)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that never repeat and never end, with names or without.
    #[test]
    fn listings_end() {
        for (names, bound) in [(0, Pages::EMPTY), (1, Pages::PAGES), (1 << 10, Pages::NAMES >> 10)] {
            let (mut pages, mut asked) = (Pages::default(), 0);
            let error = loop {
                pages.page().unwrap();
                let names = vec![String::new(); names];
                if let Err(e) = pages.advance(&Names { names, next: Some(asked.to_string()) }) {
                    break e;
                }
                asked += 1;
                assert!(asked <= bound, "{asked} pages");
            };
            assert_eq!(*error.kind(), crate::ErrorKind::Limit, "{error}");
        }
    }
}
