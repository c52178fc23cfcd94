//! Calls that are futures, and the threads that run them.
//!
//! A call of a component may wait in its host for long, and then it should hold no thread; it may
//! compute for long, and then it should hold no thread that serves the network. So [`drive`]
//! begins it where it is, and moves it to a blocking thread for as long as it computes. Whoever
//! has a thread of its own to wait on takes [`block_on`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use modunest_sdk::Error;

use super::abandoned::Abandoned;
use super::frame;
use crate::blocking;

/// A call that is a future.
pub type Serving<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

thread_local! {
    /// Whether this thread runs a future in [`block_on`], and so may wait for other things, too.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    /// Whether what this thread polled last had more to compute.
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
    /// A parker for the next [`block_on`], and what wakes it.
    static PARKER: RefCell<Option<(Arc<Parker>, Waker)>> = const { RefCell::new(None) };
}

/// Wakes a thread that waits for a future.
struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

/// Runs a future on this thread, which may block.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match block_on_until(None, future) {
        Some(answer) => answer,
        // It gives up at a deadline only.
        None => unreachable!("without a deadline"),
    }
}

/// The same, until a deadline at most; `None` where that passes before.
pub(super) fn block_on_until<T>(
    until: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut poll = |waker: &Waker| {
        let _may = MayBlock(MAY_BLOCK.replace(true));
        future.as_mut().poll(&mut Context::from_waker(waker))
    };
    // Most never wait, and need nobody who wakes them.
    if let Poll::Ready(answer) = poll(Waker::noop()) {
        return Some(answer);
    }
    // One that is inside another has a parker of its own, so that neither takes the other's word.
    let (parker, waker) = PARKER.take().unwrap_or_else(|| {
        let thread = std::thread::current();
        let parker = Arc::new(Parker { thread, is_woken: AtomicBool::new(false) });
        let waker = Waker::from(parker.clone());
        (parker, waker)
    });
    loop {
        if let Poll::Ready(answer) = poll(&waker) {
            PARKER.set(Some((parker, waker)));
            return Some(answer);
        }
        while !parker.is_woken.swap(false, Ordering::SeqCst) {
            match until {
                None => std::thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    std::thread::park_timeout(left);
                }
            }
        }
    }
}

/// Puts back what was said of the thread before, also behind a panic.
struct MayBlock(bool);

impl Drop for MayBlock {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

/// Runs work that may block, in the present frame: here, where this thread may, else on a
/// blocking thread. Work that was begun goes on, also where its future is dropped.
///
/// # Errors
/// [`Error::Failed`] where it panicked, or the agent ends.
pub(super) async fn away<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    // Without a runtime, the thread is nobody's but the caller's.
    if MAY_BLOCK.get() || tokio::runtime::Handle::try_current().is_err() {
        return Ok(work());
    }
    let frame = frame::current();
    let done = blocking::run(move || frame::within(frame, work));
    done.await.map_err(|lost| Error::Failed(lost.to_string()))
}

/// Notes that what is being polled gave its thread up only so that others have their turn.
pub(super) fn computes() {
    COMPUTES.set(true);
}

/// Polls something; answers as well whether that gave its thread up only so that others have their
/// turn.
pub(super) fn computing<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    COMPUTES.set(false);
    let polled = poll();
    (polled, COMPUTES.get())
}

/// A call on its way, as it moves between threads.
enum Turn<T> {
    Done(T),
    /// It has more to compute.
    Computes,
    Waits,
}

fn turn<T>(call: &mut Serving<'static, T>, context: &mut Context<'_>) -> Turn<T> {
    match computing(|| call.as_mut().poll(context)) {
        (Poll::Ready(answer), _) => Turn::Done(answer),
        (Poll::Pending, true) => Turn::Computes,
        (Poll::Pending, false) => Turn::Waits,
    }
}

/// Runs a call to its end, and moves it to a blocking thread while it computes.
async fn run<T: Send + 'static>(mut call: Serving<'static, T>) -> Result<T, Error> {
    loop {
        let turned = poll_fn(|context| match turn(&mut call, context) {
            Turn::Done(answer) => Poll::Ready(Some(answer)),
            Turn::Computes => Poll::Ready(None),
            Turn::Waits => Poll::Pending,
        });
        if let Some(answer) = turned.await {
            return Ok(answer);
        }
        let crunched = blocking::run(move || {
            // What it waits for in the end wakes whoever polls it next.
            let mut context = Context::from_waker(Waker::noop());
            loop {
                match turn(&mut call, &mut context) {
                    Turn::Done(answer) => return Ok(answer),
                    Turn::Computes => {}
                    Turn::Waits => return Err(call),
                }
            }
        });
        match crunched.await.map_err(|lost| Error::Failed(lost.to_string()))? {
            Ok(answer) => return Ok(answer),
            Err(waiting) => call = waiting,
        }
    }
}

/// Runs a call to its end, without a thread while it waits.
///
/// Where nobody waits for it any more, because this future was dropped, what the call waits for
/// ends with an error, and it goes on by itself until it is done: it is not cut off in the middle
/// of what it does.
///
/// # Errors
/// What it answers; [`Error::Failed`] where it panicked, or the agent ends.
pub(crate) async fn drive<T: Send + 'static>(
    serve: impl Future<Output = Result<T, Error>> + Send + 'static,
    identity: Option<Arc<modunest_sdk::Identity>>,
) -> Result<T, Error> {
    let abandoned = Arc::<Abandoned>::default();
    let frame =
        frame::Frame { identity, abandoned: Some(abandoned.clone()), ..frame::Frame::default() };
    let mut rest =
        Rest { running: Some(Box::pin(run(Box::pin(frame::carried(frame, serve))))), abandoned };
    poll_fn(move |context| {
        // Nobody polls a future again that has answered.
        let Some(running) = &mut rest.running else { return Poll::Pending };
        let polled = running.as_mut().poll(context);
        if polled.is_ready() {
            rest.running = None;
        }
        polled
    })
    .await
    .flatten()
}

/// What is left of a call when its caller goes away.
struct Rest<T: Send + 'static> {
    running: Option<Serving<'static, Result<T, Error>>>,
    abandoned: Arc<Abandoned>,
}

impl<T: Send + 'static> Drop for Rest<T> {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.abandoned.set();
        // Without a runtime the agent ends, and the call with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Its answer is nobody's.
            runtime.spawn(async move { drop(running.await) });
        }
    }
}
