//! `modunest monitor`, against honest registries and against every way in which one can
//! contradict itself.

use std::path::Path;

use modunest_core::keys::ObjectKey;
use modunest_core::statement::KeyChange;
use modunest_core::time::Timestamp;
use modunest_tests::process::{Finished, run};
use modunest_tests::registry::{command, signing_key};
use modunest_tlog::{TILE_WIDTH, TileId};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ledger::{Files, Ledger, ORIGIN, Site, config, log_key};

/// A registry's files, and a monitor with its memory.
struct Scene {
    site: Site,
    folder: TempDir,
    epoch: u64,
}

fn now() -> Timestamp {
    modunest_runtime::clock::now()
}

impl Scene {
    async fn start(ledger: &Ledger) -> Scene {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("trust.json"), config("quorum none\n").to_bytes())
            .unwrap();
        let mut scene = Scene { site: Site::start().await, folder, epoch: 0 };
        scene.publish(ledger);
        scene
    }

    fn publish(&mut self, ledger: &Ledger) {
        self.epoch += 1;
        self.site.serve(ledger.files(self.epoch, now()));
    }

    /// The same files again, whatever became of them.
    fn publish_again(&self, ledger: &Ledger) {
        self.site.serve(ledger.files(self.epoch, now()));
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(command()
            .args(["monitor", "--json", self.site.url.as_str(), "--trust"])
            .arg(self.folder.path().join("trust.json"))
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .args(arguments))
    }

    /// A run without findings.
    fn good(&self) -> Value {
        self.run(&[]).good().json()
    }

    /// A run with one finding: its kind and its words.
    fn wrong(&self) -> (String, String) {
        let finished = self.run(&[]);
        assert_eq!(finished.code, Some(7), "{finished:?}");
        let report = finished.json();
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{report}");
        let text = |field: &str| findings[0][field].as_str().unwrap().to_owned();
        (text("kind"), text("what"))
    }

    fn evidence(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.folder.path().join("state/evidence")) else {
            return Vec::new();
        };
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_registry_is_followed_from_run_to_run() {
    let mut ledger = Ledger::with_releases(1);
    let mut scene = Scene::start(&ledger).await;
    let report = scene.good();
    assert_eq!(report["log"]["size"], 3);
    assert_eq!((&report["statements"], &report["subjects"]), (&json!(3), &json!(2)));

    // Nothing new, then a little, then past the borders of bundles and tiles.
    assert_eq!(scene.good()["statements"], 0);
    ledger.key("beta", 20, KeyChange::Add);
    ledger.release("beta/two", "1.0.0", 20);
    scene.publish(&ledger);
    let report = scene.good();
    assert_eq!((&report["statements"], &report["log"]["known_before"]), (&json!(3), &json!(3)));
    for number in 0..150 {
        ledger.release("acme/one", &format!("2.{number}.0"), 10);
        ledger.release("beta/two", &format!("2.{number}.0"), 20);
    }
    scene.publish(&ledger);
    assert_eq!(scene.good()["statements"], 600);
    for number in 0..60 {
        ledger.release("acme/three", &format!("1.{number}.0"), 10);
    }
    scene.publish(&ledger);
    let report = scene.good();
    assert_eq!((&report["statements"], &report["subjects"]), (&json!(120), &json!(5)));

    // Who begins today comes to the same.
    let fresh = Scene { site: scene.site, folder: TempDir::new().unwrap(), epoch: 0 };
    std::fs::write(fresh.folder.path().join("trust.json"), config("quorum none\n").to_bytes())
        .unwrap();
    assert_eq!(fresh.good()["statements"], ledger.size());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_tile_that_is_gone_is_read_from_the_full_one() {
    let mut ledger = Ledger::with_releases(1);
    let mut scene = Scene::start(&ledger).await;
    let _first = scene.good();
    while ledger.size() < TILE_WIDTH {
        ledger.release("acme/one", &format!("2.{}.0", ledger.size()), 10);
    }
    scene.publish(&ledger);
    for tile in [TileId::hashes(0, 0, 3).unwrap(), TileId::entries(0, 3).unwrap()] {
        scene.site.remove(&ObjectKey::Tile(tile).path());
    }
    let _second = scene.good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_lags_behind_the_log_is_no_contradiction() {
    let mut ledger = Ledger::with_releases(2);
    let scene = Scene::start(&ledger).await;
    let behind = ledger.files(1, now());
    ledger.release("acme/one", "2.0.0", 10);
    scene.site.serve(ledger.files(2, now()));
    scene.site.serve(behind.into_iter().filter(|(path, _)| path == "/head").collect());
    let report = scene.good();
    assert_eq!((&report["log"]["size"], &report["head"]["log_size"]), (&json!(7), &json!(5)));
    assert_eq!(report["statements"], 5);
    scene.site.serve(ledger.files(2, now()));
    assert_eq!(scene.good()["statements"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_under_one_name_are_told_with_evidence() {
    let base = Ledger::with_releases(2);
    let (mut one, mut other) = (base.clone(), base.clone());
    one.release("acme/one", "2.0.0", 10);
    other.release("acme/two", "2.0.0", 10);
    let mut scene = Scene::start(&base).await;
    let _base = scene.good();
    scene.publish(&one);
    let _one = scene.good();
    assert!(scene.evidence().is_empty());

    // As long, with another end.
    scene.publish(&other);
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "fork");
    assert!(what.contains("two trees of 7 entries"), "{what}");
    assert_eq!(scene.evidence().len(), 4, "both heads and both checkpoints");

    // Longer, and still not a continuation.
    other.release("acme/two", "3.0.0", 10);
    scene.publish(&other);
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "fork");
    assert!(what.contains("does not continue"), "{what}");

    // Shorter.
    scene.publish(&base);
    assert_eq!(scene.wrong().0, "rollback");

    // What it knew before is what it goes on with.
    scene.publish(&one);
    let _one = scene.good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_entry_is_not_the_registry_s_word() {
    let ledger = Ledger::with_releases(3);
    let scene = Scene::start(&ledger).await;
    let bundle = ObjectKey::Tile(TileId::entries(0, ledger.size()).unwrap()).path();
    scene.site.change(&bundle, |bytes| {
        // One digit of a version in a signed statement.
        let text = String::from_utf8_lossy(bytes).into_owned();
        let at = text.find("1.2.0").unwrap();
        bytes[at + 2] = b'9';
    });
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "entries");
    assert!(what.contains("and the log signed"), "{what}");

    scene.publish_again(&ledger);
    scene.site.change(&bundle, |bytes| bytes.truncate(bytes.len() / 2));
    assert_eq!(scene.wrong().0, "entries");

    scene.publish_again(&ledger);
    let tile = ObjectKey::Tile(TileId::hashes(0, 0, ledger.size()).unwrap()).path();
    let _replayed = scene.good();
    scene.site.change(&tile, |bytes| bytes[0] ^= 1);
    assert_eq!(scene.wrong().0, "entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_logged_is_found_though_it_is_signed_in() {
    let good = Ledger::with_releases(2);
    let mut revoked = good.clone();
    revoked.key("acme", 10, KeyChange::Revoke);
    revoked.release("acme/one", "9.0.0", 10);
    let mut stranger = good.clone();
    stranger.key("other", 30, KeyChange::Add);
    stranger.release("acme/one", "9.0.0", 30);
    let mut twice = good.clone();
    twice.release("acme/one", "1.0.0", 10);
    let mut not_staff = good.clone();
    not_staff.quarantine("acme/one", "1.0.0", &signing_key(ORIGIN, 99));
    let mut no_statement = good.clone();
    no_statement.smuggle(b"anything");
    for (ledger, position, why) in [
        (revoked, 6, "no signature by a trusted key"),
        (stranger, 6, "no signature by a trusted key"),
        (twice, 5, "released twice"),
        (not_staff, 5, "no signature by a trusted key"),
        (no_statement, 5, "not a text, a blank line and signature lines"),
    ] {
        let scene = Scene::start(&ledger).await;
        let (kind, what) = scene.wrong();
        assert_eq!(kind, "statement", "{what}");
        assert!(what.starts_with(&format!("entry {position} of the log: ")), "{what}");
        assert!(what.contains(why), "{why}: {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_not_the_fold_is_named_by_subject() {
    let mut ledger = Ledger::with_releases(2);
    ledger.key("beta", 20, KeyChange::Add);
    ledger.release("beta/two", "1.0.0", 20);
    // The quarantine is logged, and the index is made as if it were not.
    let mut logged = ledger.clone();
    logged.quarantine("acme/one", "1.0.0", &signing_key(ORIGIN, 3));
    let mut hidden = ledger.clone();
    hidden.smuggle(&logged.last());
    assert_eq!(hidden.checkpoint(), logged.checkpoint());
    let mut scene = Scene::start(&hidden).await;
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "index");
    assert!(what.ends_with("it differs about acme/one"), "{what}");
    // And once it was seen well, it is found as well.
    scene.publish(&logged);
    let _good = scene.good();
    logged.release("beta/two", "2.0.0", 20);
    let mut hidden = logged.clone();
    logged.release("beta/two", "3.0.0", 20);
    for entry in logged.tail(2) {
        hidden.smuggle(&entry);
    }
    scene.publish(&hidden);
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "index");
    assert!(what.ends_with("it differs about beta/two"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_contradict_the_log_or_each_other() {
    let small = Ledger::with_releases(1);
    let mut ledger = small.clone();
    ledger.release("acme/one", "2.0.0", 10);
    let head_of = |ledger: &Ledger, epoch| {
        let files = ledger.files(epoch, now());
        files.into_iter().filter(|(path, _)| path == "/head").collect()
    };
    // Over a log that nobody is shown.
    let scene = Scene::start(&small).await;
    scene.site.serve(head_of(&ledger, 1));
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "head");
    assert!(what.contains("no checkpoint with more than 3"), "{what}");

    // Over another tree than the checkpoint.
    let mut other = small.clone();
    other.release("acme/two", "2.0.0", 10);
    let scene = Scene::start(&ledger).await;
    scene.site.serve(head_of(&other, 1));
    assert_eq!(scene.wrong().0, "fork");

    // Over other first entries than the log's.
    let mut longer = ledger.clone();
    longer.release("acme/one", "3.0.0", 10);
    let scene = Scene::start(&longer).await;
    scene.site.serve(head_of(&other, 1));
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "head");
    assert!(what.contains("the first 5 entries"), "{what}");

    // Back to an earlier one.
    let mut scene = Scene::start(&small).await;
    scene.publish(&ledger);
    let _second = scene.good();
    scene.site.serve(head_of(&small, 1));
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "head");
    assert!(what.contains("epoch went back from 2 to 1"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed() {
    let ledger = Ledger::with_releases(1);
    let scene = Scene::start(&ledger).await;
    let two_days_ago = Timestamp::from_millis(now().as_millis() - 2 * 24 * 60 * 60 * 1000);
    scene.site.serve(ledger.files(1, two_days_ago));
    let (kind, what) = scene.wrong();
    assert_eq!(kind, "stale");
    assert!(what.contains("it expired at"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_reported_once() {
    let mut ledger = Ledger::with_releases(1);
    ledger.key("beta", 20, KeyChange::Add);
    let mut scene = Scene::start(&ledger).await;
    let _first = scene.good();
    ledger.release("acme/one", "2.0.0", 10);
    ledger.release("beta/two", "1.0.0", 20);
    ledger.key("beta", 21, KeyChange::Add);
    scene.publish(&ledger);
    let beta_key = crate::ledger::org_key("beta", 20).verifying_key();
    let finished = scene.run(&["--watch", "acme/one", "--watch", &beta_key.to_string()]);
    assert_eq!(finished.code, Some(8), "{finished:?}");
    let report = finished.json();
    let said: Vec<(u64, &str, &str)> = report["activity"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let text = |field: &str| it[field].as_str().unwrap();
            (it["position"].as_u64().unwrap(), text("subject"), text("what"))
        })
        .collect();
    assert_eq!(
        said,
        [
            (4, "acme/one", "acme/one 2.0.0 is released"),
            (5, "acme/one", "the scan of acme/one 2.0.0 came to clean"),
            (6, "beta/two", "beta/two 1.0.0 is released"),
        ]
    );
    let again = scene.run(&["--watch", "acme/one"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let unreadable = scene.run(&["--watch", "a+b"]);
    assert_eq!(unreadable.code, Some(2), "{unreadable:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_or_believed_is_no_finding() {
    let ledger = Ledger::with_releases(1);
    let scene = Scene::start(&ledger).await;
    scene.site.remove(&ObjectKey::Tile(TileId::entries(0, 3).unwrap()).path());
    let finished = scene.run(&[]);
    assert_eq!(finished.code, Some(6), "{finished:?}");
    scene.publish_again(&ledger);
    scene.site.change("/checkpoint", |bytes| *bytes = b"no note".to_vec());
    assert_eq!(scene.run(&[]).code, Some(6));
    let other = ledger.checkpoint().sign(&signing_key(ORIGIN, 99)).unwrap();
    scene.site.change("/checkpoint", |bytes| *bytes = other.bytes().to_vec());
    assert_eq!(scene.run(&[]).code, Some(6));
    let nobody = run(command()
        .args(["monitor", "http://127.0.0.1:1/", "--trust"])
        .arg(scene.folder.path().join("trust.json"))
        .arg("--state")
        .arg(scene.folder.path().join("state")));
    assert_eq!(nobody.code, Some(5), "{nobody:?}");
    scene.publish_again(&ledger);
    let _good = scene.good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_s_witnesses_are_asked_for() {
    let ledger = Ledger::with_releases(1);
    let scene = Scene::start(&ledger).await;
    let key = modunest_tlog::WitnessSigningKey::from_seed("w1".parse().unwrap(), &[5; 32]);
    let policy = format!("witness w1 {}\nquorum w1\n", key.witness_key());
    std::fs::write(scene.folder.path().join("trust.json"), config(&policy).to_bytes()).unwrap();
    let finished = scene.run(&[]);
    assert_eq!(finished.code, Some(6), "{finished:?}");
    assert!(finished.stderr.contains("cosigned by nobody, which is no quorum"), "{finished:?}");
    let mut signed = ledger.checkpoint().sign(&log_key()).unwrap();
    let cosignature = key.cosign(&ledger.checkpoint().to_string(), now().as_secs());
    signed.push(key.witness_key(), &cosignature);
    scene.site.change("/checkpoint", |bytes| *bytes = signed.bytes().to_vec());
    assert_eq!(scene.good()["log"]["cosigned"], json!(["w1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_cut_off_costs_nothing_and_damage_is_said() {
    let mut ledger = Ledger::with_releases(2);
    let mut scene = Scene::start(&ledger).await;
    let _first = scene.good();
    let state = scene.folder.path().join("state");
    let kept = std::fs::read(state.join("state.json")).unwrap();
    ledger.release("acme/one", "2.0.0", 10);
    scene.publish(&ledger);
    let _second = scene.good();
    // The files have grown, and what remembers it was not written.
    std::fs::write(state.join("state.json"), kept).unwrap();
    ledger.release("acme/one", "3.0.0", 10);
    scene.publish(&ledger);
    assert_eq!(scene.good()["statements"], 4);

    let subject =
        |path: &std::path::Path| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    let file = subject(&subject(&state.join("subjects")));
    std::fs::write(file, "lost").unwrap();
    ledger.release("acme/one", "4.0.0", 10);
    ledger.key("acme", 12, KeyChange::Add);
    scene.publish(&ledger);
    let damaged = scene.run(&[]);
    assert_eq!(damaged.code, Some(3), "{damaged:?}");
    assert!(damaged.stderr.contains("replayed from its beginning"), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_to_believe_can_be_learnt_from_a_pinned_root() {
    let ledger = Ledger::with_releases(1);
    let scene = Scene::start(&ledger).await;
    let file = |name: &str| scene.folder.path().join(name);
    let trust = file("trust");
    for key in ["root.key", "online.key"] {
        let _made = run(command().args(["trust", "key", "new"]).arg(file(key))).good();
    }
    let _created = run(command()
        .args(["trust", "create", "--folder"])
        .arg(&trust)
        .arg("--root-key")
        .arg(file("root.key"))
        .arg("--online-key")
        .arg(file("online.key"))
        .arg("--config")
        .arg(file("trust.json")))
    .good();
    let monitor = || {
        run(command()
            .args(["monitor", "--json", scene.site.url.as_str(), "--root"])
            .arg(trust.join("1.root.json"))
            .arg("--state")
            .arg(file("state"))
            .env("XDG_CACHE_HOME", file("cache")))
    };
    // The root is pinned, and what it leads to is not served.
    let refused = monitor();
    assert!(matches!(refused.code, Some(5 | 6)), "{refused:?}");
    scene.site.serve(below(&trust, "/trust"));
    let report = monitor().good().json();
    assert_eq!(report["origin"], ORIGIN);
    assert_eq!(report["statements"], 3);
}

/// The files of a folder, named by where they stand below `path`.
fn below(folder: &Path, path: &str) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{path}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files.extend(below(&entry.path(), &path));
        } else {
            files.insert(path, std::fs::read(entry.path()).unwrap().into());
        }
    }
    files
}
