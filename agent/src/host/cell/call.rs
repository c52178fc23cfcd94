//! Calls: from outside, and from plugin to plugin.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use modunest_core::time::Timestamp;
use modunest_sdk::Error;
use modunest_sdk::abi::{MAX_MESSAGE_BYTES, OwnedBuffer, RequestKind};

use super::Cell;
use super::gate::{self, Entered, Way};
use super::lazy::Purpose;
use super::overrun::{self, Overrun};
use crate::embed::{CallAsk, Event};
use crate::host::breaker::{Outcome, Part, Refused, Ticket, service_of};
use crate::host::frame::{self, DEPTH_MAX, Deeper, Frame};
use crate::host::instance::Loaded;
use crate::host::native::{NativeInstance, is_answer, judge};
use crate::host::spans::{self, Step};
use crate::host::{Call, Instance, OwnedCall, Unserved};
use crate::metrics::{self, Begun, Meter, cpu};

/// A call that is being served, as far as it is to be noted.
struct Noted {
    ticket: Ticket,
    begun: Begun,
    /// Apart, because there seldom is one, and it is large.
    step: Option<Box<Step>>,
    trace: Option<Arc<str>>,
    /// Whether its trace is the one of the call around it.
    is_same: bool,
    /// Whether it has been counted as late.
    is_counted: bool,
    /// Whether the plugin was not called after all.
    is_refused: bool,
}

/// A call that was let in and of which nothing is to be noted but its end.
struct Quiet<'c> {
    library: &'c NativeInstance,
    way: gate::Noted,
    /// How many calls it is inside of.
    depth: u32,
}

/// Why a call is none at all.
#[cold]
fn is_no_call(call: &Call<'_>, depth: u32) -> Error {
    if depth >= DEPTH_MAX {
        return Error::Denied(format!("calls from plugin to plugin are {DEPTH_MAX} deep at most"));
    }
    Error::InvalidInput(format!(
        "{} bytes are above the limit of {MAX_MESSAGE_BYTES}",
        call.payload.len()
    ))
}

pub(super) fn now_ms() -> u64 {
    modunest_runtime::clock::now().as_millis()
}

