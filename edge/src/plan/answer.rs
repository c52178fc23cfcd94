//! The head of an answer: RFC 9110 conditions and ranges over the facts of what was found.

use std::borrow::Cow;
use std::fmt;

use modunest_core::keys::{CachePolicy, ObjectKey};
use modunest_core::problem::{Code, PROBLEM_CONTENT_TYPE, Refusal};

use super::Read;
use super::range::{Selected, select};
use super::tag::EntityTag;

/// Methods that files take.
const FILE_METHODS: &str = "GET, HEAD, OPTIONS";
/// Request fields that a page of another origin may send to read files.
const CORS_REQUEST_FIELDS: &str = "if-match, if-none-match, if-range, range, traceparent";
/// Answer fields that such a page may look at.
const CORS_ANSWER_FIELDS: &str = "accept-ranges, content-range, etag, traceparent";
/// How long a browser may remember that, in seconds: one day, since it never changes.
const CORS_MAX_AGE_SECS: &str = "86400";
/// What publishers wrote is never run, framed with rights, or allowed to fetch anything.
const FILE_POLICY: &str = "default-src 'none'; sandbox";
/// Our own page: its own style sheet, and nothing from anywhere.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

/// What was found under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Size of the representation, in bytes.
    pub size_bytes: u64,
    /// Its strong validator.
    pub tag: EntityTag,
    content_type: &'static str,
    cache: CachePolicy,
    policy: &'static str,
}

impl Facts {
    /// An object of the bucket. `tag` is that of the bytes: the name's digest for what is
    /// named by its content.
    pub const fn object(key: &ObjectKey, size_bytes: u64, tag: EntityTag) -> Self {
        Facts {
            size_bytes,
            tag,
            content_type: key.content_type(),
            cache: key.cache_policy(),
            policy: FILE_POLICY,
        }
    }

    /// The discovery document.
    pub fn discovery(document: &[u8]) -> Self {
        Facts {
            size_bytes: document.len() as u64,
            tag: EntityTag::of(document),
            content_type: "application/json",
            cache: CachePolicy::Short,
            policy: FILE_POLICY,
        }
    }

    /// The page for people.
    pub fn page(html: &[u8]) -> Self {
        Facts {
            size_bytes: html.len() as u64,
            tag: EntityTag::of(html),
            content_type: "text/html; charset=utf-8",
            cache: CachePolicy::Short,
            policy: PAGE_POLICY,
        }
    }
}

/// The text of a header field, not yet written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// The same in every answer.
    Static(&'static str),
    /// A number of bytes.
    Number(u64),
    /// An entity tag.
    Tag(EntityTag),
    /// Anything else.
    Text(String),
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderText::Static(text) => f.write_str(text),
            HeaderText::Number(number) => write!(f, "{number}"),
            HeaderText::Tag(tag) => write!(f, "{tag}"),
            HeaderText::Text(text) => f.write_str(text),
        }
    }
}

/// What follows the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    /// Nothing.
    Empty,
    /// All bytes.
    Whole,
    /// The bytes from `start` up to and without `end`.
    Slice {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A problem document, once the shell has put in the trace.
    Problem(Refusal),
}

/// Status, header fields, and which bytes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// The status code.
    pub status: u16,
    /// Names in lower case, with their texts.
    pub headers: Vec<(&'static str, HeaderText)>,
    /// What follows.
    pub body: AnswerBody,
}

impl Read<'_> {
    /// The answer for something that exists, by the order of RFC 9110, section 13.2.2.
    pub fn answer(&self, facts: &Facts) -> AnswerHead {
        if self.if_match.is_some_and(|field| !facts.tag.listed_strongly(field)) {
            return AnswerHead::refuse(Refusal::new(
                Code::PreconditionFailed,
                "What is stored here has none of the entity tags in If-Match.",
            ));
        }
        if self.if_none_match.is_some_and(|field| facts.tag.listed_weakly(field)) {
            return AnswerHead::not_modified(facts);
        }
        let wanted = match self.range {
            Some(_) if self.if_range.is_some_and(|field| !facts.tag.is_range_validator(field)) => {
                Selected::Whole
            }
            Some(field) => select(field, facts.size_bytes),
            None => Selected::Whole,
        };
        match wanted {
            Selected::Unsatisfiable => AnswerHead::unsatisfiable(facts.size_bytes),
            Selected::Whole if self.head_only => AnswerHead::content(200, facts, AnswerBody::Empty),
            Selected::Whole => AnswerHead::content(200, facts, AnswerBody::Whole),
            Selected::Slice { start, end } => {
                AnswerHead::content(206, facts, AnswerBody::Slice { start, end })
            }
        }
    }
}

impl AnswerHead {
    /// A problem. Never kept by a cache: what is missing or down now may be there next.
    pub fn refuse(refusal: Refusal) -> Self {
        let mut head = AnswerHead::new(refusal.code.status(), AnswerBody::Problem(refusal));
        head.fixed("content-type", PROBLEM_CONTENT_TYPE);
        head.fixed("cache-control", CachePolicy::NoStore.header_value());
        head
    }

