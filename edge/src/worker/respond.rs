//! From an answer's head to the HTTP answer.

use std::fmt::Write as _;

use serde::Serialize;
use wasm_bindgen::JsValue;
use worker::web_sys::{ReadableStream, Response};

use super::cache::Small;
use super::call::Call;
use super::glue::{self, Fields};
use crate::plan::{AnswerBody, AnswerHead};

/// The answer from bytes in memory, as `head` says.
pub async fn small(small: &Small, mut head: AnswerHead, call: &Call) -> Result<Response, JsValue> {
    let content = match head.body {
        AnswerBody::Whole => small.blob.stream().into(),
        AnswerBody::Slice { start, end } => {
            small.blob.slice_with_f64_and_f64(start as f64, end as f64)?.stream().into()
        }
        AnswerBody::Gzip => {
            let compressed = small.gzip().await?;
            head = head.with_length(compressed.size() as u64);
            compressed.stream().into()
        }
        AnswerBody::Empty => JsValue::NULL,
        AnswerBody::Problem(_) => return empty(head, call),
    };
    let fields = small.fields(&head, || write(&head));
    send(&head, &fields, &content, call)
}

/// The answer where the head says everything: a problem, or nothing.
pub fn empty(mut head: AnswerHead, call: &Call) -> Result<Response, JsValue> {
    match std::mem::replace(&mut head.body, AnswerBody::Empty) {
        AnswerBody::Problem(refusal) => {
            document(head, &refusal.into_problem(call.trace.trace_id()).to_json(), call)
        }
        _ => send(&head, &write(&head), &JsValue::NULL, call),
    }
}

/// The answer with a JSON document.
pub fn json(head: AnswerHead, content: &impl Serialize, call: &Call) -> Result<Response, JsValue> {
    let text = serde_json::to_vec(content).map_err(|error| error.to_string())?;
    document(head, &text, call)
}

/// The answer with these bytes. HEAD is told their length, so it stands in the head.
fn document(head: AnswerHead, content: &[u8], call: &Call) -> Result<Response, JsValue> {
    let head = head.with_length(content.len() as u64);
    send(&head, &write(&head), &js_sys::Uint8Array::from(content), call)
}

/// The answer with this body, which is what the head says follows, and stays outside.
pub fn stream(head: &AnswerHead, body: &ReadableStream, call: &Call) -> Result<Response, JsValue> {
    send(head, &write(head), body, call)
}

/// Header fields as the runtime takes them.
pub fn write(head: &AnswerHead) -> Fields {
    let mut lines = String::with_capacity(512);
    for (name, text) in &head.headers {
        // Writing to a string cannot fail.
        let _always_ok = writeln!(lines, "{name}\n{text}");
    }
    glue::fields(&lines)
}

fn send(
    head: &AnswerHead,
    fields: &Fields,
    content: &JsValue,
    call: &Call,
) -> Result<Response, JsValue> {
    let encoded = head.headers.iter().any(|(name, _)| *name == "content-encoding");
    glue::answer(head.status, fields, content, &call.trace.to_string(), encoded)
}
