//! When a runner that ended is started again: a decision, without a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::doubling;

/// How restarts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Pause before the first restart; it doubles with each crash within the window.
    pub first_pause: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// Restarts within the window, above which the plugin has failed.
    pub restarts_max: usize,
    /// How long a crash counts.
    pub window: Duration,
}

/// What is done about a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Start again after a pause.
    Restart(Duration),
    /// It crashes too often.
    GiveUp,
}

/// The crashes of late.
#[derive(Debug, Default)]
pub(super) struct Backoff(VecDeque<Instant>);

impl Backoff {
    /// Counts a crash, and decides.
    pub(super) fn crashed(&mut self, now: Instant, policy: &RestartPolicy) -> Decision {
        while self.0.front().is_some_and(|at| now.duration_since(*at) > policy.window) {
            self.0.pop_front();
        }
        if self.0.len() >= policy.restarts_max {
            return Decision::GiveUp;
        }
        let before = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        Decision::Restart(doubling::pause(policy.first_pause, before, policy.pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_then_it_gives_up() {
        let policy = RestartPolicy {
            first_pause: Duration::from_millis(100),
            pause_max: Duration::from_millis(500),
            restarts_max: 4,
            window: Duration::from_secs(60),
        };
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut backoff = Backoff::default();
        let decisions: Vec<Decision> =
            (0..5).map(|second| backoff.crashed(at(second), &policy)).collect();
        let pauses = [100, 200, 400, 500].map(|ms| Decision::Restart(Duration::from_millis(ms)));
        assert_eq!(decisions[..4], pauses);
        assert_eq!(decisions[4], Decision::GiveUp);
        // Crashes that are long past count no more.
        assert_eq!(backoff.crashed(at(61), &policy), Decision::Restart(policy.pause_max));
        assert_eq!(backoff.crashed(at(300), &policy), Decision::Restart(policy.first_pause));
    }
}
