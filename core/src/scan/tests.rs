//! The committed libraries with single fields changed, a rule at a time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

const MINIMAL: &[u8] = include_bytes!("../../../fuzz/corpus/scan/clean-minimal.so");
const IMPORTS: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-imports.so");
const SOFT: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-soft.so");
const NO_ENTRY: &[u8] = include_bytes!("../../../fuzz/corpus/scan/rejected-no-entry.so");
const PATH: &[u8] = include_bytes!("../../../fuzz/corpus/scan/rejected-path.so");

fn native(target: &str, libc: Option<&str>) -> BuildTarget {
    BuildTarget::Native {
        target: target.parse().unwrap(),
        libc: libc.map(|libc| libc.parse().unwrap()),
        abi: 1,
    }
}

fn gnu(libc: &str) -> BuildTarget {
    native("x86_64-unknown-linux-gnu", Some(libc))
}

fn malformed(bytes: &[u8]) -> Malformed {
    match scan_library(bytes, &gnu("2.36")) {
        Outcome::Rejected(Rejection::Malformed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn floors() {
    assert_eq!(glibc_floor(MINIMAL), Ok(Some(LibcFloor { major: 2, minor: 36 })));
    assert_eq!(scan_library(MINIMAL, &gnu("2.36")), Outcome::Clean);
    assert_eq!(scan_library(MINIMAL, &gnu("2.40")), Outcome::Clean);
    for declared in [gnu("2.35"), native("x86_64-unknown-linux-musl", None)] {
        let outcome = scan_library(MINIMAL, &declared);
        assert!(matches!(outcome, Outcome::Rejected(Rejection::Libc { .. })), "{outcome:?}");
        assert!(!outcome.passes());
    }
    assert_eq!(glibc_version(b"2.2.5"), Some(LibcFloor { major: 2, minor: 2 }));
    for other in [&b"PRIVATE"[..], b"2", b"2.x", b"2.3.x", b"", b"2.36-9", b"ABI_OTHER"] {
        assert_eq!(glibc_version(other), None);
    }
}

#[test]
fn a_private_version_has_no_floor() {
    let mut bytes = MINIMAL.to_vec();
    let at = bytes.windows(10).position(|w| w == b"GLIBC_2.36").unwrap();
    bytes[at..at + 10].copy_from_slice(b"GLIBC_PRIV");
    assert_eq!(
        scan_library(&bytes, &gnu("2.36")),
        Outcome::Rejected(Rejection::PrivateLibc { version: "GLIBC_PRIV".into() })
    );
}

#[test]
fn findings_are_worded() {
    let words = |bytes: &[u8]| match scan_library(bytes, &gnu("2.36")) {
        Outcome::Findings(findings) => {
            findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
        other => panic!("{other:?}"),
    };
    insta::assert_snapshot!("imports", words(IMPORTS));
    insta::assert_snapshot!("soft", words(SOFT));
}

#[test]
fn refusals_are_worded() {
    let words = |bytes: &[u8], declared: &BuildTarget| match scan_library(bytes, declared) {
        Outcome::Rejected(reason) => reason.to_string(),
        Outcome::CouldNotRun(obstacle) => obstacle.to_string(),
        other => panic!("{other:?}"),
    };
    let wasm = BuildTarget::Wasm { world: semver::Version::new(1, 0, 0) };
    let all = [
        words(NO_ENTRY, &gnu("2.36")),
        words(PATH, &gnu("2.36")),
        words(MINIMAL, &gnu("2.17")),
        words(MINIMAL, &native("x86_64-unknown-linux-musl", None)),
        words(MINIMAL, &native("aarch64-unknown-linux-gnu", Some("2.36"))),
        words(MINIMAL, &native("aarch64-apple-darwin", None)),
        words(MINIMAL, &wasm),
        words(b"", &gnu("2.36")),
    ];
    insta::assert_snapshot!("refusals", all.join("\n"));
}

#[test]
fn headers() {
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = MINIMAL.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    assert_eq!(malformed(&patched(4, &[1])), Malformed::NotElf);
    assert_eq!(malformed(&patched(5, &[2])), Malformed::NotElf);
    assert_eq!(malformed(&patched(16, &[2])), Malformed::NotLibrary);
    assert_eq!(malformed(&patched(56, &[0])), Malformed::Segments);
    let outcome = scan_library(&patched(56, &[0xff, 0xff]), &gnu("2.36"));
    assert!(matches!(outcome, Outcome::CouldNotRun(Obstacle::TooMany { .. })));
}

/// File offset of the program header with this type.
fn segment(bytes: &[u8], kind: u32, nth: usize) -> usize {
    (0..usize::from(bytes[56]))
        .map(|index| 64 + index * 56)
        .filter(|&at| bytes[at..at + 4] == kind.to_le_bytes())
        .nth(nth)
        .unwrap()
}

/// File offset of the dynamic entry with this tag.
fn dynamic(bytes: &[u8], tag: u32) -> usize {
    let header = segment(bytes, object::elf::PT_DYNAMIC, 0);
    let start = u64::from_le_bytes(bytes[header + 8..header + 16].try_into().unwrap()) as usize;
    (start..).step_by(16).find(|&at| bytes[at..at + 8] == u64::from(tag).to_le_bytes()).unwrap()
}

#[test]
fn segments_and_tables() {
    use object::elf;
    let change = |at: usize, value: &[u8]| {
        let mut bytes = MINIMAL.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    // The second load moved over the first.
    let second = segment(MINIMAL, elf::PT_LOAD, 1);
    assert_eq!(malformed(&change(second + 16, &[0; 8])), Malformed::Segments);
    // A load that ends outside the file.
    assert_eq!(malformed(&change(second + 32, &[0xff; 4])), Malformed::Segments);
    // Tables in memory that relocations may write.
    let first = segment(MINIMAL, elf::PT_LOAD, 0);
    assert_eq!(malformed(&change(first + 4, &[6])), table("string table"));
    // The dynamic segment at an offset that the loader would not use.
    let place = segment(MINIMAL, elf::PT_DYNAMIC, 0);
    assert_eq!(malformed(&change(place + 8, &[0; 8])), Malformed::Dynamic);
    let relro = segment(MINIMAL, elf::PT_GNU_RELRO, 0);
    assert_eq!(malformed(&change(relro, &[2, 0, 0, 0])), Malformed::Dynamic);
    // Two tables of the same kind.
    let syment = dynamic(MINIMAL, elf::DT_SYMENT);
    assert_eq!(malformed(&change(syment, &[elf::DT_STRTAB as u8])), Malformed::Twice { tag: 5 });
    // Pointers that lead nowhere.
    for (tag, name) in [
        (elf::DT_STRTAB, "string table"),
        (elf::DT_SYMTAB, "symbol table"),
        (elf::DT_GNU_HASH, "hash table"),
        (elf::DT_JMPREL, "relocation table"),
        (elf::DT_VERNEED, "table of versions needed"),
    ] {
        let at = dynamic(MINIMAL, tag) + 8;
        assert_eq!(malformed(&change(at, &[0xff; 8])), table(name));
    }
    let short = change(dynamic(MINIMAL, elf::DT_STRSZ) + 8, &[2]);
    assert_eq!(scan_library(&short, &gnu("2.36")), Outcome::Rejected(Rejection::NoEntry));
    let import = dynamic(MINIMAL, elf::DT_NEEDED) + 8;
    assert_eq!(malformed(&change(import, &[0xff; 8])), Malformed::Name);
    let count = dynamic(MINIMAL, elf::DT_VERNEEDNUM) + 8;
    assert_eq!(malformed(&change(count, &[2])), table("table of versions needed"));
}

fn table(name: &str) -> Malformed {
    Malformed::Table { table: name.to_owned() }
}

/// The loader finds imports through relocations, also those that no hash table counts.
#[test]
fn section_headers_are_not_believed() {
    let mut bytes = MINIMAL.to_vec();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    assert_eq!(scan_library(&bytes, &gnu("2.36")), Outcome::Clean);
}

#[test]
fn outcomes_survive_a_report() {
    for bytes in [MINIMAL, IMPORTS, SOFT, NO_ENTRY, PATH, b""] {
        let outcome = scan_library(bytes, &gnu("2.36"));
        let text = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn damaged_libraries_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<prop::sample::Index>()) {
        let mut bytes = IMPORTS.to_vec();
        for (at, value) in changes {
            // Mostly where the headers are.
            let at = at.index(bytes.len());
            let at = if value % 2 == 0 { at % 700 } else { at };
            bytes[at] = value;
        }
        check_invariants(&bytes, &gnu("2.36"));
        check_invariants(&bytes[..cut.index(bytes.len())], &gnu("2.36"));
        // Libraries inside archives are not aligned.
        check_invariants(&[&[0], &bytes[..]].concat()[1..], &gnu("2.36"));
    }
}
