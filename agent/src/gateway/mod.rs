//! The HTTP gateway: requests to plugins' routes, and their answers.
//!
//! The story of a request: the `server` takes it in within its bounds; its route says which plugin
//! answers; the `door` says who asks and whether they may; its guards are asked; its `body` is
//! read, or handed on piece by piece; it waits for a place (`queue`); the plugin is called; its
//! answer (`message`) is sent, or goes on as a `stream` or a WebSocket (`socket`). What is held
//! of bodies meanwhile is bounded by a `budget`, and clients keep a `pace`.
//!
//! Failures are problem details with the request's trace: 404 where there is no route, 401 and
//! 403 where the user is none or another, 408 where the client is too slow, 413 where it sends
//! too much, 502 where the plugin failed or panicked, 503 where it is not ready or has too many
//! callers (with `Retry-After`), 504 where it did not answer in time.

mod body;
mod budget;
mod door;
mod message;
mod pace;
mod places;
mod queue;
mod server;
mod socket;
mod stream;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State as Shared};
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::header::{ALLOW, HeaderValue, RETRY_AFTER, UPGRADE};
use http::request::Parts;
use modunest_core::manifest::RouteStream;
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::problem::ProblemResponse;
use modunest_runtime::trace::Route;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};
use modunest_sdk::http::{HttpError, MAX_BODY_BYTES};
use modunest_sdk::stream::Upload;
use modunest_sdk::{Error, HttpRequest, HttpResponse, Identity};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::config::{Config, GatewaySettings};
use crate::host::drive::drive;
use crate::host::{Cell, Found, GuardRefusal, Host, Item, OwnedCall, UploadBody};
use crate::users::{self, KeySetError};
use body::Received;
use budget::{Budget, Taken};
use door::{Door, RETRY_AFTER_S};
use pace::Pace;
use queue::{Bounds, Caller, Full, Queues};
use server::{ConnectionPlace, Running};

/// The gateway over whatever host is current.
pub struct Gateway {
    host: Arc<ArcSwap<Host>>,
    rules: ArcSwap<Rules>,
    /// Connections that there may be.
    connections: Arc<Semaphore>,
    queues: Queues,
    budget: Budget,
    running: Running,
}

/// What the operator's configuration comes to here. A request has the same ones from its
/// beginning to its end.
pub(crate) struct Rules {
    settings: GatewaySettings,
    /// From a request's head to its answer's.
    timeout: std::time::Duration,
    door: Door,
}

impl Rules {
    fn new(config: &Config, door: Door) -> Self {
        let settings = config.gateway_limits.clone();
        let timeout = settings.request_timeout.unwrap_or(config.host.call_timeout);
        Rules { settings, timeout, door }
    }
}

/// An answer that ends a request early.
struct Refused(Box<Response>);

impl<R: axum::response::IntoResponse> From<R> for Refused {
    fn from(response: R) -> Self {
        Refused(Box::new(response.into_response()))
    }
}

impl Gateway {
    /// A gateway with the operator's limits, users and rules.
    ///
    /// # Errors
    /// When an issuer's key set in a file cannot be used.
    pub fn new(host: Arc<ArcSwap<Host>>, config: &Config) -> Result<Arc<Self>, KeySetError> {
        let settings = &config.gateway_limits;
        Ok(Arc::new(Gateway {
            host,
            connections: Arc::new(Semaphore::new(settings.connections)),
            queues: Queues::new(Bounds::of(settings)),
            budget: Budget::new(settings.buffered_bytes),
            running: Running::new(),
            rules: ArcSwap::from_pointee(Rules::new(config, Door::new(&config.users)?)),
        }))
    }

