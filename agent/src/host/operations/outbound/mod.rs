//! Requests out over HTTP.
//!
//! Each step of a request, the first and every redirect, is decided by [`target`]: scheme, no
//! user name, a host that was granted. Names are resolved by [`resolver`], which answers only
//! addresses that may be connected to, and the connection is made to one of these answers: what
//! was checked is what is used, whatever DNS says a moment later.

mod resolver;
mod target;
mod traced;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use modunest_sdk::Error;
use modunest_sdk::operation::form::{Blob, Form as _, request as parse};
use modunest_sdk::operation::outbound::{
    BODY_MAX_BYTES, HEADERS_MAX, REDIRECTS_MAX, Received, Send, URL_MAX_BYTES,
};
use reqwest::Body;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::deadline::{Deadline, exceeded};
use super::{Operations, meter::Meter};
use crate::config::grants::{OutboundSettings, Quota};
use crate::host::frame;
use resolver::{Refused, Resolver};
use traced::Caller;

/// How long a connection may take to be made, of the time for the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one host that wait for their next request.
const IDLE_PER_HOST: usize = 4;
/// Most bytes of a response's headers: what the sum of the largest that servers send is.
const HEADERS_MAX_BYTES: usize = 256 * 1024;

/// How requests out are made for all plugins. The client is made when it is first needed.
pub(super) struct Outbound {
    settings: OutboundSettings,
    client: OnceLock<Result<Client, String>>,
}

impl Outbound {
    pub(super) fn new(settings: OutboundSettings) -> Self {
        Outbound { settings, client: OnceLock::new() }
    }

    pub(super) fn settings(&self) -> &OutboundSettings {
        &self.settings
    }

    fn client(&self) -> Result<&Client, Error> {
        let client = self.client.get_or_init(|| Client::new(&self.settings));
        client
            .as_ref()
            .map_err(|error| Error::Unavailable(format!("the host cannot send requests: {error}")))
    }
}

/// Sends requests for all plugins. Runs apart from the agent's own tasks, so that plugins that
/// wait for slow servers never keep the agent from working.
struct Client {
    client: reqwest::Client,
    /// None only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would wait for requests, and may not be done by a task.
            runtime.shutdown_background();
        }
    }
}

impl Client {
    fn new(settings: &OutboundSettings) -> Result<Self, String> {
        modunest_runtime::http::install_crypto();
        // No proxy: it would resolve names itself, unchecked. No cookies, no decoding.
        let client = reqwest::Client::builder()
            .user_agent(concat!("modunest-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(modunest_runtime::http::IDLE_TIMEOUT)
            .dns_resolver(Arc::new(Resolver::new(settings)))
            .build()
            .map_err(|error| modunest_runtime::http::reason(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("outbound")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Client { client, runtime: Some(runtime) })
    }
}

/// A request that was parsed and may be sent.
struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
    redirects_left: u32,
}

/// Serves `HTTP_SEND`. Holds no thread while it waits; dropped, it gives the request up.
pub(super) async fn send(
    operations: &Operations,
    request: &[u8],
    deadline: Deadline,
) -> Result<Vec<u8>, Error> {
    let request: Send<'_> = parse(request)?;
    let mut limit = operations.resources.outbound().settings().timeout;
    if request.timeout_ms > 0 {
        limit = limit.min(Duration::from_millis(request.timeout_ms.into()));
    }
    let left = deadline.left(limit)?;
    let mut outgoing = checked(&request)?;
    outgoing.url = target::check(operations, request.url)?;
    let quota = operations.quota;
    let meter = &operations.meter;
    let concurrent = quota.http_concurrent;
    let slot = meter.slot(concurrent).ok_or_else(|| {
        Error::Unavailable(format!("the plugin's quota of {concurrent} requests at a time is used"))
    })?;
    let started = Instant::now();
    let caller = Caller::of(frame::trace().as_deref());
    let received = follow(operations, outgoing, caller, &quota, started + left).await;
    drop(slot);
    received.map(|received| received.encode())
}

/// Sends, and follows redirects.
async fn follow(
    operations: &Operations,
    mut outgoing: Outgoing,
    caller: Caller,
    quota: &Quota,
    until: Instant,
) -> Result<Received, Error> {
    loop {
        let step = step(operations, &outgoing, caller, quota, until).await?;
        let Some(location) = step.redirect(outgoing.redirects_left) else {
            return step.received(&outgoing.url);
        };
        let next = outgoing.url.join(&location).map_err(|error| {
            Error::Failed(format!("{} redirects to what is no URL: {error}", outgoing.url))
        })?;
        if outgoing.url.scheme() == "https" && next.scheme() != "https" {
            let from = &outgoing.url;
            return Err(Error::Failed(format!("{from} redirects to {next}, which is not secure")));
        }
        let next = target::check(operations, next.as_str())?;
        if next.origin() != outgoing.url.origin() {
            // What is meant for one host is not for the other.
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
                outgoing.headers.remove(name);
            }
        }
        let see_other = step.status == StatusCode::SEE_OTHER && outgoing.method != Method::HEAD;
        let moved = matches!(step.status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND)
            && outgoing.method == Method::POST;
        if see_other || moved {
            outgoing.method = Method::GET;
            outgoing.body.clear();
            outgoing.headers.remove(header::CONTENT_TYPE);
        }
        outgoing.url = next;
        outgoing.redirects_left -= 1;
    }
}

/// What one step came to.
struct Step {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Step {
    fn redirect(&self, left: u32) -> Option<String> {
        let redirects = matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        (redirects && left > 0).then(|| location.to_owned())
    }

