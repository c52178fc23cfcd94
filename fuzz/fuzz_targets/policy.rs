//! Any bytes as a trust policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_policy_invariants(bytes);
});
