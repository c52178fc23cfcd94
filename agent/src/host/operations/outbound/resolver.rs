//! From names to addresses that may be connected to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::grants::OutboundSettings;
use crate::config::{Network, is_public};

/// Whether a name is the host itself by definition (RFC 6761, section 6.3). Whoever grants it
/// means it, so its addresses need no further word.
pub(super) fn is_own(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// A name has no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} leads to {address}, which is not public; if it is meant, add its network to networks under [outbound]"
)]
pub(super) struct Refused {
    name: String,
    address: IpAddr,
}

pub(super) struct Resolver {
    settings: Arc<Settings>,
}

struct Settings {
    networks: Vec<Network>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Resolver {
    pub(super) fn new(settings: &OutboundSettings) -> Self {
        let OutboundSettings { networks, addresses, .. } = settings.clone();
        Resolver { settings: Arc::new(Settings { networks, addresses }) }
    }
}

impl Settings {
    /// Only what may be connected to. One bad address among good ones is left out: the
    /// connection goes to a good one.
    fn keep(&self, name: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refused> {
        let own = is_own(name);
        let good = |address: &IpAddr| {
            if own {
                return address.to_canonical().is_loopback();
            }
            is_public(*address) || self.networks.iter().any(|network| network.contains(*address))
        };
        let (kept, refused): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(good);
        match refused.first() {
            Some(address) if kept.is_empty() => {
                Err(Refused { name: name.to_owned(), address: *address })
            }
            _ => Ok(kept),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let settings = self.settings.clone();
        Box::pin(async move {
            let name = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let found = match settings.addresses.get(&name) {
                Some(addresses) => addresses.clone(),
                None => {
                    let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                    found.map(|address| address.ip()).collect()
                }
            };
            let kept = settings.keep(&name, found)?;
            // The port of the URL takes the place of zero.
            let addresses = kept.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_addresses_that_may_be_connected_to() {
        let settings =
            Settings { networks: vec!["10.1.0.0/16".parse().unwrap()], addresses: BTreeMap::new() };
        let keep = |name: &str, found: &[&str]| {
            let found = found.iter().map(|address| address.parse().unwrap()).collect();
            settings.keep(name, found).map(|kept: Vec<IpAddr>| {
                kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(keep("a.example", &["1.1.1.1", "127.0.0.1"]).unwrap(), "1.1.1.1");
        assert_eq!(keep("a.example", &["10.1.2.3", "10.2.0.1"]).unwrap(), "10.1.2.3");
        assert_eq!(keep("localhost", &["127.0.0.1", "::1"]).unwrap(), "127.0.0.1 ::1");
        for bad in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.2.0.1", "::"] {
            assert!(keep("a.example", &[bad]).is_err(), "{bad}");
        }
        // A hostile answer for the host's own name.
        assert!(keep("localhost", &["1.1.1.1"]).is_err());
        assert_eq!(keep("a.example", &[]).unwrap(), "");
    }
}
