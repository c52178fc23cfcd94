//! Any bytes as a native library: an outcome, and the same one again.
#![no_main]

use std::sync::LazyLock;

use modunest_core::relation::{BuildTarget, LibcFloor};

static DECLARED: LazyLock<BuildTarget> = LazyLock::new(|| BuildTarget::Native {
    target: "x86_64-unknown-linux-gnu".parse().expect("a target"),
    libc: Some(LibcFloor { major: 2, minor: 36 }),
    abi: 1,
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modunest_core::scan::check_invariants(bytes, &DECLARED));
