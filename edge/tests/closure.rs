//! Closures: the whole index that a resolution needs, in one answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use modunest_core::closure::{
    ClosureRequest, Frame, FrameReader, Part, REQUEST_MAX_BYTES, Received,
};
use modunest_core::digest::Digest;
use modunest_core::index::{Head, LogHead, Update, Written, update};
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_core::problem::Code;
use modunest_core::relation::{BuildTarget, Dependency, HostRequirement};
use modunest_core::statement::{Build, Link, Release, SignedStatement, Statement};
use modunest_core::time::Timestamp;
use modunest_tlog::{Frontier, SigningKey, TreeHash};
use reqwest::{Method, Response};
use support::{Site, field, problem};

const PLUGINS: usize = 60;

/// An index in which `demo/p<n>` needs `demo/p<n+1>`.
struct Chain {
    objects: BTreeMap<ObjectKey, Vec<u8>>,
    head: Vec<u8>,
    root: Digest,
    log: LogHead,
}

fn chain() -> Chain {
    let key = SigningKey::from_seed("demo".parse().unwrap(), &[2; 32]);
    let statements: Vec<_> = (0..PLUGINS)
        .map(|number| {
            let name = |number: usize| format!("demo/p{number}").parse().unwrap();
            let next = (number + 1 < PLUGINS).then(|| Dependency {
                plugin: name(number + 1),
                requirement: "^1".parse().unwrap(),
                optional: false,
            });
            let target = BuildTarget::Native {
                target: "x86_64-unknown-linux-gnu".parse().unwrap(),
                libc: None,
                abi: 1,
            };
            let archive = Digest::of(b"archive");
            let release = Release {
                plugin: name(number),
                version: "1.0.0".parse().unwrap(),
                sequence: 1,
                previous: Link::FIRST.previous,
                manifest: archive,
                host: HostRequirement { abi: 1, version: None },
                dependencies: next.into_iter().collect(),
                incompatible: Vec::new(),
                services: Vec::new(),
                capabilities: Vec::new(),
                builds: vec![Build { target, archive, size_bytes: 1, files: archive }],
            };
            Statement::Release(std::sync::Arc::new(release)).sign(&key).unwrap()
        })
        .collect::<Vec<SignedStatement>>();
    let statements: Vec<(u64, SignedStatement)> = (0..).zip(statements).collect();
    let mut frontier = Frontier::new();
    for (_, signed) in &statements {
        frontier.append(TreeHash::of_leaf(signed.bytes()));
    }
    let log_root = Digest::from_bytes(*frontier.root().as_bytes());
    let tiles = frontier.take_tiles().into_iter();
    let nothing: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    let Update::Done { root, written, .. } = update(None, &statements, &nothing).unwrap() else {
        panic!("an empty index needs nothing");
    };
    let objects = written.into_iter().map(|object| match object {
        Written::Node(digest, bytes) => (ObjectKey::Node(digest), bytes),
        Written::Bin(digest, bytes) => (ObjectKey::Bin(digest), bytes),
        Written::File(digest, bytes) => (ObjectKey::Index(digest), bytes),
    });
    let head = Head {
        origin: "demo".to_owned(),
        epoch: 1,
        log: LogHead { size: statements.len() as u64, root: log_root },
        index: root,
        revocations: None,
        issued_at: Timestamp::from_millis(1_000),
        expires_at: Timestamp::from_millis(2_000),
    };
    let objects = objects.chain(tiles.map(|(id, bytes)| (ObjectKey::Tile(id), bytes)));
    let signed = head.sign(&key).unwrap();
    Chain { objects: objects.collect(), head: signed, root, log: head.log }
}

async fn site(chain: &Chain) -> Site {
    let site = Site::start(None).await;
    for (key, bytes) in &chain.objects {
        site.put(key, bytes.clone()).await;
    }
    site.put(&ObjectKey::Head, chain.head.clone()).await;
    site
}

