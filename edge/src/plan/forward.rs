//! What of a request below `/v1/` goes on to the API, and what of its answer comes back.

use std::time::Duration;

use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::problem::{Code, Refusal};
use modunest_core::trace::TRACEPARENT;

/// How long the API may take to begin its answer: the longest that an API gateway waits
/// before it answers in the API's place is 29 seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Name of the field that lists the addresses a request came through.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// Fields about one connection, never passed on (RFC 9110, section 7.6.1), beside those that
/// `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Fields of a request that are ours to write: the next server's name, the answer to
/// `Expect` that was given already, and the step of the trace.
const OWN_IN_REQUEST: [&str; 3] = ["host", "expect", TRACEPARENT];

/// The fields of a request that are not passed on. `connection` holds the lines of its
/// `Connection` field.
pub fn dropped_from_request<'a>(connection: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    dropped(connection, &OWN_IN_REQUEST)
}

/// The fields of an answer that are not passed back. The step that this server took is the
/// one that its own client sees.
pub fn dropped_from_answer<'a>(connection: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    dropped(connection, &[TRACEPARENT])
}

/// `X-Forwarded-For` with the peer at its end: what stands before it was said by others, and
/// only the last is ours.
pub fn forwarded_for<'a>(lines: impl IntoIterator<Item = &'a str>, peer: &str) -> String {
    let mut hops: Vec<&str> = lines.into_iter().collect();
    hops.push(peer);
    hops.join(", ")
}

/// Whether a path leads where it says: without dot segments, in any spelling, and without
/// characters that a URL would have to escape or that some read as a slash.
pub fn is_straight(path: &str) -> bool {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && !b"\"#<>?\\^`{}|".contains(&b));
    let dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(segment.as_str(), "." | "..")
    };
    plain && !path.split('/').any(dots)
}

/// Whether a request may go on, by the length that it declares. Whoever declares none is
/// stopped at [`BODY_MAX_BYTES`].
///
/// # Errors
/// The refusal, when it declares more.
pub fn check_declared_length(bytes: Option<u64>) -> Result<(), Refusal> {
    if bytes.is_some_and(|bytes| bytes > BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    Ok(())
}

/// The refusal of a body that is larger than the API reads.
pub fn too_large() -> Refusal {
    Refusal::new(
        Code::TooLarge,
        format!("A request to the API has a body of at most {BODY_MAX_BYTES} bytes."),
    )
}

/// The refusal of a path that would lead elsewhere.
pub fn crooked_path() -> Refusal {
    Refusal::new(
        Code::InvalidRequest,
        "The path has dot segments, or characters that must be escaped.",
    )
}

/// The refusal while the API does not answer.
pub fn api_unavailable() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "The API does not answer. Try again in a moment; reading files still works.",
    )
}

fn dropped<'a>(connection: impl IntoIterator<Item = &'a str>, own: &[&str]) -> Vec<String> {
    connection
        .into_iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .chain(HOP_BY_HOP)
        .chain(own.iter().copied())
        .filter(|name| is_token(name))
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Whether a text can be a field's name (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_connection_stay_there() {
        let names = dropped_from_request(["close, X-Private", " ,x y,, te"]);
        for name in ["close", "x-private", "te", "keep-alive", "host", "expect", "traceparent"] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        for name in ["authorization", "content-length", "x y", ""] {
            assert!(!names.iter().any(|other| other == name), "{name}");
        }
        let names = dropped_from_answer([]);
        assert!(names.iter().any(|name| name == "transfer-encoding"));
        assert!(names.iter().any(|name| name == "traceparent"));
        assert!(!names.iter().any(|name| name == "host"));
    }

    #[test]
    fn the_peer_comes_last() {
        assert_eq!(forwarded_for(["1.2.3.4"], "10.0.0.7"), "1.2.3.4, 10.0.0.7");
        assert_eq!(forwarded_for([], "::1"), "::1");
    }

    #[test]
    fn dot_segments_do_not_lead_out() {
        for path in ["/v1/releases", "/v1/orgs/a-b/members/x", "/v1/a.b", "/v1/...", "/v1/%20"] {
            assert!(is_straight(path), "{path}");
        }
        for path in [
            "/v1/../internal",
            "/v1/%2e%2E/x",
            "/v1/.%2e/x",
            "/v1/./x",
            "/v1/a\\..\\b",
            "/v1/a b",
            "/v1/é",
        ] {
            assert!(!is_straight(path), "{path}");
        }
    }

    #[test]
    fn a_declared_length_is_believed_when_it_is_too_large() {
        assert!(check_declared_length(None).is_ok());
        assert!(check_declared_length(Some(BODY_MAX_BYTES as u64)).is_ok());
        let refusal = check_declared_length(Some(BODY_MAX_BYTES as u64 + 1)).unwrap_err();
        assert_eq!(refusal.code, Code::TooLarge);
    }
}
