//! Replays the fuzzers' committed corpora of what host and plugin say to each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use modunest_sdk::{HttpRequest, HttpResponse, guard, http, links, operation, stream};

/// Every input is accepted if its name says that it is good.
fn replay(corpus: &str, accepts: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(accepts(&std::fs::read(&path).unwrap()), name.starts_with("good-"), "{name}");
        seen += 1;
    }
    assert!(seen > 0, "the corpus is empty");
}

#[test]
fn http() {
    replay("http", |bytes| {
        http::check_decoders(bytes);
        HttpRequest::decode(bytes).is_ok() || HttpResponse::decode(bytes).is_ok()
    });
}

#[test]
fn guard() {
    replay("guard", guard::check_decoders);
}

#[test]
fn links() {
    replay("links", links::check_readers);
}

#[test]
fn stream() {
    replay("stream", |bytes| {
        stream::check_decoders(bytes);
        stream::Piece::decode(bytes).is_ok()
    });
}

#[test]
fn operation() {
    replay("operation", operation::check_decoders);
}
