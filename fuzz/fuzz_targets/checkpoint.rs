//! Any bytes as the text of a checkpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_checkpoint_invariants(bytes);
});
