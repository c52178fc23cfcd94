//! What a plugin's answers to the question after its health come to. Pure: the time comes in.

use std::collections::VecDeque;

use crate::config::HealthSettings;

/// Restarts are counted over so long.
const RESTARTS_WITHIN_MS: u64 = 600_000;

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Same,
    /// It is to be shown as unhealthy.
    Unhealthy,
    /// It is unhealthy and to be restarted.
    Restart,
    /// It is well again.
    Recovered,
}

/// The answers of one plugin so far.
#[derive(Clone, Debug, Default)]
pub struct HealthRecord {
    /// Failures in a row.
    failures: u32,
    /// When it was restarted, in Unix milliseconds.
    restarts: VecDeque<u64>,
}

impl HealthRecord {
    /// Takes note of an answer.
    pub fn note(&mut self, now_ms: u64, settings: &HealthSettings, healthy: bool) -> Verdict {
        if healthy {
            let was_unhealthy = self.failures >= settings.failures;
            self.failures = 0;
            return if was_unhealthy { Verdict::Recovered } else { Verdict::Same };
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < settings.failures {
            return Verdict::Same;
        }
        while self.restarts.front().is_some_and(|at| at + RESTARTS_WITHIN_MS <= now_ms) {
            self.restarts.pop_front();
        }
        if settings.restart && self.restarts.len() < settings.restarts as usize {
            self.restarts.push_back(now_ms);
            // As many failures again, before the next one.
            self.failures = 0;
            return Verdict::Restart;
        }
        Verdict::Unhealthy
    }

    /// Notes that what it runs in was started again: what it failed at before counts no more.
    pub fn started_again(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: HealthSettings = HealthSettings {
        every: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        failures: 3,
        restart: true,
        restarts: 2,
    };

    #[test]
    fn so_many_failures_restart_it_so_many_times() {
        let mut record = HealthRecord::default();
        let mut note = |now_ms, healthy| record.note(now_ms, &SETTINGS, healthy);
        use Verdict::{Recovered, Restart, Same, Unhealthy};
        assert_eq!([note(1, false), note(2, false), note(3, true)], [Same, Same, Same]);
        assert_eq!([note(4, false), note(5, false), note(6, false)], [Same, Same, Restart]);
        assert_eq!([note(7, false), note(8, false), note(9, false)], [Same, Same, Restart]);
        assert_eq!([note(10, false), note(11, false), note(12, false)], [Same, Same, Unhealthy]);
        // Each time anew: what it is shown as may have been another since.
        assert_eq!([note(13, false), note(14, true), note(15, true)], [Unhealthy, Recovered, Same]);
        // The first two restarts are forgotten.
        let later = 15 + RESTARTS_WITHIN_MS;
        let verdicts = [later, later + 1, later + 2].map(|now_ms| note(now_ms, false));
        assert_eq!(verdicts, [Same, Same, Restart]);
    }

    #[test]
    fn who_was_started_again_is_told_of_anew() {
        let settings = HealthSettings { restart: false, failures: 1, ..SETTINGS };
        let mut record = HealthRecord::default();
        assert_eq!(record.note(1, &settings, false), Verdict::Unhealthy);
        record.started_again();
        assert_eq!(record.note(2, &settings, false), Verdict::Unhealthy);
    }

    #[test]
    fn without_restarts_it_is_only_shown() {
        let settings = HealthSettings { restart: false, failures: 1, ..SETTINGS };
        let mut record = HealthRecord::default();
        assert_eq!(record.note(1, &settings, false), Verdict::Unhealthy);
        assert_eq!(record.note(2, &settings, false), Verdict::Unhealthy);
        assert_eq!(record.note(3, &settings, true), Verdict::Recovered);
    }
}
