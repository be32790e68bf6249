//! Which URLs may be requested at all, and which may see credentials. Decided on parsed URLs, before any I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plyfold_core::{Advice, Error, Result};
use reqwest::Url;

use crate::Config;
use crate::fault::{ChallengeFault, HostsFault};

/// Token servers that are known to serve a registry on another host, whatever the configuration lists.
const KNOWN_REALMS: &[(&str, &str)] =
    &[("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// The rules that a configuration makes.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    plain_http: Vec<String>,
    https: Vec<String>,
    trusted_realm: Option<Vec<String>>,
    has_tls_options: bool,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            plain_http: config.plain_http.clone(),
            https: config.https.clone(),
            trusted_realm: config.trusted_realm.clone(),
            has_tls_options: !config.ca.is_empty() || config.client_cert.is_some(),
        }
    }

    /// Scheme, host and port of a registry as references name it; `has_tls` when it has TLS options of its own.
    /// Docker Hub's API has a host of its own.
    pub(crate) fn base(&self, registry: &str, has_tls: bool) -> Result<Url> {
        let host = match registry {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        let parse = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{host}/")).ok();
            let bare = |url: &Url| url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            url.filter(|url| bare(url) && !has_login(url))
                .ok_or_else(|| Error::config(format!("invalid registry host {registry:?}")))
        };
        let https = parse("https")?;
        if is_at_link_local(&https) {
            return Err(refused(&https, "link-local addresses are never registries"));
        }
        let listed = |list: &[String]| lists(list, &https);
        let has_tls = has_tls || self.has_tls_options || registry.ends_with(":443");
        let loopback_default = is_loopback(&https) && !has_tls;
        if listed(&self.plain_http) || (loopback_default && !listed(&self.https)) {
            return parse("http");
        }
        Ok(https)
    }

    /// The root of the API on a host that a configuration names by its URL. An explicit `http` is accepted.
    pub(crate) fn root(url: &str, override_path: bool) -> Result<Url> {
        let invalid = |why| Error::from(HostsFault::Host(why));
        let text = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let mut root = Url::parse(&text).map_err(|_| invalid("it is not a URL"))?;
        if has_login(&root) {
            return Err(invalid("it carries a user name").with_advice(Advice::StoreCredentials));
        }
        if !matches!(root.scheme(), "http" | "https") {
            return Err(invalid("its scheme is neither https nor http"));
        }
        if root.query().is_some() || root.fragment().is_some() {
            return Err(invalid("it has a query or a fragment"));
        }
        if is_at_link_local(&root) {
            return Err(refused(&root, "link-local addresses are never registries"));
        }
        if root.host_str() == Some("docker.io") {
            root.set_host(Some("registry-1.docker.io")).map_err(|_| invalid("it has no host"))?;
        }
        let path = root.path().trim_end_matches('/').to_owned();
        let is_whole = override_path || path.ends_with("/v2");
        root.set_path(&if is_whole { format!("{path}/") } else { format!("{path}/v2/") });
        Ok(root)
    }

    /// Whether a URL that `from` redirected to may be requested: never from https to http, never another
    /// scheme, never link-local addresses, where clouds serve their metadata.
    pub(crate) fn check_hop(&self, from: &Url, to: &Url) -> Result<()> {
        if has_login(to) {
            return Err(refused(to, "it carries a user name"));
        }
        if is_at_link_local(to) {
            return Err(refused(to, "it is a link-local address"));
        }
        match to.scheme() {
            "https" => Ok(()),
            "http" if lists(&self.plain_http, to) || same_origin(from, to) => Ok(()),
            "http" if from.scheme() == "http" && is_loopback(to) && is_loopback(from) => Ok(()),
            "http" => Err(refused(to, "it is plain http").with_advice(Advice::options(
                "{} allows plain http to a host that you trust",
                [("plain-http", "HOST")],
            ))),
            _ => Err(refused(to, "its scheme is neither https nor http")),
        }
    }

    /// The token server that a challenge of `registry` names, and whether it may see the registry's credentials.
    ///
    /// A registry whose certificate was verified (`is_verified`) is trusted: it could as well ask for the credentials
    /// by Basic, and get them. In plain http an attacker in the network could have named the token server.
    pub(crate) fn realm(&self, registry: &Url, is_verified: bool, realm: &str) -> Result<(Url, bool)> {
        let untrusted = |why: &str| ChallengeFault::Realm(why.to_owned());
        let url = Url::parse(realm).map_err(|_| untrusted("it is not a URL"))?;
        let same_host = url.host() == registry.host();
        // A token server beside a plain http registry may have a port of its own.
        if !(same_host && url.scheme() == "http" && registry.scheme() == "http" && !has_login(&url)) {
            self.check_hop(registry, &url).map_err(|e| untrusted(e.message()))?;
        }
        let downgrade = registry.scheme() == "https" && url.scheme() == "http";
        let known =
            (registry.host_str().zip(url.host_str())).is_some_and(|pair| KNOWN_REALMS.contains(&pair));
        let is_known = known && url.scheme() == "https" && url.port().is_none();
        let trusted = match &self.trusted_realm {
            Some(listed) => lists(listed, &url),
            None => is_verified && registry.scheme() == "https" && url.scheme() == "https",
        };
        let trusted = trusted || same_host || is_known;
        Ok((url, trusted && !downgrade))
    }
}

