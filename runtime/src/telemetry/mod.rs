//! Spans: what a process did within a trace, for whoever collects them.
//!
//! A span takes its identifiers from the [`TraceContext`] that travels in `traceparent`, so
//! what a collector shows is what logs and problem details name. Nothing is recorded until
//! [`start`]; then a span that ends is put into a bounded queue, which one thread empties into
//! an OTLP collector. A full queue drops spans and counts them: no call ever waits for one.

#[cfg(feature = "otlp")]
mod export;
mod settings;
mod span;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{PoisonError, RwLock};

use modunest_core::trace::TraceContext;

#[cfg(feature = "otlp")]
pub use export::{Exporter, StartError, start};
pub use settings::{Sampler, Settings, SettingsError};
pub use span::{Kind, Span, Value};

use span::Finished;

/// Whether anything is recorded: all that a call asks where nothing is.
static ON: AtomicBool = AtomicBool::new(false);
static SINK: RwLock<Option<Sink>> = RwLock::new(None);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static EXPORTED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Sink {
    queue: SyncSender<Finished>,
    sampler: Sampler,
}

/// What became of spans since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans that a collector has taken.
    pub exported: u64,
    /// Spans that were lost: the queue was full, or the collector did not take them.
    pub dropped: u64,
}

/// What became of spans; `None` where none are recorded.
pub fn counts() -> Option<Counts> {
    is_on().then(|| Counts {
        exported: EXPORTED.load(Ordering::Relaxed),
        dropped: DROPPED.load(Ordering::Relaxed),
    })
}

/// Whether spans are recorded.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Whether a trace is recorded: the start of one, or one that somebody else has started.
pub(crate) fn sampled(context: TraceContext, remote: bool) -> TraceContext {
    if !is_on() {
        return context;
    }
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    match &*sink {
        Some(sink) => context.with_sampled(sink.sampler.samples(context, remote)),
        None => context,
    }
}

fn record(finished: Finished) {
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    let lost = match &*sink {
        Some(sink) => match sink.queue.try_send(finished) {
            Ok(()) => false,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
        },
        None => true,
    };
    if lost {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets spans go to `sink`; false where they go somewhere already.
#[cfg(feature = "otlp")]
fn install(sink: Sink) -> bool {
    let mut installed = SINK.write().unwrap_or_else(PoisonError::into_inner);
    if installed.is_some() {
        return false;
    }
    *installed = Some(sink);
    ON.store(true, Ordering::Relaxed);
    true
}

/// Lets spans go nowhere; the queue ends once it is emptied.
#[cfg(feature = "otlp")]
fn uninstall() {
    let mut installed = SINK.write().unwrap_or_else(PoisonError::into_inner);
    ON.store(false, Ordering::Relaxed);
    *installed = None;
}
