//! Which images of a repository are taken.

use std::collections::BTreeSet;

use plyfold_core::reference;
use semver::{Version, VersionReq};

/// What is taken of a repository, or of a place.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// All images of a place.
    All,
    /// The image that the name names.
    Named,
    /// What any pattern matches, and versions of a range.
    Tags { patterns: Vec<Pattern>, versions: Option<Versions> },
}

/// A tag, or a pattern of tags.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// `None` for a tag.
    glob: Option<glob::Pattern>,
}

impl Pattern {
    pub(crate) fn parse(text: &str, line: usize) -> Result<Self, String> {
        let is_glob = text.contains(['*', '?', '[']);
        if !is_glob && !reference::is_tag(text) {
            return Err(format!("{text:?} is not a tag"));
        }
        let glob = is_glob.then(|| glob::Pattern::new(text)).transpose();
        let glob = glob.map_err(|e| format!("{text:?} is not a pattern: {}", e.msg))?;
        Ok(Self { text: text.to_owned(), line, glob })
    }

    /// The tag that it is, if it is no pattern.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.glob.is_none().then_some(self.text.as_str())
    }

    pub(crate) fn matches(&self, tag: &str) -> bool {
        self.glob.as_ref().map_or(self.text == tag, |glob| glob.matches(tag))
    }
}

/// A range of versions, and how many of it are taken.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub(crate) text: String,
    pub(crate) line: usize,
    range: VersionReq,
    newest: usize,
}

impl Versions {
    pub(crate) fn parse(text: &str, newest: Option<usize>, line: usize) -> Result<Self, String> {
        let range =
            VersionReq::parse(text).map_err(|e| format!("{text:?} is not a range of versions: {e}"))?;
        Ok(Self { text: text.to_owned(), line, range, newest: newest.unwrap_or(usize::MAX) })
    }

    /// Of these tags the newest that are versions within the range. Two tags of one version, `1.2.3` and `v1.2.3`, are both
    /// taken.
    pub(crate) fn of<'a>(&self, tags: &[&'a str]) -> Vec<&'a str> {
        let version = |tag: &'a str| Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok();
        let versions = tags.iter().filter_map(|tag| Some((version(tag)?, *tag)));
        let within: Vec<_> = versions.filter(|(version, _)| self.range.matches(version)).collect();
        let distinct: BTreeSet<&Version> = within.iter().map(|(version, _)| version).collect();
        let older = distinct.len().saturating_sub(self.newest);
        let Some(oldest) = distinct.iter().nth(older) else { return Vec::new() };
        within.iter().filter(|(version, _)| version >= *oldest).map(|(_, tag)| *tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_tags() {
        for (pattern, tag, matches) in [
            ("1.*", "1.2", true),
            ("1.*", "1.2.3-alpine", true),
            ("1.*", "11.2", false),
            ("1.?", "1.2", true),
            ("1.?", "1.22", false),
            ("v[12].*", "v2.0", true),
            ("v[12].*", "v3.0", false),
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("*", "Any", true),
        ] {
            assert_eq!(Pattern::parse(pattern, 1).unwrap().matches(tag), matches, "{pattern} {tag}");
        }
        for pattern in ["", "[a", "a b", "a/b", "***"] {
            assert!(Pattern::parse(pattern, 1).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn the_newest_versions_of_a_range_are_taken() {
        let tags = ["1.2", "1.2.0", "v1.10.0", "1.9.1", "1.10.0", "2.0.0", "1.11.0-rc1", "latest", "01.2.3"];
        for (range, newest, taken) in [
            (">=1.2, <2", None, &["1.2.0", "v1.10.0", "1.9.1", "1.10.0"][..]),
            (">=1.2, <2", Some(1), &["v1.10.0", "1.10.0"]),
            (">=1.2, <2", Some(2), &["v1.10.0", "1.9.1", "1.10.0"]),
            (">=1.2, <2", Some(9), &["1.2.0", "v1.10.0", "1.9.1", "1.10.0"]),
            ("=1.11.0-rc1", None, &["1.11.0-rc1"]),
            ("*", Some(1), &["2.0.0"]),
            ("^3", None, &[]),
        ] {
            assert_eq!(Versions::parse(range, newest, 1).unwrap().of(&tags), taken, "{range} {newest:?}");
        }
        assert!(Versions::parse("1.x.y.z", None, 1).is_err());
    }
}
