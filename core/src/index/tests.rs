use std::collections::BTreeMap;

use modunest_tlog::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::statement::{Link, SignedStatement, Statement};
use crate::time::Timestamp;

fn key() -> SigningKey {
    SigningKey::from_seed("demo".parse().unwrap(), &[1; 32])
}

fn release(plugin: &str, version: &str, link: Link) -> SignedStatement {
    let release = crate::statement::test_release(plugin, version, link);
    Statement::Release(std::sync::Arc::new(release)).sign(&key()).unwrap()
}

type Objects = BTreeMap<Digest, Vec<u8>>;

/// Runs [`update`] to its end against a complete store, as a sequencer does.
fn write(
    store: &mut Objects,
    root: Option<Digest>,
    additions: &[(u64, SignedStatement)],
) -> Digest {
    let mut fetched = Objects::new();
    loop {
        match update(root, additions, &fetched).unwrap() {
            Update::Need { nodes, bins, files } => {
                for digest in nodes.into_iter().chain(bins).chain(files) {
                    fetched.insert(digest, store[&digest].clone());
                }
            }
            Update::Done { root, written, .. } => {
                for object in written {
                    let (Written::Node(digest, bytes)
                    | Written::Bin(digest, bytes)
                    | Written::File(digest, bytes)) = object;
                    assert_eq!(Digest::of(&bytes), digest);
                    store.insert(digest, bytes);
                }
                return root;
            }
        }
    }
}

/// Walks from the root to a subject's file, proving each step, as an agent does.
fn read(store: &Objects, root: Digest, subject: &Subject) -> Option<IndexFile> {
    let slot = Slot::of(subject);
    let root = Node::parse(&store[&root]).unwrap();
    let node = Node::parse(&store[&root.child(slot.node)?]).unwrap();
    let bin = Bin::parse(slot, &store[&node.child(slot.bin)?]).unwrap();
    Some(IndexFile::parse(subject, &store[&bin.get(subject)?]).unwrap())
}

#[test]
fn one_publish_writes_one_file_one_bin_and_two_nodes() {
    let mut store = Objects::new();
    let mut root = None;
    let mut chain: BTreeMap<String, Link> = BTreeMap::new();
    let mut position = 0;
    for round in 1..=3 {
        for number in 0..40 {
            let name = format!("demo/plugin-{number}");
            let link = chain.get(&name).copied().unwrap_or(Link::FIRST);
            let signed = release(&name, &format!("{round}.0.0"), link);
            chain.insert(name, signed.next_link());
            let before = store.len();
            root = Some(write(&mut store, root, &[(position, signed)]));
            position += 1;
            assert_eq!(store.len() - before, 4);
        }
    }
    for number in 0..40 {
        let subject = Subject::Plugin(format!("demo/plugin-{number}").parse().unwrap());
        assert_eq!(read(&store, root.unwrap(), &subject).unwrap().entries.len(), 3);
    }
    let absent = Subject::Plugin("demo/absent".parse().unwrap());
    assert_eq!(read(&store, root.unwrap(), &absent), None);
}

#[test]
fn a_batch_equals_its_parts_in_any_order() {
    let statements: Vec<_> =
        (0..30).map(|n| (n, release(&format!("demo/plugin-{n}"), "1.0.0", Link::FIRST))).collect();
    let mut store = Objects::new();
    let together = write(&mut store, None, &statements);
    let mut one_by_one = None;
    for signed in statements.iter().rev() {
        one_by_one = Some(write(&mut store, one_by_one, std::slice::from_ref(signed)));
    }
    assert_eq!(Some(together), one_by_one);
}

#[test]
fn a_lying_source_is_noticed() {
    let mut store = Objects::new();
    let first = release("demo/markdown", "1.0.0", Link::FIRST);
    let second = release("demo/markdown", "1.1.0", first.next_link());
    let root = write(&mut store, None, &[(0, first)]);
    let mut lying = store.clone();
    lying.insert(root, Node::EMPTY.to_bytes());
    assert!(matches!(update(Some(root), &[(1, second)], &lying), Err(IndexError::Digest { .. })));
}

