//! Guards: functions of plugins that are asked before a route or a service is.
//!
//! The operator's guards are asked first, then those that the route lists, in its order. The
//! first that denies ends the matter. A guard that cannot decide, because it failed, panicked,
//! was not there, took too long or answered something else, denies as well. A guard grants
//! nothing: what it allows goes on exactly as it came.
//!
//! Nobody who asks the gateway waits longer for a guard than it may take, whether its call has ended
//! by then or not. Guards of a service are asked on the thread that calls it, and a library in the
//! agent's own process that hangs there holds that thread up, as any service of it would.
//!
//! A plugin uses its own guards and those that a plugin it depends on exports; both are checked
//! before anything is loaded ([`super::links`]), and again here.

mod door;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use modunest_core::manifest::{GuardUse, PluginItem};
use modunest_core::name::ServiceName;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};
use modunest_sdk::{Decision, Error, GuardRequest, HttpRequest, Identity};

use super::drive::drive;
use super::{Call, Cell, Host, OwnedCall, frame};

/// Calls of a plugin that may hang in the agent's own process before its guards are not asked any
/// more. Each holds a thread, and none a place of the gateway's. As many as a plugin's routes hold
/// by default (`plugin_calls`).
const OVERDUE_MAX: u64 = 16;

/// Why a request may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardRefusal {
    /// A guard said no.
    Denied {
        /// `org/plugin:guard`.
        guard: String,
        /// Its reason, perhaps empty.
        reason: String,
    },
    /// A guard could not decide. What it said goes to the log, not to whoever asked.
    Undecided {
        /// `org/plugin:guard`.
        guard: String,
    },
}

impl fmt::Display for GuardRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardRefusal::Denied { guard, reason } if reason.is_empty() => {
                write!(f, "the guard {guard} denies this")
            }
            GuardRefusal::Denied { guard, reason } => {
                write!(f, "the guard {guard} denies this: {reason}")
            }
            GuardRefusal::Undecided { guard } => {
                write!(f, "the guard {guard} could not decide, and so this is denied")
            }
        }
    }
}

impl GuardRefusal {
    pub(super) fn into_error(self) -> Error {
        Error::Denied(self.to_string())
    }
}

impl Host {
    /// Asks every guard of a route about a request, whose body they do not see, on behalf of its
    /// `identity`. `route` is the route's path as the manifest has it.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn check_guards(
        &self,
        cell: &Arc<Cell>,
        route: &str,
        request: HttpRequest,
        identity: Option<Arc<Identity>>,
        trace: &str,
        deadline_ms: u64,
    ) -> Result<(), GuardRefusal> {
        let door = door::guards(cell, &request.path);
        let own = guards_of(cell, route);
        if door.is_empty() && own.is_empty() {
            return Ok(());
        }
        let asked = GuardRequest::route(cell.name().as_str(), route, request);
        let asking = Asking::new(cell, &asked, trace, deadline_ms)?;
        let asked = async {
            for item in &door {
                // The operator may name any plugin, so a missing one is no plan's mistake.
                let guarding = asking.exporting(self.cell(&item.plugin).cloned(), item)?;
                asking.ask_in_time(guarding, &item.item, identity.clone()).await?;
            }
            for guard in own {
                let (guarding, name) = match guard {
                    GuardUse::Own(name) => (cell.clone(), name),
                    GuardUse::Of(item) => {
                        (asking.exporting(cell.dependency(&item.plugin), item)?, &item.item)
                    }
                };
                asking.ask_in_time(guarding, name, identity.clone()).await?;
            }
            Ok(())
        };
        asked.await.inspect_err(|refusal| cell.links().count_refusal(refusal))
    }

    /// Whether any guard has to be asked before a request to this path of a route goes on.
    pub fn is_guarded(&self, cell: &Cell, route: &str, path: &str) -> bool {
        let settings = cell.links().settings();
        settings.guards.iter().any(|rule| door::applies(rule, cell, path))
            || !guards_of(cell, route).is_empty()
    }
}

fn guards_of<'c>(cell: &'c Cell, route: &str) -> &'c [GuardUse] {
    let mut routes = cell.manifest().routes.iter();
    routes.find(|one| one.path == route).map_or(&[], |route| &route.guards)
}

impl Cell {
    /// Asks guards of one of this plugin's services.
    pub(super) fn ask_guards(
        &self,
        guards: &[GuardUse],
        request: &GuardRequest,
        trace: &str,
        deadline_ms: u64,
    ) -> Result<(), GuardRefusal> {
        let asked = Asking::new(self, request, trace, deadline_ms)
            .and_then(|asking| asking.ask_all(guards));
        asked.inspect_err(|refusal| self.links().count_refusal(refusal))
    }
}

/// One request, as every guard is asked about it.
struct Asking<'a> {
    /// The plugin whose route or service is guarded.
    guarded: &'a Cell,
    payload: Vec<u8>,
    trace: &'a str,
    /// When the last of them must have decided, in Unix milliseconds.
    deadline_ms: u64,
}

