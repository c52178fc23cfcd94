//! Any bytes as a bundle of entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_bundle_invariants(bytes);
});
