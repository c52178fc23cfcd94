//! What becomes of a change that is being tried. Pure: counts and times come in.

use std::time::Duration;

use crate::config::CanaryRule;

/// Calls that an instance has ended, and those of them that it could not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// All of them.
    pub calls: u64,
    /// Those that failed, panicked, were late or broke off, and HTTP answers from 500 on.
    pub failures: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    GoOn,
    /// The new instance takes the old one's place.
    Promote,
    /// The old one goes on alone.
    RollBack(String),
}

impl Served {
    /// What came since an earlier look.
    pub fn since(self, earlier: Served) -> Served {
        Served {
            calls: self.calls.saturating_sub(earlier.calls),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }

    /// Failures in hundredths of a percent of the calls.
    fn rate(self) -> u64 {
        (self.failures * 10_000).checked_div(self.calls).unwrap_or(0)
    }
}

/// Decides from what both instances have served since the trial began, how long that is ago,
/// and what is wrong with the new one beside its answers.
pub fn judge(
    rule: &CanaryRule,
    old: Served,
    new: Served,
    watched: Duration,
    trouble: Option<String>,
) -> Decision {
    if let Some(trouble) = trouble {
        return Decision::RollBack(trouble);
    }
    let bearable = old.rate() + u64::from(rule.errors_percent) * 100;
    if new.failures >= rule.failures && new.rate() > bearable {
        return Decision::RollBack(format!(
            "{} of its {} calls failed, and {} of {} calls of the instance that it is to replace",
            new.failures, new.calls, old.failures, old.calls
        ));
    }
    if watched >= rule.watch && new.calls >= rule.calls {
        return Decision::Promote;
    }
    Decision::GoOn
}

/// Whether the call with this number, from 0 on, is the new instance's: spread evenly, and the
/// same at every run.
pub fn is_turn(number: u64, share_percent: u32) -> bool {
    // Of each hundred calls, these.
    let (at, share) = (number % 100, u64::from(share_percent));
    (at + 1) * share / 100 > at * share / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: CanaryRule = CanaryRule {
        share_percent: 10,
        watch: Duration::from_secs(60),
        calls: 20,
        failures: 3,
        errors_percent: 5,
    };

    fn decide(old: (u64, u64), new: (u64, u64), watched_s: u64) -> Decision {
        let served = |(calls, failures)| Served { calls, failures };
        judge(&RULE, served(old), served(new), Duration::from_secs(watched_s), None)
    }

    #[test]
    fn a_good_one_is_promoted_when_it_was_watched_and_has_worked() {
        assert_eq!(decide((900, 0), (100, 0), 59), Decision::GoOn);
        assert_eq!(decide((900, 0), (19, 0), 600), Decision::GoOn);
        assert_eq!(decide((180, 0), (20, 0), 60), Decision::Promote);
        // Two failures are none yet.
        assert_eq!(decide((180, 0), (20, 2), 60), Decision::Promote);
    }

    #[test]
    fn one_that_fails_more_often_than_the_old_one_is_rolled_back_at_once() {
        assert!(matches!(decide((27, 0), (3, 3), 1), Decision::RollBack(_)));
        assert!(matches!(decide((900, 0), (100, 6), 1), Decision::RollBack(_)));
        assert_eq!(decide((900, 0), (100, 5), 1), Decision::GoOn);
        // What fails everywhere is not the change's fault.
        assert_eq!(decide((900, 450), (100, 55), 60), Decision::Promote);
        assert!(matches!(decide((900, 450), (100, 56), 60), Decision::RollBack(_)));
        // Nothing to compare with.
        assert!(matches!(decide((0, 0), (3, 3), 1), Decision::RollBack(_)));
    }

    #[test]
    fn trouble_counts_before_everything_else() {
        let served = Served { calls: 1000, failures: 0 };
        let trouble = Some("its process ended".to_owned());
        let decision = judge(&RULE, served, served, Duration::from_secs(3600), trouble);
        assert_eq!(decision, Decision::RollBack("its process ended".to_owned()));
    }

    #[test]
    fn turns_are_as_many_as_the_share_says_and_evenly_spread() {
        for share in 0..=99 {
            let turns = (0..1000).filter(|number| is_turn(*number, share)).count();
            assert_eq!(turns, share as usize * 10);
        }
        let tenth: Vec<u64> = (0..30).filter(|number| is_turn(*number, 10)).collect();
        assert_eq!(tenth, [9, 19, 29]);
        let half: Vec<u64> = (0..8).filter(|number| is_turn(*number, 50)).collect();
        assert_eq!(half, [1, 3, 5, 7]);
    }
}
