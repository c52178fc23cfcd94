//! A job that runs every so often until it is stopped.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Runs an async job after every `interval`, never beside itself: the next wait
/// begins when the job has ended. The first run comes after one interval.
///
/// A job that panics is reported and runs again at the next turn. Dropping the
/// timer without [`stop`](Self::stop) stops it too, but waits for nothing.
#[derive(Debug)]
#[must_use = "a dropped timer stops"]
pub struct Timer {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Timer {
    /// Starts the timer on the current Tokio runtime. `name` appears in the log only.
    pub fn every<F, Fut>(name: &'static str, interval: Duration, mut job: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    // An error means the handle was dropped, which also stops.
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                if AssertUnwindSafe(job()).catch_unwind().await.is_err() {
                    tracing::error!(
                        timer = name,
                        "a timed job panicked; it runs again at its next turn"
                    );
                }
            }
        });
        Self { stop, task }
    }

    /// Stops the timer and waits for a running job to end.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a timer ended abnormally");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn jobs_never_overlap_and_outlive_a_panic() {
        let runs = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let (job_runs, job_inside) = (runs.clone(), inside.clone());
        let timer = Timer::every("test", Duration::from_millis(1), move || {
            let (runs, inside) = (job_runs.clone(), job_inside.clone());
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two jobs at once");
                tokio::time::sleep(Duration::from_millis(5)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                assert_ne!(runs.fetch_add(1, Ordering::SeqCst), 0, "the first run panics");
            }
        });
        while runs.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        timer.stop().await;
        let stopped_at = runs.load(Ordering::SeqCst);
        assert_eq!(inside.load(Ordering::SeqCst), 0, "stop waits for the running job");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(runs.load(Ordering::SeqCst), stopped_at);
    }
}
