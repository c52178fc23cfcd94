//! Any bytes as what a runner says to its agent, or an agent to its runner.
#![no_main]

// The file alone: the agent's whole crate would bring a compiler and a database with it.
#[path = "../../agent/src/runner/wire.rs"]
#[allow(dead_code, reason = "the agent uses the rest")]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::check_invariants(bytes));
