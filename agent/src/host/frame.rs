//! The call that a thread is serving, so that calls from within it inherit its deadline, its
//! trace and its depth, whatever the plugin says.

use std::cell::RefCell;

/// Deepest chain of calls from plugin to plugin. Real chains have three or four; each takes
/// the stack of two libraries.
pub(super) const DEPTH_MAX: u32 = 16;

#[derive(Clone, Default)]
pub(super) struct Frame {
    pub(super) depth: u32,
    /// Unix milliseconds; zero for none.
    pub(super) deadline_ms: u64,
    pub(super) trace: String,
}

thread_local! {
    static CURRENT: RefCell<Frame> = RefCell::default();
}

/// The frame of this thread; empty on a plugin's own threads.
pub(super) fn current() -> Frame {
    CURRENT.with_borrow(Frame::clone)
}

/// Serves within a frame.
pub(super) fn within<T>(frame: Frame, serve: impl FnOnce() -> T) -> T {
    struct Restore(Option<Frame>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(frame) = self.0.take() {
                CURRENT.set(frame);
            }
        }
    }
    let _restore = Restore(Some(CURRENT.replace(frame)));
    serve()
}

/// The earlier of two deadlines, where zero is none.
pub(super) fn earlier(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, deadline) | (deadline, 0) => deadline,
        (one, other) => one.min(other),
    }
}