    fn received(self, url: &Url) -> Result<Received, Error> {
        if self.headers.len() > HEADERS_MAX {
            let text = format!("{url} answered more than {HEADERS_MAX} headers");
            return Err(Error::Failed(text));
        }
        let mut bytes = 0;
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            if let Ok(value) = value.to_str() {
                bytes += name.as_str().len() + value.len();
                headers.push((name.as_str().to_owned(), value.to_owned()));
            }
        }
        if bytes > HEADERS_MAX_BYTES {
            return Err(Error::Failed(format!("{url} answered {bytes} bytes of headers")));
        }
        let status = u32::from(self.status.as_u16());
        Ok(Received { status, url: url.to_string(), headers, body: Blob(self.body) })
    }
}

/// One request and its response, counted.
async fn step(
    operations: &Operations,
    outgoing: &Outgoing,
    caller: Caller,
    quota: &Quota,
    until: Instant,
) -> Result<Step, Error> {
    let meter: &Meter = &operations.meter;
    let now = Instant::now();
    meter.request(quota.http_requests_per_minute, now).map_err(|wait_ms| {
        let limit = quota.http_requests_per_minute;
        Error::Unavailable(format!(
            "the plugin's quota of {limit} requests a minute is used; try again in {wait_ms} ms"
        ))
    })?;
    let bytes_limit = quota.http_bytes_per_minute;
    if (outgoing.body.len() as u64) > meter.bytes_left(bytes_limit, now) {
        return Err(bytes_used(bytes_limit));
    }
    meter.add_bytes(outgoing.body.len() as u64, bytes_limit, now);
    let room = meter.bytes_left(bytes_limit, now);
    let outbound = operations.resources.outbound();
    let client = outbound.client()?;
    let runtime = client.runtime.as_ref().ok_or_else(exceeded)?;
    let mut headers = outgoing.headers.clone();
    let traced = caller.begin(&outgoing.method, &outgoing.url, &mut headers);
    let request = client
        .client
        .request(outgoing.method.clone(), outgoing.url.clone())
        .headers(headers)
        .body(Body::from(outgoing.body.clone()));
    let sent = runtime
        .spawn(async move { tokio::time::timeout_at(until.into(), exchange(request, room)).await });
    let step = match AbortOnDropHandle::new(sent).await {
        Ok(Ok((bytes, outcome))) => {
            meter.add_bytes(bytes, bytes_limit, Instant::now());
            outcome.map_err(|cut| cut.error(bytes_limit, &outgoing.url))
        }
        Ok(Err(_)) => Err(exceeded()),
        Err(_) => Err(Error::Unavailable("the request was cut off".to_owned())),
    };
    traced.end(step.as_ref().map(|step| step.status));
    step
}

fn bytes_used(limit: u64) -> Error {
    Error::Unavailable(format!("the plugin's quota of {limit} bytes a minute is used"))
}

/// Why a response is not whole.
enum Cut {
    /// Above what is left of the quota.
    Room,
    /// Above the limit of a body.
    Long,
    Failed(reqwest::Error),
}

impl Cut {
    fn error(self, bytes_limit: u64, url: &Url) -> Error {
        match self {
            Cut::Room => bytes_used(bytes_limit),
            Cut::Long => {
                let host = url.host_str().unwrap_or_default();
                Error::Failed(format!("{host} answered more than {BODY_MAX_BYTES} bytes"))
            }
            Cut::Failed(error) => unanswered(&error, url),
        }
    }
}

/// Sends and reads all of the response; answers how many bytes of it came in any case.
async fn exchange(request: reqwest::RequestBuilder, room: u64) -> (u64, Result<Step, Cut>) {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return (0, Err(Cut::Failed(error))),
    };
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let mut body = Vec::new();
    loop {
        let piece = match response.chunk().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return (body.len() as u64, Ok(Step { status, headers, body })),
            Err(error) => return (body.len() as u64, Err(Cut::Failed(error))),
        };
        let length = (body.len() + piece.len()) as u64;
        if length > BODY_MAX_BYTES as u64 {
            return (length, Err(Cut::Long));
        }
        if length > room {
            return (length, Err(Cut::Room));
        }
        body.extend_from_slice(&piece);
    }
}

