//! The head of an answer: RFC 9110 conditions and ranges over the facts of what was found.

use std::borrow::Cow;
use std::fmt;

use modunest_core::keys::{CachePolicy, ObjectKey};
use modunest_core::problem::{Code, PROBLEM_CONTENT_TYPE, Refusal};

use super::Read;
use super::encoding::is_compressible;
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
/// The most fields that any answer has.
const FIELDS_MAX: usize = 11;
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
    /// Whether there is a gzip form beside the plain one.
    compressible: bool,
}

impl Facts {
    /// An object of the bucket. `tag` is that of the bytes: the name's digest for what is
    /// named by its content.
    pub fn object(key: &ObjectKey, size_bytes: u64, tag: EntityTag) -> Self {
        let content_type = key.content_type();
        Facts {
            size_bytes,
            tag,
            content_type,
            cache: key.cache_policy(),
            policy: FILE_POLICY,
            compressible: is_compressible(content_type, size_bytes),
        }
    }

    /// The discovery document.
    pub fn discovery(document: &[u8]) -> Self {
        Facts::document(document, "application/json", FILE_POLICY)
    }

    /// The page for people.
    pub fn page(html: &[u8]) -> Self {
        Facts::document(html, "text/html; charset=utf-8", PAGE_POLICY)
    }

    /// Whether there is a gzip form of it, which [`Read::answer`] may choose.
    pub const fn is_compressible(&self) -> bool {
        self.compressible
    }

