//! One round trip for a cold agent, none for a warm one, and no harm from a false answer.

use std::collections::BTreeSet;
use std::path::Path;

use indicatif::ProgressBar;
use modunest_agent::Config;
use modunest_agent::sync::{Options, Syncer};
use modunest_core::closure::{ANSWER_MAX_BYTES, ClosureRequest, Part, push_frame};
use modunest_core::digest::Digest;
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_core::resolve::Root;
use modunest_tlog::TileId;

use crate::plugins::{ECHO, release, uses};
use crate::registry::{Lie, Registry, org_key, registry_key};

/// `demo/front`, which needs `demo/back`; both have releases that do not matter, and
/// `demo/other` is nobody's business.
async fn registry() -> Registry {
    let registry = Registry::start().await;
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        registry.publish(release("demo/back", version, &[], ECHO));
    }
    for version in ["1.0.0", "1.1.0"] {
        registry.publish(release("demo/front", version, &[], &uses("demo/back", "^1")));
    }
    registry.publish(release("demo/other", "1.0.0", &[], ECHO));
    registry
}

/// Syncs, and answers what is locked.
async fn sync(syncer: &Syncer, config: &Config) -> String {
    let outcome = syncer.sync(config, Options::default(), &ProgressBar::hidden()).await.unwrap();
    assert_eq!(outcome.offline, None);
    let plugins = outcome.generation.lock.plugins.iter();
    plugins.map(|p| format!("{} {}", p.plugin, p.version)).collect::<Vec<_>>().join(", ")
}

const LOCKED: &str = "demo/back 1.1.0, demo/front 1.1.0";

/// What a cold agent asks for: everything at once, and what proves the log.
fn cold(registry: &Registry) -> [String; 3] {
    let tile = TileId::hashes(0, 0, registry.size()).unwrap();
    [CLOSURE_PATH.to_owned(), "/checkpoint".to_owned(), ObjectKey::Tile(tile).path()]
}

/// Paths of the index that were asked for since the last call.
fn asked(registry: &Registry) -> Vec<String> {
    let requests = registry.take_requests().into_iter().map(|(path, _)| path);
    requests.filter(|path| !path.starts_with("/blob/")).collect()
}

