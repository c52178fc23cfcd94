//! The HTTP gateway: requests to plugins' routes, and their answers.
//!
//! Failures are problem details with the request's trace: 404 where there is no route, 503
//! where its plugin is not ready, 502 where the plugin failed or panicked, 504 where it did
//! not answer in time.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::problem::ProblemResponse;
use modunest_sdk::abi::RequestKind;
use modunest_sdk::http::{HttpError, MAX_BODY_BYTES};
use modunest_sdk::{Error, HttpRequest, HttpResponse};
use tokio::sync::Semaphore;

use crate::host::{Call, Cell, Found, GuardRefusal, Host};

/// Calls to all plugins at the same time: each holds a thread.
const CALLS_MAX: usize = 128;

/// Headers about a connection, which end at the gateway (RFC 9110, section 7.6.1), and those
/// that it writes itself.
const OWN_HEADERS: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

struct Gateway {
    host: Arc<ArcSwap<Host>>,
    timeout: Duration,
    permits: Arc<Semaphore>,
}

/// The gateway's router over whatever host is current.
pub fn router(host: Arc<ArcSwap<Host>>, timeout: Duration) -> Router {
    let permits = Arc::new(Semaphore::new(CALLS_MAX));
    let gateway = Arc::new(Gateway { host, timeout, permits });
    let router = Router::new().fallback(answer).with_state(gateway);
    modunest_runtime::trace::layer(router)
}

async fn answer(Shared(gateway): Shared<Arc<Gateway>>, request: Request) -> Response {
    match tokio::time::timeout(gateway.timeout, gateway.serve(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => late(gateway.timeout).into_response(),
    }
}

fn refuse(code: Code, detail: impl Into<String>) -> ProblemResponse {
    Refusal::new(code, detail).into()
}

fn late(timeout: Duration) -> ProblemResponse {
    refuse(Code::PluginTimeout, format!("no answer within {} ms", timeout.as_millis()))
}

impl Gateway {
    async fn serve(&self, request: Request) -> Result<Response, ProblemResponse> {
        let (head, body) = request.into_parts();
        let deadline = modunest_runtime::clock::now().plus(self.timeout);
        let host = self.host.load_full();
        let path = head.uri.path();
        let (cell, target) = match host.routes().find(head.method.as_str(), path) {
            Found::Plugin(cell, target) => (cell.clone(), target.to_owned()),
            Found::Methods(methods) => return Ok(not_allowed(&head.method, path, &methods)),
            Found::Nothing => {
                return Err(refuse(Code::NotFound, format!("no plugin has a route for {path}")));
            }
        };
        // An answer to HEAD is that to GET; the server leaves out its body.
        let method = if head.method == Method::HEAD { "GET" } else { head.method.as_str() };
        let mut request = HttpRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: plugin_headers(&head.headers),
            body: Vec::new(),
        };
        if host.is_guarded(&cell, &target, path) {
            self.ask_guards(host, &cell, &target, request.clone(), deadline.as_millis()).await?;
        }
        request.body = read_body(body).await?;
        let payload = request.encode().map_err(|error| match error {
            HttpError::BodyTooLarge(_) | HttpError::HeadTooLarge(_) => {
                refuse(Code::TooLarge, error.to_string())
            }
            other => refuse(Code::InvalidRequest, other.to_string()),
        })?;
        let answer = self.call(cell.clone(), target, payload, deadline.as_millis()).await?;
        let answer = answer.map_err(|error| refusal_of(&cell, &error))?;
        let response = HttpResponse::decode(&answer).map_err(|error| {
            refuse(Code::PluginFailed, format!("{} answered no HTTP: {error}", cell.name()))
        })?;
        Ok(to_http(response))
    }

    /// Asks the guards of a route before anything of the body is read.
    async fn ask_guards(
        &self,
        host: Arc<Host>,
        cell: &Arc<Cell>,
        target: &str,
        request: HttpRequest,
        deadline_ms: u64,
    ) -> Result<(), ProblemResponse> {
        let closed = |_| refuse(Code::PluginUnavailable, "the host is stopping");
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let trace = modunest_runtime::trace::current().map(|context| context.to_string());
        let (cell, target) = (cell.clone(), target.to_owned());
        let checked = crate::blocking::run(move || {
            let _permit = permit;
            let trace = trace.as_deref().unwrap_or_default();
            host.check_guards(&cell, &target, request, trace, deadline_ms)
        });
        let checked = checked.await.map_err(|error| refuse(Code::Internal, error.to_string()))?;
        checked.map_err(|refusal| {
            let code = match refusal {
                GuardRefusal::Denied { .. } => Code::Forbidden,
                GuardRefusal::Undecided { .. } => Code::PluginUnavailable,
            };
            refuse(code, refusal.to_string())
        })
    }

    /// Calls a plugin on a thread that may block. The permits go with the call, so that one
    /// that outlives its deadline still counts.
    async fn call(
        &self,
        cell: Arc<Cell>,
        target: String,
        payload: Vec<u8>,
        deadline_ms: u64,
    ) -> Result<Result<Vec<u8>, Error>, ProblemResponse> {
        let closed = |_| refuse(Code::PluginUnavailable, "the host is stopping");
        let own = cell.permits().clone().acquire_owned().await.map_err(closed)?;
        let all = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let trace = modunest_runtime::trace::current().map(|context| context.to_string());
        let answer = crate::blocking::run(move || {
            let _permits = (own, all);
            cell.call(Call {
                kind: RequestKind::Http,
                target: &target,
                payload: &payload,
                trace: trace.as_deref().unwrap_or_default(),
                caller: "",
                deadline_ms,
            })
        });
        answer.await.map_err(|error| refuse(Code::Internal, error.to_string()))
    }
}

