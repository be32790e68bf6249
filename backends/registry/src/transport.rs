//! One request, one answer: connections, time-outs, and bodies that never grow beyond a bound.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::{Error, ErrorKind, Result, Secret, Size};
use reqwest::header::AUTHORIZATION;
use reqwest::{ClientBuilder, Proxy, Request, Response, Url, redirect};

use crate::fault::HostsFault;
use crate::hosts::file::Host;
use crate::proxy::Exceptions;
use crate::resolver::Resolver;
use crate::response::Sent;
use crate::{Config, error, policy, tls};

/// The HTTP clients. No redirect is followed here, no body is decoded, HTTP is 1.1.
///
/// They are made for the first request: the system has some hundred CA certificates, and reading them takes longer
/// than a pull that finds everything here.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    recipe: Arc<Recipe>,
    pub(crate) time_outs: TimeOuts,
}

#[derive(Debug)]
struct Recipe {
    config: Config,
    identity: tls::Identity,
    host: Host,
    made: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    proxied: Clients,
    direct: Clients,
    /// Hosts with a port that are reached without a proxy.
    exceptions: Exceptions,
    /// Whether a server has asked for a certificate of the client.
    asked: Arc<AtomicBool>,
}

/// Time-outs, the same for all hosts: how long a whole document may take. The time-out between two reads alone would allow
/// a byte per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeOuts(pub(crate) Duration);

/// The time-out of `reading` begins with the request: `writing` is for bodies that take longer than that.
#[derive(Clone, Debug)]
struct Clients {
    reading: reqwest::Client,
    writing: reqwest::Client,
}

/// How many connections may be closed without a reason before a request is begun.
const CONNECTIONS: u32 = 3;

impl Transport {
    /// The clients of one host, or of all without options of their own.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for options that are not valid; files are only read now when some are named.
    pub(crate) fn new(config: &Config, identity: tls::Identity, host: &Host) -> Result<Self> {
        let has_options = identity != tls::Identity::default() || host.proxy.is_some();
        let recipe = Recipe { config: config.clone(), identity, host: host.clone(), made: OnceLock::new() };
        let transport = Self { recipe: Arc::new(recipe), time_outs: TimeOuts(config.read_timeout) };
        if has_options || config.client_key.is_some() || config.user_agent != Config::default().user_agent {
            transport.recipe.made()?;
        }
        Ok(transport)
    }

    /// Whether a server that is reached by TLS has to prove its name.
    pub(crate) fn verifies(&self) -> bool {
        self.recipe.identity.verifies()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// When a connection is closed just before the request is begun, the reason is lost. The request is then sent
    /// again: the next connection may give the reason. If none does, and the server asked for a client certificate, it
    /// is that: with TLS 1.3 the server checks it after the handshake.
    pub(crate) async fn execute(&self, request: Request) -> Result<Response> {
        let sent = request.headers().get(AUTHORIZATION).cloned();
        let mut response = self.answer(request).await?;
        response.extensions_mut().insert(Sent(sent));
        Ok(response)
    }

    async fn answer(&self, mut request: Request) -> Result<Response> {
        let url = request.url().clone();
        let made = self.recipe.made()?;
        let is_direct = policy::is_loopback(&url) || made.exceptions.has(&url);
        let clients = if is_direct { &made.direct } else { &made.proxied };
        let is_upload = request.body().is_some_and(|body| body.as_bytes().is_none());
        let client = if is_upload { &clients.writing } else { &clients.reading };
        for _ in 1..CONNECTIONS {
            let Some(again) = request.try_clone() else { break };
            match client.execute(request).await {
                Err(e) if error::is_unbegun(&e) => request = again,
                outcome => return outcome.map_err(|e| error::transport(e, &url)),
            }
        }
        client.execute(request).await.map_err(|e| {
            if error::is_unbegun(&e) && made.asked.load(Ordering::Relaxed) {
                return error::refused_client(e, &url);
            }
            error::transport(e, &url)
        })
    }
}

impl Recipe {
    fn made(&self) -> Result<&Made> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = self.make()?;
        Ok(self.made.get_or_init(|| made))
    }

    fn make(&self) -> Result<Made> {
        let Self { config, identity, host, .. } = self;
        if config.client_key.is_some() && config.client_cert.is_none() {
            return Err(Error::config("client-key is given without client-cert"));
        }
        let (tls, asked) = tls::client(identity)?;
        let proxy = host.proxy.as_ref().map(proxy).transpose()?;
        let build = |builder: ClientBuilder| {
            // One that is named for a host is meant, also for a host on this machine.
            let builder = proxy.iter().fold(builder, |builder, proxy| builder.proxy(proxy.clone()));
            // Cargo gives a program one reqwest with the features that all of its crates ask for.
            builder
                .http1_only()
                .no_brotli()
                .no_deflate()
                .no_gzip()
                .no_zstd()
                .connect_timeout(host.dial_timeout.unwrap_or(config.connect_timeout))
                .dns_resolver(Resolver)
                .redirect(redirect::Policy::none())
                .referer(false)
                .tls_backend_preconfigured(tls.clone())
                .user_agent(&config.user_agent)
                .build()
                .map_err(|e| Error::config("invalid user agent, proxy or TLS option").with_source(e))
        };
        let clients = |builder: fn() -> ClientBuilder| {
            let reading = build(builder().read_timeout(config.read_timeout))?;
            Ok::<_, Error>(Clients { reading, writing: build(builder())? })
        };
        Ok(Made {
            proxied: clients(reqwest::Client::builder)?,
            direct: clients(|| reqwest::Client::builder().no_proxy())?,
            exceptions: Exceptions::of_environment(),
            asked,
        })
    }
}

impl TimeOuts {
    /// How long an upload may stand still.
    pub(crate) fn upload_stall(self) -> Duration {
        self.0 * 4
    }

    /// The whole body, at most `limit` bytes of it.
    ///
    /// # Errors
    /// [`Limit`](ErrorKind::Limit) as soon as the body is seen to be longer.
    pub(crate) async fn document(self, response: Response, limit: u64, what: &str) -> Result<Bytes> {
        let endpoint = policy::origin(response.url());
        let whole = tokio::time::timeout(self.0, body(response, limit, what)).await;
        whole.unwrap_or_else(|_| {
            let message = format!("{what} is not complete after {:?}", self.0);
            Err(Error::new(ErrorKind::Timeout, message).with_endpoint(endpoint))
        })
    }
}

/// The proxy that is named for a host. The error does not quote it: it may contain a password.
fn proxy(url: &Secret) -> Result<Proxy> {
    let parsed = Url::parse(url.reveal()).map_err(|_| HostsFault::Proxy)?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(HostsFault::Proxy.into());
    }
    Proxy::all(parsed).map_err(|_| HostsFault::Proxy.into())
}

async fn body(mut response: Response, limit: u64, what: &str) -> Result<Bytes> {
    let url = response.url().clone();
    let too_long =
        || Error::limit(format!("{what} has more than {}", Size(limit))).with_endpoint(policy::origin(&url));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| error::transport(e, &url))? {
        if (content.len() + chunk.len()) as u64 > limit {
            return Err(too_long());
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_when_they_are_needed_or_named() {
        let usual = Transport::new(&Config::default(), tls::Identity::default(), &Host::default()).unwrap();
        assert!(usual.recipe.made.get().is_none());
        let missing = Config { ca: vec!["/nonexistent".into()], ..Config::default() };
        let told = Transport::new(&missing, tls::Identity::new(&missing), &Host::default());
        assert_eq!(*told.unwrap_err().kind(), ErrorKind::Config);
    }
}
