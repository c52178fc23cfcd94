//! From a request to its plan, and the plan carried out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{self, HeaderName};
use modunest_core::keys::ObjectKey;
use tokio::sync::Semaphore;

use super::compress::gzip;
use super::current::{Current, Seen};
use super::forward::Api;
use super::objects::{Found, Objects};
use super::origin::{Origin, OriginError};
use super::{Config, Downloads, Error, closure, ready, respond};
use crate::plan::{
    self, Alive, AnswerBody, AnswerHead, EntityTag, Facts, Plan, Read, RequestFacts,
};

/// Everything that outlives a request.
pub(super) struct Edge {
    pub(super) origin: Arc<Origin>,
    pub(super) api: Option<Api>,
    current: BTreeMap<ObjectKey, Current>,
    pub(super) objects: Objects,
    /// One permit for each closure in the making.
    pub(super) closures: Arc<Semaphore>,
    downloads: Option<Downloads>,
    discovery: Document,
    home: Document,
}

/// A document of our own, written once.
struct Document {
    bytes: Bytes,
    gzip: Bytes,
    facts: Facts,
}

impl Document {
    fn new(bytes: Bytes, facts: Facts) -> Result<Document, Error> {
        Ok(Document { gzip: gzip(&bytes).map_err(Error::Compress)?, bytes, facts })
    }

    fn answer(&self, read: &Read<'_>) -> Response {
        let head = read.answer(&self.facts);
        match head.body {
            AnswerBody::Gzip => respond::gzip(head, self.gzip.clone()),
            _ => respond::bytes(head, &self.bytes),
        }
    }
}

impl Edge {
    pub(super) fn new(config: Config) -> Result<Edge, Error> {
        let discovery = Bytes::from(serde_json::to_vec_pretty(&config.discovery)?);
        let home = Bytes::from(plan::home_page(&config.discovery));
        let origin = Arc::new(Origin::new(&config.aws, config.public_bucket));
        Ok(Edge {
            api: config.api_origin.map(Api::new).transpose()?,
            current: ObjectKey::CHANGING
                .map(|key| (key, Current::new(key, Arc::clone(&origin))))
                .into(),
            objects: Objects::new(Arc::clone(&origin), config.memory_cache_bytes),
            closures: Arc::new(Semaphore::new(closure::CLOSURES_MAX)),
            origin,
            downloads: config.downloads,
            discovery: Document::new(discovery.clone(), Facts::discovery(&discovery))?,
            home: Document::new(home.clone(), Facts::page(&home))?,
        })
    }

    /// The head as it is now; `None` before the first publish.
    pub(super) async fn head(&self) -> Result<Option<Seen>, OriginError> {
        match self.current.get(&ObjectKey::Head) {
            Some(current) => current.now().await,
            None => Ok(None),
        }
    }

    async fn object(&self, key: ObjectKey, read: &Read<'_>) -> Result<Response, OriginError> {
        let Some(digest) = key.content_digest() else {
            let seen = match self.current.get(&key) {
                Some(current) => current.now().await?,
                None => self.objects.unproved(key).await?,
            };
            return Ok(match seen {
                Some(seen) => {
                    let facts = Facts::object(&key, seen.bytes.len() as u64, seen.tag);
                    let answer = read.answer(&facts);
                    match answer.body {
                        AnswerBody::Gzip => respond::gzip(answer, seen.gzip),
                        _ => respond::bytes(answer, &seen.bytes),
                    }
                }
                None => respond::empty(plan::no_object(&key)),
            });
        };
        let tag = EntityTag::new(digest);
        match self.objects.find(key).await? {
            Found::Small(bytes) => {
                let head = read.answer(&Facts::object(&key, bytes.len() as u64, tag));
                self.count(&key, &head);
                Ok(match head.body {
                    AnswerBody::Gzip => respond::gzip(head, self.objects.gzip(key, bytes).await?),
                    _ => respond::bytes(head, &bytes),
                })
            }
            Found::Large { size_bytes, begun } => {
                let head = read.answer(&Facts::object(&key, size_bytes, tag));
                match head.body {
                    AnswerBody::Whole => {
                        self.count(&key, &head);
                        Ok(respond::body(head, Body::new(begun.into_inner())))
                    }
                    AnswerBody::Slice { start, end } => self.part(key, start..end, head).await,
                    AnswerBody::Empty | AnswerBody::Problem(_) => Ok(respond::empty(head)),
                    // Nothing that streams is compressible.
                    AnswerBody::Gzip => Err(OriginError::Incomplete("its gzip form")),
                }
            }
            Found::Missing => Ok(respond::empty(plan::no_object(&key))),
        }
    }

    async fn part(
        &self,
        key: ObjectKey,
        range: Range<u64>,
        head: AnswerHead,
    ) -> Result<Response, OriginError> {
        match self.objects.open_range(key, range).await? {
            Some(body) => {
                self.count(&key, &head);
                Ok(respond::body(head, Body::new(body)))
            }
            None => Ok(respond::empty(plan::no_object(&key))),
        }
    }

    fn count(&self, key: &ObjectKey, head: &AnswerHead) {
        if let (Some(downloads), Some(blob)) = (&self.downloads, plan::counted_download(key, head))
        {
            downloads.note(blob);
        }
    }
}

/// Answers every request.
pub(super) async fn handle(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let fields = Fields::of(request.headers());
    let facts = RequestFacts {
        method: request.method().as_str(),
        path: request.uri().path(),
        if_match: fields.if_match.as_deref(),
        if_none_match: fields.if_none_match.as_deref(),
        range: fields.range.as_deref(),
        if_range: fields.if_range.as_deref(),
        accept_encoding: fields.accept_encoding.as_deref(),
    };
    match plan::plan(&facts) {
        Plan::Object(key, read) => match edge.object(key, &read).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, object = %key, "the bucket could not answer");
                respond::empty(AnswerHead::refuse(error.refusal()))
            }
        },
        Plan::Discovery(read) => edge.discovery.answer(&read),
        Plan::Home(read) => edge.home.answer(&read),
        Plan::Health => respond::json(AnswerHead::json(200), &Alive::NOW),
        Plan::Ready => {
            let readiness = ready::check(&edge).await;
            respond::json(readiness.head(), &readiness)
        }
        Plan::Closure => Box::pin(closure::answer(edge, request)).await,
        Plan::Forward => match &edge.api {
            Some(api) => Box::pin(api.forward(request)).await,
            None => respond::empty(plan::no_api()),
        },
        Plan::Answer(head) => respond::empty(head),
    }
}

/// The fields that decide about a read, as text.
struct Fields {
    if_match: Option<String>,
    if_none_match: Option<String>,
    range: Option<String>,
    if_range: Option<String>,
    accept_encoding: Option<String>,
}

impl Fields {
    fn of(headers: &HeaderMap) -> Fields {
        Fields {
            if_match: field(headers, &header::IF_MATCH),
            if_none_match: field(headers, &header::IF_NONE_MATCH),
            range: field(headers, &header::RANGE),
            if_range: field(headers, &header::IF_RANGE),
            accept_encoding: field(headers, &header::ACCEPT_ENCODING),
        }
    }
}

/// All lines of a field. Bytes that are not UTF-8 become a character that no tag of ours
/// has, so they match nothing.
fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut lines =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let first = lines.next()?;
    Some(lines.fold(first, |text, line| Cow::Owned(format!("{text},{line}"))).into_owned())
}