#[test]
fn strict_forms() {
    let subject = Subject::Plugin("demo/markdown".parse().unwrap());
    let slot = Slot::of(&subject);
    let mut bin = Bin::new();
    bin.set(subject.clone(), Digest::of(b"x"));
    let good = String::from_utf8(bin.to_bytes()).unwrap();
    assert_eq!(Bin::parse(slot, good.as_bytes()).unwrap(), bin);
    let line = good.lines().nth(1).unwrap();
    for bad in [
        String::new(),
        good.trim_end().to_owned(),
        format!("{good}{line}\n"),
        format!("{good}\n"),
        good.replace("v1", "v2"),
        good.replace(' ', "  "),
    ] {
        assert!(Bin::parse(slot, bad.as_bytes()).is_err(), "{bad:?}");
    }
    let elsewhere = Slot { node: slot.node ^ 1, bin: slot.bin };
    assert!(Bin::parse(elsewhere, good.as_bytes()).is_err());
    assert!(Node::parse(&[0; NODE_BYTES - 1]).is_err());

    let mut file = IndexFile::new(subject.clone());
    file.entries.push((7, release("demo/markdown", "1.0.0", Link::FIRST)));
    let bytes = file.to_bytes();
    assert_eq!(IndexFile::parse(&subject, &bytes).unwrap(), file);
    let mut disordered = file.clone();
    disordered.entries.push((7, disordered.entries[0].1.clone()));
    assert!(IndexFile::parse(&subject, &disordered.to_bytes()).is_err());
    let other = Subject::Plugin("demo/gallery".parse().unwrap());
    assert!(IndexFile::parse(&other, &bytes).is_err());
    for cut in 1..bytes.len() {
        let whole_entries = cut == "modunest/index/v1 demo/markdown\n".len();
        assert_eq!(IndexFile::parse(&subject, &bytes[..cut]).is_ok(), whole_entries, "{cut}");
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(IndexFile::parse(&subject, text.replace("\n7 ", "\n07 ").as_bytes()).is_err());
    for position in ["-", "", "99999999999999999999"] {
        let text = text.replace("\n7 ", &format!("\n{position} "));
        assert!(IndexFile::parse(&subject, text.as_bytes()).is_err(), "{position}");
    }
}

fn head(epoch: u64, index: &[u8]) -> Head {
    Head {
        origin: "registry.example.org".into(),
        epoch,
        log: LogHead { size: epoch, root: Digest::of(b"log") },
        index: Digest::of(index),
        revocations: None,
        issued_at: Timestamp::from_millis(1_000_000),
        expires_at: Timestamp::from_millis(2_000_000),
    }
}

#[test]
fn a_head_is_believed_only_signed_fresh_and_forward() {
    let registry = SigningKey::from_seed("registry.example.org".parse().unwrap(), &[3; 32]);
    let keys = [registry.verifying_key()];
    let bytes = head(5, b"a").sign(&registry).unwrap();
    let read = Head::verify(&bytes, "registry.example.org", &keys).unwrap();
    assert_eq!(read, head(5, b"a"));
    let skew = std::time::Duration::from_secs(60);
    assert!(read.check_fresh(Timestamp::from_millis(1_500_000), skew).is_ok());

    let stranger = SigningKey::from_seed("registry.example.org".parse().unwrap(), &[4; 32]);
    let errors = [
        Head::verify(&bytes, "other.example.org", &keys).unwrap_err(),
        Head::verify(&bytes, "registry.example.org", &[stranger.verifying_key()]).unwrap_err(),
        read.check_fresh(Timestamp::from_millis(2_000_000), skew).unwrap_err(),
        read.check_fresh(Timestamp::from_millis(939_999), skew).unwrap_err(),
        head(4, b"a").check_newer(&read).unwrap_err(),
        head(5, b"b").check_newer(&read).unwrap_err(),
    ];
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    the index head is not valid: it is by "registry.example.org", the registry's origin is "other.example.org"
    the index head is not valid: no signature by a trusted key (registry.example.org+965628a1); the note is signed by registry.example.org+a4c12fe4
    the index head is not valid: it expired at 1970-01-01T00:33:20.000Z and it is 1970-01-01T00:33:20.000Z: the registry or a mirror is holding newer heads back, or this clock is ahead
    the index head is not valid: it was signed at 1970-01-01T00:16:40.000Z, in the future of this clock (1970-01-01T00:15:39.999Z); set the clock
    the index head is not valid: its epoch went back from 5 to 4: somebody shows an old index
    the index head is not valid: epoch 5 was shown with two different indexes
    "#);
    assert!(head(6, b"b").check_newer(&read).is_ok());
}

proptest! {
    #[test]
    fn no_parser_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2_100)) {
        let subject = Subject::Org("demo".parse().unwrap());
        let mut tagged = b"modunest/index/v1 demo\n".to_vec();
        tagged.extend_from_slice(&bytes);
        for input in [&bytes, &tagged] {
            if let Ok(file) = IndexFile::parse(&subject, input) {
                prop_assert_eq!(&file.to_bytes(), input);
            }
            if let Ok(bin) = Bin::parse(Slot { node: 0, bin: 0 }, input) {
                prop_assert_eq!(&bin.to_bytes(), input);
            }
            if let Ok(node) = Node::parse(input) {
                prop_assert_eq!(&node.to_bytes(), input);
            }
        }
    }
}
