//! Requests to a registry: authentication on 401, redirects by our own policy.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use plyfold_core::{Credential, Error, ErrorKind, OpenRequest, Reference, Result, reference};
use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode, Url};
use serde_json::json;

use crate::auth::{Access, Auth, Credentials, Exchange, Permission, Scope, credentials};
use crate::hosts::{self, Endpoint, Places, Rotation, Wanted};
use crate::limits::Limits;
use crate::policy::{origin, same_origin};
use crate::response::{Failures, Mirrored, Redirected};
use crate::transport::TimeOuts;
use crate::{Config, error};

/// Redirects that one request may go through.
const MAX_REDIRECTS: usize = 10;

/// A registry client: what it shares with the clients of other credentials, and what is this credential's alone.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) site: Arc<Site>,
    account: Arc<Account>,
}

/// How a registry is reached, whatever credentials a call has.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) limits: Arc<Limits>,
    /// Held while a list of referrers is read, changed and written.
    pub(crate) lists: tokio::sync::Mutex<()>,
    /// As [`Config::parallel_ranges`].
    pub(crate) parallel_ranges: usize,
    pub(crate) time_outs: TimeOuts,
    /// As [`Config::upload_chunk`], in MiB.
    pub(crate) upload_chunk: u32,
    places: Places,
}

/// A credential, what it was exchanged for, and which hosts have failed for it.
#[derive(Debug)]
struct Account {
    auth: Auth,
    rotation: Rotation,
}

/// What a request is for: where, and with which permission.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The root of the API that requests are made for: the registry's own, which may not be the first to be asked.
    pub(crate) base: Url,
    pub(crate) scope: Scope,
    /// The hosts to ask, in order; the last one is at `base`.
    endpoints: Arc<Vec<Endpoint>>,
    permission: Permission,
    /// Whether a credential of some calls is used. The registry itself then says what it may read: a mirror does not
    /// know that credential.
    is_of_call: bool,
}

impl Client {
    pub(crate) fn new(config: &Config, home: &str, credentials: Credentials) -> Result<Self> {
        let site = Site::new(config, home, Arc::new(Limits::new(config)))?;
        Self::of(Arc::new(site), Arc::new(Account::new(credentials)), home)
    }

    /// The same, with what earlier requests of a program have made: the limits for all that has the same, the
    /// connections for all that has the same options, and the tokens for what has the same credential as well.
    pub(crate) fn shared(
        config: &Config,
        home: &str,
        credentials: Credentials,
        request: &OpenRequest,
    ) -> Result<Self> {
        /// How long files of hosts, certificates and credentials count as they were read.
        const AGE: Duration = Duration::from_secs(300);
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let OpenRequest { options, credential, shared, .. } = request;
        let bounds = format!("{:?} {:?}", config.max_connections, config.requests_per_second);
        let limits = shared.get_or_make(&bounds, || Ok(Limits::new(config)))?;
        let key = json!([home, options, START.elapsed().as_secs() / AGE.as_secs()]);
        let site = shared.get_or_make(&key.to_string(), || Site::new(config, home, limits))?;
        let key = json!([key, credential.as_ref().map(credentials::parts)]);
        let account = shared.get_or_make(&key.to_string(), || Ok(Account::new(credentials)))?;
        Self::of(site, account, home)
    }

    fn of(site: Arc<Site>, account: Arc<Account>, home: &str) -> Result<Self> {
        let client = Self { site, account };
        // Fail at once for a host or a configuration that is not valid.
        client.registry(home, "", Access::Catalog)?;
        Ok(client)
    }

    /// The client of another credential for the same registry.
    pub(crate) fn for_calls(&self, credential: Credential) -> Self {
        let credentials = self.auth().credentials().clone().for_calls(credential);
        Self { site: Arc::clone(&self.site), account: Arc::new(Account::new(credentials)) }
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.account.auth
    }

