//! Objects named by their content: from memory, from the platform's cache, from an origin.

use std::rc::Rc;

use js_sys::Uint8Array;
use modunest_core::keys::ObjectKey;
use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::futures::JsFuture;
use worker::web_sys::{ReadableStream, Response};

use super::cache::{Small, facts_of};
use super::call::Call;
use super::current::unproved;
use super::env::Edge;
use super::glue::{self, Opened, text_of};
use super::origin::{OriginError, PATIENCE_MS, Reached, check, collect};
use super::{downloads, log, respond};
use crate::plan::{self, AnswerBody, AnswerHead, Asked, Keep, Read};

/// What is under a key.
pub enum Found {
    /// These bytes, which hash to the key's digest.
    Small(Rc<Small>),
    /// Bytes to be streamed.
    Large {
        /// How many.
        size_bytes: u64,
        /// The bytes themselves.
        begun: ReadableStream,
    },
    /// Nothing.
    Missing,
}

/// Why an object was not handed out.
pub enum ObjectError {
    /// The origins.
    Origin(OriginError),
    /// The runtime.
    Runtime(JsValue),
}

impl From<OriginError> for ObjectError {
    fn from(error: OriginError) -> Self {
        ObjectError::Origin(error)
    }
}

impl From<JsValue> for ObjectError {
    fn from(thrown: JsValue) -> Self {
        ObjectError::Runtime(thrown)
    }
}

/// Answers a request for an object.
pub async fn answer(
    edge: &Rc<Edge>,
    key: ObjectKey,
    read: &Read<'_>,
    accept_encoding: Option<&str>,
    call: &Call,
) -> Result<Response, ObjectError> {
    if key.content_digest().is_none() {
        return Ok(match without_digest(edge, &key, call).await? {
            Some(small) => respond::small(&small, read.answer(&small.facts), call).await?,
            None => respond::empty(plan::no_object(&key), call)?,
        });
    }
    match find(edge, key, call).await? {
        Found::Small(small) => {
            let head = read.answer(&small.facts);
            let status = head.status;
            if let Some(blob) = plan::counted_download(&key, &head) {
                downloads::note(edge, blob, call);
            }
            let response = respond::small(&small, head, call).await?;
            if read.is_repeatable(&key, status) {
                small.hand_over(&key, read.gzip, status);
                glue::judge(accept_encoding, read.gzip);
            }
            Ok(response)
        }
        Found::Large { size_bytes, begun } => {
            let Some(facts) = facts_of(&key, size_bytes) else {
                return Ok(respond::empty(plan::no_object(&key), call)?);
            };
            let head = read.answer(&facts);
            if head.body == AnswerBody::Whole {
                return hand_out(edge, &key, &head, &begun, call);
            }
            glue::drop(&begun);
            without_the_whole(edge, &key, head, call).await
        }
        Found::Missing => Ok(respond::empty(plan::no_object(&key), call)?),
    }
}

/// An object whose name does not say what it contains. Unless it changes it is not kept at
/// all: who reads it proves it, and a wrong one must not stay.
pub async fn without_digest(
    edge: &Rc<Edge>,
    key: &ObjectKey,
    call: &Call,
) -> Result<Option<Rc<Small>>, OriginError> {
    if let Some((_, current)) = edge.current.iter().find(|(known, _)| known == key) {
        return current.now(&edge.origins, call).await;
    }
    match edge.origins.read(key, Asked::Whole, None, call).await? {
        Reached::Small { bytes, digest, .. } => Ok(Some(unproved(key, bytes, digest))),
        Reached::Missing | Reached::Unchanged => Ok(None),
        Reached::Large { size_bytes, .. } => {
            Err(OriginError::Length { expected_bytes: 0, found_bytes: size_bytes })
        }
    }
}

async fn without_the_whole(
    edge: &Rc<Edge>,
    key: &ObjectKey,
    head: AnswerHead,
    call: &Call,
) -> Result<Response, ObjectError> {
    let failed = |why: &str| Err(OriginError::Failed(why.to_owned()).into());
    let asked = match head.body {
        AnswerBody::Slice { start, end } => Asked::Range { start, end },
        AnswerBody::Empty | AnswerBody::Problem(_) => return Ok(respond::empty(head, call)?),
        AnswerBody::Whole | AnswerBody::Gzip => return failed("what streams has one form"),
    };
    match edge.origins.read(key, asked, None, call).await? {
        Reached::Large { body, .. } => hand_out(edge, key, &head, &body, call),
        Reached::Small { .. } => failed("a part came as the whole"),
        Reached::Missing | Reached::Unchanged => Ok(respond::empty(plan::no_object(key), call)?),
    }
}

