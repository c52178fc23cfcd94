//! Any bytes as a manifest: a manifest, or problems that can be shown.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modunest_core::manifest::check_invariants(bytes));
