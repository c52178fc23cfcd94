//! The call that a thread is serving, so that calls from within it inherit its deadline, its
//! trace, its depth and the user behind it, whatever the plugin says. A call that is a future is
//! served by whatever thread polls it, and [`carried`] takes its frame along.
//!
//! Depth and deadline change with every call and are kept apart, as plain numbers: a call from
//! plugin to plugin may cost a few nanoseconds, and moving all of a [`Frame`] takes several.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use modunest_sdk::{Error, Identity};

use super::abandoned::Abandoned;
use crate::thread::here;

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
    /// Components that are serving, the outermost first, by their numbers.
    pub(super) components: Vec<u64>,
    /// Whether somebody still waits for the answer; `None` where nobody can tell.
    pub(super) abandoned: Option<Arc<Abandoned>>,
}

thread_local! {
    /// Whether there is any is asked of [`here`] first, which needs no destructor, nor a borrow.
    static TRACE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    static IDENTITY: RefCell<Option<Arc<Identity>>> = const { RefCell::new(None) };
    static COMPONENTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static ABANDONED: RefCell<Option<Arc<Abandoned>>> = const { RefCell::new(None) };
}

/// The frame of this thread; empty on a plugin's own threads.
pub(super) fn current() -> Frame {
    Frame {
        depth: depth(),
        deadline_ms: deadline_ms(),
        trace: trace(),
        identity: IDENTITY.with_borrow(Clone::clone),
        components: COMPONENTS.with_borrow(Clone::clone),
        abandoned: ABANDONED.with_borrow(Clone::clone),
    }
}

/// How many calls are inside one another on this thread.
#[inline]
pub(super) fn depth() -> u32 {
    here(|here| here.depth.get())
}

/// The deadline of the call that this thread serves, in Unix milliseconds; zero for none.
#[inline]
pub(super) fn deadline_ms() -> u64 {
    here(|here| here.deadline_ms.get())
}

/// Whether the call that this thread serves has a trace.
#[inline]
pub(super) fn is_traced() -> bool {
    here(|here| here.is_traced.get())
}

/// The trace of the call that this thread serves.
#[inline]
pub(super) fn trace() -> Option<Arc<str>> {
    is_traced().then(|| TRACE.with_borrow(Clone::clone)).flatten()
}

/// Whether nobody waits any more for the call that this thread serves.
pub(super) fn is_abandoned() -> bool {
    ABANDONED.with_borrow(|abandoned| abandoned.as_ref().is_some_and(|one| one.is_so()))
}

fn replace_trace(trace: Option<Arc<str>>) -> Option<Arc<str>> {
    here(|here| here.is_traced.set(trace.is_some()));
    TRACE.replace(trace)
}

/// Serves within a frame.
pub(super) fn within<T>(mut frame: Frame, serve: impl FnOnce() -> T) -> T {
    let _entered = Entered::into(&mut frame);
    serve()
}

/// Makes a future whose every poll is within a frame, whatever thread does it.
pub(super) async fn carried<T>(mut frame: Frame, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(move |context| {
        let _entered = Entered::into(&mut frame);
        future.as_mut().poll(context)
    })
    .await
}

/// A frame that is a thread's, while this lives. Behind it, also behind a panic, the thread has
/// its own again.
struct Entered<'f>(&'f mut Frame);

impl<'f> Entered<'f> {
    fn into(frame: &'f mut Frame) -> Self {
        frame.swap();
        Entered(frame)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.swap();
    }
}

impl Frame {
    /// Changes places with the thread's.
    fn swap(&mut self) {
        let Frame { depth, deadline_ms, trace, identity, components, abandoned } = self;
        here(|here| {
            *depth = here.depth.replace(*depth);
            *deadline_ms = here.deadline_ms.replace(*deadline_ms);
        });
        *trace = replace_trace(trace.take());
        IDENTITY.with_borrow_mut(|own| std::mem::swap(own, identity));
        COMPONENTS.with_borrow_mut(|own| std::mem::swap(own, components));
        ABANDONED.with_borrow_mut(|own| std::mem::swap(own, abandoned));
    }
}