    /// Where a reference's repository is. The reference is parsed again: one that was built by hand could
    /// contain anything, and its parts go into URLs (rule R 9 `invalid_reference_rejected_before_io`).
    pub(crate) fn target(&self, reference: &Reference, access: Access<'_>) -> Result<(Target, Reference)> {
        reference::digest_of(reference)?;
        let reference = reference::parse(&reference.whole())?;
        let target = self.registry(reference.registry(), reference.repository(), access)?;
        Ok((target, reference))
    }

    /// A registry, or with a repository a part of it. Both come from a parsed reference or URI.
    ///
    /// What is written goes to one host alone: the first that takes it.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a registry, a `hosts.toml` or a certificate that is not valid,
    /// [`Unsupported`](ErrorKind::Unsupported) when no host takes what is written.
    pub(crate) fn registry(&self, registry: &str, repository: &str, access: Access<'_>) -> Result<Target> {
        let mut endpoints = self.site.places.of(registry)?;
        if matches!(access, Access::Delete | Access::Mount(_) | Access::Push) {
            let first = endpoints.iter().find(|endpoint| endpoint.may_push()).cloned();
            let first =
                first.ok_or_else(|| Error::unsupported(format!("no host of {registry} may be written to")));
            endpoints = Arc::new(vec![first?]);
        }
        if access == Access::Login {
            endpoints = Arc::new(endpoints.last().cloned().into_iter().collect());
        }
        let last = endpoints.last().ok_or_else(|| Error::config(format!("{registry} has no host")))?;
        let permission = Permission::new(repository, access);
        let (base, scope) = (last.root.clone(), last.scope(&permission));
        let is_of_call = self.auth().credentials().is_of_call();
        Ok(Target { base, scope, endpoints, permission, is_of_call })
    }

    /// Sends a request to the endpoints in their order, and returns the first answer of success, or else the
    /// registry's own, whatever its status; one with 401 only if it is not the registry's own challenge.
    ///
    /// A request whose body is a stream is sent once: it must follow one with the same scope.
    ///
    /// # Errors
    /// [`Auth`](ErrorKind::Auth) when the registry accepts none of what we have, and those of the transport and
    /// of the redirect policy.
    pub(crate) async fn send(&self, target: &Target, request: Request) -> Result<Response> {
        self.send_if(target, request, |_| Ok(())).await
    }

