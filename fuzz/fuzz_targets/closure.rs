//! Any bytes as a request for a closure, as its answer, and as a store that lies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::closure::check_invariants(bytes);
});
