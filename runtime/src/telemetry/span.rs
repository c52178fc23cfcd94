//! One step of a trace, from its start to its end.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use modunest_core::trace::TraceContext;

/// Longest text of an attribute, in bytes: a path, a name, the beginning of an error.
const TEXT_MAX_BYTES: usize = 1024;

/// Whose side of what a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Serves a request from outside the process.
    Server,
    /// Waits for another process.
    Client,
    /// Everything else.
    Internal,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text[..text.floor_char_boundary(TEXT_MAX_BYTES)].to_owned())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

/// A step that has begun. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    /// Gone once it is handed on.
    step: Option<Box<Step>>,
}

#[derive(Debug)]
struct Step {
    context: TraceContext,
    remote_parent: bool,
    kind: Kind,
    name: Cow<'static, str>,
    start: SystemTime,
    since: Instant,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

/// A step that has ended.
#[derive(Debug)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "only an exporter reads it"))]
pub(super) struct Finished {
    pub(super) context: TraceContext,
    pub(super) remote_parent: bool,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<String>,
}

impl Span {
    /// Begins the step that `context` names; nothing is recorded where nobody collects or the
    /// trace is not sampled.
    pub fn begin(context: TraceContext, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        if !super::is_on() || !context.is_sampled() {
            return Span { step: None };
        }
        let step = Step {
            context,
            remote_parent: false,
            kind,
            name: name.into(),
            start: crate::clock::system_time(),
            since: Instant::now(),
            attributes: Vec::new(),
            error: None,
        };
        Span { step: Some(Box::new(step)) }
    }

    /// Its parent is in another process.
    #[must_use]
    pub fn from_remote(mut self) -> Span {
        if let Some(step) = &mut self.step {
            step.remote_parent = true;
        }
        self
    }

    /// Says something about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(step) = &mut self.step {
            step.attributes.push((key, value.into()));
        }
    }

    /// Names it anew, once more is known of it.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(step) = &mut self.step {
            step.name = name.into();
        }
    }

    /// It failed.
    pub fn fail(&mut self, error: &str) {
        if let Some(step) = &mut self.step {
            step.error = Some(error[..error.floor_char_boundary(TEXT_MAX_BYTES)].to_owned());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(step) = self.step.take() else { return };
        let Step { context, remote_parent, kind, name, start, since, attributes, error } = *step;
        // By the clock that nobody sets, so that no step ends before it began.
        let end = start + since.elapsed();
        super::record(Finished {
            context,
            remote_parent,
            kind,
            name,
            start,
            end,
            attributes,
            error,
        });
    }
}
