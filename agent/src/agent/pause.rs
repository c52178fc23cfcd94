//! When a generation is tried again that running calls kept from being switched to: each try loads
//! all of it and makes calls wait, so it is not made at each look for news.

use std::time::{Duration, Instant};

use crate::Error;
use crate::host::{Hindrance, NotSwitched};

/// How long it is left alone at first. It doubles with each try that fails alike.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// The longest that it is left alone.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// A generation that is left alone for a while.
#[derive(Debug)]
pub(super) struct Pause {
    /// Its number, and that of what was loaded of it where the rest is tried first.
    numbers: [u64; 2],
    error: NotSwitched,
    length: Duration,
    until: Instant,
}

impl Pause {
    /// What is remembered behind a try of a generation that ended so at `now`; `before` is what
    /// was remembered until then.
    pub(super) fn behind<T>(
        before: Option<Pause>,
        generation: u64,
        tried: &Result<T, Error>,
        now: Instant,
    ) -> Option<Pause> {
        let Err(Error::NotSwitched { generation: loaded, error }) = tried else { return None };
        if error.hindrance != Hindrance::Running {
            return None;
        }
        let numbers = [generation, *loaded];
        let alike = before.filter(|before| before.is_of(generation) || before.is_of(*loaded));
        let length = alike.map_or(FIRST, |before| before.length.saturating_mul(2).min(LONGEST));
        Some(Pause { numbers, error: error.clone(), length, until: now + length })
    }

    /// Why a generation is left alone at `now`, if it is.
    pub(super) fn holds(&self, generation: u64, now: Instant) -> Option<Error> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero());
        let left_s = left.filter(|_| self.is_of(generation))?.as_secs();
        let reason = format!(
            "{}; the next try is in {left_s} s, `POST /sync` of the admin API tries at once",
            self.error.reason
        );
        let error = NotSwitched { reason, ..self.error.clone() };
        Some(Error::NotSwitched { generation, error })
    }

    fn is_of(&self, generation: u64) -> bool {
        self.numbers.contains(&generation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn failed(generation: u64, hindrance: Hindrance) -> Result<(), Error> {
        let (plugin, reason) = ("demo/counter".parse().unwrap(), "1 calls did not end".to_owned());
        let error = NotSwitched { plugin, reason, hindrance };
        Err(Error::NotSwitched { generation, error })
    }

    #[test]
    fn what_calls_stood_in_the_way_of_is_left_alone_for_longer_and_longer() {
        let now = Instant::now();
        let busy = || failed(7, Hindrance::Running);
        let mut pause = None;
        let mut lengths_s = Vec::new();
        for _ in 0..6 {
            pause = Pause::behind(pause, 7, &busy(), now);
            lengths_s.push(pause.as_ref().unwrap().length.as_secs());
        }
        assert_eq!(lengths_s, [300, 600, 1200, 2400, 3600, 3600]);
        let pause = pause.unwrap();
        let error = pause.holds(7, now + Duration::from_secs(3000)).unwrap().to_string();
        assert!(error.contains("did not end; the next try is in 600 s, "), "{error}");
        assert!(pause.holds(7, now + LONGEST).is_none());
        // Another generation has a turn of its own.
        assert!(pause.holds(8, now).is_none());
        let other = Pause::behind(Some(pause), 8, &failed(8, Hindrance::Running), now).unwrap();
        assert_eq!(other.length, FIRST);
        // So has what was loaded of one that is tried first.
        let mixed = Pause::behind(None, 9, &failed(10, Hindrance::Running), now).unwrap();
        assert!(mixed.holds(9, now).is_some() && mixed.holds(10, now).is_some());
    }

    #[test]
    fn nothing_else_is_left_alone() {
        let now = Instant::now();
        let busy = || Pause::behind(None, 7, &failed(7, Hindrance::Running), now);
        for hindrance in [Hindrance::Next, Hindrance::Passing] {
            assert!(Pause::behind(busy(), 7, &failed(7, hindrance), now).is_none());
        }
        assert!(Pause::behind(busy(), 7, &Ok(()), now).is_none());
        assert!(Pause::behind::<()>(busy(), 7, &Err(Error::NoGeneration), now).is_none());
    }
}
