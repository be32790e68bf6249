//! Tags, repositories and referrers (distribution specification, "Content Discovery").

use plyfold_core::manifest::{Document, limits};
use plyfold_core::{
    Descriptor, Digest, Error, ErrorKind, ImageRegistry as _, MediaType, Names, Page, RawManifest, Reference,
    Result, digest, reference,
};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;

use crate::auth::Access;
use crate::backend::media_type;
use crate::client::Target;
use crate::link::{has_no_links, next_link};
use crate::subject::fallback;
use crate::{Registry, errors};

/// Bytes of one page.
const PAGE: u64 = 4 << 20;
/// Pages of referrers that are put together.
const PAGES: usize = 64;

impl Registry {
    pub(crate) async fn list_tags(&self, repository: &str, page: &Page) -> Result<Names> {
        #[derive(Deserialize)]
        struct Tags {
            // Some registries send `null` for an empty list.
            tags: Option<Vec<Option<String>>>,
        }
        let name = reference::parse(repository)?;
        if reference::repository_of(&name) != repository || name.digest().is_some() {
            return Err(Error::config(format!("{repository:?} is not a repository")));
        }
        let (target, _) = self.client.target(&name, Access::Pull)?;
        let (bytes, next) = self.page(&target, "tags/list", page, "repository").await?;
        let Tags { tags } = parse(&bytes)?;
        let tags = tags.into_iter().flatten().map(Option::unwrap_or_default);
        let tags = tags.map(|tag| if reference::is_tag(&tag) { Ok(tag) } else { Err(invalid("tag", &tag)) });
        Ok(names(tags.collect::<Result<_>>()?, page, next))
    }

    pub(crate) async fn list_repositories(&self, page: &Page) -> Result<Names> {
        #[derive(Deserialize)]
        struct Catalog {
            repositories: Option<Vec<Option<String>>>,
        }
        let target = self.client.registry(&self.home, "", Access::Catalog)?;
        let bare =
            Page { after: page.after.as_deref().map(|after| self.without_host(after)), ..page.clone() };
        let (bytes, next) = self.page(&target, "_catalog", &bare, "catalog").await?;
        let Catalog { repositories } = parse(&bytes)?;
        let full = repositories.into_iter().flatten().map(|name| {
            let name = name.unwrap_or_default();
            let parsed = reference::parse(&format!("{}/{name}", self.home));
            parsed.map(|name| reference::repository_of(&name)).map_err(|_| invalid("repository", &name))
        });
        Ok(names(full.collect::<Result<_>>()?, page, next))
    }

    fn without_host(&self, repository: &str) -> String {
        let bare = repository.strip_prefix(&*self.home).and_then(|rest| rest.strip_prefix('/'));
        bare.unwrap_or(repository).to_owned()
    }

    /// The API where there is one, else the index under the fallback tag ("Referrers Tag Schema"); filtered here,
    /// because a registry may ignore the filter.
    pub(crate) async fn list_referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        digest::supported(subject)?;
        let (target, reference) = self.client.target(reference, Access::Pull)?;
        let mut found = match self.referrers_api(&target, subject, artifact_type).await? {
            Some(found) => found,
            None => self.referrers_tag(&reference, subject).await?,
        };
        let wanted = |descriptor: &Descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type().as_ref() == Some(wanted))
        };
        found.retain(wanted);
        Ok(found)
    }

    /// The answer of the referrers API; `None` when the registry has no such API.
    pub(crate) async fn referrers_api(
        &self,
        target: &Target,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut request = target.request(Method::GET, &format!("referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            request.url_mut().query_pairs_mut().append_pair("artifactType", artifact_type.as_ref());
        }
        let mut found = Vec::new();
        for page in 0..PAGES {
            let accept = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
            request.headers_mut().insert(ACCEPT, accept);
            let response = self.client.send(target, request).await?;
            // A front end that answers every path with an HTML page has no such API.
            let is_other =
                response.status() == StatusCode::OK && media_type(&response) != Some(MediaType::ImageIndex);
            // A registry with a first page has the API: an error of a later page is an error.
            if page == 0 && (errors::is_lack(response.status()) || is_other) {
                return Ok(None);
            }
            let next = next_link(&response);
            let bytes = self.client.document(response, limits::MANIFEST, "list of referrers").await?;
            found.extend(children(&RawManifest::new(bytes, Some(&MediaType::ImageIndex))?)?);
            if found.len() > limits::INDEX_ENTRIES {
                return Err(Error::limit(format!("more than {} referrers", limits::INDEX_ENTRIES)));
            }
            let Some(next) = next? else { return Ok(Some(found)) };
            request = Request::new(Method::GET, next);
        }
        Err(Error::limit(format!("more than {PAGES} pages of referrers")))
    }

    async fn referrers_tag(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let name = fallback(reference, subject);
        match self.manifest(&name).await {
            Ok(raw) => children(&raw),
            Err(e) if *e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// One page of a listing, and where the next one is.
    async fn page(
        &self,
        target: &Target,
        path: &str,
        page: &Page,
        what: &str,
    ) -> Result<(bytes::Bytes, Next)> {
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
        let response = self.client.send(target, request).await?;
        // A mirror may have a path of its own, and gets the registry's name as `ns`.
        let answered = response.url().clone();
        let next = next_link(&response);
        // An empty list of links (RFC 9110 5.6.1) says less than none: only asking tells whether the list is whole.
        let is_open = has_no_links(&response);
        let bytes = self.client.document(response, PAGE, what).await?;
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
        Ok((bytes, next))
    }
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
    Error::corrupt(format!("the registry lists a {what} that is none: {name:?}"))
}

fn children(raw: &RawManifest) -> Result<Vec<Descriptor>> {
    match raw.document() {
        Document::Index(index) => Ok(index.manifests().clone()),
        Document::Manifest(_) => Err(Error::corrupt("the list of referrers is not an index")),
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::corrupt(format!("the registry's answer is not a list: {e}")))
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
