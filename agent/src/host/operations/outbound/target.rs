//! Which URL a plugin may send a request to.

use std::net::IpAddr;

use modunest_core::capability::Capability;
use modunest_sdk::Error;
use url::{Host, Url};

use super::super::Operations;
use super::resolver::is_own;

/// Checks one URL against what the plugin may use.
///
/// # Errors
/// [`Error::InvalidInput`] for what is no URL of a host, [`Error::Denied`] for a host that was
/// not granted.
pub(super) fn check(operations: &Operations, text: &str) -> Result<Url, Error> {
    let mut url =
        Url::parse(text).map_err(|error| Error::InvalidInput(format!("the URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::InvalidInput("the URL is neither http nor https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let text = "the URL has a user name; send credentials in a header";
        return Err(Error::InvalidInput(text.to_owned()));
    }
    url.set_fragment(None);
    let port = url.port_or_known_default().unwrap_or_default();
    let effective = operations.effective();
    let (name, allowed) = match url.host() {
        Some(Host::Domain(name)) => {
            // A dot at the end changes how a name is looked up, not which one it is.
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            let allowed = if is_own(&name) {
                effective.names_host(&name, port)
            } else {
                effective.allows_host(&name, port)
            };
            (name, allowed)
        }
        // In digits only by its own digits: no pattern means an address, and an address that
        // is not public needs the operator's word for exactly it.
        Some(Host::Ipv4(address)) => {
            let name = address.to_string();
            let allowed = effective.names_host(&name, port);
            (name, allowed)
        }
        Some(Host::Ipv6(address)) => (IpAddr::V6(address).to_string(), false),
        None => return Err(Error::InvalidInput("the URL has no host".to_owned())),
    };
    if allowed {
        return Ok(url);
    }
    match Capability::parse("http", &format!("{name}:{port}")) {
        Ok(used) => Err(operations.denied(&used)),
        Err(_) => Err(Error::Denied(format!("requests to {name} can be granted to nobody"))),
    }
}