    fn document(bytes: &[u8], content_type: &'static str, policy: &'static str) -> Self {
        let size_bytes = bytes.len() as u64;
        Facts {
            size_bytes,
            tag: EntityTag::of(bytes),
            content_type,
            cache: CachePolicy::Short,
            policy,
            compressible: is_compressible(content_type, size_bytes),
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
    /// An entity tag that stands for more than one form of the same content.
    WeakTag(EntityTag),
    /// Anything else.
    Text(String),
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderText::Static(text) => f.write_str(text),
            HeaderText::Number(number) => write!(f, "{number}"),
            HeaderText::Tag(tag) => write!(f, "{tag}"),
            HeaderText::WeakTag(tag) => write!(f, "W/{tag}"),
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
    /// All bytes, as gzip. Their length is not in the head: see [`AnswerHead::with_length`].
    Gzip,
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
        let form = if self.gzip && facts.compressible { Form::Gzip } else { Form::Plain };
        if self.if_none_match.is_some_and(|field| facts.tag.listed_weakly(field)) {
            return AnswerHead::not_modified(facts, form);
        }
        if form == Form::Gzip {
            return AnswerHead::compressed(facts, self.head_only);
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

/// In which of its two forms a content is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Gzip,
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

    /// Adds the length of the body that a shell made.
    #[must_use]
    pub fn with_length(mut self, size_bytes: u64) -> Self {
        self.headers.push(("content-length", HeaderText::Number(size_bytes)));
        self
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
        head.validators(facts, Form::Plain);
        head.fixed("content-type", facts.content_type);
        head.headers.push(("content-length", HeaderText::Number(length_bytes)));
        head.fixed("accept-ranges", "bytes");
        head.fixed("content-security-policy", facts.policy);
        if let Some(text) = content_range {
            head.headers.push(("content-range", HeaderText::Text(text)));
        }
        head
    }

    /// The whole as gzip. Ranges are of the plain form, so none are offered here.
    fn compressed(facts: &Facts, head_only: bool) -> Self {
        let body = if head_only { AnswerBody::Empty } else { AnswerBody::Gzip };
        let mut head = AnswerHead::new(200, body);
        head.validators(facts, Form::Gzip);
        head.fixed("content-type", facts.content_type);
        head.fixed("content-encoding", "gzip");
        head.fixed("content-security-policy", facts.policy);
        head
    }

    /// What a cache needs to go on using what it has (RFC 9110, section 15.4.5).
    fn not_modified(facts: &Facts, form: Form) -> Self {
        let mut head = AnswerHead::new(304, AnswerBody::Empty);
        head.validators(facts, form);
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

    pub(super) fn new(status: u16, body: AnswerBody) -> Self {
        let mut head = AnswerHead { status, headers: Vec::with_capacity(FIELDS_MAX), body };
        head.fixed("access-control-allow-origin", "*");
        head.fixed("access-control-expose-headers", CORS_ANSWER_FIELDS);
        head.fixed("x-content-type-options", "nosniff");
        head
    }

    /// The gzip form has the weak tag: two compressors need not agree on a byte of it, and
    /// so it is no validator for ranges or `If-Match` (RFC 9110, section 8.8.3.3). Comparing
    /// weakly, `If-None-Match` takes either form for the other.
    fn validators(&mut self, facts: &Facts, form: Form) {
        let tag = match form {
            Form::Plain => HeaderText::Tag(facts.tag),
            Form::Gzip => HeaderText::WeakTag(facts.tag),
        };
        self.headers.push(("etag", tag));
        self.fixed("cache-control", facts.cache.header_value());
        if facts.compressible {
            self.fixed("vary", "accept-encoding");
        }
    }

    pub(super) fn fixed(&mut self, name: &'static str, text: &'static str) {
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

    /// A text in both its forms.
    #[test]
    fn a_text_is_sent_as_gzip_to_whoever_takes_it() {
        let tag = EntityTag::of(BODY);
        let facts = Facts::object(&ObjectKey::Index(Digest::of(BODY)), 2048, tag);
        let (strong, weak) = (tag.to_string(), format!("W/{tag}"));
        let plain = Read::default();
        let gzip = Read { gzip: true, ..plain };
        let common = format!(
            "access-control-allow-origin: *\n\
             access-control-expose-headers: {CORS_ANSWER_FIELDS}\n\
             x-content-type-options: nosniff\n"
        );
        let kept = "cache-control: public, max-age=31536000, immutable\nvary: accept-encoding";
        let text_type = "content-type: text/plain; charset=utf-8";
        let policy = "content-security-policy: default-src 'none'; sandbox";
        assert_eq!(
            text(&gzip.answer(&facts)),
            format!(
                "200\n{common}etag: {weak}\n{kept}\n{text_type}\ncontent-encoding: gzip\n{policy}"
            )
        );
        assert_eq!(gzip.answer(&facts).body, AnswerBody::Gzip);
        let head_only = Read { head_only: true, ..gzip }.answer(&facts);
        assert_eq!(text(&head_only), text(&gzip.answer(&facts)));
        assert_eq!(head_only.body, AnswerBody::Empty);
        assert_eq!(
            text(&plain.answer(&facts)),
            format!(
                "200\n{common}etag: {strong}\n{kept}\n{text_type}\ncontent-length: 2048\n\
                 accept-ranges: bytes\n{policy}"
            )
        );
        for field in [strong.as_str(), weak.as_str()] {
            let answer = Read { if_none_match: Some(field), ..gzip }.answer(&facts);
            assert_eq!(text(&answer), format!("304\n{common}etag: {weak}\n{kept}"));
            let answer = Read { if_none_match: Some(field), ..plain }.answer(&facts);
            assert_eq!(text(&answer), format!("304\n{common}etag: {strong}\n{kept}"));
        }
        // The weak tag is of no use for ranges, nor against lost updates.
        let resumed = Read { range: Some("bytes=2-4"), if_range: Some(&weak), ..plain };
        assert_eq!(resumed.answer(&facts).body, AnswerBody::Whole);
        assert_eq!(Read { if_match: Some(&weak), ..gzip }.answer(&facts).status, 412);
        assert_eq!(Read { if_match: Some(&strong), ..gzip }.answer(&facts).status, 200);
        let part = Read { range: Some("bytes=2-4"), ..plain }.answer(&facts);
        assert_eq!((part.status, part.headers.len()), (206, FIELDS_MAX));
        // What has one form says nothing about others.
        for facts in [
            Facts::object(&ObjectKey::Index(Digest::of(BODY)), 100, tag),
            Facts::object(&ObjectKey::Blob(Digest::of(BODY)), 2048, tag),
        ] {
            let answer = gzip.answer(&facts);
            assert_eq!((answer.body.clone(), answer.header("vary")), (AnswerBody::Whole, None));
        }
    }

    #[test]
    fn names_are_such_that_every_shell_can_send_them() {
        let ranged = Read { range: Some("bytes=-3"), ..Read::default() }.answer(&facts());
        for head in [ranged, AnswerHead::preflight(), AnswerHead::method_not_allowed()] {
            assert!(head.headers.len() <= FIELDS_MAX);
            let mut names: Vec<&str> = head.headers.iter().map(|(name, _)| *name).collect();
            assert!(names.iter().all(|n| n.bytes().all(|b| b == b'-' || b.is_ascii_lowercase())));
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), head.headers.len(), "a field twice");
        }
    }
}
