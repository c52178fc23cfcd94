//! Memory for the bodies of requests and of answers, with a bound on all of them together.

use std::sync::Arc;

use axum::body::Bytes;
use modunest_core::problem::Code;
use modunest_runtime::problem::ProblemResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::places::resize;
use super::refuse;

/// What one permit of the budget stands for.
const UNIT_BYTES: usize = 16 * 1024;

/// So much of a body needs no memory of the budget: no more than its connection's own buffer. So
/// small bodies go on where large ones have taken everything, and connections are counted anyway.
pub(super) const FREE_BYTES: usize = 64 * 1024;

/// What a client or a plugin hears where there is no memory.
pub(super) const FULL: &str = "the host holds as many bodies as it may; try again";

/// Memory for bodies.
pub(super) struct Budget(Arc<Semaphore>);

/// Memory that is taken; given back when dropped.
#[derive(Default)]
pub(super) struct Taken(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Budget(Arc::new(Semaphore::new(bytes.div_ceil(UNIT_BYTES))))
    }

    /// Changes how much there is. To be called within a runtime.
    pub(super) fn resize(&self, before_bytes: usize, now_bytes: usize) {
        resize(&self.0, before_bytes.div_ceil(UNIT_BYTES), now_bytes.div_ceil(UNIT_BYTES));
    }

    /// Takes so much more that `taken` covers a body of `bytes`; at once or not at all. Whether
    /// it does.
    pub(super) fn cover(&self, taken: &mut Taken, bytes: usize) -> bool {
        let missing = units(bytes).saturating_sub(taken.units());
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(more) = self.0.clone().try_acquire_many_owned(missing) else { return false };
        match &mut taken.0 {
            Some(permit) => permit.merge(more),
            None => taken.0 = Some(more),
        }
        true
    }

    /// Takes what a body of `bytes` needs, and waits for it until the deadline. To be asked by who
    /// holds nothing of it yet: two who hold a part each would wait for one another.
    pub(super) async fn take(&self, bytes: usize, until: Instant) -> Option<Taken> {
        let needed = u32::try_from(units(bytes)).ok()?;
        if needed == 0 {
            return Some(Taken(None));
        }
        let permit = self.0.clone().acquire_many_owned(needed);
        // Never closed, so only time runs out.
        let permit = tokio::time::timeout_at(until, permit).await.ok()?.ok()?;
        Some(Taken(Some(permit)))
    }
}

impl Taken {
    fn units(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives back what a body of `bytes` does not need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let spare = self.units().saturating_sub(units(bytes));
        drop(self.0.as_mut().and_then(|permit| permit.split(spare)));
    }
}

/// Units that a body of `bytes` needs.
fn units(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_BYTES).div_ceil(UNIT_BYTES)
}

/// Bytes that hold their memory until the last of them is sent, or nobody wants them any more.
pub(super) fn held(bytes: Vec<u8>, taken: Taken) -> Bytes {
    struct Held(Vec<u8>, #[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    match taken.0 {
        Some(permit) => Bytes::from_owner(Held(bytes, permit)),
        None => bytes.into(),
    }
}

pub(super) fn full() -> ProblemResponse {
    refuse(Code::Unavailable, FULL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn memory_is_given_back_as_it_is_needed_no_more() {
        let budget = Budget::new(4 * UNIT_BYTES);
        let mut taken = Taken::default();
        assert!(budget.cover(&mut taken, FREE_BYTES + 3 * UNIT_BYTES));
        let over = Instant::now();
        assert!(budget.take(FREE_BYTES + 2 * UNIT_BYTES, over).await.is_none());
        taken.shrink(FREE_BYTES + 2 * UNIT_BYTES);
        let answer = budget.take(FREE_BYTES + 2 * UNIT_BYTES, over).await.unwrap();
        // A small body needs none.
        assert!(budget.take(FREE_BYTES, over).await.is_some());
        assert!(!budget.cover(&mut Taken::default(), FREE_BYTES + 1));
        // Bytes hold theirs to the last.
        let mut bytes = held(vec![7; FREE_BYTES + 2 * UNIT_BYTES], answer);
        let last = bytes.split_off(bytes.len() - 1);
        drop(bytes);
        assert!(!budget.cover(&mut Taken::default(), FREE_BYTES + 1));
        drop(last);
        assert!(budget.cover(&mut Taken::default(), FREE_BYTES + 2 * UNIT_BYTES));
    }
}
