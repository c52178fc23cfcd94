//! Where objects come from: the bucket, or servers, in the order that the plan gives.

use std::cell::RefCell;

use js_sys::{Array, Uint8Array};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Refusal;
use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::futures::JsFuture;
use worker::web_sys::ReadableStream;

use super::call::Call;
use super::glue::{self, Opened, text_of};
use super::log;
use crate::plan::settings::OriginUrl;
use crate::plan::{self, Asked, Breaker, Meaning, SMALL_MAX_BYTES, order_of_origins};

/// How long a reader waits for the last origin's first byte, and for the bytes of a small
/// object, in milliseconds.
const ORIGIN_DEADLINE_MS: u32 = 10_000;
/// How long while there is another to ask: some ten times what a store takes, and less than
/// people notice.
pub const PATIENCE_MS: u32 = 2_000;
/// How long a check of readiness waits.
const PROBE_TIMEOUT_MS: u32 = 2_000;

/// Why no origin gave what was asked for. A missing object is not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It did not answer as it should.
    #[error("{0}")]
    Failed(String),
    /// Its bytes are not those that the name promises.
    #[error("the bytes hash to {found}")]
    Digest {
        /// What they hash to.
        found: Digest,
    },
    /// It gave another number of bytes than it announced, or than anybody may.
    #[error("{found_bytes} bytes came where {expected_bytes} were announced or allowed")]
    Length {
        /// What was announced or is allowed.
        expected_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
}

impl OriginError {
    /// What the reader is told. Details stay in the log.
    pub fn refusal(&self) -> Refusal {
        match self {
            OriginError::Digest { .. } | OriginError::Length { .. } => plan::store_damaged(),
            OriginError::Failed(_) => plan::store_unavailable(),
        }
    }
}

impl From<JsValue> for OriginError {
    fn from(thrown: JsValue) -> Self {
        OriginError::Failed(text_of(&thrown))
    }
}

/// What an origin gave.
pub enum Reached {
    /// All bytes: proved, where the name says what they are.
    Small {
        /// The bytes.
        bytes: Uint8Array,
        /// Which origin gave them, and its own tag for them.
        known: KnownAt,
        /// Their SHA-256.
        digest: Digest,
    },
    /// Bytes on their way, which break off unless they are as many as announced.
    Large {
        /// How many.
        size_bytes: u64,
        /// The bytes.
        body: ReadableStream,
    },
    /// It is the one already known.
    Unchanged,
    /// There is none now.
    Missing,
}

/// What an origin calls an object that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAt {
    origin: usize,
    tag: String,
}

/// All origins.
pub struct Origins {
    places: Vec<Place>,
    breakers: RefCell<Vec<Breaker>>,
}

enum Place {
    Bucket(JsValue),
    Server(String),
}

impl Origins {
    /// The origins of the settings; `bucket` is the binding, where there is one.
    pub fn new(urls: &[OriginUrl], bucket: Option<JsValue>) -> Option<Origins> {
        let place = |url: &OriginUrl| match url {
            OriginUrl::Bucket => bucket.clone().map(Place::Bucket),
            OriginUrl::Http(url) => Some(Place::Server(url.clone())),
        };
        let places: Vec<Place> = urls.iter().map(place).collect::<Option<_>>()?;
        let breakers = RefCell::new(vec![Breaker::default(); places.len()]);
        Some(Origins { places, breakers })
    }

