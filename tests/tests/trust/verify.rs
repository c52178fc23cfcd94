//! `modunest verify`: the chain in words, and where it ends when a link does not hold.

use modunest_core::keys::ObjectKey;
use modunest_core::statement::{Chain, KeyChange, Statement, Subject, Yank};
use modunest_core::time::Timestamp;
use modunest_tests::process::{Finished, run};
use modunest_tests::registry::{command, signing_key};
use modunest_tlog::{TILE_WIDTH, TileId};
use serde_json::Value;
use tempfile::TempDir;

use crate::ledger::{Ledger, ORIGIN, Site, config, org_key};

struct Scene {
    site: Site,
    folder: TempDir,
}

fn now() -> Timestamp {
    modunest_runtime::clock::now()
}

impl Scene {
    async fn start(ledger: &Ledger) -> Scene {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("trust.json"), config("quorum none\n").to_bytes())
            .unwrap();
        let site = Site::start().await;
        site.serve(ledger.files(1, now()));
        Scene { site, folder }
    }

    fn run(&self, release: &str, arguments: &[&str]) -> Finished {
        run(command()
            .args(["verify", release, "--url", self.site.url.as_str(), "--trust"])
            .arg(self.folder.path().join("trust.json"))
            .args(arguments))
    }

    /// How many steps were proven before the one that was not, and why that was not.
    fn unproven(&self, release: &str) -> (usize, String) {
        let finished = self.run(release, &["--json"]);
        assert_eq!(finished.code, Some(6), "{finished:?}");
        let proof = finished.json();
        let why = proof["unproven"].as_str().unwrap().to_owned();
        (proof["steps"].as_array().unwrap().len(), why)
    }
}