async fn ask(site: &Site, plugin: &str) -> Response {
    let json = format!(r#"{{"plugins":[{{"plugin":"{plugin}","requirement":"^1"}}]}}"#);
    assert!(ClosureRequest::parse(json.as_bytes()).is_ok());
    site.request(Method::POST, CLOSURE_PATH).body(json).send().await.unwrap()
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut reader = FrameReader::new();
    reader.push(bytes).unwrap();
    let frames = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    reader.finish().unwrap();
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_holds_everything() {
    let chain = chain();
    let site = site(&chain).await;
    for _ in 0..2 {
        let answer = ask(&site, "demo/p0").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(field(&answer, "content-type"), "application/vnd.modunest.closure");
        assert_eq!(field(&answer, "cache-control"), "no-store");
        let frames = frames(&answer.bytes().await.unwrap());
        assert_eq!(
            (frames[0].part, &frames[0].bytes),
            (Part::Object(ObjectKey::Head), &chain.head)
        );
        let mut received = Received::new(chain.root, None);
        let mut keys = BTreeSet::new();
        let (proof, objects) = frames[1..].split_last().unwrap();
        for Frame { part, bytes } in objects {
            let Part::Object(key) = part else { panic!("a second proof") };
            received.accept(*key, bytes).unwrap();
            keys.insert(*key);
        }
        // Every plugin depends on the next, so the closure of the first is the whole index.
        let index = chain.objects.keys().filter(|key| !matches!(key, ObjectKey::Tile(_)));
        assert!(keys.iter().eq(index), "{} of {}", keys.len(), chain.objects.len());
        assert_eq!(proof.part, Part::Proof);
        let proven = received.prove(&proof.bytes, &chain.log).unwrap();
        assert_eq!(proven.len(), PLUGINS);
    }
    let last = format!("demo/p{}", PLUGINS - 1);
    let answer = frames(&ask(&site, &last).await.bytes().await.unwrap());
    assert!((6..=8).contains(&answer.len()), "{} frames for one plugin", answer.len());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_said() {
    let site = Site::start(None).await;
    let answer = site.get(CLOSURE_PATH).await;
    assert_eq!(field(&answer, "allow"), "POST");
    problem(answer, Code::MethodNotAllowed).await;
    let post = |body: Vec<u8>| site.request(Method::POST, CLOSURE_PATH).body(body).send();
    let refused = problem(
        post(br#"{"plugins":[{"plugin":"demo/p0","requirement":"one"}]}"#.to_vec()).await.unwrap(),
        Code::InvalidRequest,
    )
    .await;
    assert_eq!(refused.errors[0].place, "/plugins/0/requirement");
    assert!(refused.errors[0].rule.starts_with("unexpected character 'o'"));
    problem(post(vec![b' '; REQUEST_MAX_BYTES + 1]).await.unwrap(), Code::TooLarge).await;
    // Nothing was ever published.
    problem(ask(&site, "demo/p0").await, Code::Unavailable).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_whole_does_not_look_whole() {
    let chain = chain();
    let mut site = site(&chain).await;
    let mut files = chain.objects.keys().filter(|key| matches!(key, ObjectKey::Index(_)));
    let gone = *files.next_back().unwrap();
    site.delete(&gone).await;
    let answer = ask(&site, "demo/p0").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "an answer without an object ended as if whole");
    let bytes = chain.objects[&gone].clone();
    site.put(&gone, bytes).await;
    assert!(ask(&site, "demo/p0").await.bytes().await.is_ok());
    site.put(&ObjectKey::Head, *b"no head").await;
    problem(ask(&site, "demo/p0").await, Code::Unavailable).await;
    site.stop_s3().await;
    problem(ask(&site, "demo/p0").await, Code::Unavailable).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let chain = chain();
    let site = site(&chain).await;
    for _ in 0..100 {
        let mut answer = ask(&site, "demo/p0").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.chunk().await.unwrap().is_some());
    }
    assert_eq!(ask(&site, "demo/p0").await.status(), 200, "permits are given back");
    site.stop().await;
}
