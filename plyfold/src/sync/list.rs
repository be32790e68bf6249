//! The list of a sync: TOML, in which an unknown key is an error.

use std::ops::Range;

use plyfold_core::{Digest, Error, Platform, Platforms, Reference, Result, Sparse, digest, reference};
use serde::Deserialize;
use toml::Spanned;

use super::pick::{Pattern, Pick, Versions};

plyfold_core::fault! {
    /// What is wrong with a list of images.
    pub enum SyncFault;
    Long(usize) => (Limit, "the list has more than {0} bytes"),
    Many(usize) => (Limit, "the list names more than {0} images"),
    NoMatch(usize, String, String) => (NotFound, "line {0}: no tag of {1} matches {2}", "`optional = true` takes an image that may be missing"),
    SameTarget(String, String, String) => (Ambiguous, "{0} and {1} would both be {2}", "in a list `to` gives one of them another repository"),
    Within(String, String) => (Config, "the target {1} is within {0}: each run would bring what the one before has brought", "choose a target outside of what is brought"),
    Twice(String) => (Ambiguous, "{0} is named twice"),
    Syntax(usize, String) => (Config, "line {0}: {1}"),
    Value(usize, &'static str, String) => (Config, "line {0}: {1}: {2}"),
}

/// On an error that has the line of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfLine;

/// Images of a list, or all images of a place.
///
/// ```
/// use plyfold::{SyncFault, SyncList};
///
/// SyncList::parse(
///     r#"
///     version = 1
///
///     [defaults]
///     referrers = true
///
///     [[image]]
///     name = "registry.example/org/app"
///     tags = ["1.*", "latest"]
///     semver = ">=1.2, <2"
///     newest = 3
///     "#,
/// )?;
/// let error = SyncList::parse("version = 1\n[[image]]\nname = \"a.example/b\"\ntagz = [\"1\"]").unwrap_err();
/// assert!(matches!(error.detail(), Some(SyncFault::Syntax(4, _))), "{error}");
/// # Ok::<(), plyfold::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SyncList {
    pub(crate) entries: Vec<Entry>,
    /// The digest of the list, or the place.
    pub(crate) source: Source,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    List(Digest),
    Place(String),
}

/// Images of one repository or place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) pick: Pick,
    /// Whether images may be missing.
    pub(crate) optional: bool,
    /// What is copied of each; without it all that both ends can tell.
    pub(crate) referrers: Option<bool>,
    pub(crate) platforms: Platforms,
    /// Without it `Keep` between places on this machine, which may lack some of an index. A registry is taken to have all.
    pub(crate) sparse: Option<Sparse>,
    /// The repository at the target.
    pub(crate) to: Option<String>,
}

impl SyncList {
    /// Bytes that a list may have.
    pub const LENGTH: usize = 1 << 20;

    /// Reads a list. No image is looked at.
    ///
    /// # Errors
    /// [`SyncFault`], with the line.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > Self::LENGTH {
            return Err(SyncFault::Long(Self::LENGTH).into());
        }
        let lines = Lines::of(text);
        let document: Document = toml::from_str(text).map_err(|e| lines.syntax(&e))?;
        let version = *document.version.get_ref();
        if version != 1 {
            return Err(lines.value(
                document.version.span(),
                "version",
                format!("{version} is not known; it is 1"),
            ));
        }
        if document.image.is_empty() {
            return Err(SyncFault::Syntax(1, "there is no [[image]]".to_owned()).into());
        }
        let entries = document.image.into_iter().map(|item| lines.entry(item, &document.defaults));
        let source = Source::List(digest::sha256(text.as_bytes()));
        Ok(Self { entries: entries.collect::<Result<_>>()?, source })
    }

    /// All images of a place, written as for [`Images::load`](crate::Images::load), with what refers to them where both ends can list
    /// that.
    pub fn of_place(uri: impl Into<String>) -> Self {
        let name = uri.into();
        let entry = Entry {
            line: 0,
            name: name.clone(),
            pick: Pick::All,
            optional: false,
            referrers: None,
            platforms: Platforms::All,
            sparse: None,
            to: None,
        };
        Self { entries: vec![entry], source: Source::Place(name) }
    }

    /// The same images, of each these platforms, whatever the list says.
    #[must_use]
    pub fn with_platforms(mut self, platforms: &Platforms) -> Self {
        self.entries.iter_mut().for_each(|entry| entry.platforms = platforms.clone());
        self
    }

    /// The same images, and what becomes of each index of which not all is brought, whatever the list says.
    #[must_use]
    pub fn with_sparse(mut self, sparse: Sparse) -> Self {
        self.entries.iter_mut().for_each(|entry| entry.sparse = Some(sparse));
        self
    }

    /// The same images, where `name` stands for a place by another text.
    #[cfg(feature = "command")]
    pub(crate) fn with_place(mut self, name: &str, place: &str) -> Self {
        let named = self.entries.iter_mut().filter(|entry| entry.name == name);
        named.for_each(|entry| place.clone_into(&mut entry.name));
        self
    }

    /// Whether an entry has this name.
    #[cfg(feature = "command")]
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The same images, all without what refers to them.
    #[must_use]
    pub fn without_referrers(mut self) -> Self {
        self.entries.iter_mut().for_each(|entry| entry.referrers = Some(false));
        self
    }
}