    /// A JSON document about this moment, whole, that nobody may keep.
    pub fn json(status: u16) -> Self {
        let mut head = AnswerHead::new(status, AnswerBody::Whole);
        head.fixed("content-type", "application/json");
        head.fixed("cache-control", CachePolicy::NoStore.header_value());
        head
    }

    /// The text of a header field.
    pub fn header(&self, name: &str) -> Option<Cow<'static, str>> {
        let (_, text) = self.headers.iter().find(|(other, _)| *other == name)?;
        Some(match text {
            HeaderText::Static(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        })
    }

    pub(super) fn preflight() -> Self {
        let mut head = AnswerHead::new(204, AnswerBody::Empty);
        head.fixed("allow", FILE_METHODS);
        head.fixed("access-control-allow-methods", FILE_METHODS);
        head.fixed("access-control-allow-headers", CORS_REQUEST_FIELDS);
        head.fixed("access-control-max-age", CORS_MAX_AGE_SECS);
        head.fixed("cache-control", CachePolicy::NoStore.header_value());
        head
    }

    pub(super) fn method_not_allowed() -> Self {
        let mut head = AnswerHead::refuse(Refusal::new(
            Code::MethodNotAllowed,
            "Files are read with GET and HEAD; they are written by publishing.",
        ));
        head.fixed("allow", FILE_METHODS);
        head
    }

    fn content(status: u16, facts: &Facts, body: AnswerBody) -> Self {
        let mut length_bytes = facts.size_bytes;
        let mut content_range = None;
        if let AnswerBody::Slice { start, end } = body {
            length_bytes = end - start;
            content_range = Some(format!("bytes {start}-{}/{}", end - 1, facts.size_bytes));
        }
        let mut head = AnswerHead::new(status, body);
        head.validators(facts);
        head.fixed("content-type", facts.content_type);
        head.headers.push(("content-length", HeaderText::Number(length_bytes)));
        head.fixed("accept-ranges", "bytes");
        head.fixed("content-security-policy", facts.policy);
        if let Some(text) = content_range {
            head.headers.push(("content-range", HeaderText::Text(text)));
        }
        head
    }

    /// What a cache needs to go on using what it has (RFC 9110, section 15.4.5).
    fn not_modified(facts: &Facts) -> Self {
        let mut head = AnswerHead::new(304, AnswerBody::Empty);
        head.validators(facts);
        head
    }

    fn unsatisfiable(size_bytes: u64) -> Self {
        let mut head = AnswerHead::refuse(Refusal::new(
            Code::RangeNotSatisfiable,
            format!("There are {size_bytes} bytes here, and none of them is in the range."),
        ));
        head.headers.push(("content-range", HeaderText::Text(format!("bytes */{size_bytes}"))));
        head
    }

    fn new(status: u16, body: AnswerBody) -> Self {
        // Ten fields are the most that any answer has.
        let mut head = AnswerHead { status, headers: Vec::with_capacity(10), body };
        head.fixed("access-control-allow-origin", "*");
        head.fixed("access-control-expose-headers", CORS_ANSWER_FIELDS);
        head.fixed("x-content-type-options", "nosniff");
        head
    }

    fn validators(&mut self, facts: &Facts) {
        self.headers.push(("etag", HeaderText::Tag(facts.tag)));
        self.fixed("cache-control", facts.cache.header_value());
    }

