//! Tags and repositories (distribution specification, "Content Discovery").

use plyfold_core::{Error, Names, Page, Result, reference};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::link::{has_no_links, next_link};

/// Bytes of one page.
const PAGE: u64 = 4 << 20;

impl Client {
    pub(crate) async fn list_tags(&self, repository: &str, page: &Page) -> Result<Names> {
        let name = reference::parse(repository)?;
        if reference::repository_of(&name) != repository || name.digest().is_some() {
            return Err(Error::config(format!("{repository:?} is not a repository")));
        }
        let (target, _) = self.target(&name, Access::Pull)?;
        let (tags, next) = self.page(&target, "tags/list", page, "repository").await?;
        match tags.iter().find(|tag| !reference::is_tag(tag)) {
            Some(tag) => Err(invalid("tag", tag)),
            None => Ok(names(tags, page, next)),
        }
    }

    pub(crate) async fn list_repositories(&self, home: &str, page: &Page) -> Result<Names> {
        let target = self.registry(home, "", Access::Catalog)?;
        let bare =
            Page { after: page.after.as_deref().map(|after| without_host(home, after)), ..page.clone() };
        let (repositories, next) = self.page(&target, "_catalog", &bare, "catalog").await?;
        let full = repositories.iter().map(|name| {
            let parsed = reference::parse(&format!("{home}/{name}"));
            parsed.map(|name| reference::repository_of(&name)).map_err(|_| invalid("repository", name))
        });
        Ok(names(full.collect::<Result<_>>()?, page, next))
    }

    /// One page of a listing, and where the next one is.
    async fn page(
        &self,
        target: &Target,
        path: &str,
        page: &Page,
        what: &str,
    ) -> Result<(Vec<String>, Next)> {
        #[derive(Deserialize)]
        struct Listing {
            // Some registries send `null` for an empty list.
            #[serde(alias = "repositories")]
            tags: Option<Vec<Option<String>>>,
        }
        let mut request = target.request(Method::GET, path);
        match page.after.as_deref() {
            // Take only the query of the registry's link, so that the request stays on this host and path.
            Some(after) if after.starts_with('?') => request.url_mut().set_query(Some(&after[1..])),
            after => {
                let mut query = request.url_mut().query_pairs_mut();
                query.extend_pairs(page.limit.map(|limit| ("n", limit.to_string())));
                query.extend_pairs(after.map(|after| ("last", after)));
            }
        }
        let asked = request.url().clone();
        let response = self.send(target, request).await?;
        // A mirror may have a path of its own, and gets the registry's name as `ns`.
        let answered = response.url().clone();
        let next = next_link(&response);
        // An empty list of links (RFC 9110 5.6.1) is ambiguous: only a further request shows whether the list is complete.
        let is_open = has_no_links(&response);
        let bytes = self.document(response, PAGE, what).await?;
        let next = next?;
        let is_astray = |next: &Url| {
            ![asked.path(), answered.path()].contains(&next.path())
                || [None, Some(""), asked.query(), answered.query()].contains(&next.query())
        };
        if next.as_ref().is_some_and(is_astray) {
            return Err(Error::corrupt(
                "the registry's link to the next page leads to another listing or forms a loop",
            ));
        }
        let next = match next.and_then(|next| next.query().map(|query| format!("?{query}"))) {
            Some(query) => Next::Linked(query),
            None if is_open => Next::Behind,
            None => Next::None,
        };
        let Listing { tags } = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(format!("the registry's answer is not a list: {e}")))?;
        Ok((tags.into_iter().flatten().map(Option::unwrap_or_default).collect(), next))
    }
}

fn without_host(home: &str, repository: &str) -> String {
    let bare = repository.strip_prefix(home).and_then(|rest| rest.strip_prefix('/'));
    bare.unwrap_or(repository).to_owned()
}

/// Where the next page of a listing is.
#[derive(Debug, Eq, PartialEq)]
enum Next {
    /// A query of the same path, which begins with its question mark.
    Linked(String),
    /// Behind the last name, if there is more.
    Behind,
    /// This is the last page.
    None,
}

/// A page of names, sorted; cut to the wanted length if the registry did not.
fn names(mut names: Vec<String>, page: &Page, next: Next) -> Names {
    names.sort_unstable();
    names.dedup();
    // A registry that does not know `last` has sent what comes before it once more.
    if let Some(at) = page.after.as_ref().and_then(|after| names.binary_search(after).ok()) {
        names.drain(..=at);
    }
    if let Some(limit) = page.limit.filter(|limit| names.len() > (*limit).max(1)) {
        names.truncate(limit.max(1));
        let next = names.last().cloned();
        return Names { names, next };
    }
    let next = match next {
        Next::Linked(query) => Some(query),
        Next::Behind => names.last().cloned(),
        Next::None => None,
    };
    Names { names, next }
}

/// The error for a name in a list that cannot be one. Without it the list would be short.
fn invalid(what: &str, name: &str) -> Error {
    Error::corrupt(format!("the registry lists a {what} that is not valid: {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_sorted_and_cut() {
        let all = || ["b", "a", "c"].map(str::to_owned).to_vec();
        let page = |limit| Page { limit, after: None };
        let cut = names(all(), &page(Some(2)), Next::Linked("?x".to_owned()));
        assert_eq!((cut.names, cut.next.as_deref()), (vec!["a".to_owned(), "b".to_owned()], Some("b")));
        let whole = names(all(), &page(None), Next::Linked("?x".to_owned()));
        assert_eq!((whole.names.len(), whole.next.as_deref()), (3, Some("?x")));
        assert_eq!(names(all(), &page(None), Next::Behind).next.as_deref(), Some("c"));
        assert_eq!(names(Vec::new(), &page(None), Next::Behind).next, None);
    }
}
