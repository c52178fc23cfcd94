//! When plugins that have failed are loaded anew: what they lacked may have come. A decision,
//! without a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use modunest_core::name::PluginName;

use crate::config::RetrySettings;

/// The plugins that have failed, and those that had and load again.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<PluginName, Retry>);

#[derive(Debug)]
struct Retry {
    /// When it is loaded anew, or would have been.
    at: Instant,
    /// How often it was since it was well for long enough.
    retries: u32,
    has_failed: bool,
}

impl Retries {
    /// Whether it is time to load anew, where these have `failed`.
    pub(super) fn are_due(
        &mut self,
        now: Instant,
        failed: &BTreeSet<PluginName>,
        settings: &RetrySettings,
    ) -> bool {
        if settings.first.is_zero() {
            self.0.clear();
            return false;
        }
        // One that fails again soon goes on with its pauses.
        self.0.retain(|name, retry| {
            retry.has_failed &= failed.contains(name);
            retry.has_failed || failed.contains(name) || now < retry.at + settings.max
        });
        let mut are_due = false;
        for name in failed {
            let retry = self.0.entry(name.clone()).or_insert(Retry {
                at: now,
                retries: 0,
                has_failed: false,
            });
            if !retry.has_failed {
                (retry.at, retry.has_failed) = (now + settings.pause(retry.retries), true);
            } else if retry.at <= now {
                are_due = true;
                retry.retries = retry.retries.saturating_add(1);
                retry.at = now + settings.pause(retry.retries);
            }
        }
        are_due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<PluginName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// At which of so many seconds it is time, where these have failed then.
    fn due(
        first_s: u64,
        seconds: u64,
        failed: impl Fn(u64) -> &'static [&'static str],
    ) -> Vec<u64> {
        let settings =
            RetrySettings { first: Duration::from_secs(first_s), max: Duration::from_secs(5) };
        let (mut retries, begin) = (Retries::default(), Instant::now());
        let mut is_due = |second: &u64| {
            let now = begin + Duration::from_secs(*second);
            retries.are_due(now, &set(failed(*second)), &settings)
        };
        (0..seconds).filter(|second| is_due(second)).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(due(1, 20, |_| &["demo/one"]), [1, 3, 7, 12, 17]);
        assert!(due(1, 20, |_| &[]).is_empty());
        assert!(due(0, 20, |_| &["demo/one"]).is_empty());
    }

    #[test]
    fn each_has_its_own_pauses() {
        let failed: fn(u64) -> &'static [&'static str] =
            |second| if second < 4 { &["demo/one"] } else { &["demo/one", "demo/two"] };
        assert_eq!(due(1, 13, failed), [1, 3, 5, 7, 11, 12]);
    }

    #[test]
    fn who_fails_again_soon_waits_longer_and_who_was_well_for_long_does_not() {
        let soon: fn(u64) -> &'static [&'static str] =
            |second| if (4..6).contains(&second) { &[] } else { &["demo/one"] };
        assert_eq!(due(1, 12, soon), [1, 3, 10]);
        let late: fn(u64) -> &'static [&'static str] =
            |second| if (4..14).contains(&second) { &[] } else { &["demo/one"] };
        assert_eq!(due(1, 18, late), [1, 3, 15, 17]);
    }
}