fn cached(folder: &Path) -> BTreeSet<String> {
    let registry = std::fs::read_dir(folder.join("registry")).unwrap().next().unwrap().unwrap();
    let kinds = ["node", "bin", "index"];
    let files = kinds.iter().flat_map(|kind| {
        let files = std::fs::read_dir(registry.path().join(kind)).unwrap();
        files.map(move |file| format!("/{kind}/{}", file.unwrap().file_name().to_string_lossy()))
    });
    files.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_agent_asks_once_and_a_warm_one_for_the_head() {
    let registry = registry().await;
    registry.offer_closures();
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    assert_eq!(sync(&syncer, &config).await, LOCKED);
    assert_eq!(asked(&registry), cold(&registry));

    assert_eq!(sync(&syncer, &config).await, LOCKED);
    assert_eq!(asked(&registry), ["/head"]);
    // Another process over the same folder is warm, too.
    let syncer = Syncer::open(&config).unwrap();
    assert_eq!(sync(&syncer, &config).await, LOCKED);
    assert_eq!(asked(&registry), ["/head"]);
    // So is one without a lock file, as long as it wants what was read before.
    std::fs::remove_file(folder.path().join("modunest.lock")).unwrap();
    assert_eq!(sync(&syncer, &config).await, LOCKED);
    assert_eq!(asked(&registry), ["/head"]);
    // After a publish, what changed is fetched, and nothing else.
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    assert_eq!(sync(&syncer, &config).await, LOCKED);
    let entries = ObjectKey::Tile(TileId::entries(0, registry.size()).unwrap()).path();
    assert_eq!(asked(&registry), ["/head", "/checkpoint", entries.as_str()]);

    // Something new comes with all that it needs.
    registry.publish(release("demo/deep", "1.0.0", &[], ECHO));
    registry.publish(release("demo/new", "1.0.0", &[], &uses("demo/deep", "^1")));
    let config = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/new", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    let locked = sync(&syncer, &config).await;
    assert_eq!(locked, "demo/back 1.1.0, demo/deep 1.0.0, demo/front 1.1.0, demo/new 1.0.0");
    let paths = asked(&registry);
    assert_eq!(paths[0], CLOSURE_PATH);
    // Beside it, what proves the log and what is new; the others are continued from it.
    let of_log = |path: &String| path == "/checkpoint" || path.starts_with("/tile/");
    assert!(paths[1..].iter().all(of_log), "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn resolving_alone_asks_once_too() {
    let registry = registry().await;
    registry.offer_closures();
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    let resolved = Syncer::open(&config).unwrap().resolve(&config, true).await.unwrap();
    assert_eq!(resolved.locked.len(), 2);
    assert_eq!(asked(&registry), cold(&registry));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_offer_it_is_not_asked_again() {
    let registry = registry().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, status) in [(&one, None), (&two, Some(405))] {
        if let Some(status) = status {
            registry.lie(CLOSURE_PATH, usize::MAX, Lie::Status(status));
        }
        let config = registry.config(folder.path(), &[("demo/front", "^1")]);
        let syncer = Syncer::open(&config).unwrap();
        assert_eq!(sync(&syncer, &config).await, LOCKED);
        let paths = asked(&registry);
        assert_eq!(paths.iter().filter(|path| *path == CLOSURE_PATH).count(), 1);
        let more = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/other", "^1")]);
        assert!(sync(&syncer, &more).await.contains("demo/other"));
        assert!(!asked(&registry).iter().any(|path| path == CLOSURE_PATH));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_answer_is_neither_believed_nor_in_the_way() {
    let registry = registry().await;
    registry.offer_closures();
    let root = Root { plugin: "demo/front".parse().unwrap(), requirement: "^1".parse().unwrap() };
    let host = Some(modunest_agent::host::facts());
    let truth = registry.closure(&ClosureRequest::fitting([root], host, None));
    let head_now = registry.get("/head");
    let frame = |key: ObjectKey, bytes: &[u8]| {
        let mut frame = Vec::new();
        push_frame(&mut frame, Part::Object(key), bytes);
        frame
    };
    let head_frame = |bytes: &[u8]| frame(ObjectKey::Head, bytes);
    let after_head = head_frame(&head_now).len();
    let next = registry.head(registry.epoch() + 1, registry.root());
    // Validly signed, and of a tree that nobody can read: nothing under it can be proven.
    let expired = modunest_core::index::Head {
        expires_at: modunest_core::time::Timestamp::from_millis(2_000),
        ..next.clone()
    };
    let stray = b"well hashed, and named by nobody";
    let stray_key = ObjectKey::Index(Digest::of(stray));
    let with_stray = |at: usize| [&truth[..at], &frame(stray_key, stray), &truth[at..]].concat();
    let mut flipped = truth.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut root_flipped = truth.clone();
    root_flipped[after_head + 200] ^= 1;
    let repeated = [&truth[..], &truth[after_head..]].concat();
    let mut oversized = truth.clone();
    while oversized.len() <= ANSWER_MAX_BYTES / 8 {
        oversized.extend_from_slice(&truth[after_head..]);
    }
    let lies = [
        ("cut", Lie::Break(truth.len() / 2)),
        ("cut in the head", Lie::Break(10)),
        ("cut, as if whole", Lie::Bytes(truth[..truth.len() - 50].to_vec())),
        ("empty", Lie::Bytes(Vec::new())),
        ("no frames", Lie::Bytes(b"<!doctype html>\n".repeat(1000))),
        ("one endless line", Lie::Bytes(vec![b'h'; 1_000_000])),
        ("a length that is none", Lie::Bytes(b"head 99999999\n".to_vec())),
        (
            "by another key",
            Lie::Bytes(head_frame(&next.sign(&org_key("test.modunest", 9)).unwrap())),
        ),
        ("expired", Lie::Bytes(head_frame(&expired.sign(&registry_key()).unwrap()))),
        ("no head", Lie::Bytes(truth[after_head..].to_vec())),
        ("two heads", Lie::Bytes([&head_frame(&head_now)[..], &truth].concat())),
        ("the head alone", Lie::Bytes(head_frame(&head_now))),
        ("an altered file", Lie::Bytes(flipped)),
        ("an altered root", Lie::Bytes(root_flipped)),
        ("a stray at first", Lie::Bytes(with_stray(after_head))),
        ("a stray at last", Lie::Bytes(with_stray(truth.len()))),
        ("everything twice", Lie::Bytes(repeated)),
        ("oversized", Lie::Bytes(oversized)),
        ("busy", Lie::Status(503)),
        ("too many", Lie::Status(429)),
        ("refused", Lie::Status(400)),
        ("elsewhere", Lie::Status(302)),
    ];
    for (what, lie) in lies {
        registry.lie(CLOSURE_PATH, usize::MAX, lie);
        let folder = tempfile::tempdir().unwrap();
        let config = registry.config(folder.path(), &[("demo/front", "^1")]);
        let syncer = Syncer::open(&config).unwrap();
        assert_eq!(sync(&syncer, &config).await, LOCKED, "{what}");
        assert_eq!(asked(&registry)[0], CLOSURE_PATH, "{what}");
        let cached = cached(folder.path());
        assert!(!cached.contains(&stray_key.path()), "{what}");
        for path in &cached {
            let named = path.rsplit('/').next().unwrap();
            assert_eq!(Digest::of(&registry.get(path)).to_hex(), named, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_head_is_not_believed_from_a_closure_either() {
    let registry = registry().await;
    registry.offer_closures();
    let root = Root { plugin: "demo/other".parse().unwrap(), requirement: "^1".parse().unwrap() };
    let old = registry.closure(&ClosureRequest::fitting([root], None, None));
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    let folder = tempfile::tempdir().unwrap();
    let config = registry.config(folder.path(), &[("demo/front", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    sync(&syncer, &config).await;
    let epoch = registry.epoch();
    registry.lie(CLOSURE_PATH, usize::MAX, Lie::Bytes(old));
    let more = registry.config(folder.path(), &[("demo/front", "^1"), ("demo/other", "^1")]);
    registry.take_requests();
    assert!(sync(&syncer, &more).await.contains("demo/other"));
    assert_eq!(asked(&registry)[..2], [CLOSURE_PATH, "/head"]);
    assert_eq!(syncer.client().kept_head().unwrap().epoch, epoch);
}

/// A tree of 100 plugins: what a first sync costs with and without.
#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    const PLUGINS: usize = 100;
    let registry = Registry::start().await;
    let first = release("demo/plugin-0", "1.0.0", &[], ECHO);
    for number in 0..PLUGINS {
        let mut release = crate::registry::Release {
            manifest: first.manifest.replace("plugin-0", &format!("plugin-{number}")),
            files: first.files.clone(),
        };
        let below = [2 * number + 1, 2 * number + 2].into_iter().filter(|n| *n < PLUGINS);
        let below: String = below.map(|n| format!("\"demo/plugin-{n}\" = \"^1\"\n")).collect();
        release.manifest.push_str(&format!("\n[dependencies]\n{below}"));
        registry.publish(release);
    }
    let mut figures = Vec::new();
    for offered in [false, true] {
        if offered {
            registry.offer_closures();
        }
        let folder = tempfile::tempdir().unwrap();
        let config = registry.config(folder.path(), &[("demo/plugin-0", "^1")]);
        let syncer = Syncer::open(&config).unwrap();
        registry.take_sent_bytes();
        asked(&registry);
        let started = std::time::Instant::now();
        let resolved = syncer.resolve(&config, true).await.unwrap();
        let took = started.elapsed();
        assert_eq!(resolved.locked.len(), PLUGINS);
        let requests = asked(&registry).len();
        println!("offered {offered}: {requests} requests, {} bytes, {took:?}", {
            let bytes = registry.take_sent_bytes();
            figures.push((requests, bytes));
            bytes
        });
    }
    let [(single_requests, single_bytes), (requests, bytes)] = figures[..] else { panic!() };
    // The closure, the checkpoint, and one tile of a log of 201 entries.
    assert_eq!(requests, 3);
    assert!(single_requests > 2 * PLUGINS, "{single_requests}");
    // The frames' lines are all that an answer has beyond the objects.
    assert!(bytes < single_bytes + single_requests * 90, "{bytes} and {single_bytes}");
}
