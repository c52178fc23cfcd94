//! Calls as steps of a trace, for whoever collects them.

use modunest_core::trace::TraceContext;
use modunest_runtime::telemetry::{self, Kind, Span};
use modunest_sdk::Error;
use modunest_sdk::abi::RequestKind;

use super::{Call, Cell};
use crate::metrics::Outcome;

/// A step that a call is.
pub(super) struct Step {
    context: TraceContext,
    span: Span,
}

impl Step {
    /// Where calls from within it belong.
    pub(super) fn context(&self) -> TraceContext {
        self.context
    }
}

/// The step below `trace`; `None` where nobody collects, or `trace` says nothing.
#[inline]
pub(super) fn begin(cell: &Cell, call: &Call<'_>, trace: &str) -> Option<Box<Step>> {
    if telemetry::is_on() { begin_collected(cell, call, trace) } else { None }
}

fn begin_collected(cell: &Cell, call: &Call<'_>, trace: &str) -> Option<Box<Step>> {
    let context = modunest_runtime::trace::child_of(trace.parse().ok()?);
    let kind = kind(call.kind);
    let name = format!("{kind} {} {}", cell.name(), call.target);
    let mut span = Span::begin(context, Kind::Internal, name);
    span.set("modunest.plugin", cell.name().as_str());
    span.set("modunest.version", cell.version().to_string().as_str());
    span.set("modunest.kind", kind);
    span.set("modunest.target", call.target);
    if !call.caller.is_empty() {
        span.set("modunest.caller", call.caller);
    }
    Some(Box::new(Step { context, span }))
}

/// Says how it ended.
pub(super) fn end(step: &mut Step, outcome: Outcome, error: Option<&Error>) {
    step.span.set("modunest.outcome", outcome.as_str());
    if let Some(error) = error {
        step.span.fail(error.text());
    }
}

fn kind(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Lifecycle => "hook",
        RequestKind::Http => "route",
        RequestKind::Service => "service",
        RequestKind::Event => "event",
        RequestKind::Guard => "guard",
        RequestKind::Stream => "stream",
    }
}
