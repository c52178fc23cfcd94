//! Pauses between attempts that double.

use std::time::Duration;

/// The pause behind so many others: the first, doubled as often, up to `max`.
pub(crate) fn pause(first: Duration, others: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << others.min(31)).min(max)
}