    /// The same, where `accepts` must also accept the head of a mirror's answer.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn send_if(
        &self,
        target: &Target,
        request: Request,
        accepts: impl Fn(&Response) -> Result<()> + Send + Sync,
    ) -> Result<Response> {
        let accepts = &accepts;
        let read = |response: Response, is_last: bool| async move {
            if is_last {
                return Ok(response);
            }
            if !response.status().is_success() {
                return Err(error::status(response, "content").await);
            }
            accepts(&response).map(|()| response)
        };
        Box::pin(self.ask(target, request, read)).await
    }

    /// Sends a request to the endpoints in their order until `read` accepts an answer; its argument is whether
    /// this is the last endpoint.
    ///
    /// # Errors
    /// Those of the last endpoint, with the errors of the others (rule R 30 `mirror_order_then_origin_fallback`).
    pub(crate) async fn ask<T, F>(
        &self,
        target: &Target,
        request: Request,
        read: impl Fn(Response, bool) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let endpoints = target.endpoints_for(&request);
        let Some(own) = endpoints.len().checked_sub(1) else {
            let message = format!("no host of {} is trusted with this", target.scope.registry);
            return Err(Error::unsupported(message).with_endpoint(origin(&target.base)));
        };
        let roots: Vec<_> = endpoints.iter().map(|endpoint| &endpoint.root).collect();
        let wanted = (own > 0 && hosts::reads_blob(&request)).then(|| Wanted::of(&request));
        let rotated = |blob| self.account.rotation.order(blob, &roots);
        let order = wanted.as_ref().map_or_else(|| (0..=own).collect(), rotated);
        let mut failures = Failed { own, all: Vec::new() };
        let mut request = Some(request);
        for (turn, at) in order.into_iter().enumerate() {
            let is_last = turn == own;
            // Only what is written streams its body, and that has one endpoint.
            let next = if is_last { request.take() } else { request.as_ref().and_then(Request::try_clone) };
            let Some(next) = next else { continue };
            let watch = wanted.as_ref().map(|blob| self.account.rotation.watch(blob, roots[at]));
            let outcome = match self.once(target, endpoints[at], next).await {
                Ok(mut response) => {
                    if at != own {
                        response.extensions_mut().insert(Mirrored);
                    } else if is_last && !failures.all.is_empty() {
                        response.extensions_mut().insert(Failures(failures.of_mirrors(&roots)));
                    }
                    if let Some(watch) = watch {
                        response.extensions_mut().insert(watch);
                    }
                    read(response, is_last && at == own).await
                }
                Err(e) => Err(e),
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(e) => failures.all.push((at, e)),
            }
        }
        Err(failures.into_error(&roots))
    }

    /// Sends a request to one endpoint, with authentication.
    async fn once(&self, target: &Target, endpoint: &Endpoint, request: Request) -> Result<Response> {
        let permit = self.site.limits.admit(&endpoint.root, target.permission.writes()).await?;
        let mut response = self.authorized(target, endpoint, request).await?;
        response.extensions_mut().insert(permit);
        Ok(response)
    }

    async fn authorized(&self, target: &Target, endpoint: &Endpoint, request: Request) -> Result<Response> {
        let mut request = endpoint.adopt(&target.base, request);
        if target.is_of_call {
            // A header field of the configuration proves who this machine is, not who asks.
            request.headers_mut().remove(AUTHORIZATION);
        }
        let scope = endpoint.scope(&target.permission);
        // An upload may have been sent to another host: that one gets no credentials.
        let is_own = same_origin(&endpoint.root, request.url());
        let again = request.try_clone();
        let granted = if is_own { self.auth().granted(&scope, again.is_none()).await } else { None };
        let response = self.follow(target, endpoint, request, granted.as_ref()).await?;
        let is_challenge = response.status() == StatusCode::UNAUTHORIZED
            && is_own
            && same_origin(&endpoint.root, response.url());
        let Some(again) = again.filter(|_| is_challenge) else { return Ok(response) };
        let exchange = Exchange { places: &self.site.places, endpoints: &target.endpoints, endpoint };
        let answer = self.auth().answer(&exchange, &scope, response.headers(), granted.as_ref()).await;
        // The answer to a HEAD has no error text. A GET for the text alone is not worth a request.
        let answer = answer.map_err(|e| e.with_endpoint(origin(&endpoint.root)))?;
        drop(response);
        let response = self.follow(target, endpoint, again, Some(&answer)).await?;
        if response.status() == StatusCode::UNAUTHORIZED && same_origin(&endpoint.root, response.url()) {
            self.auth().forget(&scope, &answer).await;
        }
        Ok(response)
    }

    /// Sends a request through redirects. `Authorization` and what else is for this host alone are dropped at the
    /// first hop to another scheme, host or port, and stay dropped; each hop is made by the connections of its own
    /// host.
    async fn follow(
        &self,
        target: &Target,
        endpoint: &Endpoint,
        mut request: Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let may_follow = matches!(*request.method(), Method::GET | Method::HEAD);
        let start = request.url().clone();
        for hop in 0..=MAX_REDIRECTS {
            let next = request.try_clone();
            self.site.limits.pace(request.url()).await?;
            let transport = self.site.places.transport(&target.endpoints, endpoint, request.url())?;
            let mut response = transport.execute(request).await?;
            let Some(mut next) = next.filter(|_| may_follow && is_redirect(response.status())) else {
                if hop > 0 {
                    response.extensions_mut().insert(Redirected);
                }
                return Ok(response);
            };
            let to = self.location(&response)?;
            if !same_origin(response.url(), &to) {
                next.headers_mut().remove(AUTHORIZATION);
                endpoint.disown(next.headers_mut());
            }
            *next.url_mut() = to;
            request = next;
        }
        Err(Error::limit(format!("more than {MAX_REDIRECTS} redirects")).with_endpoint(origin(&start)))
    }

    /// The URL that an answer points to, if the policy allows it.
    pub(crate) fn location(&self, response: &Response) -> Result<Url> {
        let at = origin(response.url());
        let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = text.and_then(|text| response.url().join(text).ok());
        let url = url.ok_or_else(|| {
            let message = format!("the registry answered {} without a location", response.status());
            Error::unsupported(message).with_endpoint(&at)
        })?;
        self.site.places.policy.check_hop(response.url(), &url).map_err(|e| e.with_endpoint(&at))?;
        Ok(url)
    }

    /// The body of an answer that must be 200, at most `limit` bytes.
    pub(crate) async fn document(&self, response: Response, limit: u64, what: &str) -> Result<Bytes> {
        if response.status() != StatusCode::OK {
            return Err(error::status(response, what).await);
        }
        self.site.time_outs.document(response, limit, what).await
    }
}

