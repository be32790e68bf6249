//! Which endpoints have a registry's content, in the order they are asked.

pub(crate) mod file;
mod rotation;

use std::sync::Arc;

use plyfold_core::{Result, Shared};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, Url};

pub use self::file::{ClientCertificate, Host, HostCapability, Hosts};
pub(crate) use self::rotation::{Rotation, Wanted, Watch};
use crate::Config;
use crate::auth::scope::{Permission, Scope};
use crate::fault::HostsFault;
use crate::policy::{Policy, origin, same_origin};
use crate::tls::Identity;
use crate::transport::Transport;

/// The endpoints of every registry, looked up once for each.
#[derive(Debug)]
pub(crate) struct Places {
    config: Config,
    /// The registry that the URI names.
    home: String,
    /// For hosts without options of their own.
    usual: Transport,
    pub(crate) policy: Policy,
    /// The endpoints of a registry by its name; connections to hosts of redirects and token servers by their scheme, host
    /// and port.
    known: Shared,
}

/// One host that has a registry's content.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The API's root; ends in a slash.
    pub(crate) root: Url,
    /// The name that its credentials are stored under.
    pub(crate) name: String,
    pub(crate) transport: Transport,
    /// The registry that it stands in for, when it has another name.
    namespace: Option<String>,
    header: HeaderMap,
    host: Arc<Host>,
}

impl Places {
    pub(crate) fn new(config: &Config, home: &str) -> Result<Self> {
        if let Some(field) = config.hosts.values().flat_map(Hosts::unknown).next() {
            return Err(HostsFault::Unknown(field.to_owned()).into());
        }
        let usual = Transport::new(config, Identity::new(config), &Host::default())?;
        let (config, home, policy) = (config.clone(), home.to_owned(), Policy::new(config));
        Ok(Self { config, home, usual, policy, known: Shared::default() })
    }

    /// The mirrors of a registry in their order, and the registry itself.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a host, a `hosts.toml` or a certificate that is not valid.
    pub(crate) fn of(&self, registry: &str) -> Result<Arc<Vec<Endpoint>>> {
        self.known.get_or_make(registry, || {
            let configured = self.config.hosts.get(registry).or_else(|| self.config.hosts.get(file::DEFAULT));
            let hosts = if let Some(hosts) = configured {
                hosts.clone()
            } else {
                // Before the name becomes a path.
                self.policy.base(registry, false)?;
                Hosts::find(&self.config.hosts_dir, registry)?.unwrap_or_default()
            };
            self.endpoints(registry, hosts).map_err(|e| e.with_context("registry", registry))
        })
    }

    /// The connections to a URL that one of a registry's `endpoints` has redirected to or named. Certificates, CAs,
    /// proxies and what else is configured are those of the URL's own scheme, host and port, never those of the
    /// endpoint.
    ///
    /// # Errors
    /// As [`Places::of`], about the host that the URL is on.
    pub(crate) fn transport(&self, endpoints: &[Endpoint], from: &Endpoint, url: &Url) -> Result<Transport> {
        let there = std::iter::once(from).chain(endpoints).find(|endpoint| same_origin(&endpoint.root, url));
        if let Some(endpoint) = there {
            return Ok(endpoint.transport.clone());
        }
        let made = self.known.get_or_make(&origin(url), || {
            let name = match authority(url) {
                name if name == "registry-1.docker.io" => "docker.io".to_owned(),
                name => name,
            };
            // `_default` is for registries, not for hosts that they redirect to or name.
            let hosts = match self.config.hosts.get(&name) {
                Some(hosts) => Some(hosts.clone()),
                None => Hosts::find_own(&self.config.hosts_dir, &name)?,
            };
            let endpoints = self.endpoints(&name, hosts.unwrap_or_default())?;
            let own = endpoints.last().filter(|endpoint| same_origin(&endpoint.root, url));
            Ok(own.map_or_else(|| self.usual.clone(), |endpoint| endpoint.transport.clone()))
        });
        made.map(Arc::unwrap_or_clone)
    }

