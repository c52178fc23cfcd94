//! A component in a runner, as the agent calls it.

use std::time::{Duration, Instant};

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::instance;
use super::turns::{Turn, Turns};
use crate::host::drive::block_on_until;
use crate::host::{Call, Instance, Unserved, Vitals, frame};

/// A component in a process of its own.
///
/// A call takes the way of a native plugin's. The agent knows which plugins a chain of calls goes
/// through, so it is here that a chain which comes back is refused; and here calls wait for their
/// turn, so that one whose turn does not come is told from one at which the plugin fails.
pub(in crate::host) struct Confined<P> {
    number: u64,
    /// Whether it serves one call at a time.
    is_single: bool,
    /// One for each store.
    turns: Turns<()>,
    /// How long a call without a deadline waits for its turn.
    call_timeout: Duration,
    process: P,
}

impl<P: Instance> Confined<P> {
    /// A component with so many stores, which `process` reaches.
    pub(in crate::host) fn new(process: P, stores: usize, call_timeout: Duration) -> Self {
        let turns = Turns::default();
        (0..stores.max(1)).for_each(|_| turns.add(()));
        let is_single = stores <= 1;
        Confined { number: instance::number(), is_single, turns, call_timeout, process }
    }

    fn enter<T, E: From<Error>>(&self, run: impl FnOnce(&P) -> Result<T, E>) -> Result<T, E> {
        if self.is_single {
            instance::refuse_return(self.number)?;
        }
        frame::through(self.number, || run(&self.process))
    }

    /// Waits until a store is free, behind those who came before.
    fn turn(&self, deadline_ms: u64) -> Result<Turn<'_, ()>, Error> {
        if let Some(turn) = self.turns.take_now() {
            return Ok(turn);
        }
        let now_ms = modunest_runtime::clock::now().as_millis();
        let left = match deadline_ms {
            0 => self.call_timeout,
            deadline_ms => Duration::from_millis(deadline_ms.saturating_sub(now_ms)),
        };
        let waited = frame::while_awaited(self.turns.take());
        block_on_until(Some(Instant::now() + left), waited)
            .unwrap_or_else(|| Err(instance::no_turn()))
    }
}

impl<P: Instance> Instance for Confined<P> {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.try_call(call).map_err(Unserved::into_error)
    }

    fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        self.enter(|process| {
            let _turn = self.turn(call.deadline_ms).map_err(Unserved::Refused)?;
            process.try_call(call)
        })
    }

    fn health(&self) -> Result<(), Error> {
        self.enter(P::health)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        self.enter(P::snapshot)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        self.enter(|process| process.restore(snapshot))
    }

    fn stop(&self) -> Result<(), Error> {
        self.enter(P::stop)
    }

    fn restart(&self, reason: &str) -> Result<(), Error> {
        self.process.restart(reason)
    }

    fn end(&self, reason: &str) -> bool {
        self.process.end(reason)
    }

    fn stays_in_process(&self) -> bool {
        self.process.stays_in_process()
    }

    fn vitals(&self) -> Vitals {
        self.process.vitals()
    }
}