    /// Reads an object, from the first origin that can. `known` is what the caller has.
    pub async fn read(
        &self,
        key: &ObjectKey,
        asked: Asked,
        known: Option<&KnownAt>,
        call: &Call,
    ) -> Result<Reached, OriginError> {
        let order = order_of_origins(&mut self.breakers.borrow_mut(), now_ms());
        let mut last = OriginError::Failed("there is no origin".to_owned());
        for (turn, &origin) in order.iter().enumerate() {
            let patience = if turn + 1 < order.len() { PATIENCE_MS } else { ORIGIN_DEADLINE_MS };
            let tag = known.filter(|known| known.origin == origin).map(|known| known.tag.as_str());
            match self.read_at(origin, key, asked, tag, patience, call).await {
                Ok(reached) => {
                    self.breakers.borrow_mut()[origin].succeeded();
                    return Ok(reached);
                }
                Err(error) => {
                    self.breakers.borrow_mut()[origin].failed(now_ms());
                    let fields = [
                        ("origin", self.places[origin].name()),
                        ("object", &key.to_string()),
                        ("error", &error.to_string()),
                    ];
                    log::warn("an origin could not answer", &call.trace, &fields);
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn read_at(
        &self,
        origin: usize,
        key: &ObjectKey,
        asked: Asked,
        tag: Option<&str>,
        patience_ms: u32,
        call: &Call,
    ) -> Result<Reached, OriginError> {
        let opened = self.places[origin].open(key, asked, tag, patience_ms, call).await?;
        let length = opened.length();
        let length_bytes = (length >= 0.0).then_some(length as u64);
        // A question without a tag cannot be answered with "unchanged".
        let asked_here = match (asked, tag) {
            (Asked::IfChanged, None) => Asked::Whole,
            _ => asked,
        };
        let meaning = plan::meaning(asked_here, opened.status(), length_bytes);
        let body = match (meaning, opened.body()) {
            (Meaning::Found { .. }, Some(body)) => body,
            // A body of no bytes may be none at all.
            (Meaning::Found { body_bytes: 0 }, None) => empty_body()?,
            (Meaning::Found { .. }, None) => return Err(failed("there is no body")),
            (other, body) => {
                if let Some(body) = body {
                    glue::drop(&body);
                }
                return match other {
                    Meaning::Unchanged => Ok(Reached::Unchanged),
                    Meaning::Missing => Ok(Reached::Missing),
                    Meaning::Failed(why) => {
                        Err(OriginError::Failed(format!("status {}: {why}", opened.status())))
                    }
                    Meaning::Found { .. } => Err(failed("there is no body")),
                };
            }
        };
        let Meaning::Found { body_bytes: size_bytes } = meaning else {
            return Err(failed("there is no body"));
        };
        let largest = match key.content_digest() {
            Some(_) => SMALL_MAX_BYTES,
            None => plan::unproved_max_bytes(key),
        };
        if matches!(asked, Asked::Range { .. }) || size_bytes > largest {
            if key.content_digest().is_none() {
                glue::drop(&body);
                let (expected_bytes, found_bytes) = (largest, size_bytes);
                return Err(OriginError::Length { expected_bytes, found_bytes });
            }
            return Ok(Reached::Large { size_bytes, body: glue::exact(&body, size_bytes as f64)? });
        }
        let (bytes, digest) = collect(&body, patience_ms).await?;
        check(key, size_bytes, &bytes, digest)?;
        Ok(Reached::Small { bytes, known: KnownAt { origin, tag: opened.tag() }, digest })
    }

    /// Asks the first origin whether it is there and readable.
    pub async fn reach(&self, call: &Call) -> Result<(), OriginError> {
        let key = ObjectKey::Head.to_string();
        match self.places.first() {
            None => Err(failed("there is no origin")),
            Some(Place::Bucket(bucket)) => {
                let asked = glue::reach_bucket(bucket, &key, PROBE_TIMEOUT_MS);
                Ok(JsFuture::from(asked).await.map(drop)?)
            }
            Some(Place::Server(url)) => {
                let fields = glue::fields(&format!("traceparent\n{}\n", call.next_step()));
                let url = format!("{url}/{key}");
                let asked = glue::ask_status("HEAD", &url, &fields, None, PROBE_TIMEOUT_MS);
                match JsFuture::from(asked).await?.as_f64() {
                    Some(200.0 | 404.0) => Ok(()),
                    status => Err(OriginError::Failed(format!("status {status:?}"))),
                }
            }
        }
    }
}

impl Place {
    async fn open(
        &self,
        key: &ObjectKey,
        asked: Asked,
        tag: Option<&str>,
        timeout_ms: u32,
        call: &Call,
    ) -> Result<Opened, JsValue> {
        let (start, end) = match asked {
            Asked::Whole | Asked::IfChanged => (0.0, 0.0),
            Asked::Range { start, end } => (start as f64, end as f64),
        };
        let tag = tag.unwrap_or_default();
        let opened = match self {
            Place::Bucket(bucket) => {
                glue::open_bucket(bucket, &key.to_string(), start, end, tag, timeout_ms)
            }
            Place::Server(url) => {
                let url = format!("{url}/{key}");
                let fresh = !plan::may_answer_without_origin(key);
                glue::open_server(&url, start, end, tag, fresh, &call.next_step(), timeout_ms)
            }
        };
        Ok(JsFuture::from(opened).await?.unchecked_into())
    }

    fn name(&self) -> &str {
        match self {
            Place::Bucket(_) => "bucket",
            Place::Server(url) => url,
        }
    }
}

/// Reads a body to its end: its bytes and their SHA-256.
pub async fn collect(
    body: &ReadableStream,
    timeout_ms: u32,
) -> Result<(Uint8Array, Digest), OriginError> {
    let both: Array = JsFuture::from(glue::collect(body, timeout_ms)).await?.unchecked_into();
    let mut digest = [0; 32];
    both.get(1).unchecked_into::<Uint8Array>().copy_to(&mut digest);
    Ok((both.get(0).unchecked_into(), Digest::from_bytes(digest)))
}

/// Whether these are the bytes that were announced and, where the name says it, the right ones.
pub fn check(
    key: &ObjectKey,
    expected_bytes: u64,
    bytes: &Uint8Array,
    found: Digest,
) -> Result<(), OriginError> {
    let found_bytes = u64::from(bytes.length());
    if found_bytes != expected_bytes {
        return Err(OriginError::Length { expected_bytes, found_bytes });
    }
    match key.content_digest() {
        Some(expected) if expected != found => Err(OriginError::Digest { found }),
        _ => Ok(()),
    }
}

/// The platform's clock, which stands still between two waits.
pub fn now_ms() -> u64 {
    js_sys::Date::now() as u64
}

fn failed(why: &str) -> OriginError {
    OriginError::Failed(why.to_owned())
}

fn empty_body() -> Result<ReadableStream, OriginError> {
    let pipe = glue::pipe();
    let closing = glue::close(&pipe.get(1));
    // Nobody waits for it: the reader of the other end sees the end.
    let _closing = closing;
    Ok(pipe.get(0).unchecked_into())
}
