//! `NO_PROXY` entries with a port, which docker and podman know and `reqwest` does not.

use reqwest::Url;

/// Hosts that are reached directly on one port.
#[derive(Debug)]
pub(crate) struct Exceptions(Vec<(String, u16)>);

impl Exceptions {
    /// Those of `NO_PROXY`, or else of `no_proxy`.
    pub(crate) fn of_environment() -> Self {
        let list = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
        Self::parse(&list.unwrap_or_default())
    }

    fn parse(list: &str) -> Self {
        let entries = list.split(',').filter_map(|entry| {
            let (host, port) = entry.trim().rsplit_once(':')?;
            let is_half_an_address = host.contains(':') && !host.ends_with(']');
            if is_half_an_address {
                return None;
            }
            Some((host.trim_start_matches('.').to_ascii_lowercase(), port.parse().ok()?))
        });
        Self(entries.collect())
    }

    /// Whether a URL is on one of the hosts or below it, as entries without a port have it.
    pub(crate) fn has(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
        let is_below =
            |name: &str| host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.0.iter().any(|(name, on)| *on == port && !name.is_empty() && is_below(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_belongs_to_its_host() {
        let list = "other.lan, Registry.LAN:5000,.corp.example:443,10.0.0.5:80,[fd00::1]:5000,fd00::2:5000,:5000,x:y";
        let exceptions = Exceptions::parse(list);
        for (url, expected) in [
            ("https://registry.lan:5000/v2/", true),
            ("https://a.registry.lan:5000/v2/", true),
            ("https://registry.lan/v2/", false),
            ("https://evilregistry.lan:5000/v2/", false),
            ("https://r.corp.example/v2/", true),
            ("http://r.corp.example/v2/", false),
            ("http://10.0.0.5/v2/", true),
            ("https://[fd00::1]:5000/v2/", true),
            ("https://[fd00::2]:5000/v2/", false),
            ("https://other.lan:5000/v2/", false),
        ] {
            assert_eq!(exceptions.has(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