    fn fixed(&mut self, name: &'static str, text: &'static str) {
        self.headers.push((name, HeaderText::Static(text)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_core::digest::Digest;

    use super::*;

    const BODY: &[u8] = b"0123456789";

    fn facts() -> Facts {
        Facts::object(&ObjectKey::Blob(Digest::of(BODY)), 10, EntityTag::of(BODY))
    }

    #[test]
    fn conditions_come_in_their_order() {
        let ours = EntityTag::of(BODY).to_string();
        let (ours, weak, other) = (ours.as_str(), format!("W/{ours}"), "\"other\"");
        let none = Read::default();
        let ranged = Read { range: Some("bytes=2-4"), ..none };
        let beyond = Read { range: Some("bytes=10-"), ..none };
        let slice = AnswerBody::Slice { start: 2, end: 5 };
        let (whole, empty) = (AnswerBody::Whole, AnswerBody::Empty);
        let cases = [
            (none, 200, Some(whole.clone())),
            (Read { head_only: true, ..none }, 200, Some(empty.clone())),
            (Read { if_match: Some("*"), ..none }, 200, Some(whole.clone())),
            (Read { if_match: Some(ours), ..none }, 200, Some(whole.clone())),
            (Read { if_match: Some(&weak), ..none }, 412, None),
            (Read { if_match: Some(other), ..none }, 412, None),
            (Read { if_none_match: Some(ours), ..none }, 304, Some(empty.clone())),
            (Read { if_none_match: Some(&weak), ..none }, 304, Some(empty.clone())),
            (Read { if_none_match: Some("*"), ..none }, 304, Some(empty.clone())),
            (Read { if_none_match: Some(other), ..none }, 200, Some(whole.clone())),
            // If-Match is judged first, and both before the range.
            (Read { if_match: Some(other), if_none_match: Some(ours), ..none }, 412, None),
            (
                Read { if_match: Some(ours), if_none_match: Some(ours), ..none },
                304,
                Some(empty.clone()),
            ),
            (Read { if_none_match: Some(ours), ..beyond }, 304, Some(empty.clone())),
            (Read { if_match: Some(other), ..beyond }, 412, None),
            (ranged, 206, Some(slice.clone())),
            (beyond, 416, None),
            (Read { if_range: Some(ours), ..ranged }, 206, Some(slice)),
            (Read { if_range: Some(ours), ..beyond }, 416, None),
            (Read { if_range: Some(other), ..ranged }, 200, Some(whole.clone())),
            (Read { if_range: Some(&weak), ..ranged }, 200, Some(whole.clone())),
            (Read { if_range: Some(other), ..beyond }, 200, Some(whole.clone())),
            (
                Read { if_range: Some("Sun, 06 Nov 1994 08:49:37 GMT"), ..ranged },
                200,
                Some(whole.clone()),
            ),
            (Read { range: Some("bytes=0-1,4-5"), ..none }, 200, Some(whole.clone())),
            // Without a range, If-Range says nothing.
            (Read { if_range: Some(other), ..none }, 200, Some(whole)),
            (Read { head_only: true, if_none_match: Some(ours), ..none }, 304, Some(empty)),
        ];
        for (read, status, body) in cases {
            let head = read.answer(&facts());
            assert_eq!(head.status, status, "{read:?}");
            match body {
                Some(body) => assert_eq!(head.body, body, "{read:?}"),
                None => assert!(matches!(head.body, AnswerBody::Problem(_)), "{read:?}"),
            }
        }
    }

    fn text(head: &AnswerHead) -> String {
        let mut lines = vec![head.status.to_string()];
        lines.extend(head.headers.iter().map(|(name, text)| format!("{name}: {text}")));
        lines.join("\n")
    }

    #[test]
    fn headers_of_each_kind_of_answer() {
        let tag = EntityTag::of(BODY);
        let common = format!(
            "access-control-allow-origin: *\n\
             access-control-expose-headers: {CORS_ANSWER_FIELDS}\n\
             x-content-type-options: nosniff\n"
        );
        let kept = format!("etag: {tag}\ncache-control: public, max-age=31536000, immutable");
        let file = "accept-ranges: bytes\ncontent-security-policy: default-src 'none'; sandbox";
        let octets = "content-type: application/octet-stream";
        let problem = "content-type: application/problem+json\ncache-control: no-store";
        let read = Read::default();
        assert_eq!(
            text(&read.answer(&facts())),
            format!("200\n{common}{kept}\n{octets}\ncontent-length: 10\n{file}")
        );
        assert_eq!(
            text(&Read { head_only: true, ..read }.answer(&facts())),
            format!("200\n{common}{kept}\n{octets}\ncontent-length: 10\n{file}")
        );
        assert_eq!(
            text(&Read { range: Some("bytes=-3"), ..read }.answer(&facts())),
            format!(
                "206\n{common}{kept}\n{octets}\ncontent-length: 3\n{file}\n\
                 content-range: bytes 7-9/10"
            )
        );
        assert_eq!(
            text(&Read { if_none_match: Some("*"), ..read }.answer(&facts())),
            format!("304\n{common}{kept}")
        );
        assert_eq!(
            text(&Read { range: Some("bytes=10-"), ..read }.answer(&facts())),
            format!("416\n{common}{problem}\ncontent-range: bytes */10")
        );
        assert_eq!(
            text(&AnswerHead::method_not_allowed()),
            format!("405\n{common}{problem}\nallow: GET, HEAD, OPTIONS")
        );
        let head = Facts::object(&ObjectKey::Head, 10, tag);
        assert_eq!(
            read.answer(&head).header("cache-control").as_deref(),
            Some("public, max-age=1, must-revalidate")
        );
    }

    #[test]
    fn names_are_such_that_every_shell_can_send_them() {
        let ranged = Read { range: Some("bytes=-3"), ..Read::default() }.answer(&facts());
        for head in [ranged, AnswerHead::preflight(), AnswerHead::method_not_allowed()] {
            assert!(head.headers.len() <= 10);
            let mut names: Vec<&str> = head.headers.iter().map(|(name, _)| *name).collect();
            assert!(names.iter().all(|n| n.bytes().all(|b| b == b'-' || b.is_ascii_lowercase())));
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), head.headers.len(), "a field twice");
        }
    }
}
