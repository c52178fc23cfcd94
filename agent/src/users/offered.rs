//! Tokens of WebSockets' clients that cannot set `Authorization`, as browsers cannot: offered as
//! protocols (RFC 6455, section 11.3.4) under a name of the host's.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// What stands before the token.
const PREFIX: &str = "bearer.authorization.modunest.";

/// Takes tokens out of the offered protocols, so that nobody behind sees them. Those of a
/// WebSocket are put where tokens are looked for; others mean nothing.
pub(crate) fn take_offered(headers: &mut HeaderMap) {
    let is_socket = headers
        .get(UPGRADE)
        .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<&str> = offers
        .filter_map(|offer| offer.to_str().ok())
        .flat_map(|offer| offer.split(','))
        .map(str::trim)
        .collect();
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        offered.into_iter().partition(|protocol| token(protocol).is_some());
    if tokens.is_empty() {
        return;
    }
    let others = HeaderValue::from_str(&others.join(", ")).ok().filter(|left| !left.is_empty());
    let tokens: Vec<HeaderValue> = tokens
        .into_iter()
        .filter_map(|protocol| HeaderValue::from_str(&format!("Bearer {}", token(protocol)?)).ok())
        .collect();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(others) = others {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
    for mut token in tokens.into_iter().filter(|_| is_socket) {
        token.set_sensitive(true);
        // Beside another one it is one too many, and refused as such.
        headers.append(AUTHORIZATION, token);
    }
}

fn token(protocol: &str) -> Option<&str> {
    let (prefix, token) = protocol.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The protocols and tokens that are left of a request with these headers.
    fn left(headers: &[(&'static str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        take_offered(&mut map);
        let all = |name| {
            map.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        (all(SEC_WEBSOCKET_PROTOCOL), all(AUTHORIZATION))
    }

    #[test]
    fn a_token_among_the_protocols_is_taken_out() {
        let socket = ("upgrade", "WebSocket");
        let offers = |offer: &'static str| ("sec-websocket-protocol", offer);
        let one = "chat,bearer.authorization.modunest.a.b.c , other";
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            left(&[socket, offers(one)]),
            (texts(&["chat, other"]), texts(&["Bearer a.b.c"]))
        );
        // It is nobody's where no WebSocket is wanted, and still not handed on.
        assert_eq!(left(&[offers(one)]), (texts(&["chat, other"]), vec![]));
        // In whatever line and spelling; alone, it leaves nothing.
        let again = offers("Bearer.Authorization.Modunest.x");
        assert_eq!(
            left(&[socket, offers("chat"), again]),
            (texts(&["chat"]), texts(&["Bearer x"]))
        );
        assert_eq!(left(&[socket, again]), (vec![], texts(&["Bearer x"])));
        // Two are two.
        let both = left(&[socket, again, ("authorization", "Bearer y")]);
        assert_eq!(both.1, texts(&["Bearer y", "Bearer x"]));
        // Everything else is as it was.
        let own = [socket, offers("bearer.x"), offers("b,  c")];
        assert_eq!(left(&own), (texts(&["bearer.x", "b,  c"]), vec![]));
    }
}
