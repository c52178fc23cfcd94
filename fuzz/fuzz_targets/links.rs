//! Any bytes as calls by handle and as events.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = modunest_sdk::links::check_readers(bytes);
});
