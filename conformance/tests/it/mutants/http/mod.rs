//! A small HTTP client that keeps the rules about HTTP, and its mutants.

mod access;
mod blobs;
mod listing;
mod pull;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use plyfold_conformance::{Client, HttpFixture, HttpSetup};
use plyfold_core::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, ImageRegistry, MediaType, Names, Page,
    RawManifest, Reference, Result, reference,
};

use self::pull::BrokenPull;
use self::wire::{Request, Response};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HttpFault {
    AnswersRotate,
    AnyRealm,
    AttemptsGrow,
    BareLinksIgnored,
    BrokenLinksIgnored,
    CodingsRefused,
    ConcurrencyIgnored,
    ContentRangeIgnored,
    CredentialsFollowRedirects,
    CredentialsToMirrors,
    DelaysIgnored,
    DuplicatesFetched,
    EndpointsHidden,
    FailedGivenUp,
    FallbackOnAbsenceOnly,
    FallbackTagUnknown,
    FiltersTrusted,
    HeadAlone,
    HeadForbiddenIsFinal,
    HeaderFollows,
    HeaderToTokenServers,
    HelpersIgnored,
    IdentityTokensIgnored,
    LabelsIgnored,
    LinksAnywhere,
    LinksIgnored,
    MirrorContentTrusted,
    MirrorsIgnored,
    MirrorsReversed,
    MirrorsTrusted,
    NamespaceToOrigin,
    NamespaceUnsaid,
    None,
    NothingRetried,
    OneLayerAtATime,
    PartialsDropped,
    PartialsTrusted,
    PermanentRetried,
    ProxyForAll,
    RangesNever,
    RangesOpen,
    ScopesAsKnown,
    ScopesWidened,
    SecretsInDebug,
    SecretsInErrors,
    TokensForgotten,
    TokensKept,
    TokensShared,
    UnsatisfiedIsFinal,
    WholeTakenForPart,
}

/// Opens the small client, with one fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small(pub(crate) HttpFault);

#[async_trait]
impl HttpFixture for Small {
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>> {
        let (setup, fault) = (setup.clone(), self.0);
        Ok(Box::new(SmallRegistry { setup, fault, grants: Arc::default(), passed_over: Arc::default() }))
    }

    fn client(&self) -> Box<dyn Client> {
        Box::new(BrokenPull(self.0))
    }
}

/// The client.
#[derive(Clone)]
pub(crate) struct SmallRegistry {
    setup: HttpSetup,
    fault: HttpFault,
    /// `Authorization` by host and repository.
    grants: Arc<Mutex<BTreeMap<String, String>>>,
    /// What a mutant does not ask a mirror for again.
    passed_over: Arc<Mutex<BTreeSet<String>>>,
}

impl SmallRegistry {
    /// Asks the mirrors, then the registry; `read` judges an answer of success.
    async fn ask<T, F>(&self, request: &Request, name: &Reference, read: impl Fn(Response) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut failures = Vec::new();
        for (host, is_mirror) in self.endpoints(name) {
            let mut request = request.clone();
            host.clone_into(&mut request.host);
            let asked = format!("{host} {}", request.target);
            if is_mirror && self.passed_over.lock().unwrap().contains(&asked) {
                continue;
            }
            let says_namespace = match self.fault {
                HttpFault::NamespaceToOrigin => true,
                HttpFault::NamespaceUnsaid => false,
                _ => is_mirror,
            };
            if says_namespace {
                request.target = format!("{}?ns={}", request.target, self.setup.host);
            }
            if !is_mirror {
                request = self.own(request);
            }
            let outcome = match self.authorized(&request, name.repository()).await {
                Ok(response) if matches!(response.status, 200 | 206) => read(response).await,
                Ok(response) => Err(response.error(&request.target)),
                Err(e) => Err(e),
            };
            let error = match outcome {
                Ok(read) => {
                    if self.fault == HttpFault::AnswersRotate {
                        self.passed_over.lock().unwrap().insert(asked);
                    }
                    return Ok(read);
                }
                Err(e) => e,
            };
            if self.fault == HttpFault::FailedGivenUp {
                self.passed_over.lock().unwrap().insert(asked);
            }
            if self.fault == HttpFault::FallbackOnAbsenceOnly && *error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            failures.push(error);
        }
        let mut last = failures.pop().expect("the registry itself is always asked");
        if self.fault != HttpFault::EndpointsHidden {
            let told = |e: &Error| format!("{}: {}", e.context("endpoint").unwrap_or_default(), e.message());
            let mirrors: Vec<_> = failures.iter().map(told).collect();
            last = last.with_context("mirrors", mirrors.join("; "));
        }
        Err(last)
    }