fn hand_out(
    edge: &Rc<Edge>,
    key: &ObjectKey,
    head: &AnswerHead,
    body: &ReadableStream,
    call: &Call,
) -> Result<Response, ObjectError> {
    if let Some(blob) = plan::counted_download(key, head) {
        downloads::note(edge, blob, call);
    }
    Ok(respond::stream(head, body, call)?)
}

/// What is under `key`.
pub async fn find(edge: &Rc<Edge>, key: ObjectKey, call: &Call) -> Result<Found, OriginError> {
    if let Some(small) = edge.memory.get(&key) {
        return Ok(Found::Small(small));
    }
    if let Some(small) = from_cache(edge, &key, call).await {
        return Ok(Found::Small(small));
    }
    match edge.origins.read(&key, Asked::Whole, None, call).await? {
        Reached::Small { bytes, .. } => {
            let Some(small) = remember(edge, &key, &bytes) else {
                return Ok(Found::Missing);
            };
            if edge.settings.any_server() {
                let (url, fields) = (cache_url(edge, &key), cache_fields(&key, &small));
                let trace = call.trace;
                call.afterwards(async move {
                    let kept = JsFuture::from(glue::write_cache(&url, &bytes, &fields)).await;
                    if let Err(thrown) = kept {
                        let error = text_of(&thrown);
                        log::warn("the cache takes nothing", &trace, &[("error", &error)]);
                    }
                });
            }
            Ok(Found::Small(small))
        }
        Reached::Large { size_bytes, body } => Ok(Found::Large { size_bytes, begun: body }),
        Reached::Missing | Reached::Unchanged => Ok(Found::Missing),
    }
}

/// Keeps proved bytes in memory, if the policy lets them.
fn remember(edge: &Edge, key: &ObjectKey, bytes: &Uint8Array) -> Option<Rc<Small>> {
    let size_bytes = u64::from(bytes.length());
    let small = Small::new(bytes, facts_of(key, size_bytes)?);
    if plan::keep(key, size_bytes, true) == Keep::ForEver {
        edge.memory.put(*key, Rc::clone(&small));
    }
    Some(small)
}

/// A small object out of the platform's cache, proved again: it is on other machines' disks.
async fn from_cache(edge: &Rc<Edge>, key: &ObjectKey, call: &Call) -> Option<Rc<Small>> {
    if !edge.settings.any_server() {
        return None;
    }
    let url = cache_url(edge, key);
    let read = async {
        let found = JsFuture::from(glue::read_cache(&url)).await?;
        if found.is_undefined() {
            return Ok(None);
        }
        let Some(body) = found.unchecked_into::<Opened>().body() else {
            return Ok(None);
        };
        let (bytes, digest) = collect(&body, PATIENCE_MS).await?;
        check(key, u64::from(bytes.length()), &bytes, digest)?;
        Ok::<_, OriginError>(Some(bytes))
    };
    match read.await {
        Ok(bytes) => remember(edge, key, &bytes?),
        Err(error) => {
            let fields = [("object", key.to_string()), ("error", error.to_string())];
            let fields = fields.each_ref().map(|(name, text)| (*name, text.as_str()));
            log::warn("the cache gave nothing of use", &call.trace, &fields);
            call.afterwards(async move {
                // What cannot be dropped is refused again when it is read.
                let _whether = JsFuture::from(glue::drop_from_cache(&url)).await;
            });
            None
        }
    }
}

fn cache_url(edge: &Edge, key: &ObjectKey) -> String {
    format!("{}/{key}", edge.settings.public_url)
}

fn cache_fields(key: &ObjectKey, small: &Small) -> glue::Fields {
    glue::fields(&format!(
        "content-type\n{}\ncache-control\n{}\ncontent-length\n{}\n",
        key.content_type(),
        key.cache_policy().header_value(),
        small.facts.size_bytes
    ))
}
