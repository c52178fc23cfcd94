//! Replays the fuzzers' committed corpus of what host and plugin say to each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use modunest_sdk::{HttpRequest, HttpResponse, http::check_decoders};

#[test]
fn http() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/http");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        check_decoders(&bytes);
        let accepted = HttpRequest::decode(&bytes).is_ok() || HttpResponse::decode(&bytes).is_ok();
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
        seen += 1;
    }
    assert!(seen > 0, "the corpus is empty");
}
