//! Requests to the registry: bounded in length and time, with the trace, tried again where
//! that can help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::http as http_crate;
use bytes::Bytes;
use modunest_core::archive::ARCHIVE_MAX_BYTES;
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_runtime::http;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::{Bundle, Error};

/// Objects that are fetched at the same time: small ones, so latency is what counts.
pub(super) const PARALLEL: usize = 32;
/// Pauses between tries of an object. A head is not tried again: who asks for it can go on
/// with the last one.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How long an index object may take in all: 8 MB at 1 Mbit/s take 64 s.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(90);

/// Fetches from one registry. The HTTP client is made at the first request, so that an agent
/// that has nothing to fetch does not hold the system's certificates.
pub(crate) struct Fetcher {
    base: Url,
    client: OnceLock<Client>,
    /// What answers in place of the network.
    bundle: Option<Arc<Bundle>>,
    recorded: Option<Recorded>,
}

/// Objects that were fetched since, whole and as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(Arc<Mutex<BTreeMap<ObjectKey, Vec<u8>>>>);

impl Recorded {
    /// Takes them out.
    pub(crate) fn take(&self) -> BTreeMap<ObjectKey, Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) enum Answer {
    NotModified,
    /// `start` is where in the object the bytes start: 0 where ranges are not served.
    Body {
        bytes: Vec<u8>,
        etag: Option<String>,
        start: u64,
    },
}

impl Fetcher {
    pub(super) fn new(base: Url) -> Self {
        Fetcher { base, client: OnceLock::new(), bundle: None, recorded: None }
    }

    /// Another fetcher over the same connections.
    pub(crate) fn share(&self) -> Self {
        Fetcher {
            base: self.base.clone(),
            client: self.client.clone(),
            bundle: self.bundle.clone(),
            recorded: self.recorded.clone(),
        }
    }

    /// From now on, asks the bundle and no network.
    pub(super) fn read_from(&mut self, bundle: Bundle) {
        self.bundle = Some(Arc::new(bundle));
    }

    /// From now on, keeps what is fetched.
    pub(super) fn record(&mut self, recorded: Recorded) {
        self.recorded = Some(recorded);
    }

    /// An object's address.
    pub(crate) fn url(&self, key: ObjectKey) -> String {
        self.address(&key.path())
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    fn client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = http::client().map_err(|error| Error::Client(chain(&error)))?;
        Ok(self.client.get_or_init(|| made))
    }

    /// An object that must exist, tried again while nobody answers.
    pub(crate) async fn object(&self, key: ObjectKey, limit: usize) -> Result<Vec<u8>, Error> {
        self.object_from(key, limit, 0).await.map(|(bytes, _)| bytes)
    }

    /// As [`Fetcher::object`], from byte `from` on. The second value says where the bytes
    /// really start: at `from`, or at 0 where ranges are not served.
    pub(super) async fn object_from(
        &self,
        key: ObjectKey,
        limit: usize,
        from: u64,
    ) -> Result<(Vec<u8>, u64), Error> {
        let mut pauses = PAUSES.iter();
        loop {
            match self.get(key, limit, None, from).await {
                Ok(Answer::Body { bytes, start, .. }) => return Ok((bytes, start)),
                Ok(Answer::NotModified) => {
                    return Err(Error::Status { url: self.url(key), status: 304 });
                }
                Err(error) if error.kind() == super::Kind::Unreachable => {
                    let Some(pause) = pauses.next() else { return Err(error) };
                    tracing::debug!(%key, %error, "trying again");
                    tokio::time::sleep(*pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn get(
        &self,
        key: ObjectKey,
        limit: usize,
        etag: Option<&str>,
        from: u64,
    ) -> Result<Answer, Error> {
        if let Some(bundle) = &self.bundle {
            let bytes = bundle.object(key, limit)?;
            let absent = || Error::Status { url: self.url(key), status: 404 };
            return Ok(Answer::Body { bytes: bytes.ok_or_else(absent)?, etag: None, start: 0 });
        }
        let url = self.url(key);
        let mut request = self.client()?.get(&url);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let answer = async {
            let mut response = send(&url, request).await?;
            let start = match response.status() {
                StatusCode::OK => 0,
                StatusCode::PARTIAL_CONTENT if from > 0 && starts_at(&response, from) => from,
                StatusCode::NOT_MODIFIED => return Ok(Answer::NotModified),
                status => return Err(bad_status(url.clone(), status)),
            };
            let etag = response.headers().get(ETAG).and_then(|v| v.to_str().ok());
            let etag = etag.map(str::to_owned);
            let too_long = || Error::TooLong { url: url.clone(), limit_bytes: limit as u64 };
            if response.content_length().is_some_and(|length| length > limit as u64) {
                return Err(too_long());
            }
            let mut bytes = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|e| unreachable(&url, &e))? {
                if bytes.len() + piece.len() > limit {
                    return Err(too_long());
                }
                bytes.extend_from_slice(&piece);
            }
            if let Some(recorded) = self.recorded.as_ref().filter(|_| start == 0) {
                let mut recorded = recorded.0.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.insert(key, bytes.clone());
            }
            Ok(Answer::Body { bytes, etag, start })
        };
        match tokio::time::timeout(OBJECT_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Unreachable {
                url: url.clone(),
                reason: format!("no whole answer within {} s", OBJECT_TIMEOUT.as_secs()),
            }),
        }
    }

    /// Asks for a closure. Whatever is answered, the caller judges.
    pub(super) async fn closure(&self, request: Vec<u8>) -> Result<Response, Error> {
        let url = self.address(CLOSURE_PATH);
        let request =
            self.client()?.post(&url).header(CONTENT_TYPE, "application/json").body(request);
        send(&url, request).await
    }

    /// The error of a closure's status.
    pub(super) fn closure_status(&self, status: u16) -> Error {
        Error::Unavailable { url: self.address(CLOSURE_PATH), status }
    }

    /// The next piece of a closure.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        let url = self.address(CLOSURE_PATH);
        response.chunk().await.map_err(|error| unreachable(&url, &error))
    }

    /// Starts a download at byte `from`. The second value says where the answer really
    /// starts: at `from`, or at 0 where ranges are not served.
    pub(crate) async fn download(
        &self,
        key: ObjectKey,
        from: u64,
    ) -> Result<(Response, u64), Error> {
        let url = self.url(key);
        if let Some(bundle) = &self.bundle {
            let bytes = bundle.object(key, ARCHIVE_MAX_BYTES)?;
            let bytes = bytes.ok_or(Error::Status { url, status: 404 })?;
            return Ok((Response::from(http_crate::Response::new(bytes)), 0));
        }
        let mut request = self.client()?.get(&url);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = send(&url, request).await?;
        match response.status() {
            StatusCode::OK => Ok((response, 0)),
            StatusCode::PARTIAL_CONTENT if from > 0 && starts_at(&response, from) => {
                Ok((response, from))
            }
            status => Err(bad_status(url, status)),
        }
    }
}

/// Whether a part of an object starts at byte `from`.
fn starts_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

async fn send(url: &str, request: reqwest::RequestBuilder) -> Result<Response, Error> {
    http::traced(request).send().await.map_err(|error| unreachable(url, &error))
}

fn bad_status(url: String, status: StatusCode) -> Error {
    let (code, later) = (status.as_u16(), status.is_server_error() || status == 429);
    if later {
        Error::Unavailable { url, status: code }
    } else {
        Error::Status { url, status: code }
    }
}

/// The error of a request or of its body.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> Error {
    Error::Unreachable { url: url.to_owned(), reason: chain(error) }
}

/// An error with its causes, without the URL that stands beside it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
