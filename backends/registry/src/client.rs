//! Requests to a registry: authentication on 401, redirects by our own policy.

use bytes::Bytes;
use plyfold_core::{Error, ErrorKind, Reference, Result, reference};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode, Url};

use crate::auth::{Auth, Credentials, Exchange, Scope};
use crate::policy::{Policy, same_origin};
use crate::transport::Transport;
use crate::{Config, errors};

/// Redirects that one request may go through.
const HOPS: usize = 10;

/// A registry client: connections, policy, credentials and tokens.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) policy: Policy,
    pub(crate) transport: Transport,
    auth: Auth,
}

/// What a request is for: where, and with which permission.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Scheme, host and port of the registry.
    pub(crate) base: Url,
    pub(crate) scope: Scope,
}

/// The permissions that requests need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access<'a> {
    Catalog,
    Delete,
    /// Push, and pull from another repository to mount from it.
    Mount(&'a str),
    Pull,
    Push,
}

impl Client {
    pub(crate) fn new(config: &Config, credentials: Credentials) -> Result<Self> {
        Ok(Self {
            policy: Policy::new(config),
            transport: Transport::new(config)?,
            auth: Auth::new(credentials),
        })
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Where a reference's repository is. The reference is parsed again: one that was put together by hand could
    /// hold anything, and its parts go into URLs (rule R 9 `invalid_reference_rejected_before_io`).
    pub(crate) fn target(&self, reference: &Reference, access: Access<'_>) -> Result<(Target, Reference)> {
        reference::digest_of(reference)?;
        let reference = reference::parse(&reference.whole())?;
        let target = self.registry(reference.registry(), reference.repository(), access)?;
        Ok((target, reference))
    }

    /// A registry, or with a repository a part of it. Both come from a parsed reference or URI.
    pub(crate) fn registry(&self, registry: &str, repository: &str, access: Access<'_>) -> Result<Target> {
        let base = self.policy.base(registry)?;
        let access = match access {
            Access::Catalog => "registry:catalog:*".to_owned(),
            Access::Delete => format!("repository:{repository}:pull,push,delete"),
            Access::Mount(from) => format!("repository:{repository}:pull,push repository:{from}:pull"),
            Access::Pull => format!("repository:{repository}:pull"),
            Access::Push => format!("repository:{repository}:pull,push"),
        };
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Ok(Target { base, scope: Scope { registry, repository, access } })
    }

    /// Sends a request and returns the final answer, whatever its status; one with 401 only if it is not the
    /// registry's own.
    ///
    /// A request whose body is a stream is sent once: it must follow one with the same scope.
    ///
    /// # Errors
    /// [`Auth`](ErrorKind::Auth) when the registry accepts none of what we have, and those of the transport and
    /// of the redirect policy.
    pub(crate) async fn send(&self, target: &Target, request: Request) -> Result<Response> {
        // An upload may have been sent to another host: that one gets no credentials.
        let is_own = same_origin(&target.base, request.url());
        let again = request.try_clone();
        let granted = if is_own { self.auth.granted(&target.scope).await } else { None };
        let response = self.follow(request, granted.as_ref()).await?;
        let is_challenge = response.status() == StatusCode::UNAUTHORIZED
            && is_own
            && same_origin(&target.base, response.url());
        let Some(again) = again.filter(|_| is_challenge) else { return Ok(response) };
        let exchange = Exchange { transport: &self.transport, policy: &self.policy, base: &target.base };
        let answer = self.auth.answer(&exchange, &target.scope, response.headers(), granted.as_ref()).await;
        // The words of a HEAD's answer are missing, those of a GET's say why: they are not worth a request.
        let answer = answer.map_err(|e| e.with_endpoint(&target.base))?;
        drop(response);
        let response = self.follow(again, Some(&answer)).await?;
        if response.status() == StatusCode::UNAUTHORIZED && same_origin(&target.base, response.url()) {
            self.auth.forget(&target.scope, &answer).await;
        }
        Ok(response)
    }

    /// Sends a request through redirects. `Authorization` is dropped at the first hop to another scheme, host or
    /// port, and stays dropped.
    async fn follow(&self, mut request: Request, authorization: Option<&HeaderValue>) -> Result<Response> {
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let may_follow = matches!(*request.method(), Method::GET | Method::HEAD);
        let start = request.url().clone();
        for _ in 0..=HOPS {
            let next = request.try_clone();
            let response = self.transport.execute(request).await?;
            let Some(mut next) = next.filter(|_| may_follow && is_redirect(response.status())) else {
                return Ok(response);
            };
            let to = self.location(&response)?;
            if !same_origin(response.url(), &to) {
                next.headers_mut().remove(AUTHORIZATION);
            }
            *next.url_mut() = to;
            request = next;
        }
        Err(Error::limit(format!("more than {HOPS} redirects")).with_endpoint(crate::policy::origin(&start)))
    }

    /// The URL that an answer points to, if the policy lets us go there.
    pub(crate) fn location(&self, response: &Response) -> Result<Url> {
        let at = crate::policy::origin(response.url());
        let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = text.and_then(|text| response.url().join(text).ok());
        let url = url.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("the registry answered {} without a location", response.status()),
            )
            .with_endpoint(&at)
        })?;
        self.policy.check_hop(response.url(), &url).map_err(|e| e.with_endpoint(&at))?;
        Ok(url)
    }

    /// The body of an answer that must be 200, at most `limit` bytes.
    pub(crate) async fn document(&self, response: Response, limit: u64, what: &str) -> Result<Bytes> {
        if response.status() != StatusCode::OK {
            return Err(errors::status(response, what).await);
        }
        self.transport.document(response, limit, what).await
    }
}

impl Target {
    /// A request below this repository: `/v2/NAME/` and `path`, whose parts come from parsed values.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let mut url = self.base.clone();
        match self.scope.repository.as_str() {
            "" => url.set_path(&format!("/v2/{path}")),
            repository => url.set_path(&format!("/v2/{repository}/{path}")),
        }
        Request::new(method, url)
    }
}

/// The text of a header, if there is one and it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