/// Whether two URLs have scheme, host and port in common: the scope of credentials.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether a URL's host is this machine: 127.0.0.0/8, `::1`, `localhost`.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let is_named = || url.host_str().is_some_and(|host| host == "localhost" || host.ends_with(".localhost"));
    address(url).map_or_else(is_named, |address| address.is_loopback())
}

/// Scheme, host and port, for messages: paths and queries may hold signatures.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// 169.254.0.0/16, `fe80::/10`, and the one address outside of them that a cloud uses for metadata; also as an IPv4
/// address within IPv6: mapped, compatible (RFC 4291 2.5.5) or behind NAT64 (RFC 6052 2.1).
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    const EC2: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            let is_nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let [.., a, b, c, d] = address.octets();
            let inner = if is_nat64 { Some(Ipv4Addr::new(a, b, c, d)) } else { address.to_ipv4() };
            address.is_unicast_link_local()
                || address == EC2
                || inner.is_some_and(|inner| inner.is_link_local())
        }
    }
}

fn is_at_link_local(url: &Url) -> bool {
    address(url).is_some_and(is_link_local)
}

/// The host when it is an address; an IPv4-mapped IPv6 address is taken for the IPv4 address.
fn address(url: &Url) -> Option<IpAddr> {
    let address: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    Some(address.to_canonical())
}

/// Whether a list of `host` and `host:port` has the URL's host.
fn lists(list: &[String], url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    list.iter().any(|entry| entry == host || Some(entry) == port.as_ref())
}

fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn refused(url: &Url, why: &str) -> Error {
    let scheme = url.scheme();
    let host = url.host_str().unwrap_or_default();
    Error::unsupported(format!("refused to connect to {scheme}://{host}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(config: &Config) -> Policy {
        Policy::new(config)
    }

    fn base(config: &Config, registry: &str) -> String {
        policy(config).base(registry, false).unwrap().to_string()
    }

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts() {
        for (registry, expected) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("index.docker.io", "https://registry-1.docker.io/"),
            ("ghcr.io", "https://ghcr.io/"),
            ("localhost", "http://localhost/"),
            ("localhost:443", "https://localhost/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.9.9.9:5000", "http://127.9.9.9:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("localhost.evil.example:5000", "https://localhost.evil.example:5000/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
        ] {
            assert_eq!(base(&Config::default(), registry), expected, "{registry}");
        }
        let listed = || Config { plain_http: vec!["lan:5000".into(), "any".into()], ..Config::default() };
        assert_eq!(base(&listed(), "lan:5000"), "http://lan:5000/");
        assert_eq!(base(&listed(), "lan:5001"), "https://lan:5001/");
        assert_eq!(base(&listed(), "any:7"), "http://any:7/");
        let https = Config { https: vec!["localhost:5000".into()], ..Config::default() };
        assert_eq!(base(&https, "localhost:5000"), "https://localhost:5000/");
        let ca = Config { ca: vec!["ca.pem".into()], ..Config::default() };
        assert_eq!(base(&ca, "localhost:5000"), "https://localhost:5000/");
    }

    #[test]
    fn configured_hosts_have_the_root_that_containerd_gives_them() {
        let root = |url, override_path| Policy::root(url, override_path).ok().map(|root| root.to_string());
        for (url, override_path, expected) in [
            ("https://m.example", false, Some("https://m.example/v2/")),
            ("m.example:5000", false, Some("https://m.example:5000/v2/")),
            ("http://m.example/", false, Some("http://m.example/v2/")),
            ("https://m.example/v2", false, Some("https://m.example/v2/")),
            ("https://m.example/us", false, Some("https://m.example/us/v2/")),
            ("https://m.example/us/", true, Some("https://m.example/us/")),
            ("https://m.example/v2/up", true, Some("https://m.example/v2/up/")),
            ("https://m.example", true, Some("https://m.example/")),
            ("https://docker.io", false, Some("https://registry-1.docker.io/v2/")),
            ("https://user:pw@m.example", false, None),
            ("https://169.254.169.254", false, None),
            ("https://m.example?x", false, None),
            ("httpx://m.example", false, None),
            ("file:///etc", false, None),
            ("", false, None),
        ] {
            assert_eq!(root(url, override_path).as_deref(), expected, "{url}");
        }
        let own_tls = policy(&Config::default()).base("localhost:5000", true).unwrap();
        assert_eq!(own_tls.as_str(), "https://localhost:5000/");
    }

    #[test]
    fn hosts_that_are_more_than_a_host_are_refused() {
        for registry in ["user@host", "host/path", "host?x", "host#x", "", "169.254.169.254", "[fe80::1]"] {
            assert!(policy(&Config::default()).base(registry, false).is_err(), "{registry:?}");
        }
    }

    #[test]
    fn redirects_never_leave_tls_nor_reach_metadata() {
        let policy = policy(&Config { plain_http: vec!["lan".into()], ..Config::default() });
        let verdict = |from: &str, to: &str| {
            policy.check_hop(&Url::parse(from).unwrap(), &Url::parse(to).unwrap()).is_ok()
        };
        assert!(verdict("https://a", "https://cdn.example/x?sig=1"));
        assert!(verdict("https://a", "http://lan/x"));
        assert!(verdict("http://127.0.0.1:5000", "http://127.0.0.1:5001/x"));
        assert!(!verdict("https://a", "http://a/x"));
        assert!(!verdict("https://a", "http://127.0.0.1:2375/containers"));
        assert!(!verdict("http://127.0.0.1:5000", "http://evil.example/x"));
        assert!(!verdict("http://lan", "http://127.0.0.1/x"));
        for address in [
            "169.254.169.254",
            "2852039166",
            "0xa9.0xfe.0xa9fe",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            assert!(!verdict("https://a", &format!("https://{address}/latest")), "{address}");
        }
        assert!(!verdict("https://a", "file:///etc/passwd"));
        assert!(!verdict("https://a", "ftp://a/x"));
        assert!(!verdict("https://a", "https://user:pw@b/x"));
    }

    /// Whether credentials go to a realm: of a registry with a verified certificate, and of one without.
    fn verdicts(config: &Config, registry: &str, realm: &str) -> Option<(bool, bool)> {
        let registry = Url::parse(registry).unwrap();
        let trusted = |is_verified| Some(policy(config).realm(&registry, is_verified, realm).ok()?.1);
        trusted(true).zip(trusted(false))
    }

    #[test]
    fn a_verified_registry_names_any_token_server_and_others_their_own() {
        let config = Config::default();
        for (registry, realm, verified, unverified) in [
            ("https://r.example", "https://r.example/token", true, true),
            ("https://r.example", "https://r.example:8443/token", true, true),
            ("https://r.example", "https://sso.example/token", true, false),
            ("https://r.example", "https://10.0.0.1:8443/token", true, false),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true, true),
            ("https://registry-1.docker.io", "https://auth.docker.io:1/token", true, false),
            ("http://127.0.0.1:1", "http://127.0.0.1:2/token", true, true),
            ("http://127.0.0.1:1", "http://127.0.0.2:2/token", false, false),
            ("http://127.0.0.1:1", "https://sso.example/token", false, false),
        ] {
            let expected = Some((verified, unverified));
            assert_eq!(verdicts(&config, registry, realm), expected, "{registry} {realm}");
        }
        for realm in [
            "http://r.example/token",
            "http://evil.example/t",
            "https://user:pw@sso.example/t",
            "https://169.254.169.254/token",
            "https://[::ffff:169.254.169.254]/token",
            "file:///etc/passwd",
            "/token",
            "junk",
            "",
        ] {
            assert_eq!(verdicts(&config, "https://r.example", realm), None, "{realm}");
        }
        assert_eq!(verdicts(&config, "http://127.0.0.1:1", "http://169.254.169.254/token"), None);
    }

    #[test]
    fn a_list_of_token_servers_is_all_there_are_beyond_the_registry_s_host() {
        let listed = |list: &[&str]| Config {
            trusted_realm: Some(list.iter().copied().map(str::to_owned).collect()),
            ..Config::default()
        };
        for (list, registry, realm, expected) in [
            (&["sso.example"][..], "https://r.example", "https://sso.example/token", true),
            (&["sso.example"], "https://r.example", "https://other.example/token", false),
            (&["sso.example:8443"], "https://r.example", "https://sso.example/token", false),
            (&[], "https://r.example", "https://sso.example/token", false),
            (&[], "https://r.example", "https://r.example/token", true),
            (&[], "https://registry-1.docker.io", "https://auth.docker.io/token", true),
            // Its user names it, the registry does not.
            (&["sso.example"], "http://127.0.0.1:1", "https://sso.example/token", true),
        ] {
            assert_eq!(
                verdicts(&listed(list), registry, realm),
                Some((expected, expected)),
                "{list:?} {realm}"
            );
        }
    }
}
