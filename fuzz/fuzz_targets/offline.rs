//! Any bytes as a proof file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_proof_file_invariants(bytes);
});
