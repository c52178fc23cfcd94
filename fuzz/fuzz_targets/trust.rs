//! Any bytes as a trust configuration, as metadata of each role, and as a key.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::trust::check_invariants(bytes);
});
