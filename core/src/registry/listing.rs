//! Listings of names, page by page.

use std::collections::BTreeSet;

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