    /// The rules of another configuration, which are not in force yet.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub(crate) fn rules_of(&self, config: &Config) -> Result<Rules, KeySetError> {
        Ok(Rules::new(config, self.rules().door.renewed(&config.users)?))
    }

    /// Whether other users would be let in by these rules than by those that are in force.
    pub(crate) fn changes_users(&self, rules: &Rules) -> bool {
        !self.rules().door.is_same(&rules.door)
    }

    /// Puts rules in force: for requests and connections that come, and for the number of those
    /// that are there. To be called within a runtime.
    pub(crate) fn change(&self, rules: Rules) {
        let now = rules.settings.clone();
        let before = self.rules.swap(Arc::new(rules)).settings.clone();
        places::resize(&self.connections, before.connections, now.connections);
        self.queues.resize(Bounds::of(&now));
        self.budget.resize(before.buffered_bytes, now.buffered_bytes);
    }

    fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Serves until `stopped`, and then what it has begun, within the drain's timeout.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stopped: watch::Receiver<bool>) {
        let router = Router::new().fallback(answer).with_state(self.clone());
        let router = modunest_runtime::trace::layer(router);
        server::serve(listener, router, &self, stopped).await;
    }

    async fn answer(self: &Arc<Self>, request: Request) -> Result<Response, Refused> {
        let rules = self.rules.load_full();
        let until = Instant::now() + rules.timeout;
        let (mut head, body) = request.into_parts();
        let host = self.host.load_full();
        let path = head.uri.path().to_owned();
        let (cell, target) = match host.routes().find(head.method.as_str(), &path) {
            Found::Plugin(cell, target) => (cell.clone(), target.to_owned()),
            Found::Methods(methods) => return Ok(not_allowed(&head.method, &path, &methods)),
            Found::Nothing => {
                return Err(
                    refuse(Code::NotFound, format!("no plugin has a route for {path}")).into()
                );
            }
        };
        if rules.door.has_users() {
            users::take_offered(&mut head.headers);
        }
        let user = rules.door.admit(&cell, &head).await?;
        let identity = user.map(|user| Arc::new(door::identity(user)));
        let called = Called { cell, target, identity };
        let takes_sockets = called.takes(RouteStream::Websocket);
        let upgrade = if takes_sockets { websocket(&mut head).await } else { None };
        let mut request = message::request(&head, rules.door.has_users());
        request.identity = called.identity.as_deref().cloned();
        request.websocket = upgrade.is_some();

        if host.is_guarded(&called.cell, &called.target, &path) {
            self.ask_guards(&host, &called, request.clone(), until).await?;
        }
        // The whole request is of one instance: its streams and uploads are that one's.
        let called = match called.cell.tried(Item::Route(&called.target)) {
            Some(tried) => Called { cell: tried, ..called },
            None => called,
        };

        let takes_uploads = called.takes(RouteStream::Upload);
        let named = body::length(&head.headers);
        let limit = if takes_uploads { rules.settings.body_bytes } else { MAX_BODY_BYTES as u64 };
        if named.is_some_and(|length| length > limit) {
            return Err(too_large(limit).into());
        }
        let pace = Pace::of(&rules.settings);
        let received = body::receive(body, named, takes_uploads, &self.budget, pace);
        let received = tokio::time::timeout_at(until, received).await.map_err(|_| {
            let text = format!("the body did not arrive within {} ms", rules.timeout.as_millis());
            refuse(Code::RequestTimeout, text)
        })?;
        let answer = match received? {
            Received::Whole(body, taken) => {
                request.body = body;
                let asked =
                    Asked { request, taken, caller: Caller::New, until, place_until: until };
                self.call_http(&rules, &called, asked).await?
            }
            Received::Large(large) => {
                let upload = Arc::new(UploadBody::default());
                let opened = called.cell.streams().open_upload(upload.clone());
                request.upload = Some(Upload { id: opened.id, length: named });
                let feed = body::feed(upload, large, rules.settings.body_bytes);
                let asked = Asked {
                    request,
                    taken: Taken::default(),
                    caller: Caller::Upload,
                    until: Instant::now() + rules.settings.stream_timeout,
                    place_until: Instant::now() + rules.timeout,
                };
                let call = self.call_http(&rules, &called, asked);
                tokio::pin!(call, feed);
                // The call's answer ends the matter, whether it has read all or not.
                tokio::select! {
                    biased;
                    answer = &mut call => answer?,
                    () = &mut feed => call.await?,
                }
            }
        };
        let route = Route(called.target.clone());
        let mut response = self.respond(called, answer, upgrade, &head)?;
        response.extensions_mut().insert(route);
        Ok(response)
    }

    /// Sends an answer, or begins the stream behind it.
    fn respond(
        self: &Arc<Self>,
        called: Called,
        Answered { mut answer, taken }: Answered,
        upgrade: Option<WebSocketUpgrade>,
        head: &Parts,
    ) -> Result<Response, Refused> {
        let body = budget::held(std::mem::take(&mut answer.body), taken);
        let Some(id) = answer.stream else {
            let length = body.len();
            return Ok(message::response(&answer, body.into(), Some(length)));
        };
        let plugin = called.cell.name().clone();
        let is_events = stream::is_events(&answer);
        let long = answer.websocket || is_events;
        let stream = stream::Pulled::open(self, called, id, long).ok_or_else(|| {
            refuse(Code::PluginFailed, format!("{plugin} named a stream that is open already"))
        })?;
        match (answer.websocket, upgrade) {
            (true, Some(upgrade)) => {
                let place = head.extensions.get::<ConnectionPlace>().cloned();
                Ok(socket::accept(self, upgrade, &answer, stream, place))
            }
            (true, None) => Err(refuse(
                Code::PluginFailed,
                format!("{plugin} accepted a WebSocket that nobody asked for"),
            )
            .into()),
            (false, _) => {
                Ok(message::response(&answer, stream::body(stream, body, is_events), None))
            }
        }
    }

    /// Asks the guards of a route before anything of the body is read. They are told of the
    /// user, and of everything but the body. One that hangs keeps no place.
    async fn ask_guards(
        &self,
        host: &Host,
        called: &Called,
        request: HttpRequest,
        until: Instant,
    ) -> Result<(), Refused> {
        let late = || again(refuse(Code::PluginUnavailable, "no guard had a place free in time"));
        let place = self.queues.guard_place(called.cell.name(), until).await.map_err(|_| late())?;
        let left = until.saturating_duration_since(Instant::now());
        let deadline_ms = modunest_runtime::clock::now().plus(left).as_millis();
        let trace = modunest_runtime::trace::current().map(|context| context.to_string());
        let Called { cell, target, identity } = called;
        let trace = trace.as_deref().unwrap_or_default();
        let identity = identity.clone();
        let checked = host.check_guards(cell, target, request, identity, trace, deadline_ms).await;
        drop(place);
        checked.map_err(|refusal| {
            let code = match refusal {
                GuardRefusal::Denied { .. } => Code::Forbidden,
                GuardRefusal::Undecided { .. } => Code::PluginUnavailable,
            };
            refuse(code, refusal.to_string()).into()
        })
    }

    /// Calls a plugin's route.
    async fn call_http(
        self: &Arc<Self>,
        rules: &Rules,
        called: &Called,
        asked: Asked,
    ) -> Result<Answered, Refused> {
        let Asked { request, taken, caller, place_until, until } = asked;
        let payload = request.encode().map_err(|error| match error {
            HttpError::BodyTooLarge(_) | HttpError::HeadTooLarge(_) => {
                refuse(Code::TooLarge, error.to_string())
            }
            other => refuse(Code::InvalidRequest, other.to_string()),
        })?;
        let cell = &called.cell;
        let waiting = cell.meter().wait();
        let place = self.queues.place(cell.name(), caller, place_until).await.map_err(|full| {
            let reason = match full {
                Full::Queue => "has as many callers waiting as it may",
                Full::Late => "had no place free in time",
            };
            let text = format!("{} {reason}; try again", cell.name());
            again(refuse(Code::PluginUnavailable, text))
        })?;
        drop(waiting);
        let target = called.target.clone();
        let call = self.run(called, RequestKind::Http, target, payload, place, until);
        let served = call.await.ok_or_else(|| {
            refuse(
                Code::PluginTimeout,
                format!("no answer within {} ms", rules.timeout.as_millis()),
            )
        })?;
        // What was asked is gone by now.
        drop(taken);
        let Served { bytes, place } = served.map_err(|error| refusal_of(cell, &error))?;
        let answer = HttpResponse::decode(&bytes).map_err(|error| {
            cell.meter().fault();
            refuse(Code::PluginFailed, format!("{} answered no HTTP: {error}", cell.name()))
        })?;
        drop(bytes);
        if answer.status >= 500 {
            cell.meter().fault();
        }
        let until = until.min(Instant::now() + rules.timeout);
        let taken = self.budget.take(answer.body.len(), until).await;
        let taken = taken.ok_or_else(|| again(budget::full()))?;
        // Not before: there are no more answers without memory than there are places.
        drop(place);
        Ok(Answered { answer, taken })
    }

    /// Calls a plugin; `None` where it does not answer in time. The place goes with the call, so
    /// that one that outlives its deadline still counts.
    async fn run(
        &self,
        called: &Called,
        kind: RequestKind,
        target: String,
        payload: Vec<u8>,
        place: queue::Place,
        until: Instant,
    ) -> Option<Result<Served, Error>> {
        let left = until.saturating_duration_since(Instant::now());
        let deadline_ms = modunest_runtime::clock::now().plus(left).as_millis();
        let trace = modunest_runtime::trace::current().map(|context| context.to_string());
        let trace = trace.unwrap_or_default();
        let call = OwnedCall { kind, target, payload, trace, caller: String::new(), deadline_ms };
        let (cell, identity) = (called.cell.clone(), called.identity.clone());
        let serve = async move {
            let bytes = cell.call_async(call).await?;
            Ok(Served { bytes, place })
        };
        tokio::time::timeout_at(until, drive(serve, identity)).await.ok()
    }
}

