//! Listings of a cache's names, page by page.

use crate::registry::Page;
use crate::{Descriptor, Reference};

/// One page of a cache's names and what they stand for, sorted as [`list`](super::CacheProvider::list) sorts them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CachedNames {
    /// The names on this page.
    pub names: Vec<(Reference, Descriptor)>,
    /// What [`Page::after`] is for the next page; `None` on the last.
    pub next: Option<String>,
}

impl CachedNames {
    /// A page that a cache has put together itself. `next` is its own text.
    pub fn new(names: Vec<(Reference, Descriptor)>, next: Option<String>) -> Self {
        Self { names, next }
    }

    /// This page of all names, for caches that hold them as a list; `all` is sorted as
    /// [`list`](super::CacheProvider::list) demands.
    pub fn of(all: Vec<(Reference, Descriptor)>, page: &Page) -> Self {
        let after = page.after.as_deref().map(place);
        let mut rest =
            placed(all).skip_while(|(place, _)| after.as_ref().is_some_and(|after| place <= after));
        let (mut names, mut last) = (Vec::new(), None);
        for (place, entry) in rest.by_ref().take(page.limit.unwrap_or(usize::MAX)) {
            names.push(entry);
            last = Some(place);
        }
        let next = rest.next().and(last).map(|(name, before)| format!("{name} {before}"));
        Self { names, next }
    }
}

/// Where in the list an entry is: its name, and how many entries of the same name are before it. A name that stands twice
/// (as other tools may leave a layout) has two places.
type Place = (String, usize);

/// A place as text, `name before`, or all places of a name.
fn place(text: &str) -> Place {
    // A name has no blanks.
    let place = text.split_once(' ').and_then(|(name, before)| Some((name, before.parse().ok()?)));
    let (name, before) = place.unwrap_or((text, usize::MAX));
    (name.to_owned(), before)
}

/// Each entry with its place.
fn placed(all: Vec<(Reference, Descriptor)>) -> impl Iterator<Item = (Place, (Reference, Descriptor))> {
    let (mut last, mut before) = (None, 0);
    all.into_iter().map(move |entry| {
        let name = entry.0.whole();
        before = if last.as_ref() == Some(&name) { before + 1 } else { 0 };
        last = Some(name.clone());
        ((name, before), entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest, reference};

    fn entries(names: &[&str]) -> Vec<(Reference, Descriptor)> {
        let entry = |(index, name): (usize, &&str)| {
            let content = index.to_string();
            let digest = digest::sha256(content.as_bytes());
            let descriptor = Descriptor::new("application/octet-stream".into(), content.len() as u64, digest);
            (reference::parse(name).unwrap(), descriptor)
        };
        names.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn pages_end_within_a_name_that_stands_twice() {
        let all =
            entries(&["a.example/x:1", "a.example/x:2", "a.example/x:2", "a.example/x:2", "b.example/x:1"]);
        for limit in 1..=6 {
            let (mut found, mut page) = (Vec::new(), Page { limit: Some(limit), after: None });
            loop {
                let part = CachedNames::of(all.clone(), &page);
                assert!(part.names.len() <= limit);
                found.extend(part.names);
                page.after = part.next;
                if page.after.is_none() {
                    break;
                }
            }
            assert_eq!(found, all, "{limit} on a page");
        }
    }

    #[test]
    fn a_page_begins_after_a_name() {
        let all = entries(&["a.example/x:1", "a.example/x:2", "a.example/x:2", "b.example/x:1"]);
        let after = |name: &str| {
            let page = Page { limit: None, after: Some(name.to_owned()) };
            CachedNames::of(all.clone(), &page).names
        };
        assert_eq!(after("a.example/x:2"), all[3..]);
        assert_eq!(after("a.example/x:1"), all[1..]);
        assert_eq!(after("a.example/x:10"), all[1..], "a name that is gone by now");
        assert_eq!(after("c"), []);
    }
}