impl Cell {
    /// Serves a call on this thread. The earlier of its deadline and the one of the call
    /// around it holds.
    ///
    /// # Errors
    /// What the plugin answered, or why it was not called.
    #[inline(always)]
    pub fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        let mut answer = OwnedBuffer::EMPTY;
        self.call_into(&call, &mut answer)?;
        Ok(answer)
    }

    /// The same, with the answer left where it belongs: to move one that was just filled, the
    /// processor waits longer than the rest of a call takes. To be compiled into whoever calls, for
    /// the same reason: what is called with goes from there to the plugin's request at once. Behind
    /// an error, what lies there means nothing.
    ///
    /// # Errors
    /// As [`Cell::call`].
    #[inline(always)]
    pub fn call_into(&self, call: &Call<'_>, answer: &mut OwnedBuffer) -> Result<(), Error> {
        let Some(quiet) = self.pass_quietly(call) else {
            return self.call_otherwise(*call, answer);
        };
        let Quiet { library, way, depth } = quiet;
        // Until its end, nothing panics: the plugin's function cannot, and to count does not.
        let way = ManuallyDrop::new(way);
        frame::set_depth(depth + 1);
        let code = library.call_into(&Call { deadline_ms: frame::deadline_ms(), ..*call }, answer);
        frame::set_depth(depth);
        if !is_answer(code, answer) {
            return self.end_failed(ManuallyDrop::into_inner(way), code, *call, answer);
        }
        ManuallyDrop::into_inner(way).end_answered();
        Ok(())
    }

    /// Lets a call of a library in this process in of which nothing is to be noted but its end:
    /// nothing is wrong with the plugin, the call is part of no trace, nobody watches it, it brings
    /// no earlier deadline, and it is not one of those that are timed. What is decided here stays in
    /// registers. `None` where any of it is otherwise; nothing has happened then.
    #[inline(always)]
    fn pass_quietly(&self, call: &Call<'_>) -> Option<Quiet<'_>> {
        let Some(Loaded::Library(library)) = self.instance.get() else { return None };
        let depth = frame::depth();
        let is_quiet = depth < DEPTH_MAX
            && call.payload.len() <= MAX_MESSAGE_BYTES
            && (call.kind == RequestKind::Service
                || (depth > 0 && call.kind != RequestKind::Stream))
            && call.trace.is_empty()
            && !frame::is_traced()
            && frame::is_in_time(call.deadline_ms);
        if !is_quiet {
            return None;
        }
        let way = self.pass()?;
        if !metrics::pass_untimed() {
            way.end();
            return None;
        }
        Some(Quiet { library, way, depth })
    }

    #[cold]
    fn call_otherwise(&self, call: Call<'_>, answer: &mut OwnedBuffer) -> Result<(), Error> {
        self.call_noted(call, None).map(|made| *answer = made)
    }

    /// Notes how a call ended that was let in quietly, and was not answered by the rules.
    #[cold]
    fn end_failed(
        &self,
        way: gate::Noted,
        code: i32,
        call: Call<'_>,
        answer: &OwnedBuffer,
    ) -> Result<(), Error> {
        let served = judge(code, answer);
        let begun = Meter::begin_untimed();
        let ticket = Ticket::default();
        let noted = Noted::new(ticket, begun, None, None, true);
        self.end(&call, noted, served.as_ref().err());
        way.end();
        served
    }

    /// Serves a call of which more is to be noted; `overrun` is of whoever watches its time.
    pub(super) fn call_noted(
        &self,
        call: Call<'_>,
        overrun: Option<&Overrun>,
    ) -> Result<OwnedBuffer, Error> {
        self.try_noted(call, overrun).map_err(Unserved::into_error)
    }

    /// Serves a call as [`Cell::call`] does, and tells where the plugin was not called at all.
    ///
    /// # Errors
    /// As [`Cell::call`].
    pub(in crate::host) fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        self.try_noted(call, None)
    }

    fn try_noted(
        &self,
        call: Call<'_>,
        overrun: Option<&Overrun>,
    ) -> Result<OwnedBuffer, Unserved> {
        let depth = frame::depth();
        let deadline_ms = self.check(&call, depth).map_err(|error| self.refuse(error))?;
        match self.enter(deadline_ms, Purpose::of(&call)) {
            Ok(Entered::Here(way)) => self.serve(call, overrun, depth, deadline_ms, way),
            Ok(Entered::Successor(successor)) => successor.try_noted(call, overrun),
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// Serves a call that has come in.
    fn serve(
        &self,
        call: Call<'_>,
        overrun: Option<&Overrun>,
        depth: u32,
        deadline_ms: u64,
        _way: Way<'_>,
    ) -> Result<OwnedBuffer, Unserved> {
        let admitted = self.admit_call(&call);
        let (instance, ticket) = admitted.map_err(|error| self.refuse(error))?;
        let mut noted = self.begin(&call, instance.stays_in_process(), ticket, depth);
        let trace = noted.trace.as_deref().unwrap_or_default();
        let is_library = matches!(self.instance.get(), Some(Loaded::Library(_)));
        // What runs elsewhere is ended there.
        let overrun = overrun.filter(|_| is_library);
        if let Some(overrun) = overrun {
            overrun.begin(self.me.clone(), ticket);
        }
        let make = || instance.try_call(Call { deadline_ms, trace, ..call });
        let make = || {
            if is_library {
                self.meter.run(&noted.begun, make)
            } else {
                // What it runs in knows better; here is only who waits.
                cpu::aside(make)
            }
        };
        let deeper = Deeper::enter(depth + 1, deadline_ms);
        let served =
            if noted.is_same { make() } else { frame::in_trace(noted.trace.clone(), make) };
        drop(deeper);
        noted.is_counted = overrun.is_some_and(Overrun::end);
        self.end_tried(&call, noted, &served);
        served
    }

    #[cold]
    fn refuse(&self, error: Error) -> Unserved {
        self.meter.refuse();
        Unserved::Refused(error)
    }

    /// The same as a future, which holds no thread while the call waits. Whatever thread polls it,
    /// the call is served in the frame that was current at the first poll.
    ///
    /// # Errors
    /// As [`Cell::call`].
    pub(crate) async fn call_async(self: Arc<Self>, call: OwnedCall) -> Result<OwnedBuffer, Error> {
        let mut cell = self;
        loop {
            if !cell.is_async() {
                return overrun::away(cell, call).await;
            }
            match cell.serve_async(call.call()).await? {
                Served::Here(answer) => return answer,
                Served::Elsewhere(successor) => cell = successor,
            }
        }
    }

    /// Whether a call that waits holds no thread. Whoever is asked before each call may take their
    /// time, so then it does.
    pub(in crate::host) fn is_async(&self) -> bool {
        let instance = self.instance.get();
        instance.is_some_and(|instance| instance.is_async()) && !self.hooks.are_asked()
    }

    async fn serve_async(self: &Arc<Self>, call: Call<'_>) -> Result<Served, Error> {
        let outer = frame::current();
        let depth = outer.depth;
        let deadline_ms = self.check(&call, depth).map_err(|error| self.refuse(error))?;
        let entered = self.enter_async(deadline_ms, Purpose::of(&call)).await;
        let _way = match entered.map_err(|error| self.refuse(error))? {
            Entered::Here(way) => way,
            Entered::Successor(successor) => return Ok(Served::Elsewhere(successor)),
        };
        let admitted = self.admit_call(&call);
        let (instance, ticket) = admitted.map_err(|error| self.refuse(error))?;
        let noted = self.begin(&call, instance.stays_in_process(), ticket, depth);
        let trace = noted.trace.clone();
        let inner = Frame { depth: depth + 1, deadline_ms, trace: trace.clone(), ..outer };
        let mut open = Open { cell: self, call, noted: Some(noted) };
        let trace = trace.as_deref().unwrap_or_default();
        let serving = instance.call_async(Call { deadline_ms, trace, ..call });
        let answer = frame::carried(inner, serving).await;
        if let Some(noted) = open.noted.take() {
            self.end_tried(&call, noted, &answer);
        }
        Ok(Served::Here(answer.map_err(Unserved::into_error)))
    }

    /// Notes that a call begins. `stays` says whether it stays in this process.
    fn begin(&self, call: &Call<'_>, stays: bool, ticket: Ticket, depth: u32) -> Noted {
        let outer = frame::trace();
        // As it is, or handed on by the plugin that calls, or another one.
        let is_same = call.trace.is_empty() || outer.as_deref() == Some(call.trace);
        let trace = if is_same { outer } else { Some(Arc::from(call.trace)) };
        let step = spans::begin(self, call, trace.as_deref().unwrap_or_default());
        let (is_same, trace) = match &step {
            Some(step) => (false, Some(Arc::from(step.context().to_string()))),
            None => (is_same, trace),
        };
        // What comes from a client, or leaves the process, costs more than two looks at a clock.
        let is_from_client = depth == 0 && call.kind != RequestKind::Service;
        let begun = Meter::begin(is_from_client || !stays);
        Noted::new(ticket, begun, step, trace, is_same)
    }

    /// Notes how a call ended that the plugin may not have been called for.
    fn end_tried<T>(&self, call: &Call<'_>, mut noted: Noted, answer: &Result<T, Unserved>) {
        noted.is_refused = matches!(answer, Err(Unserved::Refused(_)));
        self.end(call, noted, answer.as_ref().err().map(Unserved::error));
    }

    /// Notes how a call ended.
    fn end(&self, call: &Call<'_>, noted: Noted, error: Option<&Error>) {
        let is_left = error.is_some_and(|error| is_left(call, error));
        let ended = match error {
            _ if noted.is_counted => metrics::Outcome::Late,
            _ if is_left => metrics::Outcome::Abandoned,
            error => error.map_or(metrics::Outcome::Answered, metrics::Outcome::of_error),
        };
        let took = self.meter.end(noted.begun, ended);
        if noted.is_counted {
            self.meter.overdue_ended();
        }
        if self.hooks.is_observed() {
            self.tell_call(call, ended, took);
        }
        if let Some(mut step) = noted.step {
            spans::end(&mut step, ended, error);
        }
        let is_held_against = !is_left && !noted.is_refused;
        let outcome = if is_held_against { outcome(error) } else { Outcome::Abandoned };
        if !noted.is_counted {
            self.record(self.part(call), noted.ticket, outcome);
        }
        match error {
            Some(error @ (Error::Failed(_) | Error::Panicked(_))) if is_held_against => {
                self.tell_failed(call, error);
            }
            _ => {}
        }
    }

    /// Counts a call whose time is over, and which goes on all the same.
    #[cold]
    pub(super) fn count_late(&self, call: &Call<'_>, ticket: Ticket) {
        self.record(self.part(call), ticket, Outcome::Failure);
    }

    fn record(&self, part: Part<'_>, ticket: Ticket, outcome: Outcome) {
        let turn = |quiet| self.turn_quiet(quiet);
        if self.breakers.record(part, ticket, outcome, now_ms, turn) {
            self.tell_opened(part);
        }
    }

    /// The part of this plugin that a call is for.
    fn part<'c>(&self, call: &Call<'c>) -> Part<'c> {
        match call.kind {
            RequestKind::Service => Part::Service(call.target),
            // A schedule has no caller.
            RequestKind::Event if !call.caller.is_empty() => {
                Part::Event { attempts: self.links.settings().event_attempts }
            }
            _ => Part::Plugin,
        }
    }

    #[cold]
    fn tell_call(&self, call: &Call<'_>, outcome: metrics::Outcome, took: Option<Duration>) {
        self.hooks.tell(&Event::Call {
            plugin: &self.name,
            version: &self.version,
            target: call.target,
            caller: call.caller,
            outcome,
            took,
        });
    }

    #[cold]
    fn tell_opened(&self, part: Part<'_>) {
        let service = match part {
            Part::Service(target) => service_of(target),
            Part::Plugin | Part::Event { .. } => "",
        };
        let of_events = matches!(part, Part::Event { .. });
        tracing::warn!(plugin = %self.name, service, of_events, "failed too often; a circuit breaker opened");
        self.hooks.tell(&Event::BreakerOpened { plugin: &self.name, service });
    }

    #[cold]
    fn tell_failed(&self, call: &Call<'_>, error: &Error) {
        tracing::warn!(plugin = %self.name, version = %self.version, target = call.target, %error, "a call of the plugin failed");
        self.tell_error(error.text());
    }

    /// Whether a call is one at all; answers its deadline.
    fn check(&self, call: &Call<'_>, depth: u32) -> Result<u64, Error> {
        if depth >= DEPTH_MAX || call.payload.len() > MAX_MESSAGE_BYTES {
            return Err(is_no_call(call, depth));
        }
        let deadline_ms = frame::earlier(frame::deadline_ms(), call.deadline_ms);
        if deadline_ms > 0 && now_ms() >= deadline_ms {
            return Err(self.too_late());
        }
        Ok(deadline_ms)
    }

    #[cold]
    fn too_late(&self) -> Error {
        Error::DeadlineExceeded(format!("before {} was called", self.name))
    }

    /// Whether a call that has come in may be made, and of what.
    fn admit_call(&self, call: &Call<'_>) -> Result<(&dyn Instance, Ticket), Error> {
        let Some(instance) = self.instance.get() else { return Err(self.not_loaded()) };
        if self.hooks.are_asked() {
            self.ask_hooks(call)?;
        }
        let part = self.part(call);
        let ticket = self.breakers.admit(part, now_ms);
        Ok((&**instance, ticket.map_err(|refused| self.refused(part, refused))?))
    }

    #[cold]
    fn not_loaded(&self) -> Error {
        Error::Unavailable(format!("{} is not loaded", self.name))
    }

    #[cold]
    fn ask_hooks(&self, call: &Call<'_>) -> Result<(), Error> {
        let (plugin, version) = (&self.name, &self.version);
        let ask = CallAsk { plugin, version, target: call.target, caller: call.caller };
        self.hooks.may_call(&ask).map_err(Error::Denied)
    }

    /// What a caller hears whom a breaker keeps out.
    fn refused(&self, part: Part<'_>, refused: Refused) -> Error {
        let whose = match part {
            Part::Service(target) if refused.by_part => {
                format!("{} of {}", service_of(target), self.name)
            }
            Part::Event { .. } if refused.by_part => {
                format!("what receives events in {}", self.name)
            }
            _ => self.name.to_string(),
        };
        Error::Unavailable(format!(
            "{whose} failed too often and is left alone; it will be tried again at {}",
            Timestamp::from_millis(refused.retry_at_ms)
        ))
    }
}

