//! The distribution API (OCI distribution specification 1.1, "Endpoints"), answered honestly.

use bytes::Bytes;

use super::content::{self, Repository, Stored};
use super::http::{Request, Response};
use super::state::State;

/// What a request's path asks for.
enum Route<'a> {
    Blob(&'a str, &'a str),
    Catalog,
    Manifest(&'a str, &'a str),
    Ping,
    Referrers(&'a str, &'a str),
    Tags(&'a str),
    Token,
    Unknown,
    Upload(&'a str, &'a str),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        match path {
            "/v2" | "/v2/" => return Self::Ping,
            "/v2/_catalog" => return Self::Catalog,
            "/token" => return Self::Token,
            _ => {}
        }
        let Some(path) = path.strip_prefix("/v2/") else { return Self::Unknown };
        if let Some((name, id)) = path.split_once("/blobs/uploads") {
            return Self::Upload(name, id.trim_matches('/'));
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Self::Tags(name);
        }
        let Some((rest, last)) = path.rsplit_once('/') else { return Self::Unknown };
        match rest.rsplit_once('/') {
            Some((name, "blobs")) => Self::Blob(name, last),
            Some((name, "manifests")) => Self::Manifest(name, last),
            Some((name, "referrers")) => Self::Referrers(name, last),
            _ => Self::Unknown,
        }
    }
}

