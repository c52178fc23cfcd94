//! Requests, frames, and what is taken of them.

use proptest::prelude::*;

use super::*;
use crate::index::{HEAD_MAX_BYTES, IndexError, NODE_COMPACT_MAX_BYTES};

/// A whole answer, as it is sent.
fn answer() -> (Store, Vec<u8>) {
    let store =
        Store::of(&[spec("demo/front", "1.0.0", "demo/back ^1"), spec("demo/back", "1.0.0", "")]);
    let bytes = store.send(want(&[("demo/front", "^1")]), Limits::NATIVE);
    (store, bytes)
}

#[test]
fn requests_travel_and_errors_say_where() {
    let request = want(&[("demo/front", "^1"), ("demo/back", ">=1, <3")]);
    assert_eq!(ClosureRequest::parse(&request.to_json()), Ok(request.clone()));
    let renewal = ClosureRequest { host: None, since: Some(u64::MAX), ..request };
    assert_eq!(ClosureRequest::parse(&renewal.to_json()), Ok(renewal));
    let one = r#"{"plugin":"demo/front","requirement":"^1"}"#;
    let many = format!(r#"{{"plugins":[{}]}}"#, vec![one; REQUEST_PLUGINS_MAX + 1].join(","));
    let long = " ".repeat(REQUEST_MAX_BYTES + 1);
    let mut texts = Vec::new();
    for bad in [
        "",
        "[]",
        r#"{"plugins":[]}"#,
        r#"{"plugins":[{"plugin":"demo/front"}]}"#,
        r#"{"plugins":[],"more":1}"#,
        r#"{"plugins":[{"plugin":"Demo/front","requirement":"^1"}]}"#,
        r#"{"plugins":[{"plugin":"demo/front","requirement":"^1"},{"plugin":"demo/back","requirement":"one"}]}"#,
        r#"{"plugins":[{"plugin":"demo/front","requirement":"^1"}],"host":{"version":"1"}}"#,
        r#"{"plugins":[{"plugin":"demo/front","requirement":"^1"}],"since":-1}"#,
        &many,
        &long,
    ] {
        let error = ClosureRequest::parse(bad.as_bytes()).unwrap_err();
        texts.push(format!("{} {}", error.refusal().code.status(), error.refusal()));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn a_request_takes_as_many_roots_as_fit() {
    let root = |number: usize| Root {
        plugin: format!("{}/p{number:049}", "o".repeat(50)).parse().unwrap(),
        requirement: ">=1.2.3, <4.5.6".parse().unwrap(),
    };
    let request = ClosureRequest::fitting((0..2_000).map(root), Some(host()), Some(u64::MAX));
    let json = request.to_json();
    assert!(json.len() <= REQUEST_MAX_BYTES && json.len() > REQUEST_MAX_BYTES - 300);
    assert_eq!(ClosureRequest::parse(&json), Ok(request));
    let short = Root { plugin: "aa/bb".parse().unwrap(), requirement: "*".parse().unwrap() };
    let request = ClosureRequest::fitting(vec![short; 2_000], None, None);
    assert_eq!(request.plugins.len(), REQUEST_PLUGINS_MAX);
    assert!(ClosureRequest::parse(&request.to_json()).is_ok());
}

#[test]
fn frames_are_strict() {
    let digest = Digest::of(b"x");
    let head = "head 4\nhead";
    let mut texts = Vec::new();
    for bad in [
        String::new(),
        "head".to_owned(),
        "head 4".to_owned(),
        "head 4\nhea".to_owned(),
        format!("{head}bin/{digest} 3\nab"),
        "head 04\nhead".to_owned(),
        "head +4\nhead".to_owned(),
        "head  4\nhead".to_owned(),
        "head 4\r\nhead".to_owned(),
        "/head 4\nhead".to_owned(),
        format!("head {}\n", HEAD_MAX_BYTES + 1),
        "head 99999999999999999999\n".to_owned(),
        format!("{head}{head}"),
        format!("bin/{digest} 0\n{head}"),
        format!("{head}blob/sha256/{digest} 1\nx"),
        format!("{head}node/{digest} {}\n", NODE_COMPACT_MAX_BYTES + 1),
        format!("{head}node/{digest} 9\n\0\0\0\0\0\0\0\0x"),
        format!("{head}bin/{digest} 5\na b c"),
        format!("proof 0\n{head}"),
        format!("{head}proof 0\nbin/{digest} 0\n"),
        format!("{head}proof 99999999\n"),
        format!("{head}index/{} 1\nx", digest.to_hex().to_uppercase()),
        "h".repeat(200),
    ] {
        let (_, end) = frame::read_in_pieces(bad.as_bytes(), 3);
        let shown: String = bad.replace(&digest.to_hex(), "D").chars().take(40).collect();
        texts.push(format!("{shown:?}: {}", end.unwrap_err()).replace(&digest.to_hex(), "D"));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn only_what_the_tree_names_is_taken() {
    let (store, bytes) = answer();
    let (frames, end) = frame::read_in_pieces(&bytes, usize::MAX);
    assert_eq!(end, Ok(()));
    assert_eq!((frames[0].part, &frames[0].bytes), (Part::Object(ObjectKey::Head), &store.head));
    let (proof, objects) = frames[1..].split_last().unwrap();
    assert_eq!(proof.part, Part::Proof);
    let object = |frame: &Frame| match frame.part {
        Part::Object(key) => key,
        Part::Proof => panic!("a second proof"),
    };
    let mut received = Received::new(store.root, None);
    let stranger = ObjectKey::Index(Digest::of(b"stranger"));
    assert_eq!(received.accept(stranger, b"stranger"), Err(ReceiveError::Unexpected(stranger)));
    assert_eq!(
        received.accept(ObjectKey::Head, &store.head),
        Err(ReceiveError::Unexpected(ObjectKey::Head))
    );
    // Before the root, nothing below it.
    let (root, below) = (&objects[0], &objects[1]);
    assert!(received.accept(object(below), &below.bytes).is_err());
    assert!(matches!(
        received.accept(object(root), &below.bytes),
        Err(ReceiveError::Index(IndexError::Digest { .. }))
    ));
    let all = || {
        let mut received = Received::new(store.root, None);
        for frame in objects {
            assert_eq!(received.accept(object(frame), &frame.bytes), Ok(()));
            let again = received.accept(object(frame), &frame.bytes);
            assert_eq!(again, Err(ReceiveError::Unexpected(object(frame))));
        }
        received
    };
    // A key and two releases, of a log of three.
    assert_eq!(all().prove(&proof.bytes, &store.log).map(|leaves| leaves.len()), Ok(3));
    assert_eq!(all().prove(b"no hash", &store.log), Err(ReceiveError::ProofForm));
    let other = LogHead { root: Digest::of(b"other"), ..store.log };
    assert!(matches!(all().prove(&proof.bytes, &other), Err(ReceiveError::Proof(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn pieces_have_no_influence(
        cuts in prop::collection::vec(1..3_000_usize, 1..20),
        end in 0..3_000_usize,
        flip in any::<prop::sample::Index>(),
        flipped in any::<bool>(),
    ) {
        let (_, mut bytes) = answer();
        if flipped {
            let at = flip.index(bytes.len());
            bytes[at] ^= 1;
        }
        let bytes = &bytes[..bytes.len().saturating_sub(end)];
        let whole = frame::read_in_pieces(bytes, usize::MAX);
        for cut in cuts {
            prop_assert_eq!(&frame::read_in_pieces(bytes, cut), &whole);
        }
        check_invariants(bytes);
    }

    #[test]
    fn no_bytes_break_anything(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check_invariants(&bytes);
        let mut framed = b"head 3\nabc".to_vec();
        framed.extend_from_slice(&bytes);
        check_invariants(&framed);
    }
}