impl Noted {
    fn new(
        ticket: Ticket,
        begun: Begun,
        step: Option<Box<Step>>,
        trace: Option<Arc<str>>,
        is_same: bool,
    ) -> Self {
        Noted { ticket, begun, step, trace, is_same, is_counted: false, is_refused: false }
    }
}

/// What a call came to that is a future.
enum Served {
    Here(Result<OwnedBuffer, Error>),
    /// It was not made: something else took the plugin's place.
    Elsewhere(Arc<Cell>),
}

/// A call that is a future and has not ended. One that is dropped before it has is given up, and
/// noted as that.
struct Open<'c> {
    cell: &'c Cell,
    call: Call<'c>,
    noted: Option<Noted>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Some(noted) = self.noted.take() else { return };
        let error = Error::DeadlineExceeded("nobody waited for its end".to_owned());
        self.cell.end(&self.call, noted, Some(&error));
    }
}

/// Whether a call failed because its client went away: what it waited for ended with an error then,
/// which is no fault of the plugin's. Behind the call's deadline that would have been its end
/// anyway, and a panic is the plugin's own answer to an error.
#[cold]
fn is_left(call: &Call<'_>, error: &Error) -> bool {
    let failed = match error {
        Error::Failed(_) | Error::Unavailable(_) | Error::DeadlineExceeded(_) => true,
        Error::Panicked(_)
        | Error::Unsupported(_)
        | Error::InvalidInput(_)
        | Error::NotFound(_)
        | Error::Denied(_) => false,
    };
    let deadline_ms = frame::earlier(frame::deadline_ms(), call.deadline_ms);
    failed && frame::is_abandoned() && (deadline_ms == 0 || now_ms() < deadline_ms)
}

/// What a breaker makes of an answer: refusals that are the caller's own fault, or that any
/// other plugin would give as well, are none of the plugin's failures.
fn outcome(error: Option<&Error>) -> Outcome {
    match error {
        Some(
            Error::Failed(_)
            | Error::Panicked(_)
            | Error::Unavailable(_)
            | Error::DeadlineExceeded(_),
        ) => Outcome::Failure,
        None
        | Some(
            Error::Unsupported(_) | Error::InvalidInput(_) | Error::NotFound(_) | Error::Denied(_),
        ) => Outcome::Success,
    }
}