impl Site {
    fn new(config: &Config, home: &str, limits: Arc<Limits>) -> Result<Self> {
        Ok(Self {
            limits,
            lists: tokio::sync::Mutex::default(),
            parallel_ranges: config.parallel_ranges,
            time_outs: TimeOuts(config.read_timeout),
            upload_chunk: config.upload_chunk,
            places: Places::new(config, home)?,
        })
    }
}

impl Account {
    fn new(credentials: Credentials) -> Self {
        Self { auth: Auth::new(credentials), rotation: Rotation::default() }
    }
}

impl Target {
    /// A request below this repository: its name and `path`, whose parts come from parsed values.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let mut url = self.base.clone();
        let root = self.base.path();
        match self.permission.repository() {
            "" => url.set_path(&format!("{root}{path}")),
            repository => url.set_path(&format!("{root}{repository}/{path}")),
        }
        Request::new(method, url)
    }

    /// The hosts for this request: all that are trusted with it, or the one that a link points to.
    fn endpoints_for(&self, request: &Request) -> Vec<&Endpoint> {
        let url = request.url();
        let last = self.endpoints.last();
        let is_linked = |endpoint: &&Endpoint| same_origin(&endpoint.root, url);
        if !same_origin(&self.base, url)
            && let Some(linked) = self.endpoints.iter().find(is_linked).or(last)
        {
            return vec![linked];
        }
        if self.is_of_call && !hosts::reads_blob(request) {
            return last.into_iter().collect();
        }
        let is_write = self.permission.writes();
        self.endpoints.iter().filter(|endpoint| is_write || endpoint.may_answer(request)).collect()
    }
}

/// The errors of the hosts of a registry.
struct Failed {
    /// Which of them is the registry itself.
    own: usize,
    all: Vec<(usize, Error)>,
}

impl Failed {
    /// The errors of the mirrors.
    fn of_mirrors(&self, roots: &[&Url]) -> String {
        let mirrors = self.all.iter().filter(|(at, _)| *at != self.own);
        let told = mirrors.map(|(at, e)| format!("{}: {}", origin(roots[*at]), e.message()));
        told.collect::<Vec<_>>().join("; ")
    }

    /// The registry's own error, with the errors of the mirrors.
    fn into_error(mut self, roots: &[&Url]) -> Error {
        let told = self.of_mirrors(roots);
        // Another attempt helps as long as it may help with one of them.
        let retryable = self.all.iter().filter(|(_, e)| e.is_retryable());
        let attempts = retryable.map(|(_, e)| e.attempts().unwrap_or(u32::MAX)).max();
        let last = self.all.iter().position(|(at, _)| *at == self.own);
        let last = last.map(|at| self.all.swap_remove(at)).or_else(|| self.all.pop());
        let error = last.map_or_else(|| Error::new(ErrorKind::Internal, "no host was asked"), |(_, e)| e);
        let error = match attempts.filter(|_| error.attempts().is_some()) {
            Some(attempts) => error.with_attempts(attempts),
            None => error,
        };
        if told.is_empty() { error } else { error.with_context("mirrors", told) }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
