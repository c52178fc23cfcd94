//! Any bytes as what host and plugin say to each other over HTTP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modunest_sdk::http::check_decoders(bytes));