impl<'a> Asking<'a> {
    fn new(
        guarded: &'a Cell,
        request: &GuardRequest,
        trace: &'a str,
        deadline_ms: u64,
    ) -> Result<Self, GuardRefusal> {
        let payload = request.encode().map_err(|error| {
            tracing::warn!(plugin = %guarded.name(), %error, "no guard can be asked about a request");
            GuardRefusal::Undecided { guard: format!("of {}", guarded.name()) }
        })?;
        let patience = guarded.links().settings().guard_timeout;
        let own = modunest_runtime::clock::now().plus(patience).as_millis();
        Ok(Asking { guarded, payload, trace, deadline_ms: frame::earlier(own, deadline_ms) })
    }

    fn ask_all(&self, guards: &[GuardUse]) -> Result<(), GuardRefusal> {
        guards.iter().try_for_each(|guard| match guard {
            GuardUse::Own(name) => self.ask(self.guarded, name),
            GuardUse::Of(item) => {
                let guarding = self.exporting(self.guarded.dependency(&item.plugin), item)?;
                self.ask(&guarding, &item.item)
            }
        })
    }

    /// Another plugin, if it is here and exports this guard.
    fn exporting(
        &self,
        cell: Option<Arc<Cell>>,
        item: &PluginItem,
    ) -> Result<Arc<Cell>, GuardRefusal> {
        let exported = |cell: &Arc<Cell>| {
            let mut guards = cell.manifest().guards.iter();
            guards.any(|guard| guard.name == item.item && guard.exported)
        };
        cell.filter(exported).ok_or_else(|| {
            tracing::warn!(plugin = %self.guarded.name(), guard = %item, "no plugin here exports this guard");
            GuardRefusal::Undecided { guard: item.to_string() }
        })
    }

    /// Asks on this thread, for as long as the answer takes.
    fn ask(&self, cell: &Cell, name: &ServiceName) -> Result<(), GuardRefusal> {
        let asked = hangs_too_often(cell).and_then(|()| {
            cell.call(Call {
                kind: RequestKind::Guard,
                target: name.as_str(),
                payload: &self.payload,
                trace: self.trace,
                caller: self.guarded.name().as_str(),
                deadline_ms: self.deadline_ms,
            })
        });
        self.judge(cell, name, asked)
    }

    /// Asks, and waits for the answer until the deadline. A call that goes on behind it is counted
    /// as failed by whoever serves it.
    async fn ask_in_time(
        &self,
        cell: Arc<Cell>,
        name: &ServiceName,
        identity: Option<Arc<Identity>>,
    ) -> Result<(), GuardRefusal> {
        let call = OwnedCall {
            kind: RequestKind::Guard,
            target: name.to_string(),
            payload: self.payload.clone(),
            trace: self.trace.to_owned(),
            caller: self.guarded.name().to_string(),
            deadline_ms: self.deadline_ms,
        };
        let asked = match hangs_too_often(&cell) {
            Ok(()) => {
                let asking = drive(cell.clone().call_async(call), identity);
                tokio::time::timeout(self.left(), asking).await.unwrap_or_else(|_| Err(too_late()))
            }
            Err(hangs) => Err(hangs),
        };
        self.judge(&cell, name, asked)
    }

    /// Until the last of them must have decided.
    fn left(&self) -> Duration {
        let now_ms = modunest_runtime::clock::now().as_millis();
        Duration::from_millis(self.deadline_ms.saturating_sub(now_ms))
    }

    /// What a guard's answer means.
    fn judge(
        &self,
        cell: &Cell,
        name: &ServiceName,
        answer: Result<OwnedBuffer, Error>,
    ) -> Result<(), GuardRefusal> {
        let guard = format!("{}:{name}", cell.name());
        let decided = answer.and_then(|answer| Decision::decode(&answer)).and_then(|decision| {
            // An answer that nobody waited for any more is none.
            let now_ms = modunest_runtime::clock::now().as_millis();
            if now_ms > self.deadline_ms { Err(too_late()) } else { Ok(decision) }
        });
        match decided {
            Ok(Decision::Allow) => Ok(()),
            Ok(Decision::Deny(reason)) => Err(GuardRefusal::Denied { guard, reason }),
            Err(error) => {
                tracing::warn!(plugin = %self.guarded.name(), guard, %error, "a guard could not decide");
                Err(GuardRefusal::Undecided { guard })
            }
        }
    }
}

fn too_late() -> Error {
    Error::DeadlineExceeded("the guard answered too late, or not at all".to_owned())
}

/// Refuses to ask a plugin that keeps its callers' threads.
fn hangs_too_often(cell: &Cell) -> Result<(), Error> {
    match cell.meter().overdue_now() {
        overdue if overdue < OVERDUE_MAX => Ok(()),
        overdue => Err(Error::Unavailable(format!(
            "{overdue} calls of {} have not ended although their time is over",
            cell.name()
        ))),
    }
}
