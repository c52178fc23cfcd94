//! Replays the fuzzers' committed corpus: `good-` files are accepted, `bad-` files refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

#[test]
fn notes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/note");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let accepted = modunest_tlog::check_note_invariants(&std::fs::read(&path).unwrap());
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
        seen += 1;
    }
    assert!(seen > 0, "the corpus is empty");
}
