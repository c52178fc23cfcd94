//! The committed component with single names changed, and small ones made by hand, a rule at a
//! time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use semver::Version;

use super::*;

const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");
const MODULE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/rejected-module.wasm");
const EMPTY: &[u8] = include_bytes!("../../../fuzz/corpus/scan/rejected-empty.wasm");

fn world(major: u64, minor: u64) -> BuildTarget {
    BuildTarget::Wasm { world: Version::new(major, minor, 0) }
}

fn scan(bytes: &[u8]) -> Outcome {
    scan_library(bytes, &world(1, 0))
}

fn unfit(bytes: &[u8]) -> Unfit {
    match scan(bytes) {
        Outcome::Rejected(Rejection::Component(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The component with every occurrence of a name changed to another of the same length.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = PROBE.to_vec();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, window)| (window == from.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty(), "{from} is not in the component");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// A number as binaries have it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id], &leb(body.len())[..], body].concat()
}

/// A component with one core module of these sections.
fn with_module(sections: &[Vec<u8>]) -> Vec<u8> {
    let module = [MODULE, &sections.concat()[..]].concat();
    [EMPTY, &section(1, &module)[..]].concat()
}

/// The sections of one function with this body.
fn function(code: &[u8]) -> [Vec<u8>; 3] {
    let body = [&[0], code, &[0x0b]].concat();
    [
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(10, &[&[1], &leb(body.len())[..], &body[..]].concat()),
    ]
}

#[test]
fn a_component_passes_and_says_what_it_can_reach() {
    let Outcome::Findings(findings) = scan(PROBE) else { panic!("{:?}", scan(PROBE)) };
    let words: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "imports functions for services of other plugins: call-service",
            "imports functions for operations of the host: operate",
        ]
    );
}

#[test]
fn refusals_are_worded() {
    let [types, functions, code] = function(&[]);
    let start = [types, functions, section(8, &[0]), code];
    let memory = |pages: usize| section(5, &[&[1, 0], &leb(pages)[..]].concat());
    let many = section(5, &[&[5], &[0, 1].repeat(5)[..]].concat());
    let table = section(4, &[&[1, 0x70, 0], &leb(100_001)[..]].concat());
    let long = function(&vec![0x01; 600 * 1024]);
    let worded = [
        scan(MODULE),
        scan(EMPTY),
        scan(b""),
        scan(&PROBE[..PROBE.len() / 2]),
        scan(&renamed("modunest:plugin/host@1", "modunest:plugin/hose@1")),
        scan(&renamed("modunest:plugin/host@1.0", "modunest:plugin/host@1.1")),
        scan(&renamed("operate", "operatf")),
        scan(&renamed("modunest:plugin/instance@1", "modunest:plugin/instance@2")),
        scan(&renamed("snapshot", "snapshof")),
        scan(&with_module(&start)),
        scan(&with_module(&[memory(1025)])),
        scan(&with_module(&[many])),
        scan(&with_module(&[table])),
        scan(&with_module(&long)),
        scan(&[EMPTY, &section(1, MODULE).repeat(33)[..]].concat()),
        scan_library(PROBE, &world(2, 0)),
        scan_library(PROBE, &world(1, 1)),
    ]
    .map(|outcome| match outcome {
        Outcome::Rejected(reason) => reason.to_string(),
        Outcome::CouldNotRun(obstacle) => obstacle.to_string(),
        other => panic!("{other:?}"),
    });
    insta::assert_snapshot!("components", worded.join("\n"));
}

/// Threads would share memory, and with it time, between plugins; 64-bit memories would lift
/// the guard pages.
#[test]
fn features_that_no_host_has_are_refused() {
    let shared = section(5, &[1, 3, 1, 1]);
    let wide = section(5, &[1, 4, 1]);
    for memory in [shared, wide] {
        assert!(matches!(unfit(&with_module(&[memory])), Unfit::Invalid { .. }));
    }
}

#[test]
fn outcomes_survive_a_report() {
    for outcome in [scan(PROBE), scan(MODULE), scan(EMPTY), scan_library(PROBE, &world(2, 0))] {
        let text = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn damaged_components_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<prop::sample::Index>()) {
        let mut bytes = PROBE.to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            // Mostly where the component's own sections are: before and behind its modules.
            let at = if value % 2 == 0 { at % 1500 } else { bytes.len() - 1 - at % 3000 };
            bytes[at] = value;
        }
        check_invariants(&bytes, &world(1, 0));
        check_invariants(&bytes[..cut.index(bytes.len())], &world(1, 0));
    }
}