fn not_allowed(method: &Method, path: &str, methods: &[&str]) -> Response {
    let allowed = methods.join(", ");
    let detail = format!("{path} answers {allowed}, not {method}");
    let mut response = refuse(Code::MethodNotAllowed, detail).into_response();
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// A plugin's failure as a problem. What the plugin says is shown: it is the operator's own.
fn refusal_of(cell: &Cell, error: &Error) -> ProblemResponse {
    let code = match error {
        Error::Failed(_) | Error::Panicked(_) | Error::Unsupported(_) => Code::PluginFailed,
        Error::Unavailable(_) => Code::PluginUnavailable,
        Error::DeadlineExceeded(_) => Code::PluginTimeout,
        Error::InvalidInput(_) => Code::InvalidRequest,
        Error::NotFound(_) => Code::NotFound,
        Error::Denied(_) => Code::Forbidden,
    };
    refuse(code, format!("{} {}: {error}", cell.name(), cell.version()))
}

async fn read_body(body: Body) -> Result<Vec<u8>, ProblemResponse> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(refuse(Code::TooLarge, format!("the body has more than {MAX_BODY_BYTES} bytes")))
        }
        Err(error) => Err(refuse(Code::InvalidRequest, format!("the body broke off: {error}"))),
    }
}

/// Headers that are meant for the plugin. Values that are not text are left out.
fn plugin_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()))
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.trim().to_owned()))
        })
        .collect()
}

fn to_http(answer: HttpResponse) -> Response {
    let length = answer.body.len();
    let mut response = Response::new(Body::from(answer.body));
    // The decoder has checked the status and the headers' characters.
    if let Ok(status) = http::StatusCode::from_u16(answer.status) {
        *response.status_mut() = status;
    }
    for (name, value) in answer.headers {
        let own = OWN_HEADERS.contains(&name.as_str());
        let header = (HeaderName::try_from(name), HeaderValue::from_str(&value));
        if let ((Ok(name), Ok(value)), false) = (header, own) {
            response.headers_mut().append(name, value);
        }
    }
    if answer.status >= 200 && answer.status != 204 && answer.status != 304 {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}
