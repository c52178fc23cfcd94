//! Requests below `/v1/`, passed to the API as they stand.

use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::keys::READY_PATH;
use modunest_core::problem::Refusal;
use modunest_core::trace::TRACEPARENT;
use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::futures::JsFuture;
use worker::web_sys::{Request, Response};

use super::call::{Call, Parts};
use super::glue::{self, text_of};
use super::{log, respond};
use crate::plan::AnswerHead;
use crate::plan::forward::{self, ANSWER_TIMEOUT, FORWARDED_FOR};

/// How long a check of readiness waits, in milliseconds.
const PROBE_TIMEOUT_MS: u32 = 2_000;

/// Passes a request on, and its answer back. Both bodies pass through as they come.
pub async fn forward(
    api: &str,
    request: &Request,
    parts: &Parts<'_>,
    call: &Call,
) -> Result<Response, JsValue> {
    match exchange(api, request, parts, call).await? {
        Ok(answer) => {
            let dropped =
                forward::dropped_from_answer(glue::field(&answer, "connection").as_deref());
            glue::pass_back(&answer, &dropped.join("\n"), &call.trace.to_string())
        }
        Err(refusal) => respond::empty(AnswerHead::refuse(refusal), call),
    }
}

async fn exchange(
    api: &str,
    request: &Request,
    parts: &Parts<'_>,
    call: &Call,
) -> Result<Result<Response, Refusal>, JsValue> {
    if !forward::is_straight(parts.facts.path) {
        return Ok(Err(forward::crooked_path()));
    }
    let declared = glue::field(request, "content-length").and_then(|text| text.parse().ok());
    if let Err(refusal) = forward::check_declared_length(declared) {
        return Ok(Err(refusal));
    }
    let dropped = forward::dropped_from_request(glue::field(request, "connection").as_deref());
    let mut added = format!("{TRACEPARENT}\n{}\n", call.next_step());
    if let Some(client) = parts.client {
        let before = glue::field(request, FORWARDED_FOR);
        let hops = forward::forwarded_for(before.as_deref(), client);
        added.push_str(&format!("{FORWARDED_FOR}\n{hops}\n"));
    }
    let url = format!("{api}{}{}", parts.facts.path, parts.query);
    let timeout_ms = u32::try_from(ANSWER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let limit = u32::try_from(BODY_MAX_BYTES).unwrap_or(u32::MAX);
    let asked = glue::forward(request, &url, &dropped.join("\n"), &added, limit, timeout_ms);
    match JsFuture::from(asked).await {
        Ok(answer) if answer.is_undefined() => Ok(Err(forward::too_large())),
        Ok(answer) => Ok(Ok(answer.unchecked_into())),
        Err(thrown) => {
            let error = text_of(&thrown);
            log::warn("the API did not answer", &call.trace, &[("error", &error)]);
            Ok(Err(forward::api_unavailable()))
        }
    }
}

/// Asks whether the API is ready.
pub async fn reach(api: &str, call: &Call) -> Result<(), String> {
    let fields = glue::fields(&format!("{TRACEPARENT}\n{}\n", call.next_step()));
    let asked =
        glue::ask_status("GET", &format!("{api}{READY_PATH}"), &fields, None, PROBE_TIMEOUT_MS);
    match JsFuture::from(asked).await.map(|status| status.as_f64()) {
        Ok(Some(status)) if (200.0..300.0).contains(&status) => Ok(()),
        Ok(status) => Err(format!("status {status:?}")),
        Err(thrown) => Err(text_of(&thrown)),
    }
}