/// Whether the tag or digest of a name is in the text that it was made of.
pub(crate) fn is_written(name: &Reference, text: &str) -> bool {
    name.digest().is_some() || name.tag().is_some_and(|tag| text.ends_with(&format!(":{tag}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    image: Vec<Spanned<Item>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    platforms: Option<Vec<Spanned<String>>>,
    referrers: Option<bool>,
    sparse: Option<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: Spanned<String>,
    newest: Option<Spanned<usize>>,
    #[serde(default)]
    optional: bool,
    platforms: Option<Vec<Spanned<String>>>,
    referrers: Option<bool>,
    semver: Option<Spanned<String>>,
    sparse: Option<Written>,
    tags: Option<Vec<Spanned<String>>>,
    to: Option<Spanned<String>>,
}

/// [`Sparse`] as it is written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Keep,
    Refuse,
    Rewrite,
}

/// The text, to tell lines and keys of.
struct Lines<'a> {
    text: &'a str,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    fn value(&self, span: Range<usize>, key: &'static str, why: impl Into<String>) -> Error {
        SyncFault::Value(self.line(span.start), key, why.into()).into()
    }

    /// What the parser says, with the key that it does not name.
    fn syntax(&self, error: &toml::de::Error) -> Error {
        let line = error.span().map_or(1, |span| self.line(span.start));
        let message = error.message().replace('\n', "; ");
        let key = self.key(line).filter(|key| !message.contains(*key));
        SyncFault::Syntax(line, key.map_or(message.clone(), |key| format!("{key}: {message}"))).into()
    }

    /// The last key that is written up to a line.
    fn key(&self, line: usize) -> Option<&str> {
        let is_bare = |key: &&str| {
            !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
        };
        let before = self.text.lines().take(line);
        let keys = before.filter_map(|line| Some(line.split_once('=')?.0.trim()).filter(is_bare));
        keys.last()
    }

    fn entry(&self, item: Spanned<Item>, defaults: &Defaults) -> Result<Entry> {
        let line = self.line(item.span().start);
        let item = item.into_inner();
        let pick = self.pick(&item)?;
        let platforms = item.platforms.as_ref().or(defaults.platforms.as_ref());
        let to = item.to.as_ref().map(|to| self.repository(to)).transpose()?;
        let sparse = match item.sparse.or(defaults.sparse) {
            Some(Written::Keep) => Sparse::Keep,
            Some(Written::Rewrite) => Sparse::Rewrite,
            Some(Written::Refuse) | None => Sparse::Refuse,
        };
        Ok(Entry {
            line,
            name: item.name.into_inner(),
            pick,
            optional: item.optional,
            referrers: Some(item.referrers.or(defaults.referrers).unwrap_or_default()),
            platforms: platforms.map_or(Ok(Platforms::All), |platforms| self.platforms(platforms))?,
            sparse: Some(sparse),
            to,
        })
    }

    fn pick(&self, item: &Item) -> Result<Pick> {
        if let Some(newest) = &item.newest {
            if item.semver.is_none() {
                return Err(self.value(newest.span(), "newest", "it needs `semver`"));
            }
            if *newest.get_ref() == 0 {
                return Err(self.value(newest.span(), "newest", "it is 1 at least"));
            }
        }
        if item.tags.is_none() && item.semver.is_none() {
            return Ok(Pick::Named);
        }
        let mut patterns = Vec::new();
        for tag in item.tags.iter().flatten() {
            let pattern = Pattern::parse(tag.get_ref(), self.line(tag.span().start));
            patterns.push(pattern.map_err(|why| self.value(tag.span(), "tags", why))?);
        }
        let versions = item.semver.as_ref().map(|range| {
            let newest = item.newest.as_ref().map(|newest| *newest.get_ref());
            let versions = Versions::parse(range.get_ref(), newest, self.line(range.span().start));
            versions.map_err(|why| self.value(range.span(), "semver", why))
        });
        let versions = versions.transpose()?;
        if patterns.is_empty() && versions.is_none() {
            return Err(self.value(item.name.span(), "tags", "there is none"));
        }
        Ok(Pick::Tags { patterns, versions })
    }

    fn platforms(&self, platforms: &[Spanned<String>]) -> Result<Platforms> {
        let is_all = |platform: &Spanned<String>| platform.get_ref() == "all";
        if let [platform] = platforms
            && is_all(platform)
        {
            return Ok(Platforms::All);
        }
        let parsed = platforms.iter().map(|platform| {
            let parsed = platform.get_ref().parse::<Platform>();
            parsed.map_err(|e| self.value(platform.span(), "platforms", e.message()))
        });
        let parsed: Vec<Platform> = parsed.collect::<Result<_>>()?;
        Ok(match <[Platform; 1]>::try_from(parsed) {
            Ok([one]) => Platforms::One(one),
            Err(several) if several.is_empty() => Platforms::All,
            Err(several) => Platforms::Some(several),
        })
    }

    /// A repository without its registry.
    fn repository(&self, to: &Spanned<String>) -> Result<String> {
        let text = to.get_ref();
        let whole = format!("registry.invalid/{text}");
        let is_one = reference::parse(&whole).is_ok_and(|parsed| reference::repository_of(&parsed) == whole);
        if is_one {
            return Ok(text.clone());
        }
        Err(self.value(to.span(), "to", format!("{text:?} is not a repository without its registry and tag")))
    }
}

#[cfg(test)]
mod tests;
