//! Any bytes as a signed note.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_tlog::check_note_invariants(bytes);
});
