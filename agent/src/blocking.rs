//! Work for threads that may block, away from those that serve the network.

/// The thread or task that did the work ended by a panic, or the runtime is ending.
#[derive(Debug, thiserror::Error)]
#[error("a helper thread ended without an answer: {0}")]
pub struct Lost(String);

/// Runs `work` on a blocking thread, with the present log span.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let span = tracing::Span::current();
    joined(tokio::task::spawn_blocking(move || span.in_scope(work))).await
}

/// What a task came to.
pub(crate) async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T, Lost> {
    task.await.map_err(|error| Lost(error.to_string()))
}
