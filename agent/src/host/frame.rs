//! The call that a thread is serving, so that calls from within it inherit its deadline, its
//! trace, its depth and the user behind it, whatever the plugin says.

use std::cell::RefCell;
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
    pub(super) trace: String,
    /// The end user for whom all this happens.
    pub(super) identity: Option<Arc<Identity>>,
}

thread_local! {
    static CURRENT: RefCell<Frame> = RefCell::default();
}

/// The frame of this thread; empty on a plugin's own threads.
pub(super) fn current() -> Frame {
    CURRENT.with_borrow(Frame::clone)
}

/// Serves for a user: what is called from within is told of them, and of nobody else.
pub(crate) fn with_identity<T>(identity: Option<Arc<Identity>>, serve: impl FnOnce() -> T) -> T {
    within(Frame { identity, ..current() }, serve)
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
