//! Any bytes as the claims of a user's token, and as a path.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::user::check_invariants(bytes);
});
