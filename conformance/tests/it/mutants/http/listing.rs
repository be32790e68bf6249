//! Listings of the small client, and what a name stands for.

use plyfold_core::{
    Descriptor, Digest, Document, Error, ErrorKind, ImageRegistry, MediaType, Names, Page, Reference, Result,
    reference,
};

use super::wire::Request;
use super::{HttpFault, SmallRegistry};

/// A media type without its parameters.
pub(super) fn media_type(text: &str) -> MediaType {
    MediaType::from(text.split(';').next().unwrap_or_default())
}

impl SmallRegistry {
    /// What HEAD says; `None` when that is too little.
    pub(super) async fn head(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let which = name.digest().or(name.tag()).unwrap_or("latest");
        let target = format!("/v2/{}/manifests/{which}", name.repository());
        let response =
            self.authorized(&Request::new("HEAD", &self.setup.host, target), name.repository()).await?;
        if response.status != 200 {
            let is_final = match self.fault {
                HttpFault::HeadAlone => true,
                HttpFault::HeadForbiddenIsFinal => response.status == 403,
                _ => false,
            };
            return if is_final { Err(response.error("HEAD")) } else { Ok(None) };
        }
        let digest = response.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let size = response.header("content-length").and_then(|text| text.parse().ok());
        let kind = response.header("content-type").map(media_type);
        Ok(digest.zip(size).zip(kind).map(|((digest, size), kind)| Descriptor::new(kind, size, digest)))
    }

    /// One page of tags; the next one is known by the target of its link.
    pub(super) async fn list_tags(&self, repository: &str, page: &Page) -> Result<Names> {
        let name = reference::parse(repository)?;
        let first = format!("/v2/{}/tags/list", name.repository());
        let target = match (&page.after, page.limit) {
            (Some(after), _) => after.clone(),
            (None, Some(limit)) => format!("{first}?n={limit}"),
            (None, None) => first,
        };
        let mut request = Request::new("GET", &self.setup.host, target.clone());
        if let Some((host, path)) = target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
            (request.host, request.target) = (host.to_owned(), format!("/{path}"));
        }
        let response = self.authorized(&request, name.repository()).await?;
        if response.status != 200 {
            return Err(response.error("tags"));
        }
        let link = response.header("link").filter(|_| self.fault != HttpFault::LinksIgnored);
        let link = link.filter(|link| self.fault != HttpFault::BareLinksIgnored || link.starts_with('<'));
        let next = match next_target(link.unwrap_or_default()) {
            Err(_) if self.fault == HttpFault::BrokenLinksIgnored => None,
            next => next?.map(|next| self.below(next, name.repository())),
        };
        if next.as_ref() == Some(&target) {
            return Err(Error::corrupt("a link in a circle"));
        }
        let is_elsewhere = next.as_ref().is_some_and(|next| !next.starts_with('/'));
        if is_elsewhere && self.fault != HttpFault::LinksAnywhere {
            return Err(Error::corrupt("a link to another host"));
        }
        let document: serde_json::Value = serde_json::from_slice(&response.document().await?)
            .map_err(|_| Error::corrupt("the list of tags is no JSON"))?;
        let tags = document["tags"].as_array().cloned().unwrap_or_default();
        Ok(Names { names: tags.iter().filter_map(|tag| Some(tag.as_str()?.to_owned())).collect(), next })
    }

    /// A link's target as a path of this host where it is one.
    fn below(&self, target: &str, repository: &str) -> String {
        let own = target.strip_prefix(&format!("http://{}", self.setup.host)).unwrap_or(target);
        match own.strip_prefix('?') {
            Some(query) => format!("/v2/{repository}/tags/list?{query}"),
            None => own.to_owned(),
        }
    }

    pub(super) async fn list_referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let target = format!("/v2/{}/referrers/{subject}", name.repository());
        let request = Request::new("GET", &self.setup.host, target);
        let response = self.authorized(&request, name.repository()).await?;
        let raw = match response.status {
            200 => plyfold_core::RawManifest::new(response.document().await?, None),
            404 if self.fault == HttpFault::FallbackTagUnknown => return Ok(Vec::new()),
            404 => {
                let (host, repository) = (name.registry().to_owned(), name.repository().to_owned());
                let tag = subject.as_ref().replace(':', "-");
                self.manifest(&Reference::with_tag(host, repository, tag)).await
            }
            _ => return Err(response.error("referrers")),
        };
        let raw = match raw {
            Err(e) if *e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            outcome => outcome?,
        };
        let Document::Index(index) = raw.document() else { return Err(Error::corrupt("no index")) };
        let mut found = index.manifests().clone();
        if self.fault != HttpFault::FiltersTrusted {
            found.retain(|one| artifact_type.is_none_or(|kind| one.artifact_type().as_ref() == Some(kind)));
        }
        Ok(found)
    }
}

/// The target of the link whose relation is `next` or unstated, if there is one.
fn next_target(link: &str) -> Result<Option<&str>> {
    let unreadable = || Error::corrupt("a link that cannot be read");
    if link.matches('"').count() % 2 == 1 {
        return Err(unreadable());
    }
    for one in link.split(", <").filter(|one| !one.is_empty()) {
        let bracketed = one.trim_start_matches('<');
        let is_bare = one == link && one == bracketed;
        let parts =
            if is_bare { Some(one.split_once(';').unwrap_or((one, ""))) } else { bracketed.split_once('>') };
        let (target, parameters) = parts.filter(|(target, _)| !target.is_empty()).ok_or_else(unreadable)?;
        let parameters = parameters.to_ascii_lowercase();
        if !parameters.contains("rel=") || parameters.contains("next") {
            return Ok(Some(target));
        }
    }
    Ok(None)
}
