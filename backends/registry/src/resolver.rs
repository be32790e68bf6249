//! Name resolution without the addresses that URLs may not have.

use std::net::SocketAddr;

use dns_lookup::{AddrInfoHints, LookupError, SockType, getaddrinfo};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::policy::is_link_local;

/// The system's resolver, without link-local addresses. A host name can resolve
/// to such an address, so the check is here, on the addresses that are then connected to. What goes through a proxy is
/// resolved by the proxy.
#[derive(Debug)]
pub(crate) struct Resolver;

/// Why a name has no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves to a link-local address")]
pub(crate) struct LinkLocal;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || {
                let stream = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
                let found = getaddrinfo(Some(name.as_str()), None, Some(stream))?;
                found.map(|address| Ok(address?.sockaddr)).collect::<Result<_, LookupError>>()
            });
            Ok(Box::new(allowed(found.await??)?.into_iter()) as Addrs)
        })
    }
}

fn allowed(mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, LinkLocal> {
    let had_some = !found.is_empty();
    found.retain(|address| !is_link_local(address.ip()));
    if had_some && found.is_empty() { Err(LinkLocal) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_left_out() {
        let of = |addresses: &[&str]| {
            let found = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
            let kept = allowed(found.collect()).ok()?;
            Some(kept.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["10.0.0.1", "::1"]), Some(vec!["10.0.0.1".to_owned(), "::1".to_owned()]));
        assert_eq!(of(&["169.254.169.254", "10.0.0.1"]), Some(vec!["10.0.0.1".to_owned()]));
        for only in
            ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254"]
        {
            assert_eq!(of(&[only]), None, "{only}");
        }
        assert_eq!(of(&[]), Some(Vec::new()));
    }
}
