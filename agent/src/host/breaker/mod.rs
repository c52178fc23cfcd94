//! Circuit breakers: a plugin, or a part of it, that fails again and again is left alone
//! for a while, so that its callers hear so at once instead of waiting for one more failure.
//!
//! Pure: the time comes in, the decision goes out. [`Breaker`] is one machine; [`Breakers`]
//! are those of a plugin, one for all of its calls, one for each service, and one for its events.
//!
//! A service that fails is its own breaker's to deal with. The plugin's hears of the first failure
//! in a row of each service and of nothing more, so it takes several services that fail at the same
//! time, or routes, guards and schedules, which have no breaker of their own, to open it. Of events
//! it hears nothing: one that nobody can deal with comes again and again.

mod guarded;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(super) use guarded::service_of;
pub use guarded::{Breakers, Part, Refused, Ticket};

/// Calls that a rate looks back on at most: one bit each.
pub const WINDOW_MAX: u32 = 64;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it.
    pub failures: u32,
    /// A share of failures opens it as well; `None` for never.
    pub rate: Option<Rate>,
    /// How long it stays open before one call tries again, in milliseconds.
    pub open_ms: u64,
    /// So many of these calls in a row must succeed to close it.
    pub probes: u32,
}

/// A share of failures among the last calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From this share on, in percent.
    pub percent: u32,
    /// Calls that are looked back on, [`WINDOW_MAX`] at most; with fewer nothing is judged.
    pub window: u32,
}

impl BreakerSettings {
    /// Whether breakers have to hear of each call, whatever happens.
    pub(super) fn are_noisy(&self) -> bool {
        self.rate.is_some()
    }

    /// For plugins that a host can be without for a while.
    pub const COMMON: BreakerSettings =
        BreakerSettings { failures: 5, rate: None, open_ms: 60_000, probes: 1 };
    /// For critical plugins: to go without them costs more than a few failures more, so they
    /// are left alone later and tried again sooner.
    pub const CRITICAL: BreakerSettings =
        BreakerSettings { failures: 10, rate: None, open_ms: 15_000, probes: 1 };
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// One call at a time is let through, to see how it fares.
    HalfOpen,
}

impl BreakerState {
    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// What a breaker says of a call that wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Allowed,
    /// Go on; much depends on how it ends.
    Probe,
    /// Not before this time, in Unix milliseconds. It has passed where a probe is under way.
    Refused {
        /// When it is worth trying again.
        retry_at_ms: u64,
    },
}

/// How a call ended, as far as a breaker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, be it with a refusal that is the caller's own fault.
    Success,
    /// It failed, panicked, was late, or broke off.
    Failure,
    /// It was not made after all, for example because no place was free for it, or its client went
    /// away before its end.
    Abandoned,
}

/// One breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Whether each of the last calls failed, the newest in the lowest bit.
    history: u64,
    /// How many calls the history holds.
    seen: u32,
    /// How often it opened.
    openings: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { in_a_row: u32 },
    Open { until_ms: u64 },
    HalfOpen { succeeded: u32, probing: bool },
}

impl Breaker {
    /// A closed one.
    pub const fn new(settings: BreakerSettings) -> Self {
        let phase = Phase::Closed { in_a_row: 0 };
        Breaker { settings, phase, history: 0, seen: 0, openings: 0 }
    }

    /// Whether a call may be made. What is admitted is to be recorded, whatever its end.
    pub fn admit(&mut self, now_ms: u64) -> Admission {
        match self.phase {
            Phase::Closed { .. } => Admission::Allowed,
            Phase::Open { until_ms } if now_ms < until_ms => {
                Admission::Refused { retry_at_ms: until_ms }
            }
            Phase::Open { .. } => {
                self.phase = Phase::HalfOpen { succeeded: 0, probing: true };
                Admission::Probe
            }
            Phase::HalfOpen { probing: true, .. } => Admission::Refused { retry_at_ms: now_ms },
            Phase::HalfOpen { succeeded, probing: false } => {
                self.phase = Phase::HalfOpen { succeeded, probing: true };
                Admission::Probe
            }
        }
    }

    /// Takes note of how an admitted call ended; `probe` says whether it was one.
    pub fn record(&mut self, now_ms: u64, probe: bool, outcome: Outcome) {
        self.take(now_ms, probe, outcome, self.settings.rate);
    }

    /// The same for a call of which another breaker keeps the rate.
    pub(super) fn record_apart(&mut self, now_ms: u64, probe: bool, outcome: Outcome) {
        self.take(now_ms, probe, outcome, None);
    }

    fn take(&mut self, now_ms: u64, probe: bool, outcome: Outcome, rate: Option<Rate>) {
        match (self.phase, probe, outcome) {
            (Phase::HalfOpen { succeeded, .. }, true, Outcome::Success) => {
                let succeeded = succeeded + 1;
                if succeeded >= self.settings.probes {
                    (self.phase, self.history, self.seen) = (Phase::Closed { in_a_row: 0 }, 0, 0);
                } else {
                    self.phase = Phase::HalfOpen { succeeded, probing: false };
                }
            }
            (Phase::HalfOpen { .. }, true, Outcome::Failure) => self.open(now_ms),
            (Phase::HalfOpen { succeeded, .. }, true, Outcome::Abandoned) => {
                self.phase = Phase::HalfOpen { succeeded, probing: false };
            }
            (Phase::Closed { in_a_row }, _, Outcome::Success | Outcome::Failure) => {
                self.note(now_ms, in_a_row, outcome == Outcome::Failure, rate);
            }
            // The end of a call from before it opened, or of none.
            (Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Closed { .. }, _, _) => {}
        }
    }

    fn note(&mut self, now_ms: u64, in_a_row: u32, failed: bool, rate: Option<Rate>) {
        let in_a_row = if failed { in_a_row.saturating_add(1) } else { 0 };
        self.phase = Phase::Closed { in_a_row };
        let mut opens = in_a_row >= self.settings.failures;
        if let Some(Rate { percent, window }) = rate {
            let window = window.clamp(1, WINDOW_MAX);
            let kept = u64::MAX >> (WINDOW_MAX - window);
            self.history = (self.history << 1 | u64::from(failed)) & kept;
            self.seen = (self.seen + 1).min(window);
            let failures = self.history.count_ones();
            // Only a failure opens: a success is no reason to.
            opens |= failed && self.seen == window && failures * 100 >= percent * window;
        }
        if opens {
            self.open(now_ms);
        }
    }

    fn open(&mut self, now_ms: u64) {
        let until_ms = now_ms.saturating_add(self.settings.open_ms);
        (self.phase, self.history, self.seen) = (Phase::Open { until_ms }, 0, 0);
        self.openings += 1;
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Until when it refuses every call, in Unix milliseconds; zero where it does not.
    pub fn open_until_ms(&self) -> u64 {
        match self.phase {
            Phase::Open { until_ms } => until_ms,
            Phase::Closed { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// Whether the last call that it counted failed, or calls are kept away because of that.
    fn is_failing(&self) -> bool {
        self.phase != Phase::Closed { in_a_row: 0 }
    }

    /// How often it opened.
    pub fn openings(&self) -> u64 {
        self.openings
    }

    /// Whether nothing is held against anybody: a success would change nothing.
    pub fn is_quiet(&self) -> bool {
        !self.is_failing() && self.settings.rate.is_none()
    }
}
