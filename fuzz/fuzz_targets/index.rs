//! Any bytes as a node, a bin and an index file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_core::index::check_invariants(bytes);
});