fn unanswered(error: &reqwest::Error, url: &Url) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Error::Denied(refused.to_string());
        }
        cause = error.source();
    }
    let host = url.host_str().unwrap_or_default();
    Error::Unavailable(format!("{host} does not answer: {}", modunest_runtime::http::reason(error)))
}

/// Everything but the URL.
fn checked(request: &Send<'_>) -> Result<Outgoing, Error> {
    let refuse = |text: String| Err(Error::InvalidInput(text));
    if request.url.len() > URL_MAX_BYTES {
        return refuse(format!("a URL has at most {URL_MAX_BYTES} bytes"));
    }
    if request.headers.len() > HEADERS_MAX {
        return refuse(format!("a request has at most {HEADERS_MAX} headers"));
    }
    if request.body.len() > BODY_MAX_BYTES {
        return refuse(format!("a body has at most {BODY_MAX_BYTES} bytes"));
    }
    if request.redirects > REDIRECTS_MAX {
        return refuse(format!("at most {REDIRECTS_MAX} redirects are followed"));
    }
    let method = Method::from_bytes(request.method.as_bytes());
    let method = match method {
        // CONNECT and TRACE are about the connection, which is the host's.
        Ok(method) if !matches!(method, Method::CONNECT | Method::TRACE) => method,
        _ => return refuse("that is no method for a request".to_owned()),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let parsed =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        let (Ok(name), Ok(value)) = parsed else {
            return refuse(format!("the header \"{}\" is malformed", name.escape_debug()));
        };
        if HOSTS_OWN.contains(&name) {
            return refuse(format!("the header {name} is the host's"));
        }
        headers.append(name, value);
    }
    #[allow(clippy::unwrap_used, reason = "a constant that is a URL")]
    let url = Url::parse("http://unset.invalid").unwrap();
    let (body, redirects_left) = (request.body.to_vec(), request.redirects);
    Ok(Outgoing { method, url, headers, body, redirects_left })
}

/// Headers about the connection and the message's form: with them a plugin could smuggle a
/// second request, or speak to another host than the one that was checked.
const HOSTS_OWN: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];
