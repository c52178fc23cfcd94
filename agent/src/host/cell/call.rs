//! Calls: from outside, and from plugin to plugin.

use std::sync::Arc;

use modunest_core::time::Timestamp;
use modunest_sdk::Error;
use modunest_sdk::abi::{MAX_MESSAGE_BYTES, OwnedBuffer, RequestKind};

use super::Cell;
use super::gate::{Entered, Way};
use crate::embed::{CallAsk, Event};
use crate::host::breaker::{Outcome, Refused, Ticket};
use crate::host::frame::{self, DEPTH_MAX};
use crate::host::{Call, Instance, spans};
use crate::metrics::{self, Meter};

/// A call that may be made.
struct Admitted<'c> {
    _way: Way<'c>,
    instance: &'c dyn Instance,
    deadline_ms: u64,
    ticket: Ticket,
}

/// Where a call goes on.
enum Admission<'c> {
    /// Here.
    Here(Admitted<'c>),
    /// At what took this plugin's place.
    Elsewhere(Arc<Cell>),
}

fn now_ms() -> u64 {
    modunest_runtime::clock::now().as_millis()
}

impl Cell {
    /// Serves a call on this thread. The earlier of its deadline and the one of the call
    /// around it holds.
    ///
    /// # Errors
    /// What the plugin answered, or why it was not called.
    pub fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        let depth = frame::depth();
        let service = (call.kind == RequestKind::Service).then_some(call.target);
        let admitted = self.let_in(&call, service, depth);
        let admitted = match admitted.inspect_err(|_| self.meter.refuse())? {
            Admission::Here(admitted) => admitted,
            Admission::Elsewhere(successor) => return successor.call(call),
        };
        let Admitted { _way, instance, deadline_ms, ticket } = admitted;
        let outer = frame::trace();
        // As it is, or handed on by the plugin that calls, or another one.
        let is_same = call.trace.is_empty() || outer.as_deref() == Some(call.trace);
        let trace = if is_same { outer } else { Some(Arc::from(call.trace)) };
        let mut step = spans::begin(self, &call, trace.as_deref().unwrap_or_default());
        let (is_same, trace) = match &step {
            Some(step) => (false, Some(Arc::from(step.context().to_string()))),
            None => (is_same, trace),
        };
        // What comes from a client, or leaves the process, costs more than two looks at a clock.
        let is_from_client = depth == 0 && call.kind != RequestKind::Service;
        let begun = Meter::begin(is_from_client || !instance.stays_in_process());
        let other = (!is_same).then(|| trace.clone());
        let trace = trace.as_deref().unwrap_or_default();
        let answer = frame::deeper(depth + 1, deadline_ms, other, || {
            instance.call(Call { deadline_ms, trace, ..call })
        });
        let ended = metrics::Outcome::of(&answer);
        let took = self.meter.end(begun, ended);
        if self.hooks.is_observed() {
            self.hooks.tell(&Event::Call {
                plugin: &self.name,
                version: &self.version,
                target: call.target,
                caller: call.caller,
                outcome: ended,
                took,
            });
        }
        if let Some(step) = &mut step {
            spans::end(step, &answer);
        }
        if self.breakers.record(service, ticket, outcome(&answer), now_ms) {
            let service = service.unwrap_or_default();
            tracing::warn!(plugin = %self.name, service, "failed too often; a circuit breaker opened");
            self.hooks.tell(&Event::BreakerOpened { plugin: &self.name, service });
        }
        if let Err(error @ (Error::Failed(_) | Error::Panicked(_))) = &answer {
            tracing::warn!(plugin = %self.name, version = %self.version, target = call.target, %error, "a call of the plugin failed");
            self.tell_error(error.text());
        }
        answer
    }

    /// Whether a call may reach the plugin, and how long it may take.
    fn let_in(
        &self,
        call: &Call<'_>,
        service: Option<&str>,
        depth: u32,
    ) -> Result<Admission<'_>, Error> {
        if depth >= DEPTH_MAX {
            return Err(Error::Denied(format!(
                "calls from plugin to plugin are {DEPTH_MAX} deep at most"
            )));
        }
        if call.payload.len() > MAX_MESSAGE_BYTES {
            return Err(Error::InvalidInput(format!(
                "{} bytes are above the limit of {MAX_MESSAGE_BYTES}",
                call.payload.len()
            )));
        }
        let deadline_ms = frame::earlier(frame::deadline_ms(), call.deadline_ms);
        if deadline_ms > 0 && now_ms() >= deadline_ms {
            return Err(Error::DeadlineExceeded(format!("before {} was called", self.name)));
        }
        let way = match self.enter(deadline_ms, call.kind == RequestKind::Stream)? {
            Entered::Here(way) => way,
            Entered::Successor(successor) => return Ok(Admission::Elsewhere(successor)),
        };
        let Some(instance) = self.instance.get() else {
            return Err(Error::Unavailable(format!("{} is not loaded", self.name)));
        };
        if self.hooks.are_asked() {
            let (plugin, version) = (&self.name, &self.version);
            let ask = CallAsk { plugin, version, target: call.target, caller: call.caller };
            self.hooks.may_call(&ask).map_err(Error::Denied)?;
        }
        let ticket = self.breakers.admit(service, now_ms).map_err(|r| self.refused(service, r))?;
        let instance = instance.as_ref();
        Ok(Admission::Here(Admitted { _way: way, instance, deadline_ms, ticket }))
    }

    /// What a caller hears whom a breaker keeps out.
    fn refused(&self, service: Option<&str>, refused: Refused) -> Error {
        let whose = match service {
            Some(service) if refused.by_service => format!("{service} of {}", self.name),
            _ => self.name.to_string(),
        };
        Error::Unavailable(format!(
            "{whose} failed too often and is left alone; it will be tried again at {}",
            Timestamp::from_millis(refused.retry_at_ms)
        ))
    }
}

/// What a breaker makes of an answer: refusals that are the caller's own fault, or that any
/// other plugin would give as well, are none of the plugin's failures.
fn outcome<T>(answer: &Result<T, Error>) -> Outcome {
    match answer {
        Err(
            Error::Failed(_)
            | Error::Panicked(_)
            | Error::Unavailable(_)
            | Error::DeadlineExceeded(_),
        ) => Outcome::Failure,
        Ok(_)
        | Err(
            Error::Unsupported(_) | Error::InvalidInput(_) | Error::NotFound(_) | Error::Denied(_),
        ) => Outcome::Success,
    }
}
