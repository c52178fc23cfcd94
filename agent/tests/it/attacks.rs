//! Each of the nine checks, attacked. `lies` has altered, missing and overlong objects.

use std::path::Path;

use indicatif::ProgressBar;
use modunest_agent::registry::{Error as Refused, Kind};
use modunest_agent::sync::{Error, Options, Outcome, Syncer};
use modunest_agent::{EXIT_REFUSED, store};
use modunest_core::digest::Digest;
use modunest_core::index::{Head, Node};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::{
    Chain, Deprecation, FoldError, KeyChange, Link, Ownership, Statement, Subject, TrustLevel,
    VerdictOutcome,
};
use modunest_tlog::{Checkpoint, TileId, TreeHash};
use tempfile::TempDir;

use crate::plugins::{ECHO, release};
use crate::registry::{Lie, ORIGIN, Registry, now, org_key, registry_key};

const DAY_S: u64 = 24 * 60 * 60;

async fn outcome(registry: &Registry, folder: &Path) -> Result<Outcome, Error> {
    let config = registry.config(folder, &[("demo/back", "^1")]);
    let syncer = Syncer::open(&config)?;
    syncer.sync(&config, Options::default(), &ProgressBar::hidden()).await
}

/// Why what is shown is not believed.
async fn refused_in(registry: &Registry, folder: &Path) -> Refused {
    match outcome(registry, folder).await {
        Err(Error::Registry(error)) => {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            *error
        }
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("an attack was not noticed"),
    }
}

