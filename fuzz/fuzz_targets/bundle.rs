//! Any bytes as a bundle for a host without a network.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::bundle::check_invariants(bytes);
});
