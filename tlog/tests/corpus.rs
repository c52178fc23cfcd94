//! Replays the fuzzers' committed corpus: `good-` files are accepted, `bad-` files refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

fn replay(target: &str, check: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let accepted = check(&std::fs::read(&path).unwrap());
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
        seen += 1;
    }
    assert!(seen > 0, "the corpus is empty");
}

#[test]
fn notes() {
    replay("note", modunest_tlog::check_note_invariants);
}

#[test]
fn checkpoints() {
    replay("checkpoint", modunest_tlog::check_checkpoint_invariants);
}

#[test]
fn tiles() {
    replay("tile", |bytes| {
        std::str::from_utf8(bytes).is_ok_and(modunest_tlog::check_tile_path_invariants)
    });
}

#[test]
fn entries() {
    replay("entries", modunest_tlog::check_bundle_invariants);
}

#[test]
fn policies() {
    replay("policy", modunest_tlog::check_policy_invariants);
}

#[test]
fn proof_files() {
    replay("offline", modunest_tlog::check_proof_file_invariants);
}

#[test]
fn submissions() {
    replay("submission", modunest_tlog::check_submission_invariants);
}
