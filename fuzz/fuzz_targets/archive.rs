//! Any bytes as an archive: the gate keeps its promises and never panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modunest_core::archive::check_invariants(bytes));