impl State {
    /// The honest answer.
    pub(super) fn answer(&mut self, request: &Request) -> Response {
        let route = Route::of(request.path());
        if matches!(route, Route::Token) {
            return self.tokens.answer(&self.options.auth, request);
        }
        let scope = match route {
            Route::Blob(name, _)
            | Route::Manifest(name, _)
            | Route::Referrers(name, _)
            | Route::Tags(name)
            | Route::Upload(name, _) => {
                let action =
                    if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
                format!("repository:{name}:{action}")
            }
            _ => String::new(),
        };
        if let Some(challenge) = self.tokens.challenge(&self.options.auth, request, &self.host, &scope) {
            return challenge;
        }
        let method = request.method.as_str();
        match (method, route) {
            ("GET" | "HEAD", Route::Ping) => Response::new(200, "{}"),
            ("HEAD", _) if !self.options.head => Response::error(405, "UNSUPPORTED"),
            ("GET" | "HEAD", Route::Blob(name, digest)) => self.blob(request, name, digest),
            ("GET" | "HEAD", Route::Manifest(name, reference)) => self.manifest(name, reference),
            ("GET", Route::Catalog) => {
                let names = self.repositories.keys().cloned().collect();
                self.listing(request, "repositories", names, "")
            }
            ("GET", Route::Tags(name)) => match self.repositories.get(name) {
                Some(repository) => {
                    let tags = repository.tags.keys().cloned().collect();
                    self.listing(request, "tags", tags, &format!(r#""name":"{name}","#))
                }
                None => Response::error(404, "NAME_UNKNOWN"),
            },
            ("GET", Route::Referrers(name, digest)) if self.options.referrers => {
                self.referrers(request, name, digest)
            }
            ("GET", Route::Upload(name, id)) => match self.uploads.get(id) {
                Some(upload) => Response { status: 204, ..accepted(name, id, upload.len()) },
                None => Response::error(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            ("GET" | "HEAD", _) => Response::error(404, "NOT_FOUND"),
            _ if !self.options.push => Response::error(405, "UNSUPPORTED"),
            ("POST", Route::Upload(name, "")) => self.start_upload(request, name),
            ("PATCH" | "PUT", Route::Upload(name, id)) => self.upload(request, name, id),
            ("PUT", Route::Manifest(name, reference)) => self.put_manifest(request, name, reference),
            ("DELETE", Route::Manifest(name, reference)) => self.delete(name, reference),
            ("DELETE", Route::Blob(name, digest)) => {
                match self.repositories.get_mut(name).and_then(|repository| repository.blobs.remove(digest)) {
                    Some(_) => Response::new(202, ""),
                    None => Response::error(404, "BLOB_UNKNOWN"),
                }
            }
            _ => Response::error(405, "UNSUPPORTED"),
        }
    }

    fn blob(&self, request: &Request, name: &str, digest: &str) -> Response {
        let blob = self.repositories.get(name).and_then(|repository| repository.blobs.get(digest));
        let Some(blob) = blob else { return Response::error(404, "BLOB_UNKNOWN") };
        let size = blob.len() as u64;
        let range = request.header("range").map(|range| closed_range(range, size));
        let response = match range {
            None => Response::new(200, blob.clone()),
            Some(None) => {
                return Response::error(416, "RANGE_INVALID")
                    .with("Content-Range", format!("bytes */{size}"));
            }
            Some(Some((from, to))) => Response::new(206, part(blob, from, to))
                .with("Content-Range", format!("bytes {from}-{to}/{size}")),
        };
        let response = response.with("Content-Type", "application/octet-stream");
        let response = response.with("Docker-Content-Digest", digest);
        if self.options.accept_ranges { response.with("Accept-Ranges", "bytes") } else { response }
    }

    fn manifest(&self, name: &str, reference: &str) -> Response {
        let Some(repository) = self.repositories.get(name) else {
            return Response::error(404, "NAME_UNKNOWN");
        };
        let Some((digest, stored)) = repository.manifest(reference) else {
            return Response::error(404, "MANIFEST_UNKNOWN");
        };
        let mut response = Response::new(200, stored.bytes).with("Content-Type", stored.media_type);
        if self.options.etags {
            response = response.with("ETag", etag(&digest));
        }
        if self.options.digest_header { response.with("Docker-Content-Digest", digest) } else { response }
    }

    fn listing(&self, request: &Request, field: &str, names: Vec<String>, fields: &str) -> Response {
        let last = request.query("last").unwrap_or_default();
        let asked = request.query("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let limit = asked.min(self.options.page);
        let mut rest: Vec<_> = names.into_iter().filter(|name| *name > last).collect();
        let more = rest.len() > limit;
        rest.truncate(limit);
        let quoted: Vec<_> = rest.iter().map(|name| format!("\"{name}\"")).collect();
        let body = format!(r#"{{{fields}"{field}":[{}]}}"#, quoted.join(","));
        let response = Response::new(200, body).with("Content-Type", "application/json");
        match rest.last() {
            Some(last) if more => {
                response.with("Link", format!(r#"<{}?last={last}&n={limit}>; rel="next""#, request.path()))
            }
            _ => response,
        }
    }

    fn referrers(&self, request: &Request, name: &str, digest: &str) -> Response {
        let artifact_type = request.query("artifactType");
        let empty = Repository::default();
        let repository = self.repositories.get(name).unwrap_or(&empty);
        let response = Response::new(200, repository.referrers(digest, artifact_type.as_deref()));
        let response = response.with("Content-Type", "application/vnd.oci.image.index.v1+json");
        if artifact_type.is_some() { response.with("OCI-Filters-Applied", "artifactType") } else { response }
    }

    fn start_upload(&mut self, request: &Request, name: &str) -> Response {
        if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from")) {
            let blob = self.repositories.get(&from).and_then(|other| other.blobs.get(&digest)).cloned();
            if let Some(blob) = blob {
                self.repository(name).blobs.insert(digest.clone(), blob);
                return created(name, &digest);
            }
        }
        if let Some(digest) = request.query("digest") {
            return self.finish_upload(name, &digest, request.body.clone());
        }
        let id = format!("upload-{}", self.forgotten + self.log.len());
        self.uploads.insert(id.clone(), Vec::new());
        accepted(name, &id, 0)
    }

    fn upload(&mut self, request: &Request, name: &str, id: &str) -> Response {
        let Some(upload) = self.uploads.get_mut(id) else {
            return Response::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let starts_at =
            request.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if starts_at.is_some_and(|start: usize| start != upload.len()) {
            return Response::error(416, "BLOB_UPLOAD_INVALID");
        }
        upload.extend_from_slice(&request.body);
        if request.method == "PATCH" {
            return accepted(name, id, upload.len());
        }
        let bytes = self.uploads.remove(id).unwrap_or_default();
        self.finish_upload(name, &request.query("digest").unwrap_or_default(), bytes)
    }

    fn finish_upload(&mut self, name: &str, digest: &str, bytes: Vec<u8>) -> Response {
        if content::verified(digest, &bytes) != Some(true) {
            return Response::error(400, "DIGEST_INVALID");
        }
        self.repository(name).blobs.insert(digest.to_owned(), bytes.into());
        created(name, digest)
    }

    fn put_manifest(&mut self, request: &Request, name: &str, reference: &str) -> Response {
        let bytes = Bytes::from(request.body.clone());
        let by_digest = reference.contains(':');
        if by_digest && content::verified(reference, &bytes) != Some(true) {
            return Response::error(400, "DIGEST_INVALID");
        }
        let own_digest = plyfold_core::digest::sha256(&bytes).to_string();
        let digest = if by_digest { reference.to_owned() } else { own_digest };
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        let subject = content::subject(&bytes);
        let document = plyfold_core::RawManifest::new(bytes.clone(), None);
        let required = document.map(|document| document.requirements()).unwrap_or_default();
        if !by_digest
            && required.iter().any(|blob| !self.repository(name).blobs.contains_key(blob.digest().as_ref()))
        {
            return Response::error(400, "MANIFEST_BLOB_UNKNOWN");
        }
        let has_conditions = self.options.etags;
        let repository = self.repository(name);
        let current = repository.manifest(reference).map(|(digest, _)| etag(&digest));
        let is_other = request.header("if-match").is_some_and(|wanted| current.as_deref() != Some(wanted));
        let is_there = request.header("if-none-match") == Some("*") && current.is_some();
        if has_conditions && (is_other || is_there) {
            return Response::error(412, "PRECONDITION_FAILED");
        }
        repository.manifests.insert(digest.clone(), Stored { media_type, bytes });
        if !by_digest {
            repository.tags.insert(reference.to_owned(), digest.clone());
        }
        let location = format!("/v2/{name}/manifests/{digest}");
        let response =
            Response::new(201, "").with("Location", location).with("Docker-Content-Digest", digest);
        match subject {
            Some(subject) if self.options.referrers => response.with("OCI-Subject", subject),
            _ => response,
        }
    }

    fn delete(&mut self, name: &str, reference: &str) -> Response {
        let Some(repository) = self.repositories.get_mut(name) else {
            return Response::error(404, "NAME_UNKNOWN");
        };
        let removed = if reference.contains(':') {
            repository.tags.retain(|_, digest| digest != reference);
            repository.manifests.remove(reference).is_some()
        } else {
            repository.tags.remove(reference).is_some()
        };
        if removed { Response::new(202, "") } else { Response::error(404, "MANIFEST_UNKNOWN") }
    }

    /// The repository of this name, made when it is new.
    pub(super) fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

/// The version of what a name stands for (RFC 9110 8.8.3).
fn etag(digest: &str) -> String {
    format!("\"{digest}\"")
}

fn created(name: &str, digest: &str) -> Response {
    let location = format!("/v2/{name}/blobs/{digest}");
    Response::new(201, "").with("Location", location).with("Docker-Content-Digest", digest)
}

fn accepted(name: &str, id: &str, size: usize) -> Response {
    Response::new(202, "")
        .with("Location", format!("/v2/{name}/blobs/uploads/{id}"))
        .with("Range", format!("0-{}", size.saturating_sub(1)))
        .with("Docker-Upload-UUID", id)
}

/// The first and last byte that a `Range` header asks for; `None` when it cannot be satisfied.
fn closed_range(header: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let last = size.checked_sub(1)?;
    let to = if to.is_empty() { last } else { to.parse::<u64>().ok()?.min(last) };
    (from <= to).then_some((from, to))
}

fn part(blob: &Bytes, from: u64, to: u64) -> Bytes {
    let held = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(blob.len());
    blob.slice(held(from)..held(to + 1))
}
