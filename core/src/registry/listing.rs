//! Listings of names, page by page.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Reference, reference};

/// A page of a listing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// At most this many items; `None` leaves it to the backend.
    pub limit: Option<usize>,
    /// Continue after this item: the [`Names::next`] of the page before.
    pub after: Option<String>,
}

/// One page of names, sorted bytewise.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// The names on this page.
    pub names: Vec<String>,
    /// The token of the next page; `None` on the last.
    pub next: Option<String>,
}

impl Page {
    /// This page of a whole listing, for backends that hold all names: in any order, and each counts once.
    ///
    /// ```
    /// use plyfold_core::Page;
    ///
    /// let all = ["b", "a", "c", "b"];
    /// let first = Page { limit: Some(2), after: None }.of(all);
    /// assert_eq!((first.names.len(), first.next.as_deref()), (2, Some("b")));
    /// let second = Page { limit: Some(2), after: first.next }.of(all);
    /// assert_eq!((second.names, second.next), (vec!["c".to_owned()], None));
    /// ```
    pub fn of<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Names {
        let after = self.after.as_deref();
        let rest = names.into_iter().filter(|name| after.is_none_or(|after| name.as_ref() > after));
        let rest: BTreeSet<String> = rest.map(|name| name.as_ref().to_owned()).collect();
        let mut rest = rest.into_iter();
        let names: Vec<String> = rest.by_ref().take(self.limit.unwrap_or(usize::MAX)).collect();
        let next = rest.next().and_then(|_| names.last().cloned());
        Names { names, next }
    }
}

/// The tags of each repository, for backends that hold all names: a listing of all names asks for each repository, and all of
/// these answers together take the time of one look at the names.
#[derive(Clone, Debug, Default)]
pub struct TagTable(BTreeMap<String, BTreeSet<String>>);

impl TagTable {
    /// Of these names. A name without a tag counts as its repository alone.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a Reference>) -> Self {
        let mut table = Self::default();
        for name in names {
            let tags = table.0.entry(reference::repository_of(name)).or_default();
            tags.extend(name.tag().map(str::to_owned));
        }
        table
    }

    /// A page of the repositories.
    pub fn repositories(&self, page: &Page) -> Names {
        page.of(self.0.keys())
    }

    /// A page of the tags of a repository; `None` when there is no such repository.
    pub fn tags(&self, repository: &str, page: &Page) -> Option<Names> {
        self.0.get(repository).map(|tags| page.of(tags))
    }
}
