//! Fault points: a kill before or after any single write, for the tests of crashes.
//!
//! They exist only where the feature `faults` is on *and* debug assertions are: no build of
//! the release profile has them, whatever features a build of the whole workspace unites.
//! Everywhere else [`write`] is the future it is given.
//!
//! With [`KILL_VARIABLE`] set to `n`, the process gets SIGKILL at its n-th point, as from the
//! outside: nothing is flushed, no destructor runs. Each write has two points, one before it
//! is sent and one after it is answered.

/// Environment variable with the number of the point, from 1, at which the process is killed.
#[cfg(feature = "faults")]
pub const KILL_VARIABLE: &str = "MODUNEST_FAULT_KILL_AT_WRITE";

/// Carries out a write to DynamoDB or S3 between two fault points.
pub(crate) async fn write<F: Future>(write: F) -> F::Output {
    point();
    let outcome = write.await;
    point();
    outcome
}

#[cfg(not(all(feature = "faults", debug_assertions)))]
const fn point() {}

#[cfg(all(feature = "faults", debug_assertions))]
fn point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static KILL_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var(KILL_VARIABLE).ok().and_then(|text| text.parse().ok()));

    let Some(kill_at) = *KILL_AT else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == kill_at {
        tracing::warn!(kill_at, "killed at a fault point");
        let own = rustix::process::getpid();
        // Whether the signal was sent or not, nothing may happen after the point.
        while rustix::process::kill_process(own, rustix::process::Signal::KILL).is_ok() {
            std::thread::park();
        }
        std::process::abort();
    }
}
