//! Downloads: gathered for some seconds, told to a queue, and from the queue to the API.
//!
//! Each message of the queue is a batch of its own, with a name that is made here, before it
//! is sent for the first time. So it counts once, however often it is sent or delivered, and
//! whatever other messages come along.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use modunest_core::api::{BatchId, DOWNLOADS_PATH, Day, DownloadBatch};
use modunest_core::digest::Digest;
use modunest_core::time::Timestamp;
use modunest_core::trace::TraceContext;
use wasm_bindgen::JsValue;
use worker::js_sys::futures::JsFuture;
use worker::{Delay, Env, MessageBatch, MessageExt as _, RawMessage};

use super::call::{Call, random};
use super::env::Edge;
use super::glue::{self, text_of};
use super::{log, origin};
use crate::plan::{self, TALLY_WINDOW_MS, Teller};

/// How long the API may take to count a batch, in milliseconds.
const COUNT_TIMEOUT_MS: u32 = 10_000;
/// Batches that are told to the API at the same time: of the platform's six connections, some
/// stay for what the runtime itself asks. The API's table is the slower one anyway.
const PARALLEL: usize = 4;
/// Pauses before a message is sent again, in milliseconds. The platform lets work go on for
/// 30 seconds after an answer.
const PAUSES_MS: [u64; 2] = [250, 2_000];

/// Notes a download, which the queue is told of once the answer is on its way.
pub fn note(edge: &Rc<Edge>, blob: Digest, call: &Call) {
    let Some(queue) = edge.downloads.clone() else {
        return;
    };
    let now_ms = origin::now_ms();
    let day = Day::of(Timestamp::from_millis(now_ms));
    let window_ms = match edge.tally.borrow_mut().note(blob, day, now_ms) {
        Teller::Another => return,
        Teller::Later => TALLY_WINDOW_MS,
        Teller::Now => 0,
    };
    let (edge, trace) = (Rc::clone(edge), call.trace);
    call.afterwards(async move {
        if window_ms > 0 {
            Delay::from(Duration::from_millis(window_ms)).await;
        }
        let taken = edge.tally.borrow_mut().take(BatchId::from_bytes(random()));
        if let Some(batch) = taken
            && let Err(error) = send(&queue, &batch).await
        {
            let fields = [("batch", batch.id.to_string()), ("error", error)];
            let fields = fields.each_ref().map(|(name, text)| (*name, text.as_str()));
            log::error("a batch of downloads is not counted", Some(&trace), &fields);
        }
    });
}

/// Sends a message, again when it is not sure whether it arrived: its name tells.
async fn send(queue: &JsValue, batch: &DownloadBatch) -> Result<(), String> {
    let json = serde_json::to_string(batch).map_err(|error| error.to_string())?;
    let mut pauses = PAUSES_MS.iter();
    loop {
        let thrown = match JsFuture::from(glue::send(queue, &json)).await {
            Ok(_) => return Ok(()),
            Err(thrown) => thrown,
        };
        let Some(&pause) = pauses.next() else {
            return Err(text_of(&thrown));
        };
        Delay::from(Duration::from_millis(pause)).await;
    }
}

/// Tells the API of each batch. What it does not take now goes back to the queue, alone; what
/// is no batch never will be one, and is let go.
pub async fn consume(batch: &MessageBatch<()>, env: &Env) {
    let trace = TraceContext::root(random());
    let now = Timestamp::from_millis(origin::now_ms());
    let messages = futures_util::stream::iter(batch.raw_iter());
    let told = messages.for_each_concurrent(PARALLEL, |message| async move {
        let id = message.id();
        let read = text(&message).and_then(|json| plan::read_message(&json, now));
        let batch = match read {
            Ok(batch) => batch,
            Err(error) => {
                let fields = [("message", id.as_str()), ("error", error.as_str())];
                let what = "a message is no batch of downloads and is let go";
                log::error(what, Some(&trace), &fields);
                return message.ack();
            }
        };
        match tell(env, &batch, &trace).await {
            Ok(()) => message.ack(),
            Err(error) => {
                let batch = batch.id.to_string();
                let fields = [("message", id.as_str()), ("batch", &batch), ("error", &error)];
                log::warn("a batch of downloads goes back to the queue", &trace, &fields);
                message.retry();
            }
        }
    });
    told.await;
}

async fn tell(env: &Env, batch: &DownloadBatch, trace: &TraceContext) -> Result<(), String> {
    let edge = Edge::of(env).map_err(|error| error.to_string())?;
    let api = edge.settings.api_url.as_ref().ok_or("API_URL is not set")?;
    let token = edge.count_token.as_ref().ok_or("COUNT_TOKEN is not set")?;
    let body = serde_json::to_string(batch).map_err(|error| error.to_string())?;
    let url = format!("{api}{DOWNLOADS_PATH}");
    let fields = glue::fields(&format!(
        "authorization\nBearer {token}\ncontent-type\napplication/json\ntraceparent\n{}\n",
        trace.child(random())
    ));
    let asked =
        glue::ask_status("POST", &url, &fields, Some(body.as_str().into()), COUNT_TIMEOUT_MS);
    match JsFuture::from(asked).await.map(|status| status.as_f64()) {
        Ok(Some(status)) if (200.0..300.0).contains(&status) => Ok(()),
        Ok(status) => Err(format!("the API answers with status {}", status.unwrap_or(0.0))),
        Err(thrown) => Err(text_of(&thrown)),
    }
}

fn text(message: &RawMessage) -> Result<String, String> {
    match js_sys::JSON::stringify(&message.body()) {
        // What JSON has no word for is `undefined`.
        Ok(json) => JsValue::from(json).as_string().ok_or_else(|| "it is no JSON".to_owned()),
        Err(thrown) => Err(text_of(&thrown)),
    }
}
