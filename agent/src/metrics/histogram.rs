//! How long calls take, counted in fixed buckets: each doubling of the time is cut into four
//! equal parts, so that a quantile is off by an eighth at most and the count costs one addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of one doubling, as a power of two.
const PARTS_LOG2: u32 = 2;
const PARTS: usize = 1 << PARTS_LOG2;
/// Times below 2^6 = 64 ns share the first bucket: a clock cannot tell them apart.
const FIRST_LOG2: u32 = 6;
/// Times from 2^37 ns, 137 s, on share the last one: no deadline is longer by default.
const LAST_LOG2: u32 = 37;
/// One bucket below the first doubling, the doublings' parts, and one above the last.
const BUCKETS: usize = (LAST_LOG2 - FIRST_LOG2) as usize * PARTS + 2;

/// Upper bounds that are exported, as powers of two in nanoseconds: from 1 µs in steps of four
/// to 69 s. Every part in between would make 126 series of each plugin.
const EXPORTED_LOG2: [u32; 14] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36];

/// Times, as they are counted.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a time as often as `weight` says: a sample stands for the calls around it too.
    pub fn add(&self, time: Duration, weight: u64) {
        // 2^64 ns are 584 years.
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(time_ns)].fetch_add(weight, Ordering::Relaxed);
        self.sum_ns.fetch_add(time_ns.saturating_mul(weight), Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn read(&self) -> Latency {
        Latency {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Latency { buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Latency {
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together, in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// The time that `share` of the calls (0.5 for the median) did not exceed, at most an
    /// eighth off; `None` before the first.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (share.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= rank {
                let (low, high) = bounds_ns(at);
                return Some(Duration::from_nanos(low + (high - low) / 2));
            }
        }
        None
    }

    /// For each exported bound in seconds, how many times lie between it and the one before;
    /// the last bound is infinite.
    pub fn exported(&self) -> Vec<(f64, u64)> {
        let mut rest = self.buckets.iter().enumerate().peekable();
        let mut exported = Vec::with_capacity(EXPORTED_LOG2.len() + 1);
        for log2 in EXPORTED_LOG2 {
            let bound_ns = 1 << log2;
            let mut count = 0;
            while let Some((_, more)) = rest.next_if(|(at, _)| bounds_ns(*at).1 <= bound_ns) {
                count += more;
            }
            exported.push((bound_ns as f64 / 1e9, count));
        }
        exported.push((f64::INFINITY, rest.map(|(_, count)| count).sum()));
        exported
    }

    /// Every bucket that has calls: the least time in it, in nanoseconds, and how many.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(at, count)| (bounds_ns(at).0, *count)).collect()
    }

    /// Reads [`Latency::buckets`]; the sum of all times is then not known.
    pub fn of_buckets(buckets: &[(u64, u64)]) -> Self {
        let mut latency = Latency::default();
        for (from_ns, count) in buckets {
            let held = &mut latency.buckets[bucket(*from_ns)];
            *held = held.saturating_add(*count);
        }
        latency
    }

    /// What came in since `before`, for a rate or a quantile of the last moments.
    #[must_use]
    pub fn since(&self, before: &Latency) -> Latency {
        Latency {
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(before.buckets[at])),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }
}

fn bucket(time_ns: u64) -> usize {
    if time_ns < 1 << FIRST_LOG2 {
        return 0;
    }
    let log2 = time_ns.ilog2();
    if log2 >= LAST_LOG2 {
        return BUCKETS - 1;
    }
    let part = (time_ns >> (log2 - PARTS_LOG2)) as usize & (PARTS - 1);
    1 + (log2 - FIRST_LOG2) as usize * PARTS + part
}

/// The least time of a bucket, and the least of the next one.
fn bounds_ns(bucket: usize) -> (u64, u64) {
    let low = |bucket: usize| -> u64 {
        let Some(place) = bucket.checked_sub(1) else { return 0 };
        let (doubling, part) = (place / PARTS, place % PARTS);
        let log2 = FIRST_LOG2 + doubling as u32;
        (1 << log2) + ((part as u64) << (log2 - PARTS_LOG2))
    };
    // The last bucket has no end; it is shown as its beginning.
    let high = if bucket == BUCKETS - 1 { low(bucket) } else { low(bucket + 1) };
    (low(bucket), high)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_time_lies_within_its_bucket() {
        let mut before = 0;
        for at in 0..BUCKETS - 1 {
            let (low, high) = bounds_ns(at);
            assert_eq!(low, before, "buckets leave a gap");
            assert_eq!((bucket(low), bucket(high - 1)), (at, at), "{low} to {high}");
            if at > 0 {
                assert!((high - low) * 4 <= low, "{low} to {high} is wider than a quarter");
            }
            before = high;
        }
        assert_eq!(bucket(before), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_off() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        let mut times: Vec<u64> = (0..1000_u64).map(|n| 100 + n * n * 37).collect();
        times.iter().for_each(|time| histogram.add(Duration::from_nanos(*time), 1));
        times.sort_unstable();
        let latency = histogram.read();
        assert_eq!(latency.count(), 1000);
        for (share, at) in [(0.5, 499), (0.9, 899), (0.99, 989), (1.0, 999)] {
            let exact = times[at] as f64;
            let found = latency.quantile(share).unwrap().as_nanos() as f64;
            assert!((found - exact).abs() <= exact / 8.0, "{share}: {found} for {exact}");
        }
    }

    #[test]
    fn exported_buckets_hold_every_call_once() {
        let histogram = Histogram::default();
        for log2 in 0..45 {
            histogram.add(Duration::from_nanos(1 << log2), 2);
        }
        let exported = histogram.read().exported();
        assert_eq!(exported.len(), EXPORTED_LOG2.len() + 1);
        assert_eq!(exported.iter().map(|(_, count)| count).sum::<u64>(), 90);
        // 1 to 512 ns are below 1,024 ns: ten powers of two, twice each.
        assert_eq!(exported[0], (1.024e-6, 20));
        assert_eq!(exported[EXPORTED_LOG2.len()], (f64::INFINITY, 18));
    }

    #[test]
    fn buckets_are_read_as_they_were_written() {
        let histogram = Histogram::default();
        for log2 in 0..45 {
            histogram.add(Duration::from_nanos(5 << log2), log2 + 1);
        }
        let latency = histogram.read();
        let read = Latency::of_buckets(&latency.buckets());
        assert_eq!(read.buckets, latency.buckets);
    }

    #[test]
    fn a_difference_is_of_the_time_between() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_secs(1), 1);
        let before = histogram.read();
        histogram.add(Duration::from_micros(10), 1);
        let between = histogram.read().since(&before);
        assert_eq!(between.count(), 1);
        assert!(between.quantile(0.99).unwrap() < Duration::from_micros(12));
    }
}
