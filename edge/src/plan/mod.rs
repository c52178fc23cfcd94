//! What a request means: from facts about it to a plan that a shell carries out.

mod answer;
mod page;
mod range;
mod status;
mod tag;

pub use answer::{AnswerBody, AnswerHead, Facts, HeaderText};
pub use page::home_page;
pub use range::{Selected, select};
pub use status::{Alive, Readiness, State};
pub use tag::EntityTag;

use modunest_core::keys::{API_PREFIX, DISCOVERY_PATH, HEALTH_PATH, ObjectKey, READY_PATH};
use modunest_core::problem::{Code, Refusal};

/// Path of the page for people.
pub const HOME_PATH: &str = "/";

/// What a request says, as far as the read side cares. Fields that came in several lines are
/// joined with commas (RFC 9110, section 5.3).
///
/// `If-Modified-Since` and `If-Unmodified-Since` are absent on purpose: nothing here has a
/// modification date, and such a condition is then ignored (RFC 9110, section 13.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, as sent: not decoded, without the query. Every public path has exactly one
    /// spelling, and a query changes nothing about a file.
    pub path: &'a str,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
}

/// A GET or HEAD of something that exists: what it asks beyond the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read<'a> {
    /// HEAD: the headers of the whole, and no body.
    pub head_only: bool,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `Range`; `None` for HEAD, for which ranges are not defined (RFC 9110, section 14.2).
    pub range: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    /// Find the object and [`Read::answer`].
    Object(ObjectKey, Read<'a>),
    /// The discovery document.
    Discovery(Read<'a>),
    /// The page for people.
    Home(Read<'a>),
    /// Say that the process is alive.
    Health,
    /// Ask what this depends on, and say how it is.
    Ready,
    /// Pass the request to the API as it stands.
    Forward,
    /// Nothing has to be found: send this.
    Answer(AnswerHead),
}

/// Decides what a request means.
pub fn plan<'a>(facts: &RequestFacts<'a>) -> Plan<'a> {
    let Some(target) = Target::of(facts.path) else {
        return Plan::Answer(AnswerHead::refuse(Refusal::new(
            Code::NotFound,
            "There is nothing at this path.",
        )));
    };
    if target == Target::Api {
        return Plan::Forward;
    }
    let head_only = match facts.method {
        "GET" => false,
        "HEAD" => true,
        "OPTIONS" => return Plan::Answer(AnswerHead::preflight()),
        _ => return Plan::Answer(AnswerHead::method_not_allowed()),
    };
    let read = Read {
        head_only,
        if_match: facts.if_match,
        if_none_match: facts.if_none_match,
        range: if head_only { None } else { facts.range },
        if_range: facts.if_range,
    };
    match target {
        Target::Object(key) => Plan::Object(key, read),
        Target::Discovery => Plan::Discovery(read),
        Target::Home => Plan::Home(read),
        Target::Health => Plan::Health,
        Target::Ready => Plan::Ready,
        Target::Api => Plan::Forward,
    }
}

/// The refusal of an API path where no API is configured.
pub fn no_api() -> AnswerHead {
    AnswerHead::refuse(Refusal::new(
        Code::NotFound,
        "This server hands out files; no API is configured behind it.",
    ))
}

/// The refusal of a path whose object the bucket does not hold.
pub fn no_object(key: &ObjectKey) -> AnswerHead {
    AnswerHead::refuse(Refusal::new(Code::NotFound, format!("There is no object {key}.")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Object(ObjectKey),
    Discovery,
    Home,
    Health,
    Ready,
    Api,
}

impl Target {
    fn of(path: &str) -> Option<Target> {
        if let Some(key) = ObjectKey::from_path(path) {
            return Some(Target::Object(key));
        }
        match path {
            DISCOVERY_PATH => Some(Target::Discovery),
            HOME_PATH => Some(Target::Home),
            HEALTH_PATH => Some(Target::Health),
            READY_PATH => Some(Target::Ready),
            _ if path.starts_with(API_PREFIX) => Some(Target::Api),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_core::digest::Digest;

    use super::*;

    fn planned<'a>(method: &'a str, path: &'a str) -> Plan<'a> {
        plan(&RequestFacts { method, path, range: Some("bytes=0-1"), ..RequestFacts::default() })
    }

    fn status(plan: &Plan<'_>) -> u16 {
        match plan {
            Plan::Answer(head) => head.status,
            other => panic!("{other:?} is not an answer"),
        }
    }

    #[test]
    fn paths_have_one_meaning_each() {
        let blob = ObjectKey::Blob(Digest::of(b"x"));
        let path = blob.path();
        assert!(matches!(planned("GET", &path), Plan::Object(key, read)
            if key == blob && !read.head_only && read.range.is_some()));
        assert!(matches!(planned("HEAD", &path), Plan::Object(key, read)
            if key == blob && read.head_only && read.range.is_none()));
        assert!(matches!(planned("GET", "/head"), Plan::Object(ObjectKey::Head, _)));
        assert!(matches!(planned("GET", "/"), Plan::Home(_)));
        assert!(matches!(planned("GET", "/.well-known/modunest.json"), Plan::Discovery(_)));
        assert_eq!(planned("GET", "/healthz"), Plan::Health);
        assert_eq!(planned("HEAD", "/readyz"), Plan::Ready);
        for method in ["GET", "POST", "DELETE", "OPTIONS", "BREW"] {
            assert_eq!(planned(method, "/v1/releases"), Plan::Forward, "{method}");
        }
    }

    #[test]
    fn what_is_not_a_path_is_not_found_by_any_method() {
        let upper = format!("/node/{}", Digest::of(b"x").to_hex().to_uppercase());
        let twice = format!("/{}", ObjectKey::Head.path());
        for path in ["", "/v1", "/v2/x", "/head/", "/blob/sha256/", "/%68ead", &upper, &twice] {
            for method in ["GET", "POST", "OPTIONS"] {
                assert_eq!(status(&planned(method, path)), 404, "{method} {path}");
            }
        }
    }

    #[test]
    fn files_are_read_only() {
        for path in ["/head", "/", "/healthz", "/readyz", "/.well-known/modunest.json"] {
            assert_eq!(status(&planned("OPTIONS", path)), 204);
            for method in ["PUT", "POST", "DELETE", "PATCH", "get", "TRACE"] {
                let Plan::Answer(head) = planned(method, path) else {
                    panic!("{method} {path} was planned");
                };
                assert_eq!(head.status, 405);
                assert_eq!(head.header("allow").as_deref(), Some("GET, HEAD, OPTIONS"));
            }
        }
    }
}
