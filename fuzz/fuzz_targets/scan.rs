//! Any bytes as a native library, or as a component if they begin like one: an outcome, and the
//! same one again.
#![no_main]

use std::sync::LazyLock;

use modunest_core::relation::{BuildTarget, COMPONENT_WORLD, LibcFloor};

static NATIVE: LazyLock<BuildTarget> = LazyLock::new(|| BuildTarget::Native {
    target: "x86_64-unknown-linux-gnu".parse().expect("a target"),
    libc: Some(LibcFloor { major: 2, minor: 36 }),
    abi: 1,
});

static WASM: BuildTarget = BuildTarget::Wasm { world: COMPONENT_WORLD };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let declared = if bytes.starts_with(b"\0asm") { &WASM } else { &*NATIVE };
    modunest_core::scan::check_invariants(bytes, declared);
});
