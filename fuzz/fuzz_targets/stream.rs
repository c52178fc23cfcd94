//! Any bytes as what host and plugin say to each other about a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modunest_sdk::stream::check_decoders(bytes));
