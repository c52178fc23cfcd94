//! Any bytes as the path of a tile.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(path) = std::str::from_utf8(bytes) {
        modunest_tlog::check_tile_path_invariants(path);
    }
});
