//! Conditional requests: RFC 9110, section 13, as S3 applies it.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::refused;
use crate::clock;
use crate::index::{Condition, Object, Refusal};

/// What a reader asked for.
#[derive(Debug, Default)]
pub(super) struct ReadCondition<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
}

/// What to do with a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Proceed,
    NotModified,
    PreconditionFailed,
}

impl ReadCondition<'_> {
    /// The order of RFC 9110, section 13.2.2: an entity tag outranks the date beside it.
    pub(super) fn check(&self, object: &Object) -> Read {
        let modified = Timestamp::from(clock::whole_seconds(object.modified_ms));
        let unchanged = match (self.if_match, self.if_unmodified_since) {
            (Some(wanted), _) => matches(wanted, &object.etag),
            (None, Some(date)) => modified <= *date,
            (None, None) => true,
        };
        if !unchanged {
            return Read::PreconditionFailed;
        }
        let known = match (self.if_none_match, self.if_modified_since) {
            (Some(known), _) => matches(known, &object.etag),
            (None, Some(date)) => modified <= *date,
            (None, None) => false,
        };
        if known { Read::NotModified } else { Read::Proceed }
    }

    /// The answer for a read that does not proceed.
    pub(super) fn enforce(&self, object: &Object) -> S3Result<()> {
        match self.check(object) {
            Read::Proceed => Ok(()),
            Read::PreconditionFailed => Err(refused(Refusal::PreconditionFailed)),
            Read::NotModified => Err(not_modified(object)),
        }
    }
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

/// 304, with the headers that a cache needs to refresh what it has (RFC 9110, section 15.4.5).
fn not_modified(object: &Object) -> S3Error {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, ETag::Strong(object.etag.clone()).to_http_header().ok());
    put(
        header::CACHE_CONTROL,
        object.headers.cache_control.as_deref().and_then(|v| v.parse().ok()),
    );
    let mut date = Vec::new();
    if Timestamp::from(clock::system_time(object.modified_ms))
        .format(TimestampFormat::HttpDate, &mut date)
        .is_ok()
    {
        put(header::LAST_MODIFIED, HeaderValue::from_bytes(&date).ok());
    }
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_headers(headers);
    error
}

/// The condition of a write, from its two headers.
pub(super) fn of_write(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Etag(etag.value().to_owned())),
        // S3 refuses these too.
        (None, Some(ETagCondition::ETag(_))) => {
            Err(s3_error!(NotImplemented, "If-None-Match on a write takes * only"))
        }
        (Some(_), Some(_)) => {
            Err(s3_error!(NotImplemented, "A write takes one of If-Match and If-None-Match"))
        }
    }
}

/// The same, where the input type has no fields for them.
pub(super) fn of_write_headers(headers: &HeaderMap) -> S3Result<Condition> {
    let parse = |name: HeaderName| -> S3Result<Option<ETagCondition>> {
        headers
            .get(&name)
            .map(|value| ETagCondition::parse_http_header(value.as_bytes()))
            .transpose()
            .map_err(|error| s3_error!(error, InvalidRequest, "The header {name} is not valid"))
    };
    of_write(parse(header::IF_MATCH)?.as_ref(), parse(header::IF_NONE_MATCH)?.as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::index::{Headers, Place};

    fn object() -> Object {
        Object {
            size_bytes: 0,
            etag: "abc".into(),
            modified_ms: 10_900,
            checksum_algorithm: String::new(),
            checksum: String::new(),
            headers: Headers::default(),
            place: Place::Inline,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from(clock::system_time(seconds * 1000))
    }

    #[test]
    fn entity_tags_outrank_dates() {
        let (same, other) = (
            ETagCondition::ETag(ETag::Strong("abc".into())),
            ETagCondition::ETag(ETag::Strong("x".into())),
        );
        let (before, after) = (at(9), at(11));
        let none = ReadCondition::default;
        let cases = [
            (none(), Read::Proceed),
            (
                ReadCondition {
                    if_match: Some(&same),
                    if_unmodified_since: Some(&before),
                    ..none()
                },
                Read::Proceed,
            ),
            (ReadCondition { if_match: Some(&other), ..none() }, Read::PreconditionFailed),
            (ReadCondition { if_none_match: Some(&same), ..none() }, Read::NotModified),
            (
                ReadCondition { if_none_match: Some(&ETagCondition::Any), ..none() },
                Read::NotModified,
            ),
            (
                ReadCondition {
                    if_none_match: Some(&other),
                    if_modified_since: Some(&after),
                    ..none()
                },
                Read::Proceed,
            ),
            (ReadCondition { if_modified_since: Some(&after), ..none() }, Read::NotModified),
            (ReadCondition { if_modified_since: Some(&before), ..none() }, Read::Proceed),
            (
                ReadCondition { if_unmodified_since: Some(&before), ..none() },
                Read::PreconditionFailed,
            ),
            (ReadCondition { if_unmodified_since: Some(&after), ..none() }, Read::Proceed),
        ];
        for (condition, expected) in cases {
            assert_eq!(condition.check(&object()), expected, "{condition:?}");
        }
    }

    #[test]
    fn a_date_header_of_the_same_second_counts_as_unchanged() {
        let exact = at(10);
        let condition =
            ReadCondition { if_modified_since: Some(&exact), ..ReadCondition::default() };
        assert_eq!(condition.check(&object()), Read::NotModified);
    }
}
