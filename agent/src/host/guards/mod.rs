//! Guards: functions of plugins that are asked before a route or a service is.
//!
//! The operator's guards are asked first, then those that the route lists, in its order. The
//! first that denies ends the matter. A guard that cannot decide, because it failed, panicked,
//! was not there, took too long or answered something else, denies as well. A guard grants
//! nothing: what it allows goes on exactly as it came.
//!
//! A plugin uses its own guards and those that a plugin it depends on exports; both are checked
//! before anything is loaded ([`super::links`]), and again here.

mod door;

use std::fmt;

use modunest_core::manifest::{GuardUse, PluginItem};
use modunest_core::name::ServiceName;
use modunest_sdk::abi::RequestKind;
use modunest_sdk::{Decision, Error, GuardRequest, HttpRequest};

use super::{Call, Cell, Host, frame};

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
    /// Asks every guard of a route about a request, whose body they do not see. Blocks.
    /// `route` is the route's path as the manifest has it.
    ///
    /// # Errors
    /// The first refusal.
    pub fn check_guards(
        &self,
        cell: &Cell,
        route: &str,
        request: HttpRequest,
        trace: &str,
        deadline_ms: u64,
    ) -> Result<(), GuardRefusal> {
        let settings = cell.links().settings();
        let door = settings.guards.iter().filter(|rule| door::applies(rule, cell, &request.path));
        let door: Vec<PluginItem> = door.map(|rule| rule.guard.clone()).collect();
        let own = guards_of(cell, route);
        if door.is_empty() && own.is_empty() {
            return Ok(());
        }
        let asked = GuardRequest::route(cell.name().as_str(), route, request);
        let asking = Asking::new(cell, &asked, trace, deadline_ms)?;
        let asked = door.iter().try_for_each(|guard| {
            // The operator may name any plugin, so a missing one is no plan's mistake.
            asking.ask_other(self.cell(&guard.plugin).map(AsRef::as_ref), guard)
        });
        let asked = asked.and_then(|()| asking.ask_all(own));
        asked.inspect_err(|refusal| cell.links().count_refusal(refusal))
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
                let dependency = self.guarded.dependency(&item.plugin);
                self.ask_other(dependency.as_deref(), item)
            }
        })
    }

    /// Asks a guard of another plugin, if that exports it.
    fn ask_other(&self, cell: Option<&Cell>, item: &PluginItem) -> Result<(), GuardRefusal> {
        let exported = |cell: &&Cell| {
            let mut guards = cell.manifest().guards.iter();
            guards.any(|guard| guard.name == item.item && guard.exported)
        };
        match cell.filter(exported) {
            Some(cell) => self.ask(cell, &item.item),
            None => {
                tracing::warn!(plugin = %self.guarded.name(), guard = %item, "no plugin here exports this guard");
                Err(GuardRefusal::Undecided { guard: item.to_string() })
            }
        }
    }

    fn ask(&self, cell: &Cell, name: &ServiceName) -> Result<(), GuardRefusal> {
        let guard = format!("{}:{name}", cell.name());
        let answer = cell.call(Call {
            kind: RequestKind::Guard,
            target: name.as_str(),
            payload: &self.payload,
            trace: self.trace,
            caller: self.guarded.name().as_str(),
            deadline_ms: self.deadline_ms,
        });
        let decided = answer.and_then(|answer| Decision::decode(&answer)).and_then(|decision| {
            // An answer that nobody waited for any more is none.
            match modunest_runtime::clock::now().as_millis() > self.deadline_ms {
                true => Err(Error::DeadlineExceeded("the guard answered too late".to_owned())),
                false => Ok(decision),
            }
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
