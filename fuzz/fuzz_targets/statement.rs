//! Any bytes as a signed statement.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::statement::check_invariants(bytes);
});
