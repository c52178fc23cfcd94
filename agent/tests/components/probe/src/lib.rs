//! A plugin that keeps a count, does what it is told, and attacks where it is told to: the same
//! source in every tier.
//!
//! Requests come as `/ROUTE/…`:
//!
//! | Path | What it does |
//! |---|---|
//! | `/ROUTE` | what the body says ([`commands`]) |
//! | `/ROUTE/ask/NUMBER` | asks for an operation with the body; the status is in `x-status` |
//! | `/ROUTE/big?N`, `/ROUTE/upload`, `/ROUTE/socket` | bodies and messages, piece by piece ([`streaming`]) |
//! | `/ROUTE/NAME` | what the service `NAME` does with the body |

mod attacks;
mod commands;
mod streaming;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use modunest_sdk::stream::{Piece, StreamRequest, Streams};
use modunest_sdk::{
    Decision, Error, GuardRequest, Host, HttpRequest, HttpResponse, Level, Plugin, Request,
    export_plugin,
};

/// How long it takes to be made where its configuration is `slow`. It has no clock that wakes it.
const SLOW_CREATE_MS: u64 = 1000;

/// Its state.
pub struct Probe {
    host: Host,
    config: Vec<u8>,
    calls: AtomicU64,
    /// What its guards and events saw, a line each.
    seen: Mutex<String>,
    /// How often an event was refused that shall come again.
    refusals: AtomicU64,
    /// What it says of its health; empty where it is well.
    ails: Mutex<String>,
    /// How often it was asked after it.
    asked: AtomicU64,
    streams: Streams,
}

impl Plugin for Probe {
    fn create(host: Host, config: &[u8]) -> Result<Self, Error> {
        match config {
            b"refuse" => Err(Error::invalid_input("the configuration says no")),
            b"spin" => attacks::spin(),
            b"slow" => {
                work(&host, SLOW_CREATE_MS);
                Self::create(host, b"")
            }
            _ => Ok(Self {
                host,
                config: config.to_vec(),
                calls: AtomicU64::new(0),
                seen: Mutex::default(),
                refusals: AtomicU64::new(0),
                ails: Mutex::default(),
                asked: AtomicU64::new(0),
                streams: Streams::default(),
            }),
        }
    }

    fn before_load(&self) -> Result<(), Error> {
        self.hears("before-load")
    }

    fn after_load(&self) -> Result<(), Error> {
        self.hears("after-load")
    }

    fn before_unload(&self) -> Result<(), Error> {
        self.hears("before-unload")
    }

    fn after_unload(&self) -> Result<(), Error> {
        self.hears("after-unload")
    }

    fn on_error(&self, text: &str) -> Result<(), Error> {
        self.hears(&format!("on-error {text}"))
    }

    fn stop(&self) -> Result<(), Error> {
        self.hears("stop")
    }

