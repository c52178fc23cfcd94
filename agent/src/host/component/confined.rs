//! A component in a runner, as the agent calls it.

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::instance;
use crate::host::{Call, Instance, Vitals, frame};

/// A component in a process of its own.
///
/// A call takes the way of a native plugin's, and what waits for its turn waits in the runner. The
/// agent knows which plugins a chain of calls goes through, so it is here that a chain which
/// comes back is refused.
pub(in crate::host) struct Confined<P> {
    number: u64,
    /// Whether it serves one call at a time.
    is_single: bool,
    process: P,
}

impl<P: Instance> Confined<P> {
    /// A component with so many stores, which `process` reaches.
    pub(in crate::host) fn new(process: P, stores: usize) -> Self {
        Confined { number: instance::number(), is_single: stores <= 1, process }
    }

    fn enter<T>(&self, run: impl FnOnce(&P) -> Result<T, Error>) -> Result<T, Error> {
        if self.is_single {
            instance::refuse_return(self.number)?;
        }
        frame::through(self.number, || run(&self.process))
    }
}

impl<P: Instance> Instance for Confined<P> {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.enter(|process| process.call(call))
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
