//! Storage events: who wants them, what they look like, and their delivery.

mod delivery;

pub(crate) use delivery::Delivery;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use s3s::dto::{Timestamp, TimestampFormat};
use serde_json::{Value, json};

use crate::Error;
use crate::clock;
use crate::index::NewObject;

/// What a subscriber says when it could not take an event. Logged, and the event comes again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HandlerError(String);

type Handler = dyn Fn(Value) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync;

/// A wish for the events of one bucket, and the function that takes them.
///
/// Events are those of objects created, by `PutObject` or `CopyObject`. Each is
/// delivered at least once, in no particular order, until the function returns
/// `Ok`: it must be idempotent. An event that fails is delivered again after a
/// pause that grows from 0.1 to 30 seconds, and again at the next start if the
/// process ends before that.
#[derive(Clone)]
pub struct Subscription {
    bucket: String,
    prefix: String,
    handler: Arc<Handler>,
}

impl Subscription {
    /// Subscribes `handler` to every object created in `bucket`.
    ///
    /// The handler gets an S3 event notification: `{"Records": [{...}]}` with
    /// one record (Amazon S3 User Guide, "Event message structure"; version
    /// 2.1). `s3.object.key` is URL-encoded there, with `+` for a space.
    pub fn new<F, Fut, E>(bucket: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            handler: Arc::new(move |event| {
                let taken = handler(event);
                Box::pin(
                    async move { taken.await.map_err(|error| HandlerError(error.to_string())) },
                )
            }),
        }
    }

    /// Narrows the subscription to keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn matches(&self, bucket: &str, key: &str) -> bool {
        self.bucket == bucket && key.starts_with(&self.prefix)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Refuses subscriptions to unknown buckets, and pairs that would match the same key.
pub(crate) fn check(subscriptions: &[Subscription], buckets: &[String]) -> Result<(), Error> {
    for (position, one) in subscriptions.iter().enumerate() {
        if !buckets.contains(&one.bucket) {
            return Err(Error::UnknownBucket { bucket: one.bucket.clone() });
        }
        for other in subscriptions.iter().take(position) {
            let overlap =
                one.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&one.prefix);
            if one.bucket == other.bucket && overlap {
                return Err(Error::OverlappingSubscriptions {
                    bucket: one.bucket.clone(),
                    first: other.prefix.clone(),
                    second: one.prefix.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Which keys anybody wants to hear of: no event is kept for the others.
#[derive(Debug)]
pub(crate) struct Interest {
    region: String,
    wanted: Vec<Subscription>,
}

impl Interest {
    pub(crate) fn new(region: String, subscriptions: &[Subscription]) -> Self {
        Self { region, wanted: subscriptions.to_vec() }
    }

    /// The region to name in the event, if the key's event is wanted.
    pub(crate) fn region_if_wanted(&self, bucket: &str, key: &str) -> Option<String> {
        self.wanted.iter().any(|wish| wish.matches(bucket, key)).then(|| self.region.clone())
    }
}

/// What created the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventName {
    Put,
    Copy,
}

impl EventName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Put => "ObjectCreated:Put",
            Self::Copy => "ObjectCreated:Copy",
        }
    }
}

/// The event message structure of the Amazon S3 User Guide, version 2.1, without
/// the parts that tell of AWS accounts and requests.
pub(crate) fn notification(new: &NewObject, sequencer: i64, region: &str) -> Value {
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": date_time(new.modified_ms),
        "eventName": new.event.as_str(),
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": new.bucket, "arn": format!("arn:aws:s3:::{}", new.bucket)},
            "object": {
                "key": encode_key(&new.key),
                "size": new.size_bytes,
                "eTag": new.etag,
                "sequencer": format!("{sequencer:016X}"),
            },
        },
    }]})
}

fn date_time(at_ms: i64) -> String {
    let mut text = Vec::new();
    // The clock gives years that RFC 3339 can write, and a Vec takes all bytes.
    if let Err(error) =
        Timestamp::from(clock::system_time(at_ms)).format(TimestampFormat::DateTime, &mut text)
    {
        tracing::error!(%error, at_ms, "a time could not be written into an event");
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Form encoding with `/` kept, as S3 writes keys into events.
fn encode_key(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' | b'/' => {
                text.push(char::from(byte));
            }
            b' ' => text.push('+'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn to(bucket: &str, prefix: &str) -> Subscription {
        Subscription::new(bucket, |_| async { Ok::<(), String>(()) }).prefix(prefix)
    }

    #[test]
    fn keys_are_encoded_as_s3_does() {
        assert_eq!(encode_key("a/red flower+é.jpg"), "a/red+flower%2B%C3%A9.jpg");
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(date_time(1_763_824_903_042), "2025-11-22T15:21:43.042Z");
    }

    #[test]
    fn overlaps_and_strangers_are_refused() {
        let buckets = ["one".to_owned(), "two".to_owned()];
        check(&[to("one", "a/"), to("one", "b/"), to("two", "")], &buckets).unwrap();
        let overlap = check(&[to("one", "a/"), to("one", "a/b")], &buckets).unwrap_err();
        assert!(matches!(overlap, Error::OverlappingSubscriptions { .. }), "{overlap}");
        let stranger = check(&[to("three", "")], &buckets).unwrap_err();
        assert!(matches!(stranger, Error::UnknownBucket { .. }), "{stranger}");
    }
}
