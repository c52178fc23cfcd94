//! Trace and deadline of the call that this thread is serving, so that calls to
//! other plugins carry them without the author's help.
//!
//! The thread-local is plain data without a destructor: a library that has
//! registered one can never be unmapped.

use std::cell::Cell;

/// Longest trace text that is passed on. Version 00 of `traceparent` has 55
/// bytes; later versions may append.
const MAX_TRACE_BYTES: usize = 128;

#[derive(Clone, Copy)]
pub(super) struct CallContext {
    trace: [u8; MAX_TRACE_BYTES],
    trace_len: usize,
    pub(super) deadline_ms: u64,
}

impl CallContext {
    const NONE: Self = Self { trace: [0; MAX_TRACE_BYTES], trace_len: 0, deadline_ms: 0 };

    /// A context; a trace that is too long to be one is left out.
    pub(super) fn new(trace: &[u8], deadline_ms: u64) -> Self {
        let mut context = Self { deadline_ms, ..Self::NONE };
        if let Some(place) = context.trace.get_mut(..trace.len()) {
            place.copy_from_slice(trace);
            context.trace_len = trace.len();
        }
        context
    }

    pub(super) fn trace(&self) -> &[u8] {
        self.trace.get(..self.trace_len).unwrap_or_default()
    }
}

thread_local! {
    static CURRENT: Cell<CallContext> = const { Cell::new(CallContext::NONE) };
}

/// The context of the call being served on this thread.
pub(super) fn current() -> CallContext {
    CURRENT.get()
}

/// Serves a call within its context, and restores the outer one afterwards.
pub(super) fn within<T>(context: CallContext, serve: impl FnOnce() -> T) -> T {
    struct Restore(CallContext);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(context));
    serve()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_nest_and_survive_a_panic() {
        let outer = CallContext::new(b"outer", 7);
        within(outer, || {
            let caught = std::panic::catch_unwind(|| {
                within(CallContext::new(b"inner", 9), || {
                    assert_eq!((current().trace(), current().deadline_ms), (&b"inner"[..], 9));
                    std::panic::resume_unwind(Box::new(()));
                });
            });
            assert!(caught.is_err());
            assert_eq!((current().trace(), current().deadline_ms), (&b"outer"[..], 7));
        });
        assert!(current().trace().is_empty());
    }

    #[test]
    fn a_trace_too_long_is_left_out() {
        assert!(CallContext::new(&[b'x'; MAX_TRACE_BYTES + 1], 0).trace().is_empty());
        assert_eq!(CallContext::new(&[b'x'; MAX_TRACE_BYTES], 0).trace().len(), MAX_TRACE_BYTES);
    }
}