    fn endpoints(&self, registry: &str, hosts: Hosts) -> Result<Vec<Endpoint>> {
        let own = hosts.own;
        let has_tls = |own: &Host| !own.ca.is_empty() || !own.client.is_empty() || own.skip_verify;
        let base = self.policy.base(registry, has_tls(&own))?;
        let is_home = self.policy.base(&self.home, has_tls(&own))? == base;
        let mut endpoints = Vec::with_capacity(hosts.host.len() + 1);
        for (url, host) in hosts.host {
            let root = Policy::root(&url, host.override_path)?;
            endpoints.push(self.endpoint(registry, &base, root, host, false)?);
        }
        let named = hosts.server.as_ref().map(|url| Policy::root(url, own.override_path)).transpose()?;
        let root = named.unwrap_or_else(|| {
            let mut root = base.clone();
            root.set_path("/v2/");
            root
        });
        endpoints.push(self.endpoint(registry, &base, root, own, is_home)?);
        Ok(endpoints)
    }

    /// One host for a registry, which would be at `base` if nothing were configured; `is_home` for the registry itself
    /// when it is the one that the URI names.
    fn endpoint(&self, registry: &str, base: &Url, root: Url, host: Host, is_home: bool) -> Result<Endpoint> {
        let same_port =
            root.port() == base.port() || root.port_or_known_default() == base.port_or_known_default();
        let is_other = !(same_port && root.host() == base.host());
        let usual = Identity::new(&self.config);
        let identity = if is_home && !is_other { usual.clone().of_home(&self.config) } else { usual.clone() };
        let identity = identity.of_host(&host);
        let is_usual = identity == usual && host.proxy.is_none() && host.dial_timeout.is_none();
        let transport =
            if is_usual { self.usual.clone() } else { Transport::new(&self.config, identity, &host)? };
        Ok(Endpoint {
            name: if is_other { authority(&root) } else { registry.to_owned() },
            namespace: is_other.then(|| registry.to_owned()),
            header: header(&host)?,
            host: Arc::new(host),
            root,
            transport,
        })
    }
}

impl Endpoint {
    /// Whether this host is trusted with a read.
    pub(crate) fn may_answer(&self, request: &Request) -> bool {
        let mut parts = request.url().path().rsplit('/');
        let (last, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match kind {
            "referrers" if self.host.may(HostCapability::Referrers) => true,
            // The name of content has a colon, that of a tag has none: its digest is verified.
            "blobs" | "manifests" if last.contains(':') => self.host.may(HostCapability::Pull),
            _ => self.host.may(HostCapability::Resolve),
        }
    }

    /// Whether this host may be written to.
    pub(crate) fn may_push(&self) -> bool {
        self.host.may(HostCapability::Push)
    }

    /// A permission as this host and its token server name it: under a path prefix a repository has another
    /// name.
    pub(crate) fn scope(&self, permission: &Permission) -> Scope {
        let prefix = self.root.path().strip_prefix("/v2/").unwrap_or_default();
        permission.on(&self.root, &self.name, |repository| format!("{prefix}{repository}"))
    }

    /// A request that was made for `from`, made for this host.
    pub(crate) fn adopt(&self, from: &Url, mut request: Request) -> Request {
        let rest = request.url().path().strip_prefix(from.path());
        if let Some(rest) = rest.filter(|_| same_origin(from, request.url())) {
            let mut url = self.root.clone();
            url.set_path(&format!("{}{rest}", self.root.path()));
            url.set_query(request.url().query());
            *request.url_mut() = url;
        }
        if !same_origin(&self.root, request.url()) {
            return request;
        }
        if let Some(namespace) = &self.namespace
            && !request.url().query_pairs().any(|(key, _)| key == "ns")
        {
            request.url_mut().query_pairs_mut().append_pair("ns", namespace);
        }
        for (name, value) in &self.header {
            request.headers_mut().append(name, value.clone());
        }
        request
    }

    /// Removes the header fields that are for this host alone.
    pub(crate) fn disown(&self, headers: &mut HeaderMap) {
        for name in self.header.keys() {
            headers.remove(name);
        }
    }
}

/// Whether a request is for a blob's bytes.
pub(crate) fn reads_blob(request: &Request) -> bool {
    request.method() == Method::GET && request.url().path().contains("/blobs/sha")
}

/// `HOST` or `HOST:PORT`.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn header(host: &Host) -> Result<HeaderMap> {
    let mut header = HeaderMap::new();
    for (name, values) in &host.header {
        let invalid = || HostsFault::Header(name.clone());
        let key: HeaderName = name.parse().map_err(|_| invalid())?;
        for value in values {
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            header.append(key.clone(), value);
        }
    }
    Ok(header)
}