    /// The endpoints in the order they are asked; with whether one is a mirror.
    fn endpoints(&self, name: &Reference) -> Vec<(String, bool)> {
        let may_serve = |resolve: bool| match self.fault {
            HttpFault::MirrorsIgnored => false,
            HttpFault::MirrorsTrusted => true,
            _ => resolve || name.digest().is_some(),
        };
        let mirrors = self.setup.mirrors.iter().filter(|mirror| may_serve(mirror.resolve));
        let mut endpoints: Vec<_> = mirrors.map(|mirror| (mirror.host.clone(), true)).collect();
        if self.fault == HttpFault::MirrorsReversed {
            endpoints.reverse();
        }
        endpoints.push((self.setup.host.clone(), false));
        endpoints
    }

    /// A request with what is for the registry itself.
    fn own(&self, mut request: Request) -> Request {
        for (name, value) in &self.setup.header {
            request = request.with(name, value);
        }
        request.proxy =
            self.setup.proxy.as_deref().and_then(|url| Some(url.strip_prefix("http://")?.to_owned()));
        request
    }

    /// Takes it away again.
    fn disown(&self, request: &mut Request) {
        if self.fault != HttpFault::HeaderFollows {
            request.headers.retain(|(name, _)| self.setup.header.iter().all(|(own, _)| own != name));
        }
        if self.fault != HttpFault::ProxyForAll {
            request.proxy = None;
        }
    }

    /// Follows redirects; another host does not see the credentials.
    async fn followed(&self, request: &Request, authorization: Option<&str>) -> Result<Response> {
        let (mut request, mut authorization) = (request.clone(), authorization);
        for _ in 0..10 {
            let sent = match authorization {
                Some(value) => request.clone().with("Authorization", value),
                None => request.clone(),
            };
            let response = sent.send().await?;
            let location = response.header("location").filter(|_| (300..400).contains(&response.status));
            let Some(place) = location.and_then(|url| url.strip_prefix("http://")?.split_once('/')) else {
                return Ok(response);
            };
            let (host, path) = (place.0.to_owned(), format!("/{}", place.1));
            if host != request.host && self.fault != HttpFault::CredentialsFollowRedirects {
                authorization = None;
            }
            if host != request.host {
                self.disown(&mut request);
            }
            (request.host, request.target) = (host, path);
        }
        Err(Error::limit("too many redirects"))
    }
}

#[async_trait]
impl ImageRegistry for SmallRegistry {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(name)?;
        let which = name.digest().or(name.tag()).unwrap_or("latest");
        let target = format!("/v2/{}/manifests/{which}", name.repository());
        let wanted = wanted.as_ref();
        let labels_count = self.fault != HttpFault::LabelsIgnored;
        self.ask(&Request::new("GET", "", target), name, |response| async move {
            let media_type =
                response.header("content-type").filter(|_| labels_count).map(listing::media_type);
            let stated = response.header("docker-content-digest").and_then(|text| text.parse().ok());
            let bytes = response.document().await?;
            match wanted.or(stated.as_ref()) {
                Some(digest) => RawManifest::verified(bytes, media_type.as_ref(), digest),
                None => RawManifest::new(bytes, media_type.as_ref()),
            }
        })
        .await
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.read(name, blob, range).await
    }

    async fn resolve(&self, name: &Reference) -> Result<Descriptor> {
        match self.head(name).await? {
            Some(descriptor) => Ok(descriptor),
            None => Ok(self.manifest(name).await?.descriptor().clone()),
        }
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.list_tags(repository, &page).await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.list_referrers(name, subject, artifact_type).await
    }
}

impl fmt::Display for SmallRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "small:{}", self.setup.host)
    }
}

impl fmt::Debug for SmallRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            HttpFault::SecretsInDebug => write!(f, "{:?} {:?}", self.setup.login, self.grants),
            _ => fmt::Display::fmt(self, f),
        }
    }
}
