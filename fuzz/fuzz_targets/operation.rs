//! Any bytes as what a plugin asks of its host, and as what the host answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    modunest_sdk::operation::check_decoders(bytes);
});
