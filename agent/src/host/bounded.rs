//! Plugin code with a time limit: on a thread of its own, which is left behind where it hangs.

use std::sync::mpsc;
use std::time::Duration;

/// Plugin code did not end in time, or there was no thread for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Late {
    /// It runs still.
    #[error("it did not end within {} ms", .0.as_millis())]
    Running(Duration),
    /// It never ran, or its thread ended without an answer.
    #[error("its thread could not be used: {0}")]
    Thread(String),
}

/// Runs `work` and waits for its end, `timeout` at most.
pub(super) fn bounded<T: Send + 'static>(
    name: &str,
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Late> {
    let (done, waiting) = mpsc::sync_channel(1);
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        // Fails only where nobody waits any more.
        .spawn(move || drop(done.send(span.in_scope(work))))
        .map_err(|error| Late::Thread(error.to_string()))?;
    waiting.recv_timeout(timeout).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => Late::Running(timeout),
        mpsc::RecvTimeoutError::Disconnected => Late::Thread("it panicked".to_owned()),
    })
}