async fn answer(Shared(gateway): Shared<Arc<Gateway>>, request: Request) -> Response {
    gateway.answer(request).await.unwrap_or_else(|Refused(response)| *response)
}

/// A request that is ready for its plugin.
struct Asked {
    request: HttpRequest,
    /// The memory of its body.
    taken: Taken,
    caller: Caller,
    /// Until when it may wait for a place.
    place_until: Instant,
    /// Until when it has to be answered.
    until: Instant,
}

/// What a call answered, and the place that it had.
struct Served {
    bytes: OwnedBuffer,
    place: queue::Place,
}

/// A plugin's answer, and the memory of its body.
struct Answered {
    answer: HttpResponse,
    taken: Taken,
}

/// The plugin that answers a request, and for whom.
#[derive(Clone)]
struct Called {
    cell: Arc<Cell>,
    /// The route's path as the manifest has it.
    target: String,
    identity: Option<Arc<Identity>>,
}

impl Called {
    fn takes(&self, what: RouteStream) -> bool {
        let routes = &self.cell.manifest().routes;
        routes.iter().any(|route| route.path == self.target && route.takes(what))
    }
}

/// The WebSocket that a client asks for, if it does so by the rules.
async fn websocket(head: &mut Parts) -> Option<WebSocketUpgrade> {
    head.headers.get(UPGRADE)?;
    WebSocketUpgrade::from_request_parts(head, &()).await.ok()
}

fn refuse(code: Code, detail: impl Into<String>) -> ProblemResponse {
    Refusal::new(code, detail).into()
}

fn too_large(limit: u64) -> ProblemResponse {
    refuse(Code::TooLarge, format!("the body has more than {limit} bytes"))
}

/// The same answer, with the time after which a client may try again.
fn again(problem: ProblemResponse) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    response
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
fn refusal_of(cell: &Cell, error: &Error) -> Response {
    let code = match error {
        Error::Failed(_) | Error::Panicked(_) | Error::Unsupported(_) => Code::PluginFailed,
        Error::Unavailable(_) => Code::PluginUnavailable,
        Error::DeadlineExceeded(_) => Code::PluginTimeout,
        Error::InvalidInput(_) => Code::InvalidRequest,
        Error::NotFound(_) => Code::NotFound,
        Error::Denied(_) => Code::Forbidden,
    };
    let problem = refuse(code, format!("{} {}: {error}", cell.name(), cell.version()));
    if code == Code::PluginUnavailable { again(problem) } else { problem.into_response() }
}