    fn health(&self) -> Result<(), Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let ails = lock(&self.ails).clone();
        match ails.as_str() {
            "" => Ok(()),
            "hang" => attacks::spin(),
            _ => Err(Error::failed(ails)),
        }
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let payload = request.payload;
        match request.target {
            "echo" => Ok(payload.to_vec()),
            "count" => {
                let count = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(count.to_string().into_bytes())
            }
            "request" => Ok(format!(
                "{} {} {} {}",
                request.target,
                request.caller.unwrap_or("-"),
                request.trace.unwrap_or("-"),
                request.deadline_ms.unwrap_or(0),
            )
            .into_bytes()),
            "now" => Ok(self.host.now_ms().to_string().into_bytes()),
            "assets" => Ok(self.host.assets()?.join("\n").into_bytes()),
            "asset" => self.host.asset(text(payload)?),
            "folder" => self.host.assets_dir().map(|_| Vec::new()),
            "operate" => self.host.operate(7, payload),
            "service" => {
                let (plugin, service) = text(payload)?
                    .split_once(' ')
                    .ok_or_else(|| Error::invalid_input("a plugin and a service"))?;
                self.host.service(plugin, service, b"from probe")
            }
            "config" => Ok(self.config.clone()),
            "fail" => Err(Error::failed("as it was told to")),
            "work" => {
                work(&self.host, text(payload)?.parse().map_err(Error::invalid_input)?);
                Ok(Vec::new())
            }
            "ail" => {
                *lock(&self.ails) = text(payload)?.to_owned();
                Ok(Vec::new())
            }
            "asked" => Ok(self.asked.load(Ordering::Relaxed).to_string().into_bytes()),
            "plain" | "store" | "store/get" | "store/put" | "open" | "shut" => Ok(format!(
                "{} for {} says {}",
                request.target,
                request.caller.unwrap_or("-"),
                text(payload)?
            )
            .into_bytes()),
            other => attacks::act(self, other, payload)
                .unwrap_or_else(|| Err(Error::not_found(format!("no service `{other}`")))),
        }
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let path = request.path.clone();
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        match parts[..] {
            [] => commands::run(self, &request.body).map(page),
            ["ask", number] => {
                let number = number.parse().map_err(Error::invalid_input)?;
                Ok(asked(self.host.operate(number, &request.body)))
            }
            ["big" | "upload" | "socket"] => streaming::serve(self, parts[0], &request),
            [service] | [.., service] => self.call(Request::new(service, &request.body)).map(page),
        }
    }

    fn guard(&self, request: GuardRequest) -> Result<Decision, Error> {
        self.note("guard", &request.guard);
        match request.guard.as_str() {
            "allow" => Ok(Decision::Allow),
            "deny" => Ok(Decision::Deny("not on a Saturday".to_owned())),
            "team" => {
                let team = request.http.as_ref().and_then(|http| http.header("x-team"));
                let is_red = team == Some("red");
                let reason = "only the red team".to_owned();
                Ok(if is_red { Decision::Allow } else { Decision::Deny(reason) })
            }
            "fails" => Err(Error::failed("the database is away: secret")),
            "late" => attacks::spin(),
            other => Err(Error::Unsupported(format!("no guard `{other}`"))),
        }
    }

    fn event(&self, request: Request<'_>) -> Result<(), Error> {
        let payload = text(request.payload)?;
        match payload.split(' ').next().unwrap_or_default() {
            "twice" if self.refusals.fetch_add(1, Ordering::Relaxed) < 2 => {
                self.note("refused", payload);
                return Err(Error::failed("not yet"));
            }
            "never" => return Err(Error::failed("never")),
            "bad" => return Err(Error::invalid_input("bad")),
            _ => {}
        }
        self.note("event", payload);
        Ok(())
    }

    fn stream(&self, request: StreamRequest<'_>) -> Result<Piece, Error> {
        self.streams.serve(request)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(self.calls.load(Ordering::Relaxed).to_le_bytes().to_vec())
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let bytes = snapshot.try_into().map_err(|_| Error::invalid_input("eight bytes"))?;
        self.calls.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

impl Probe {
    /// Writes a moment of its life to the log.
    fn hears(&self, moment: &str) -> Result<(), Error> {
        self.host.log(Level::Debug, &format!("hears [{moment}]"));
        Ok(())
    }

    fn note(&self, what: &str, detail: &str) {
        lock(&self.seen).push_str(&format!("{what} {detail}\n"));
    }

    fn seen(&self) -> String {
        lock(&self.seen).clone()
    }
}

/// Computes for so long.
fn work(host: &Host, ms: u64) {
    let until_ms = host.now_ms() + ms;
    while host.now_ms() < until_ms {}
}

/// What these locks hold is never left half-changed.
fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn page(body: Vec<u8>) -> HttpResponse {
    HttpResponse::new(200, "application/octet-stream", body)
}

/// What an operation came to: its status in a header, its answer or the error's text as the body.
fn asked(outcome: Result<Vec<u8>, Error>) -> HttpResponse {
    let (status, body) = match outcome {
        Ok(answer) => (0, answer),
        Err(error) => (error.status().code(), error.text().as_bytes().to_vec()),
    };
    page(body).with_header("x-status", &status.to_string())
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(Error::invalid_input)
}

export_plugin!(Probe);
