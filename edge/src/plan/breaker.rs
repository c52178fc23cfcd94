//! Which origin is asked first: a circuit breaker for each, and the order that follows.

/// Failures in a row after which an origin is asked last: one may be chance, three within
/// the few requests that see them are an outage.
pub const FAILURES_TO_OPEN: u32 = 3;
/// How long it is then asked last, in milliseconds: shorter than a restart of most things,
/// and long enough that few readers wait for it.
pub const COOL_DOWN_MS: u64 = 10_000;

/// What is known about one origin. Times are milliseconds of any clock that goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Until when it is asked last; `None` while it is trusted.
    open_until: Option<u64>,
}

impl Breaker {
    /// Whether it is to be asked in its turn. After the cool-down one question is let
    /// through as a probe; until it is answered, others go elsewhere.
    pub fn admits(&mut self, now_ms: u64) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now_ms >= until => {
                // A probe whose answer never comes must not hold the place for ever.
                self.open_until = Some(now_ms + COOL_DOWN_MS);
                true
            }
            Some(_) => false,
        }
    }

    /// It answered as it should; that an object is not there is such an answer.
    pub fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// It failed, or was too slow.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN {
            self.open_until = Some(now_ms + COOL_DOWN_MS);
        }
    }
}

/// The order in which to ask: as configured, but those whose circuit is open last. None is
/// left out, since a last resort that fails costs no more than giving up.
pub fn order_of_origins(breakers: &mut [Breaker], now_ms: u64) -> Vec<usize> {
    let (mut first, mut last) = (Vec::with_capacity(breakers.len()), Vec::new());
    for (index, breaker) in breakers.iter_mut().enumerate() {
        // Only the origin that is asked first can be probed by this question.
        let admitted = match breaker.open_until {
            Some(_) if !first.is_empty() => false,
            _ => breaker.admits(now_ms),
        };
        if admitted { first.push(index) } else { last.push(index) }
    }
    first.append(&mut last);
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_cools_down_and_lets_one_probe_through() {
        let mut breaker = Breaker::default();
        for now in 1..FAILURES_TO_OPEN {
            breaker.failed(u64::from(now));
            assert!(breaker.admits(u64::from(now)), "{now} failures are not an outage");
        }
        breaker.failed(100);
        assert!(!breaker.admits(100));
        assert!(!breaker.admits(99 + COOL_DOWN_MS));
        assert!(breaker.admits(100 + COOL_DOWN_MS), "the probe");
        assert!(!breaker.admits(100 + COOL_DOWN_MS), "only one");
        breaker.failed(200 + COOL_DOWN_MS);
        assert!(!breaker.admits(199 + 2 * COOL_DOWN_MS));
        assert!(breaker.admits(200 + 2 * COOL_DOWN_MS));
        breaker.succeeded();
        assert!(breaker.admits(201 + 2 * COOL_DOWN_MS));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_probe_without_an_answer_is_followed_by_another() {
        let mut breaker = Breaker::default();
        (0..FAILURES_TO_OPEN).for_each(|_| breaker.failed(0));
        assert!(breaker.admits(COOL_DOWN_MS));
        assert!(!breaker.admits(2 * COOL_DOWN_MS - 1));
        assert!(breaker.admits(2 * COOL_DOWN_MS));
    }

    #[test]
    fn a_success_forgets_what_failed_before() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            (1..FAILURES_TO_OPEN).for_each(|_| breaker.failed(0));
            breaker.succeeded();
        }
        assert!(breaker.admits(0));
    }

    #[test]
    fn an_open_circuit_is_the_last_resort() {
        let mut both = [Breaker::default(); 2];
        assert_eq!(order_of_origins(&mut both, 0), [0, 1]);
        (0..FAILURES_TO_OPEN).for_each(|_| both[0].failed(0));
        assert_eq!(order_of_origins(&mut both, 1), [1, 0]);
        (0..FAILURES_TO_OPEN).for_each(|_| both[1].failed(0));
        assert_eq!(order_of_origins(&mut both, 1), [0, 1], "nobody better is left");
        // The probe goes to the first; the second waits for its own.
        assert_eq!(order_of_origins(&mut both, COOL_DOWN_MS), [0, 1]);
        assert_eq!(order_of_origins(&mut both, COOL_DOWN_MS), [1, 0]);
        both[1].succeeded();
        assert_eq!(order_of_origins(&mut both, COOL_DOWN_MS), [1, 0]);
    }
}