/// Whether the chain of calls that this thread serves goes through a component.
pub(super) fn goes_through(component: u64) -> bool {
    COMPONENTS.with_borrow(|serving| serving.contains(&component))
}

/// Serves a call of a component: the chain goes through it meanwhile.
pub(super) fn through<T>(component: u64, serve: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            COMPONENTS.with_borrow_mut(Vec::pop);
        }
    }
    COMPONENTS.with_borrow_mut(|serving| serving.push(component));
    let _leave = Leave;
    serve()
}

/// Waits for something on behalf of the call that is served, but no longer than somebody waits
/// for the call.
///
/// # Errors
/// [`Error::DeadlineExceeded`] when nobody does any more, else what the future answers.
pub(super) async fn while_awaited<T>(
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match ABANDONED.with_borrow(Clone::clone) {
        Some(abandoned) => abandoned.unless(future).await,
        None => future.await,
    }
}

/// While this lives, the thread serves a call from within the one that it served before, for the
/// same user and in the same trace.
pub(super) struct Deeper {
    depth: u32,
    deadline_ms: u64,
}

impl Deeper {
    pub(super) fn enter(depth: u32, deadline_ms: u64) -> Self {
        here(|here| Deeper {
            depth: here.depth.replace(depth),
            deadline_ms: here.deadline_ms.replace(deadline_ms),
        })
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        here(|here| {
            here.depth.set(self.depth);
            here.deadline_ms.set(self.deadline_ms);
        });
    }
}

/// From here on, the thread serves a call that is so deep, within the same deadline. To be set back
/// by whoever makes calls that cannot end in a panic; others want [`Deeper`].
#[inline(always)]
pub(super) fn set_depth(depth: u32) {
    here(|here| here.depth.set(depth));
}

/// Whether a call from within with this deadline of its own is in time, and within the deadline
/// that holds already.
#[inline(always)]
pub(super) fn is_in_time(own_ms: u64) -> bool {
    let around_ms = deadline_ms();
    around_ms | own_ms == 0 || is_before(around_ms, own_ms)
}

#[inline(never)]
fn is_before(around_ms: u64, own_ms: u64) -> bool {
    earlier(around_ms, own_ms) == around_ms
        && modunest_runtime::clock::now().as_millis() < around_ms
}

/// Serves in another trace.
pub(super) fn in_trace<T>(trace: Option<Arc<str>>, serve: impl FnOnce() -> T) -> T {
    struct BackTrace(Option<Arc<str>>);
    impl Drop for BackTrace {
        fn drop(&mut self) {
            drop(replace_trace(self.0.take()));
        }
    }
    let _back = BackTrace(replace_trace(trace));
    serve()
}

/// The earlier of two deadlines, where zero is none.
#[inline(always)]
pub(super) fn earlier(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, deadline) | (deadline, 0) => deadline,
        (one, other) => one.min(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_future_takes_its_frame_along_and_leaves_none_behind() {
        let frame = Frame {
            depth: 7,
            deadline_ms: 9,
            trace: Some(Arc::from("00-x")),
            components: vec![3],
            ..Frame::default()
        };
        let seen = || (depth(), deadline_ms(), trace().as_deref() == Some("00-x"), goes_through(3));
        let serve = async move {
            for _ in 0..100 {
                assert_eq!(seen(), (7, 9, true, true));
                through(4, || assert!(goes_through(3) && goes_through(4)));
                tokio::task::yield_now().await;
            }
            panic!("as it was told to");
        };
        let beside = async move {
            for _ in 0..100 {
                assert_eq!(seen(), (0, 0, false, false));
                tokio::task::yield_now().await;
            }
        };
        let (served, beside) = (tokio::spawn(carried(frame, serve)), tokio::spawn(beside));
        assert!(served.await.unwrap_err().is_panic());
        beside.await.unwrap();
        assert_eq!(seen(), (0, 0, false, false));
    }
}
