//! Calls: from outside, from plugin to plugin, and the question after health.

use std::sync::atomic::Ordering;

use modunest_core::time::Timestamp;
use modunest_sdk::abi::{MAX_MESSAGE_BYTES, RequestKind};
use modunest_sdk::{Error, Hook};

use super::Cell;
use crate::host::Call;
use crate::host::breaker::{Outcome, Refused};
use crate::host::frame::{self, DEPTH_MAX, Frame};

impl Cell {
    /// Serves a call on this thread. The earlier of its deadline and the one of the call
    /// around it holds.
    ///
    /// # Errors
    /// What the plugin answered, or why it was not called.
    pub fn call(&self, call: Call<'_>) -> Result<Vec<u8>, Error> {
        let outer = frame::current();
        if outer.depth >= DEPTH_MAX {
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
        let deadline_ms = frame::earlier(outer.deadline_ms, call.deadline_ms);
        if deadline_ms > 0 && modunest_runtime::clock::now().as_millis() >= deadline_ms {
            return Err(Error::DeadlineExceeded(format!("before {} was called", self.name)));
        }
        let trace = if call.trace.is_empty() { outer.trace } else { call.trace.to_owned() };
        let _running = self.enter()?;
        let Some(instance) = self.instance.get() else {
            return Err(Error::Unavailable(format!("{} is not loaded", self.name)));
        };
        let service = (call.kind == RequestKind::Service).then_some(call.target);
        let now_ms = || modunest_runtime::clock::now().as_millis();
        let ticket = self.breakers.admit(service, now_ms).map_err(|r| self.refused(service, r))?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let inner = Frame { depth: outer.depth + 1, deadline_ms, trace: trace.clone() };
        let answer =
            frame::within(inner, || instance.call(Call { deadline_ms, trace: &trace, ..call }));
        if self.breakers.record(service, ticket, outcome(&answer), now_ms) {
            let service = service.unwrap_or_default();
            tracing::warn!(plugin = %self.name, service, "failed too often; a circuit breaker opened");
        }
        if let Err(error @ (Error::Failed(_) | Error::Panicked(_))) = &answer {
            self.errors.fetch_add(1, Ordering::Relaxed);
            if matches!(error, Error::Panicked(_)) {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
            tracing::warn!(plugin = %self.name, version = %self.version, target = call.target, %error, "a call of the plugin failed");
            self.tell(Hook::OnError, error.text().as_bytes());
        }
        answer
    }

    /// What a caller hears whom a breaker keeps out.
    fn refused(&self, service: Option<&str>, refused: Refused) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let whose = match service {
            Some(service) if refused.by_service => format!("{service} of {}", self.name),
            _ => self.name.to_string(),
        };
        Error::Unavailable(format!(
            "{whose} failed too often and is left alone; it will be tried again at {}",
            Timestamp::from_millis(refused.retry_at_ms)
        ))
    }

    /// Asks the instance whether it can do its work.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn health(&self) -> Result<(), Error> {
        let _running = self.enter()?;
        match self.instance.get() {
            Some(instance) => instance.health(),
            None => Err(Error::Unavailable(format!("{} is not loaded", self.name))),
        }
    }
}

/// What a breaker makes of an answer: refusals that are the caller's own fault, or that any
/// other plugin would give as well, are none of the plugin's failures.
fn outcome(answer: &Result<Vec<u8>, Error>) -> Outcome {
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
