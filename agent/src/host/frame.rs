//! The call that a thread is serving, so that calls from within it inherit its deadline, its
//! trace, its depth and the user behind it, whatever the plugin says.
//!
//! Depth and deadline change with every call and are kept apart, as plain numbers: a call from
//! plugin to plugin may cost a few nanoseconds, and moving all of a [`Frame`] takes several.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use modunest_sdk::Identity;

/// Deepest chain of calls from plugin to plugin. Real chains have three or four; each takes
/// the stack of two libraries.
pub(super) const DEPTH_MAX: u32 = 16;

#[derive(Clone, Default)]
pub(super) struct Frame {
    pub(super) depth: u32,
    /// Unix milliseconds; zero for none.
    pub(super) deadline_ms: u64,
    /// W3C `traceparent`; `None` where there is none.
    pub(super) trace: Option<Arc<str>>,
    /// The end user for whom all this happens.
    pub(super) identity: Option<Arc<Identity>>,
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static DEADLINE_MS: Cell<u64> = const { Cell::new(0) };
    static TRACE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    /// Whether `TRACE` has any: asked first, because this needs no destructor, nor a borrow.
    static IS_TRACED: Cell<bool> = const { Cell::new(false) };
    static IDENTITY: RefCell<Option<Arc<Identity>>> = const { RefCell::new(None) };
}

/// The frame of this thread; empty on a plugin's own threads.
pub(super) fn current() -> Frame {
    Frame {
        depth: depth(),
        deadline_ms: deadline_ms(),
        trace: trace(),
        identity: IDENTITY.with_borrow(Clone::clone),
    }
}

/// How many calls are inside one another on this thread.
pub(super) fn depth() -> u32 {
    DEPTH.get()
}

/// The deadline of the call that this thread serves, in Unix milliseconds; zero for none.
pub(super) fn deadline_ms() -> u64 {
    DEADLINE_MS.get()
}

/// The trace of the call that this thread serves.
pub(super) fn trace() -> Option<Arc<str>> {
    IS_TRACED.get().then(|| TRACE.with_borrow(Clone::clone)).flatten()
}

fn replace_trace(trace: Option<Arc<str>>) -> Option<Arc<str>> {
    IS_TRACED.set(trace.is_some());
    TRACE.replace(trace)
}

/// Serves for a user: what is called from within is told of them, and of nobody else.
pub(crate) fn with_identity<T>(identity: Option<Arc<Identity>>, serve: impl FnOnce() -> T) -> T {
    struct Back(Option<Arc<Identity>>);
    impl Drop for Back {
        fn drop(&mut self) {
            IDENTITY.set(self.0.take());
        }
    }
    let _back = Back(IDENTITY.replace(identity));
    serve()
}

/// Serves within a frame.
pub(super) fn within<T>(frame: Frame, serve: impl FnOnce() -> T) -> T {
    let Frame { depth, deadline_ms, trace, identity } = frame;
    with_identity(identity, || deeper(depth, deadline_ms, Some(trace), serve))
}

/// Serves a call from within the one that this thread serves, for the same user. `trace` is
/// given where it is another one.
pub(super) fn deeper<T>(
    depth: u32,
    deadline_ms: u64,
    trace: Option<Option<Arc<str>>>,
    serve: impl FnOnce() -> T,
) -> T {
    /// Puts back what was there before, also behind a panic.
    struct Back(u32, u64);
    impl Drop for Back {
        fn drop(&mut self) {
            DEPTH.set(self.0);
            DEADLINE_MS.set(self.1);
        }
    }
    struct BackTrace(Option<Arc<str>>);
    impl Drop for BackTrace {
        fn drop(&mut self) {
            drop(replace_trace(self.0.take()));
        }
    }
    let _back = Back(DEPTH.replace(depth), DEADLINE_MS.replace(deadline_ms));
    match trace {
        None => serve(),
        Some(trace) => {
            let _back = BackTrace(replace_trace(trace));
            serve()
        }
    }
}

/// The earlier of two deadlines, where zero is none.
pub(super) fn earlier(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, deadline) | (deadline, 0) => deadline,
        (one, other) => one.min(other),
    }
}
