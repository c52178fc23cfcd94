//! Components, from an author's folder to a registry that accepts and refuses them.

use modunest_tests::agent::sample;
use modunest_tests::process::run;
use modunest_tests::registry::{Folder, command};

/// Builds a sample as its author does. A compiler for wasm32 has to be here: `cargo xtask wasm`
/// makes one where rustup has none.
#[test]
fn a_sample_is_built_as_a_component_and_passes_every_check() {
    let folder = Folder::new();
    let out = folder.file("markdown.zip");
    let mut pack = command();
    pack.args(["--json", "pack", "--only", "wasm", "--out"]).arg(&out).arg(sample("markdown"));
    let packed = run(&mut pack).good().json();
    let archive = &packed["archives"][0];
    assert_eq!(archive["build"]["target"]["kind"], "wasm", "{packed:#}");
    assert_eq!(archive["build"]["target"]["world"], "1.0.0", "{packed:#}");
    // It renders text: it reaches neither services nor operations.
    assert_eq!(archive["findings"], serde_json::json!([]), "{packed:#}");
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(archive["build"]["size_bytes"], bytes.len());
}

#[test]
fn a_missing_compiler_and_a_missing_build_are_said_with_the_way_out() {
    let mut build = command();
    build.args(["build", "--only", "wasm"]).arg(sample("markdown"));
    let built = run(build.env("MODUNEST_WASM_RUSTC", "/nonexistent/rustc"));
    assert_eq!(built.code, Some(3), "{built:?}");
    assert!(
        built.stderr.contains("MODUNEST_WASM_RUSTC names /nonexistent/rustc, which does not compile for wasm32-unknown-unknown"),
        "{}",
        built.stderr
    );
    let built = run(command().args(["build", "--only", "wasm"]).arg(sample("gallery")));
    assert_eq!(built.code, Some(3), "{built:?}");
    assert!(
        built.stderr.contains("[build] declares no component; add wasm = {"),
        "{}",
        built.stderr
    );
}
