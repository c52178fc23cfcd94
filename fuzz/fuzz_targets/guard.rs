//! Any bytes as what host and guards say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = modunest_sdk::guard::check_decoders(bytes);
});
