//! Any bytes as what a witness is sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_submission_invariants(bytes);
});
