//! Reading manifests, and the requests for them (distribution specification, "Pulling manifests").

use plyfold_core::manifest::{is_document, limits};
use plyfold_core::{Descriptor, Digest, Error, Mismatch, RawManifest, Reference, Result, reference};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode};

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::error;
use crate::response::{media_type, other_digest, stated_digest, text};

/// Every type of manifest there is: a registry that is asked for `*/*` may answer 404 for the types of its choice.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

impl Client {
    pub(crate) async fn read_manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(reference)?;
        let (target, reference) = &self.target(reference, Access::Pull)?;
        let request = manifest_request(target, Method::GET, reference);
        let (wanted, name) = (wanted.as_ref(), name_of(reference));
        let read = |response, _| self.verified_manifest(response, wanted, &name);
        self.ask(target, request, read).await
    }

    /// The manifest in an answer. What a mirror says is checked before the next one is passed over.
    pub(crate) async fn verified_manifest(
        &self,
        response: Response,
        wanted: Option<&Digest>,
        name: &str,
    ) -> Result<RawManifest> {
        let media_type = media_type(&response);
        let stated = stated_digest(&response);
        let bytes = self.document(response, limits::MANIFEST, name).await?;
        let raw = match wanted.or(stated.as_ref()) {
            Some(digest) => RawManifest::verified(bytes, media_type.as_ref(), digest)?,
            None => RawManifest::new(bytes, media_type.as_ref())?,
        };
        match stated.filter(|stated| stated.algorithm() == raw.digest().algorithm()) {
            Some(stated) if stated != *raw.digest() => Err(Error::from(Mismatch {
                expected: stated,
                actual: Some(raw.digest().clone()),
                expected_size: None,
                actual_size: raw.bytes().len() as u64,
            })),
            _ => Ok(raw),
        }
    }

    /// The descriptor as HEAD tells it; `None` when GET has to decide.
    pub(crate) async fn head_manifest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let wanted = reference::digest_of(reference)?;
        let (target, reference) = &self.target(reference, Access::Pull)?;
        let request = manifest_request(target, Method::HEAD, reference);
        let (wanted, name) = (wanted.as_ref(), name_of(reference));
        let name = name.as_str();
        let read = |response: Response, is_last: bool| async move {
            match response.status() {
                StatusCode::OK => Ok(described(&response, wanted)),
                // A mirror without it is skipped. The registry's 404 may be about HEAD and not about the
                // name: GET decides, and its body has the reason.
                StatusCode::NOT_FOUND if !is_last => Err(error::status(response, name).await),
                status if error::is_lack(status) || error::is_signed_for_get(&response) => Ok(None),
                _ => Err(error::status(response, name).await),
            }
        };
        self.ask(target, request, read).await
    }
}

/// The descriptor that an answer to HEAD stands for; `None` when it says too little.
fn described(response: &Response, wanted: Option<&Digest>) -> Option<Descriptor> {
    if wanted.is_some_and(|wanted| other_digest(response, wanted).is_some()) {
        return None;
    }
    // `content_length()` is that of the body, which HEAD does not have.
    let size = text(response.headers(), CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
    let size = size.filter(|size| (1..=limits::MANIFEST).contains(size))?;
    let media_type = media_type(response).filter(is_document)?;
    Some(Descriptor::new(media_type, size, wanted.cloned().or_else(|| stated_digest(response))?))
}

/// Asks for a manifest by the reference's digest, or else by its tag.
pub(crate) fn manifest_request(target: &Target, method: Method, reference: &Reference) -> Request {
    let mut request = target.request(method, &manifest_path(reference));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
    request
}

/// A request that stores a manifest.
pub(crate) fn manifest_put(
    target: &Target,
    reference: &Reference,
    manifest: &RawManifest,
) -> Result<Request> {
    let path = match reference.tag() {
        Some(tag) => format!("manifests/{tag}"),
        None => manifest_path(reference),
    };
    let mut request = target.request(Method::PUT, &path);
    let content_type = HeaderValue::from_str(manifest.descriptor().media_type().as_ref())
        .map_err(|e| Error::corrupt("the manifest's media type is not one").with_source(e))?;
    request.headers_mut().insert(CONTENT_TYPE, content_type);
    *request.body_mut() = Some(manifest.bytes().clone().into());
    Ok(request)
}

/// The path of a manifest below its repository. The digest wins over the tag (rule R 7).
pub(crate) fn manifest_path(reference: &Reference) -> String {
    format!("manifests/{}", reference.digest().or(reference.tag()).unwrap_or("latest"))
}

pub(crate) fn name_of(reference: &Reference) -> String {
    format!("manifest {}", reference.digest().or(reference.tag()).unwrap_or("latest"))
}

#[cfg(test)]
mod tests {
    use plyfold_core::MediaType;
    use plyfold_core::manifest::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST};

    use super::*;

    #[test]
    fn all_four_types_of_manifest_are_asked_for() {
        let asked: Vec<MediaType> = MANIFESTS.split(", ").map(MediaType::from).collect();
        let docker = [DOCKER_MANIFEST, DOCKER_MANIFEST_LIST].map(MediaType::from);
        assert_eq!(asked[..2], [MediaType::ImageManifest, MediaType::ImageIndex]);
        assert_eq!(asked[2..], docker);
    }
}
