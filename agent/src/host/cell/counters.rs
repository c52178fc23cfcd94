//! What a plugin did.

use serde::Serialize;

/// What a plugin did since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls that reached it.
    pub calls: u64,
    /// Of these, those that it could not answer: failed or panicked.
    pub errors: u64,
    /// Of these, those that panicked.
    pub panics: u64,
    /// Calls that a circuit breaker kept from it.
    pub refused: u64,
}