async fn refused(registry: &Registry) -> Refused {
    refused_in(registry, folder().path()).await
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn one_plugin() -> Registry {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    registry
}

fn head_of(registry: &Registry) -> Head {
    registry.head(registry.epoch() + 1, registry.root())
}

fn show_head(registry: &Registry, head: &Head) {
    let bytes = head.sign(&registry_key()).unwrap();
    registry.lie("/head", usize::MAX, Lie::Bytes(bytes));
}

/// The state file of the one registry in a folder.
fn state_file(folder: &Path) -> std::path::PathBuf {
    let registry = std::fs::read_dir(folder.join("registry")).unwrap().next().unwrap().unwrap();
    registry.path().join("state")
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints() {
    let registry = one_plugin().await;
    let (size, root) = (registry.size(), TreeHash::of_leaf(b"another tree"));
    let signed = |origin: &str, seed: u8| {
        let key = modunest_tlog::SigningKey::from_seed(origin.parse().unwrap(), &[seed; 32]);
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root };
        checkpoint.sign(&key).unwrap().bytes().to_vec()
    };
    for (what, bytes) in [
        ("another key", signed(ORIGIN, 9)),
        ("another origin", signed("other.modunest", 1)),
        ("empty", Vec::new()),
        ("unrelated", b"<!doctype html>\n".to_vec()),
        ("a head", registry.get("/head")),
    ] {
        registry.lie("/checkpoint", usize::MAX, Lie::Bytes(bytes));
        let error = refused(&registry).await;
        assert!(matches!(error, Refused::Checkpoint(_)), "{what}: {error}");
    }
    // Signed by the log, and of another tree than the head's.
    registry.lie("/checkpoint", usize::MAX, Lie::Bytes(signed(ORIGIN, 1)));
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::HeadLog { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_checkpoints_than_the_head_or_the_last_one() {
    let registry = one_plugin().await;
    let old = registry.get("/checkpoint");
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let (cold, warm) = (folder(), folder());
    outcome(&registry, warm.path()).await.unwrap();
    registry.lie("/checkpoint", usize::MAX, Lie::Bytes(old));
    let error = refused_in(&registry, cold.path()).await;
    assert!(matches!(error, Refused::CheckpointBehind { found: 3, head: 5 }), "{error}");
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    let error = refused_in(&registry, warm.path()).await;
    assert!(matches!(error, Refused::CheckpointRollback { found: 3, kept: 5 }), "{error}");
    registry.tell_the_truth();
    outcome(&registry, warm.path()).await.unwrap();
}

/// Two registries with the same keys, which have said different things.
async fn two_faces() -> [Registry; 2] {
    let faces = [one_plugin().await, Registry::start().await];
    faces[1].publish(release("demo/back", "1.0.0", &["SLOW_CALL_S=1"], ECHO));
    assert_eq!(faces[0].size(), faces[1].size());
    assert_ne!(faces[0].root(), faces[1].root());
    faces
}

fn check_evidence(error: Refused, first: &Registry, second: &Registry) {
    let text = error.to_string();
    let Refused::SplitView { a, b, .. } = error else { panic!("{error}") };
    assert_eq!(std::fs::read(&a).unwrap(), first.get("/checkpoint"));
    assert_eq!(std::fs::read(&b).unwrap(), second.get("/checkpoint"));
    // The operator is told where they are, and whom to tell.
    assert!(text.contains(a.to_str().unwrap()) && text.contains("witnesses"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_view_over_time() {
    let [first, second] = two_faces().await;
    let folder = folder();
    outcome(&first, folder.path()).await.unwrap();
    // As long a log, then longer ones: proven by entries, and by tiles.
    for size in [second.size(), second.size() + 2, 300] {
        second.fill(size);
        let error = refused_in(&second, folder.path()).await;
        check_evidence(error, &first, &second);
    }
    // Asked again, nothing more is written.
    let evidence = state_file(folder.path()).with_file_name("evidence");
    let count = || std::fs::read_dir(&evidence).unwrap().count();
    assert_eq!(count(), 6);
    refused_in(&second, folder.path()).await;
    assert_eq!(count(), 6);
    // What was believed first still is.
    outcome(&first, folder.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_view_shown_to_two_agents() {
    let [first, second] = two_faces().await;
    let (one, two) = (folder(), folder());
    outcome(&first, one.path()).await.unwrap();
    outcome(&second, two.path()).await.unwrap();
    for registry in [&first, &second] {
        registry.fill(40);
    }
    check_evidence_of_crossing(&second, one.path()).await;
    check_evidence_of_crossing(&first, two.path()).await;
}

/// An agent that was shown one face is shown the other.
async fn check_evidence_of_crossing(other: &Registry, folder: &Path) {
    let error = refused_in(other, folder).await;
    let Refused::SplitView { b, .. } = error else { panic!("{error}") };
    assert_eq!(std::fs::read(&b).unwrap(), other.get("/checkpoint"));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tiles_at_awkward_sizes() {
    for size in [3, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537] {
        let registry = Registry::start().await;
        registry.fill(size - 2);
        registry.publish(release("demo/back", "1.0.0", &[], ECHO));
        assert_eq!(registry.size(), size);
        outcome(&registry, folder().path()).await.unwrap();
        let mut tiles: Vec<String> =
            registry.take_requests().into_iter().map(|(path, _)| path).collect();
        tiles.retain(|path| path.starts_with("/tile/"));
        assert!(!tiles.is_empty());
        for tile in tiles {
            let honest = registry.get(&tile);
            let mut altered = honest.clone();
            *altered.last_mut().unwrap() ^= 1;
            let shorter = honest[..honest.len() - 32].to_vec();
            for lie in [altered, shorter, Vec::new(), b"<!doctype html>".to_vec()] {
                registry.lie(&tile, usize::MAX, Lie::Bytes(lie));
                let error = refused(&registry).await;
                assert!(matches!(error, Refused::Tile(_)), "{tile} of {size}: {error}");
            }
            registry.tell_the_truth();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_entries_are_not_appended() {
    let registry = one_plugin().await;
    let folder = folder();
    outcome(&registry, folder.path()).await.unwrap();
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let id = TileId::entries(0, registry.size()).unwrap();
    let path = ObjectKey::Tile(id).path();
    let mut altered = registry.get(&path);
    *altered.last_mut().unwrap() ^= 1;
    for lie in [altered, Vec::new(), b"<!doctype html>".to_vec()] {
        registry.lie(&path, usize::MAX, Lie::Bytes(lie));
        // Nothing of it is believed: the tree says what is new.
        let fresh = tempfile::tempdir().unwrap();
        copy(folder.path(), fresh.path());
        let outcome = outcome(&registry, fresh.path()).await.unwrap();
        assert_eq!(outcome.head.epoch, registry.epoch());
        let asked = registry.take_requests();
        assert!(asked.iter().any(|(path, _)| path.starts_with("/node/")), "{asked:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn freezes_and_clocks() {
    let registry = one_plugin().await;
    let folder = folder();
    outcome(&registry, folder.path()).await.unwrap();
    let old = now().as_millis() - (DAY_S + 60) * 1000;
    let old = modunest_core::time::Timestamp::from_millis(old);
    let held_back = Head { issued_at: old, ..head_of(&registry) };
    show_head(&registry, &held_back);
    let error = refused_in(&registry, folder.path()).await;
    assert!(matches!(error, Refused::HeadAge { .. }), "{error}");
    registry.tell_the_truth();

    // The clock was an hour ahead of what it says now.
    let state = state_file(folder.path());
    let mut content: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    let ahead = now().plus(std::time::Duration::from_secs(3600));
    content["time_seen"] = serde_json::to_value(ahead).unwrap();
    std::fs::write(&state, serde_json::to_vec(&content).unwrap()).unwrap();
    let error = refused_in(&registry, folder.path()).await;
    assert!(matches!(error, Refused::Clock { .. }), "{error}");
    // A damaged state is not forgotten.
    std::fs::write(&state, b"{").unwrap();
    let error = outcome(&registry, folder.path()).await.unwrap_err();
    assert!(matches!(&error, Error::Registry(e) if matches!(**e, Refused::Kept { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_another_log() {
    let registry = one_plugin().await;
    let good = head_of(&registry);
    let mut smaller = good.clone();
    smaller.log.size -= 1;
    let mut other = good.clone();
    other.log.root = Digest::of(b"another tree");
    for head in [smaller, other] {
        show_head(&registry, &head);
        let error = refused(&registry).await;
        assert!(matches!(error, Refused::HeadLog { .. }), "{error}");
    }
    // One that is over the beginning of the checkpoint's log is believed.
    registry.tell_the_truth();
    let head = registry.get("/head");
    registry.fill(registry.size() + 5);
    registry.lie("/head", usize::MAX, Lie::Bytes(head));
    let folder = folder();
    outcome(&registry, folder.path()).await.unwrap();
    registry.tell_the_truth();
    outcome(&registry, folder.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_index_under_a_new_head() {
    let registry = one_plugin().await;
    let old_root = registry.root();
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let folder = folder();
    outcome(&registry, folder.path()).await.unwrap();
    // By somebody on the way: the objects are not what the head names.
    let new_root = ObjectKey::Node(registry.root()).path();
    registry.lie(
        &new_root,
        usize::MAX,
        Lie::Bytes(registry.get(&ObjectKey::Node(old_root).path())),
    );
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Index(_)), "{error}");
    registry.lie(&new_root, usize::MAX, Lie::Bytes(Node::EMPTY.to_bytes()));
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Index(_)), "{error}");
    registry.tell_the_truth();
    // By whoever signs heads: what was listed before is not any more.
    registry.fill(1_000);
    show_head(&registry, &registry.head(registry.epoch() + 1, old_root));
    let error = refused_in(&registry, folder.path()).await;
    assert!(matches!(error, Refused::Rewritten { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_the_log_does_not_have() {
    let position = |registry: &Registry| registry.size() - 1;
    for (what, at) in [("in the log's place", 0), ("behind the log", 1)] {
        let registry = one_plugin().await;
        registry.fill(10);
        let yank = registry.yank_statement("demo/back", "1.0.0", true);
        registry.only_list(position(&registry) + at, yank);
        let error = refused(&registry).await;
        let fits = match at {
            0 => matches!(error, Refused::NotInLog { position: 9, .. }),
            _ => matches!(error, Refused::IndexAhead { position: 10, size: 10, .. }),
        };
        assert!(fits, "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_do_not_follow() {
    // A yank that was taken back, said again by whoever has kept it.
    let registry = one_plugin().await;
    let yank = registry.yank_statement("demo/back", "1.0.0", true);
    registry.append(yank.clone());
    registry.append(registry.yank_statement("demo/back", "1.0.0", false));
    outcome(&registry, folder().path()).await.unwrap();
    registry.append(yank);
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Fold(FoldError::Chain { .. })), "{error}");

    // By a key of another organisation.
    let registry = Registry::start().await;
    registry.add_org("other");
    let (name, statement) = registry.statement(&release("demo/back", "1.0.0", &[], ECHO));
    let key = modunest_tlog::SigningKey::from_seed("other".parse().unwrap(), &[2; 32]);
    registry.publish_signed(&name, statement, &key, Some(VerdictOutcome::Clean));
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Fold(FoldError::Statement { .. })), "{error}");

    // By a key that was replaced before.
    let registry = one_plugin().await;
    registry.key("demo", KeyChange::Rotate, &org_key("demo", 3), Some(&org_key("demo", 2)));
    outcome(&registry, folder().path()).await.unwrap();
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Fold(FoldError::Statement { .. })), "{error}");

    // The same version a second time.
    let registry = one_plugin().await;
    registry.publish(release("demo/back", "1.0.0", &["SLOW_CALL_S=1"], ECHO));
    let error = refused(&registry).await;
    assert!(matches!(error, Refused::Fold(FoldError::Twice { .. })), "{error}");
}

/// Syncs, and answers what is locked, or why nothing fits.
async fn locked(registry: &Registry, folder: &Path) -> String {
    match outcome(registry, folder).await {
        Ok(outcome) => outcome.generation.lock.plugins[0].version.to_string(),
        Err(Error::NoSolution(report)) => report.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_keys_and_quarantined_releases() {
    for revoked in [false, true] {
        let registry = one_plugin().await;
        let folder = folder();
        assert_eq!(locked(&registry, folder.path()).await, "1.0.0");
        let reason = if revoked {
            registry.key("demo", KeyChange::Revoke, &org_key("demo", 2), None);
            "the key that signed it was revoked"
        } else {
            registry.quarantine("demo/back", "1.0.0", true);
            "it phones home"
        };
        let report = locked(&registry, folder.path()).await;
        assert!(report.contains("is quarantined") && report.contains(reason), "{report}");
        // Nor is it run when nobody answers.
        registry.stop();
        let error = outcome(&registry, folder.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Store(store::Error::Unproven { .. })), "{text}");
        assert!(text.contains(reason), "{text}");
        assert_eq!(modunest_agent::Error::from(error).exit_code(), EXIT_REFUSED);
    }
    let registry = one_plugin().await;
    let folder = folder();
    assert_eq!(locked(&registry, folder.path()).await, "1.0.0");
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    registry.quarantine("demo/back", "1.0.0", true);
    assert_eq!(locked(&registry, folder.path()).await, "1.1.0");
    registry.quarantine("demo/back", "1.1.0", true);
    registry.quarantine("demo/back", "1.0.0", false);
    assert_eq!(locked(&registry, folder.path()).await, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_and_trust_levels() {
    let with = async |outcome: Option<VerdictOutcome>, level: Option<TrustLevel>| {
        let registry = Registry::start().await;
        let (name, statement) = registry.statement(&release("demo/back", "1.0.0", &[], ECHO));
        registry.publish_signed(&name, statement, &org_key("demo", 2), outcome);
        if let Some(level) = level {
            registry.trust("demo/back", level);
        }
        registry
    };
    let cases = [
        (None, None, "has no verdict"),
        (Some(VerdictOutcome::Rejected), None, "the registry's scan rejected it"),
        (Some(VerdictOutcome::Clean), Some(TrustLevel::Untrusted), "has the trust level untrusted"),
        (Some(VerdictOutcome::Clean), Some(TrustLevel::Internal), "1.0.0"),
        (Some(VerdictOutcome::Findings), None, "1.0.0"),
    ];
    for (verdict, level, expected) in cases {
        let registry = with(verdict, level).await;
        let text = locked(&registry, folder().path()).await;
        assert!(text.contains(expected), "{text}");
    }
    let registry = with(Some(VerdictOutcome::Findings), None).await;
    let folder = folder();
    let outcome = outcome(&registry, folder.path()).await.unwrap();
    assert!(outcome.warnings[0].to_string().contains("has findings"));
    let mut config = registry.config(folder.path(), &[("demo/back", "^1")]);
    config.policy.allow_findings = false;
    let syncer = Syncer::open(&config).unwrap();
    let refused = syncer.sync(&config, Options::default(), &ProgressBar::hidden()).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("has findings") && text.contains("this host allows none"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deprecations_warn_and_owners_change() {
    let registry = one_plugin().await;
    let Link { sequence, previous } = registry.link("demo/back", Chain::Owner);
    let statement = Statement::Deprecation(Deprecation {
        plugin: "demo/back".parse().unwrap(),
        version: None,
        sequence,
        previous,
        deprecated: true,
        message: Some("use demo/front".to_owned()),
    });
    registry.append(statement.sign(&org_key("demo", 2)).unwrap());
    let deprecated = outcome(&registry, folder().path()).await.unwrap();
    assert!(deprecated.warnings[0].to_string().ends_with("is deprecated: use demo/front"));

    let folder = folder();
    outcome(&registry, folder.path()).await.unwrap();
    registry.add_org("other");
    let Link { sequence, previous } = registry.link("demo/back", Chain::Owner);
    let statement = Statement::Ownership(Ownership {
        plugin: "demo/back".parse().unwrap(),
        sequence,
        previous,
        owner: "other".parse().unwrap(),
    });
    registry.append(statement.sign(&org_key("demo", 2)).unwrap());
    let (name, statement) = registry.statement(&release("demo/back", "1.1.0", &[], ECHO));
    let clean = Some(VerdictOutcome::Clean);
    registry.publish_signed(&name, statement, &org_key("other", 2), clean);
    for folder in [folder.path(), self::folder().path()] {
        let config = registry.config(folder, &[("demo/back", "=1.1.0")]);
        let syncer = Syncer::open(&config).unwrap();
        let options = Options { update: true, ..Options::default() };
        syncer.sync(&config, options, &ProgressBar::hidden()).await.unwrap();
        let generation = syncer.generations().current().unwrap().unwrap();
        assert!(generation.evidence.0.contains_key(&Subject::Org("other".parse().unwrap())));
        assert_eq!(syncer.verify(&config, &generation).unwrap(), 1);
    }
    // Who gave it away speaks for it no more.
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    let error = refused_in(&registry, folder.path()).await;
    assert!(matches!(error, Refused::Fold(FoldError::Statement { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_another_version() {
    let registry = Registry::start().await;
    let old = registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let new = registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let path = |archive| ObjectKey::Blob(archive).path();
    let mut swapped = registry.get(&path(old.archive));
    swapped.resize(new.size_bytes as usize, 0);
    registry.lie(&path(new.archive), usize::MAX, Lie::Bytes(swapped));
    let error = outcome(&registry, folder().path()).await.unwrap_err();
    let Error::Archive { error, .. } = error else { panic!("{error}") };
    assert!(matches!(*error, store::Error::ArchiveDigest { .. }), "{error}");
}