fn lines(proof: &Value, step: usize) -> Vec<&str> {
    let lines = proof["steps"][step]["lines"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_is_told_step_by_step() {
    let mut ledger = Ledger::with_releases(3);
    ledger.key("acme", 11, KeyChange::Add);
    let plugin: Subject = "acme/one".parse().unwrap();
    let Subject::Plugin(name) = plugin.clone() else { panic!("a plugin's name") };
    ledger.say(plugin, Chain::Owner, &org_key("acme", 11), |link| {
        Statement::Yank(Yank {
            plugin: name,
            version: "1.1.0".parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            yanked: true,
            reason: Some("loses data".to_owned()),
        })
    });
    let scene = Scene::start(&ledger).await;
    let finished = scene.run("acme/one@1.1.0", &["--json"]).good();
    let proof = finished.json();
    assert_eq!(proof["steps"].as_array().unwrap().len(), 9, "{proof}");
    assert_eq!(proof.get("refused"), None);
    assert!(lines(&proof, 1)[0].starts_with("size 9, root "), "{proof}");
    assert!(lines(&proof, 2)[2].contains("the same 9 entries"), "{proof}");
    let statements = lines(&proof, 4);
    assert!(statements[1].contains("position 3, number 2: acme/one 1.1.0 is released"));
    assert!(statements.iter().any(|line| line.contains("came to clean")));
    assert!(statements.iter().any(|line| line.ends_with("is yanked (loses data)")));
    assert!(lines(&proof, 5)[0].contains("index 3 of 9 entries, inclusion proof of 4 hashes"));
    assert!(lines(&proof, 6).iter().any(|line| line.ends_with("good from position 0 on")));
    assert_eq!(lines(&proof, 7)[1], "status: yanked: loses data");
    assert!(lines(&proof, 8)[1].starts_with("native x86_64-unknown-linux-gnu"), "{proof}");

    let text = scene.run("acme/one@1.1.0", &[]).good().stdout;
    assert!(text.contains("1. The trust configuration says whom to believe"), "{text}");
    assert!(text.ends_with("Proven, and an agent may load it.\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_link_is_named() {
    let ledger = Ledger::with_releases(3);
    let scene = Scene::start(&ledger).await;
    let broken = |path: &str, steps: usize, why: &str| {
        scene.site.change(path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let (proven, told) = scene.unproven("acme/one@1.0.0");
        assert_eq!(proven, steps, "{path}: {told}");
        assert!(told.contains(why), "{path}: {told}");
        scene.site.serve(ledger.files(1, now()));
    };
    broken("/checkpoint", 1, "the checkpoint is not believed");
    broken("/head", 2, "the index head is not valid");
    let tile = ObjectKey::Tile(TileId::hashes(0, 0, ledger.size()).unwrap()).path();
    broken(&tile, 5, "is not in the log");
    let files = ledger.files(1, now());
    for kind in ["/node/", "/bin/", "/index/"] {
        let paths = files.keys().filter(|path| path.starts_with(kind));
        // The root node and the plugin's own path are among them; some of the others are not
        // on it, and are passed over below.
        let mut refused = 0;
        for path in paths {
            scene.site.change(path, |bytes| bytes.push(b'x'));
            let finished = scene.run("acme/one@1.0.0", &["--json"]);
            refused += u32::from(finished.code == Some(6));
            scene.site.serve(ledger.files(1, now()));
        }
        assert!(refused > 0, "{kind}");
    }
    let _good = scene.run("acme/one@1.0.0", &[]).good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_with_what_is_not_logged_is_refused() {
    // Head and index are signed over a release that the log does not have.
    let mut hidden = Ledger::with_releases(2);
    let mut logged = hidden.clone();
    hidden.release("acme/one", "9.0.0", 10);
    logged.release("acme/one", "3.0.0", 10);
    let scene = Scene::start(&logged).await;
    let hidden = hidden.files(1, now());
    let index = |path: &String| ["/node/", "/bin/", "/index/"].iter().any(|k| path.starts_with(k));
    scene.site.serve(hidden.clone().into_iter().filter(|(path, _)| index(path)).collect());
    scene.site.serve(hidden.into_iter().filter(|(path, _)| path == "/head").collect());
    let (steps, why) = scene.unproven("acme/one@9.0.0");
    assert_eq!(steps, 2, "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_refuse_is_said_and_fails() {
    let mut ledger = Ledger::with_releases(2);
    ledger.quarantine("acme/one", "1.0.0", &signing_key(ORIGIN, 3));
    let scene = Scene::start(&ledger).await;
    let finished = scene.run("acme/one@1.0.0", &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(finished.json()["refused"], "it is quarantined: it steals keys");
    let _other = scene.run("acme/one@1.1.0", &[]).good();

    ledger.key("acme", 10, KeyChange::Revoke);
    let scene = Scene::start(&ledger).await;
    let finished = scene.run("acme/one@1.1.0", &[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("revoked at 6; nothing it signed is good"), "{finished:?}");

    for unknown in ["acme/one@7.0.0", "acme/two@1.0.0"] {
        let finished = scene.run(unknown, &[]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("has no"), "{finished:?}");
    }
    assert_eq!(scene.run("acme/one", &[]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_a_smaller_log_is_proven_to_be_its_beginning() {
    let mut ledger = Ledger::with_releases(2);
    let behind = ledger.files(1, now());
    while ledger.size() < TILE_WIDTH + 9 {
        ledger.release("acme/two", &format!("2.{}.0", ledger.size()), 10);
    }
    let scene = Scene::start(&ledger).await;
    scene.site.serve(behind.into_iter().filter(|(path, _)| path == "/head").collect());
    let index = ledger.files(1, now());
    assert!(index.len() > 5);
    // The smaller log's index is there as well: objects are never replaced.
    let mut small = Ledger::with_releases(2).files(1, now());
    small.retain(|path, _| !path.starts_with("/tile") && path != "/checkpoint" && path != "/head");
    scene.site.serve(small);
    let proof = scene.run("acme/one@1.0.0", &["--json"]).good().json();
    let line = lines(&proof, 2)[2].to_owned();
    assert!(
        line.starts_with("over the first 5 of the 265 entries: consistency proof of"),
        "{line}"
    );
}
