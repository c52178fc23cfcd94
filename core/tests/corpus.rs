//! Replays the committed fuzz corpora, so that every input that once mattered still does.
//! In corpora whose files have a verdict in their name, `good-…` is accepted and `bad-…` is
//! refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use modunest_core::archive::{self, Archive};
use modunest_core::manifest::{self, Manifest};
use modunest_core::relation::{BuildTarget, COMPONENT_WORLD};
use modunest_core::scan::{self, Outcome};

/// Name and bytes of every file of a corpus, which is never empty.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// What the file's name says about it.
fn expected(name: &str) -> Option<bool> {
    name.split_once('-').and_then(|(verdict, _)| match verdict {
        "good" => Some(true),
        "bad" => Some(false),
        _ => None,
    })
}

#[test]
fn bundle() {
    for (name, bytes) in corpus("bundle") {
        assert_eq!(
            Some(modunest_core::bundle::check_invariants(&bytes)),
            expected(&name),
            "{name}"
        );
    }
}

#[test]
fn archive() {
    for (name, bytes) in corpus("archive") {
        archive::check_invariants(&bytes);
        let result = Archive::open(&bytes).and_then(|archive| archive.file_list());
        if let Some(good) = expected(&name) {
            assert_eq!(result.is_ok(), good, "{name}: {result:?}");
        }
    }
}

#[test]
fn manifest() {
    for (name, bytes) in corpus("manifest") {
        manifest::check_invariants(&bytes);
        let result = Manifest::parse_bytes(&bytes);
        if let Some(good) = expected(&name) {
            assert_eq!(result.is_ok(), good, "{name}: {result:?}");
        }
    }
}

/// The sample plugins' manifests are what new authors copy.
#[test]
fn sample_manifests() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/examples");
    let mut count = 0;
    for sample in std::fs::read_dir(samples).unwrap() {
        let path = sample.unwrap().path().join("plugin.toml");
        if path.exists() {
            let text = std::fs::read_to_string(&path).unwrap();
            if let Err(error) = Manifest::parse(&text) {
                panic!("{}:\n{error}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 0, "no sample has a manifest");
}

#[test]
fn scan() {
    let native = BuildTarget::Native {
        target: "x86_64-unknown-linux-gnu".parse().unwrap(),
        libc: Some("2.36".parse().unwrap()),
        abi: 1,
    };
    let wasm = BuildTarget::Wasm { world: COMPONENT_WORLD };
    for (name, bytes) in corpus("scan") {
        // As the fuzz target does it.
        let declared = if bytes.starts_with(b"\0asm") { &wasm } else { &native };
        scan::check_invariants(&bytes, declared);
        let outcome = scan::scan_library(&bytes, declared);
        let verdict = match outcome {
            Outcome::Clean => "clean",
            Outcome::Findings(_) => "findings",
            Outcome::Rejected(_) => "rejected",
            Outcome::CouldNotRun(_) => "undecided",
        };
        let expected = name.split('-').next().unwrap();
        if ["clean", "findings", "rejected", "undecided"].contains(&expected) {
            assert_eq!(verdict, expected, "{name}: {outcome:?}");
        }
    }
}

#[test]
fn index_objects() {
    for (name, bytes) in corpus("index") {
        let accepted = modunest_core::index::check_invariants(&bytes);
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
    }
}

#[test]
fn statements() {
    for (name, bytes) in corpus("statement") {
        let accepted = modunest_core::statement::check_invariants(&bytes);
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
    }
}

#[test]
fn closures() {
    for (name, bytes) in corpus("closure") {
        let accepted = modunest_core::closure::check_invariants(&bytes);
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
    }
}

#[test]
fn trust() {
    for (name, bytes) in corpus("trust") {
        let accepted = modunest_core::trust::check_invariants(&bytes);
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
    }
}

#[test]
fn users() {
    for (name, bytes) in corpus("user") {
        let accepted = modunest_core::user::check_invariants(&bytes);
        assert_eq!(accepted, name.starts_with("good-"), "{name}");
    }
}
