//! Stack for calls from component to component.
//!
//! Each call into a component may take [`super::engine::STACK_MAX_BYTES`] of its thread's
//! stack, and the smallest thread that calls us has 2 MiB. So a thread serves two such calls
//! inside one another, and every second one after them gets a thread of its own. It takes the
//! caller's frame along and the caller waits for it, so nothing else is different.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use modunest_sdk::Error;

use crate::host::frame;

/// Calls inside one another on one thread.
const NESTED_MAX: usize = 2;

/// Stack of a thread made here, in bytes: as much as the standard library gives.
const STACK_BYTES: usize = 2 * 1024 * 1024;

#[derive(Clone, Default)]
struct Chain {
    /// Instances that are serving, the outermost first, on this thread and those that wait
    /// for it.
    serving: Vec<u64>,
    /// How many of them are on this thread.
    here: usize,
}

thread_local! {
    static CHAIN: RefCell<Chain> = RefCell::default();
}

/// A number for a new instance.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether the chain of calls that this thread serves goes through an instance.
fn is_serving(instance: u64) -> bool {
    CHAIN.with_borrow(|chain| chain.serving.contains(&instance))
}

/// Refuses a call into an instance that waits for the end of this very call: with one store, it
/// would wait for itself.
///
/// # Errors
/// [`Error::Denied`] where that is so.
pub(super) fn refuse_return(instance: u64) -> Result<(), Error> {
    if is_serving(instance) {
        return Err(Error::Denied(
            "the plugin is serving this very chain of calls, and a component serves one call at a time".to_owned(),
        ));
    }
    Ok(())
}

/// Runs a call into an instance whose code has its stack elsewhere: this thread only waits.
pub(super) fn through<T>(instance: u64, serve: impl FnOnce() -> T) -> T {
    serving(instance, 0, serve)
}

/// Runs a call into an instance where there is stack for it.
///
/// # Errors
/// [`Error::Unavailable`] when there is no thread to be had, else what the call answers.
pub(super) fn within<T: Send>(
    instance: u64,
    serve: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let here = CHAIN.with_borrow(|chain| chain.here);
    if here < NESTED_MAX {
        return serving(instance, 1, serve);
    }
    let mut chain = CHAIN.with_borrow(Chain::clone);
    chain.here = 0;
    let outer = frame::current();
    let thread = std::thread::Builder::new().name("nested call".to_owned()).stack_size(STACK_BYTES);
    std::thread::scope(|scope| {
        let started = thread.spawn_scoped(scope, move || {
            CHAIN.set(chain);
            frame::within(outer, || serving(instance, 1, serve))
        });
        let started = started.map_err(|error| {
            Error::Unavailable(format!("no thread can be started for the call: {error}"))
        })?;
        started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Serves, with so many calls more that need this thread's stack.
fn serving<T>(instance: u64, here: usize, serve: impl FnOnce() -> T) -> T {
    struct Leave(usize);
    impl Drop for Leave {
        fn drop(&mut self) {
            CHAIN.with_borrow_mut(|chain| {
                chain.serving.pop();
                chain.here -= self.0;
            });
        }
    }
    CHAIN.with_borrow_mut(|chain| {
        chain.serving.push(instance);
        chain.here += here;
    });
    let _leave = Leave(here);
    serve()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn deep_chains_change_threads_and_keep_frame_and_chain() {
        fn down(depth: u64, threads: &mut Vec<std::thread::ThreadId>) -> Result<u32, Error> {
            threads.push(std::thread::current().id());
            if depth == 5 {
                assert!((0..5).all(is_serving) && !is_serving(5));
                return Ok(frame::current().depth);
            }
            within(depth, || down(depth + 1, threads))
        }
        let mut threads = Vec::new();
        let outer = frame::Frame { depth: 7, ..frame::Frame::default() };
        assert_eq!(frame::within(outer, || down(0, &mut threads)), Ok(7));
        let changes = threads.windows(2).filter(|two| two[0] != two[1]).count();
        assert_eq!(changes, 2, "{threads:?}");
        assert!(!is_serving(0));
    }
}
