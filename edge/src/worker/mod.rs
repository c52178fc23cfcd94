//! The worker shell: the same plans in Cloudflare's runtime, over a bucket or servers.
//!
//! What is named by its content is proved and kept in this isolate's memory while small, and
//! in the platform's cache where origins are servers; what is large streams through without
//! entering wasm. The head is asked for anew by every request, with a condition. What is
//! missing is never remembered. Downloads are told to a queue after the answer.
//!
//! Requests come in through `entry.js`. Answers that were given before, and are the same for
//! ever, it gives by itself (`recall.js`); all others are given here.

mod call;
mod glue;
mod log;

mod env;
mod respond;

mod closure;
mod current;
mod downloads;
mod forward;
mod objects;

mod cache;
mod origin;

use std::rc::Rc;

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use worker::js_sys::futures::JsFuture;
use worker::web_sys::{Request, Response};
use worker::{Context, Env, MessageBatch, event};

use self::call::{Call, Message, Parts};
use self::env::Edge;
use self::glue::text_of;
use self::objects::ObjectError;
use crate::plan::{self, Alive, AnswerHead, Plan, Readiness, State};

#[event(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| {
        log::error("a panic", None, &[("panic", &panic.to_string())]);
    }));
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> worker::Result<Response> {
    let message = Message::of(&request);
    let parts = message.parts();
    let call = Rc::new(Call::new(parts.traceparent, context));
    let response = match answer(&request, &env, &parts, &call).await {
        Ok(response) => response,
        Err(thrown) => {
            let error = text_of(&thrown);
            log::error("a request could not be answered", Some(&call.trace), &[("error", &error)]);
            respond::empty(plan::internal(), &call)?
        }
    };
    let status = response.status();
    if status >= 400 {
        let fields = [
            ("method", parts.facts.method),
            ("path", parts.facts.path),
            ("status", &status.to_string()),
        ];
        if status >= 500 {
            log::warn("answered with an error", &call.trace, &fields);
        } else {
            // Whoever was refused has the trace's identifier, and asks about it.
            log::info("refused", &call.trace, &fields);
        }
    }
    Ok(response)
}

/// For `entry.js`: what gives answers that were given before.
#[wasm_bindgen]
pub fn recall() -> JsValue {
    glue::entry()
}

#[event(queue)]
async fn queue(batch: MessageBatch<()>, env: Env, _context: Context) -> worker::Result<()> {
    downloads::consume(&batch, &env).await;
    Ok(())
}

async fn answer(
    request: &Request,
    env: &Env,
    parts: &Parts<'_>,
    call: &Rc<Call>,
) -> Result<Response, JsValue> {
    let edge = match Edge::of(env) {
        Ok(edge) => edge,
        Err(error) => {
            let error = error.to_string();
            log::error("the settings cannot work", Some(&call.trace), &[("error", &error)]);
            return respond::empty(plan::not_configured(), call);
        }
    };
    let plan = plan::plan(&parts.facts);
    if !admitted(&edge, &plan, parts, call).await {
        return respond::empty(plan::too_many_requests(), call);
    }
    match plan {
        Plan::Object(key, read) => {
            match objects::answer(&edge, key, &read, parts.facts.accept_encoding, call).await {
                Ok(response) => Ok(response),
                Err(ObjectError::Runtime(thrown)) => Err(thrown),
                Err(ObjectError::Origin(error)) => {
                    respond::empty(AnswerHead::refuse(error.refusal()), call)
                }
            }
        }
        Plan::Discovery(read) => {
            respond::small(&edge.discovery, read.answer(&edge.discovery.facts), call).await
        }
        Plan::Home(read) => respond::small(&edge.home, read.answer(&edge.home.facts), call).await,
        Plan::Health => respond::json(AnswerHead::json(200), &Alive::NOW, call),
        Plan::Ready => {
            let readiness = readiness(&edge, call).await;
            respond::json(readiness.head(), &readiness, call)
        }
        Plan::Closure => closure::answer(edge, request, call).await,
        Plan::Forward => match &edge.settings.api_url {
            Some(api) => forward::forward(api, request, parts, call).await,
            None => respond::empty(plan::no_api(), call),
        },
        Plan::Answer(head) => respond::empty(head, call),
    }
}

/// Whether the client's address may go on. A limit that cannot be asked limits nothing:
/// readers would pay for it, and the API has limits of its own.
async fn admitted(edge: &Edge, plan: &Plan<'_>, parts: &Parts<'_>, call: &Call) -> bool {
    let limit = match plan {
        Plan::Health | Plan::Ready => return true,
        Plan::Forward if !matches!(parts.facts.method, "GET" | "HEAD" | "OPTIONS") => {
            &edge.write_limit
        }
        _ => &edge.read_limit,
    };
    let (Some(limit), Some(client)) = (limit, parts.client) else {
        return true;
    };
    match JsFuture::from(glue::admits(limit, client)).await {
        Ok(admitted) => admitted.is_truthy(),
        Err(thrown) => {
            let error = text_of(&thrown);
            log::warn("a rate limit could not be asked", &call.trace, &[("error", &error)]);
            true
        }
    }
}

async fn readiness(edge: &Edge, call: &Call) -> Readiness {
    let state = |dependency: &str, result: Result<(), String>| match result {
        Ok(()) => State::Ready,
        Err(error) => {
            let fields = [("dependency", dependency), ("error", error.as_str())];
            log::warn("a dependency does not answer as it should", &call.trace, &fields);
            State::Unavailable
        }
    };
    let bucket = async { edge.origins.reach(call).await.map_err(|error| error.to_string()) };
    let api = async {
        match &edge.settings.api_url {
            Some(api) => Some(forward::reach(api, call).await),
            None => None,
        }
    };
    let (bucket, api) = futures_util::future::join(bucket, api).await;
    let api = api.map_or(State::NotConfigured, |result| state("api", result));
    Readiness::of(state("bucket", bucket), api)
}
