//! What a request means: from facts about it to a plan that a shell carries out.

mod answer;
mod closure;
mod encoding;
mod page;
mod range;
mod refuse;
mod status;
mod tag;

pub mod forward;
pub mod settings;

mod breaker;
mod download;
mod lru;
mod trust;

pub use answer::{AnswerBody, AnswerHead, Facts, HeaderText};
pub use breaker::{Breaker, COOL_DOWN_MS, FAILURES_TO_OPEN, order_of_origins};
pub use closure::{closure_answer, closure_refused, closure_unavailable};
pub use download::{TALLY_WINDOW_MS, Tally, Teller, counted_download, read_message};
pub use encoding::{COMPRESS_MAX_BYTES, COMPRESS_MIN_BYTES, accepts_gzip, is_compressible};
pub use lru::Lru;
pub use page::home_page;
pub use range::{Selected, select};
pub use refuse::{
    RATE_LIMIT_PERIOD_SECS, internal, no_api, no_object, not_configured, store_damaged,
    store_unavailable, too_many_requests,
};
pub use status::{Alive, Readiness, State};
pub use tag::EntityTag;
pub use trust::{
    Asked, Keep, Meaning, SMALL_MAX_BYTES, keep, may_answer_without_origin, meaning,
    unproved_max_bytes,
};

use modunest_core::keys::{
    API_PREFIX, CLOSURE_PATH, DISCOVERY_PATH, HEALTH_PATH, ObjectKey, READY_PATH,
};
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
    /// `Accept-Encoding`.
    pub accept_encoding: Option<&'a str>,
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
    /// Whether texts may come as gzip. Never beside a range: positions are of the plain
    /// bytes, whose tag is the strong one.
    pub gzip: bool,
}

impl Read<'_> {
    /// Whether whoever asks the same again may be given the answer that this was given, of this
    /// status, without asking here. Bytes that are named by their content never change, so it
    /// may be repeated
    ///
    /// - that the reader has them (304), to whoever sends `If-None-Match` with a tag of theirs
    ///   and no other condition, by GET or HEAD and whatever else that field says;
    /// - the whole of a part of the index, to a GET without conditions. Of blobs it may not,
    ///   because each download counts.
    pub fn is_repeatable(&self, key: &ObjectKey, status: u16) -> bool {
        let whole = Read { gzip: self.gzip, ..Read::default() };
        let unless_known =
            Read { head_only: self.head_only, if_none_match: self.if_none_match, ..whole };
        match status {
            200 => {
                matches!(key, ObjectKey::Node(_) | ObjectKey::Bin(_) | ObjectKey::Index(_))
                    && *self == whole
            }
            304 => key.content_digest().is_some() && *self == unless_known,
            _ => false,
        }
    }
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
    /// Read the body as a request for a closure, and stream the closure.
    Closure,
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
    match target {
        Target::Api => return Plan::Forward,
        Target::Closure if facts.method == "POST" => return Plan::Closure,
        Target::Closure => return Plan::Answer(closure::only_post()),
        _ => {}
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
        gzip: (head_only || facts.range.is_none())
            && facts.accept_encoding.is_some_and(accepts_gzip),
    };
    match target {
        Target::Object(key) => Plan::Object(key, read),
        Target::Discovery => Plan::Discovery(read),
        Target::Home => Plan::Home(read),
        Target::Health => Plan::Health,
        Target::Ready => Plan::Ready,
        Target::Closure => Plan::Closure,
        Target::Api => Plan::Forward,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Object(ObjectKey),
    Discovery,
    Home,
    Health,
    Ready,
    Closure,
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
            CLOSURE_PATH => Some(Target::Closure),
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
    fn a_range_is_of_the_plain_bytes() {
        let asked = |method, range| {
            let accept_encoding = Some("gzip");
            let path = "/head";
            let facts = RequestFacts { method, path, range, accept_encoding, ..Default::default() };
            match plan(&facts) {
                Plan::Object(_, read) => (read.gzip, read.range.is_some()),
                other => panic!("{other:?} is no object"),
            }
        };
        assert_eq!(asked("GET", None), (true, false));
        assert_eq!(asked("GET", Some("bytes=0-")), (false, true));
        // HEAD has no ranges, and says what GET without one would.
        assert_eq!(asked("HEAD", Some("bytes=0-")), (true, false));
    }

    #[test]
    fn the_whole_of_the_index_is_repeated_where_nothing_else_was_asked() {
        let digest = Digest::of(b"x");
        let index = ObjectKey::Index(digest);
        let whole = Read::default();
        for key in [index, ObjectKey::Node(digest), ObjectKey::Bin(digest)] {
            assert!(whole.is_repeatable(&key, 200), "{key}");
            assert!(Read { gzip: true, ..whole }.is_repeatable(&key, 200), "{key}");
        }
        for key in [ObjectKey::Head, ObjectKey::Blob(digest), ObjectKey::Report(digest)] {
            assert!(!whole.is_repeatable(&key, 200), "{key}");
        }
        for read in [
            Read { head_only: true, ..whole },
            Read { if_match: Some("*"), ..whole },
            Read { if_none_match: Some(""), ..whole },
            Read { range: Some("bytes=0-"), ..whole },
            Read { if_range: Some(""), ..whole },
        ] {
            assert!(!read.is_repeatable(&index, 200), "{read:?}");
        }
    }

    #[test]
    fn a_304_is_repeated_where_no_other_condition_was_judged() {
        let digest = Digest::of(b"x");
        let blob = ObjectKey::Blob(digest);
        let known = Read { if_none_match: Some("*"), ..Read::default() };
        for read in [known, Read { head_only: true, ..known }, Read { gzip: true, ..known }] {
            assert!(read.is_repeatable(&blob, 304), "{read:?}");
            assert!(read.is_repeatable(&ObjectKey::Index(digest), 304), "{read:?}");
            assert!(!read.is_repeatable(&ObjectKey::Head, 304), "{read:?}");
        }
        for read in [
            Read { if_match: Some("*"), ..known },
            Read { range: Some("bytes=0-"), ..known },
            Read { if_range: Some(""), ..known },
        ] {
            assert!(!read.is_repeatable(&blob, 304), "{read:?}");
        }
        assert!(!known.is_repeatable(&blob, 404));
    }

    proptest::proptest! {
        /// What is repeated is right: whatever list the tag stands in, GET and HEAD are told the
        /// same, which depends on the form alone.
        #[test]
        fn every_304_of_a_form_is_the_same(
            others in proptest::collection::vec("(W/)?\"[^\"]{0,9}\"", 0..4),
            at in 0_usize..4,
            weak: bool,
            head_only: bool,
            gzip: bool,
        ) {
            let facts = Facts::object(&ObjectKey::Index(Digest::of(b"x")), 2048, EntityTag::of(b"x"));
            let mut tags = others;
            let prefix = if weak { "W/" } else { "" };
            tags.insert(at.min(tags.len()), format!("{prefix}{}", EntityTag::of(b"x")));
            let list = tags.join(" , ");
            let told = Read { head_only, gzip, if_none_match: Some(&list), ..Read::default() };
            let any = Read { gzip, if_none_match: Some("*"), ..Read::default() };
            proptest::prop_assert_eq!(told.answer(&facts).status, 304);
            proptest::prop_assert_eq!(told.answer(&facts), any.answer(&facts));
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
