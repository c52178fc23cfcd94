//! A registry, or whoever stands before it, that does not tell the truth.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use modunest_agent::sync::{Options, Syncer};
use modunest_agent::{EXIT_REFUSED, EXIT_UNREACHABLE, Error};
use modunest_core::digest::Digest;
use modunest_core::index::{Head, Node, Slot};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::{KeyChange, Statement, Subject, VerdictOutcome};
use modunest_core::time::Timestamp;

use crate::plugins::{ECHO, release};
use crate::registry::{Lie, ORIGIN, Registry, now, org_key, registry_key};

async fn sync(registry: &Registry, folder: &Path) -> Result<(), Error> {
    let config = registry.config(folder, &[("demo/back", "^1")]);
    let syncer = Syncer::open(&config).map_err(Error::from)?;
    syncer.sync(&config, Options::default(), &ProgressBar::hidden()).await?;
    Ok(())
}

/// Syncs in a fresh folder; the error's exit code and text, with digests shortened.
async fn refusal(registry: &Registry) -> String {
    let folder = tempfile::tempdir().unwrap();
    refusal_in(registry, folder.path()).await
}

async fn refusal_in(registry: &Registry, folder: &Path) -> String {
    let error = sync(registry, folder).await.expect_err("a lie was believed");
    assert_eq!(error.exit_code(), EXIT_REFUSED, "{error}");
    let text = error.to_string().replace(&registry.url, "URL");
    let mut short = String::new();
    for word in text.split_inclusive([' ', '/', ',', ';', ':']) {
        let hex = word.trim_end_matches([' ', '/', ',', ';', ':']);
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            short.push_str("DIGEST");
            short.push_str(&word[64..]);
        } else {
            short.push_str(word);
        }
    }
    short
}

async fn one_plugin() -> (Registry, modunest_core::statement::Build) {
    let registry = Registry::start().await;
    let build = registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    (registry, build)
}

#[tokio::test]
async fn altered_objects() {
    let (registry, build) = one_plugin().await;
    let subject = Subject::Plugin("demo/back".parse().unwrap());
    let slot = Slot::of(&subject);
    let root = ObjectKey::Node(registry.root()).path();
    let node = Node::parse(&registry.get(&root)).unwrap().child(slot.node).unwrap();
    let node = ObjectKey::Node(node).path();
    let bin = Node::parse(&registry.get(&node)).unwrap().child(slot.bin).unwrap();
    let bin = ObjectKey::Bin(bin).path();
    let blob = ObjectKey::Blob(build.archive).path();
    let mut texts = Vec::new();
    let altered = |path: &str| {
        let mut bytes = registry.get(path);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let mut extended = registry.get(&blob);
    extended.push(0);
    for (what, path, lie) in [
        ("root", &root, Lie::Bytes(Node::EMPTY.to_bytes())),
        ("node", &node, Lie::Bytes(altered(&node))),
        ("bin", &bin, Lie::Bytes(altered(&bin))),
        ("missing bin", &bin, Lie::Status(404)),
        ("long node", &node, Lie::Bytes(vec![0; 1_000_000])),
        ("blob", &blob, Lie::Bytes(altered(&blob))),
        ("extended blob", &blob, Lie::Bytes(extended)),
        ("missing blob", &blob, Lie::Status(404)),
    ] {
        registry.lie(path, usize::MAX, lie);
        texts.push(format!("{what}: {}", refusal(&registry).await));
        registry.tell_the_truth();
    }
    insta::assert_snapshot!(texts.join("\n"));
    // A blob that ends early may be the network's fault: it is unreachable, not refused.
    let cut = registry.get(&blob)[..100].to_vec();
    registry.lie(&blob, usize::MAX, Lie::Bytes(cut));
    let folder = tempfile::tempdir().unwrap();
    let error = sync(&registry, folder.path()).await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_UNREACHABLE, "{error}");
    // And the truth is still believed, with what was kept of the lies.
    registry.tell_the_truth();
    sync(&registry, folder.path()).await.unwrap();
}

#[tokio::test]
async fn heads() {
    let (registry, _) = one_plugin().await;
    let folder = tempfile::tempdir().unwrap();
    let old = registry.get("/head");
    let old_root = registry.root();
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    sync(&registry, folder.path()).await.unwrap();
    let (epoch, root) = (registry.epoch(), registry.root());
    let stranger = org_key(ORIGIN, 9);
    let mut texts = Vec::new();
    let good = registry.head(epoch + 1, root);
    let other_origin = Head { origin: "other.modunest".to_owned(), ..good.clone() };
    let expired = Head {
        issued_at: Timestamp::from_millis(1_000),
        expires_at: Timestamp::from_millis(2_000),
        ..good.clone()
    };
    let future = now().plus(Duration::from_secs(3600));
    let future =
        Head { issued_at: future, expires_at: future.plus(Duration::from_secs(1)), ..good.clone() };
    let two_indexes = registry.head(epoch, old_root);
    let mut altered = good.sign(&registry_key()).unwrap();
    let at = altered.iter().position(|b| b.is_ascii_digit()).unwrap();
    altered[at] ^= 1;
    for (what, bytes) in [
        ("rollback", old),
        ("another key", good.sign(&stranger).unwrap()),
        ("another origin", other_origin.sign(&registry_key()).unwrap()),
        ("expired", expired.sign(&registry_key()).unwrap()),
        ("future", future.sign(&registry_key()).unwrap()),
        ("two indexes", two_indexes.sign(&registry_key()).unwrap()),
        ("altered", altered),
        ("no note", b"hello".to_vec()),
    ] {
        registry.lie("/head", usize::MAX, Lie::Bytes(bytes));
        let text = refusal_in(&registry, folder.path()).await;
        // Times and epochs differ from run to run; the words do not.
        let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        texts.push(format!("{what}: {words}"));
    }
    insta::assert_snapshot!(texts.join("\n"));
    registry.tell_the_truth();
    sync(&registry, folder.path()).await.unwrap();
}

#[tokio::test]
async fn statements() {
    let mut texts = Vec::new();
    let wrong_key = {
        let (registry, _) = one_plugin().await;
        let (_, statement) = registry.statement(&release("demo/back", "1.1.0", &[], ECHO));
        let stranger = org_key("demo", 9);
        registry.append(statement.sign(&stranger).unwrap());
        refusal(&registry).await
    };
    texts.push(format!("wrong key: {wrong_key}"));
    let broken_chain = {
        let (registry, _) = one_plugin().await;
        let (_, statement) = registry.statement(&release("demo/back", "1.1.0", &[], ECHO));
        let Statement::Release(mut content) = statement else { panic!("a release") };
        Arc::make_mut(&mut content).previous = Some(Digest::of(b"elsewhere"));
        let signed = Statement::Release(content).sign(&org_key("demo", 2)).unwrap();
        registry.append(signed);
        refusal(&registry).await
    };
    texts.push(format!("broken chain: {broken_chain}"));
    let no_org = {
        let registry = Registry::start().await;
        registry.publish(release(
            "demo/back",
            "1.0.0",
            &[],
            &crate::plugins::uses("other/dep", "^1"),
        ));
        let (_, statement) = registry.statement(&release("other/dep", "1.0.0", &[], ECHO));
        registry.append(statement.sign(&org_key("other", 2)).unwrap());
        refusal(&registry).await
    };
    texts.push(format!("no keys of the organisation: {no_org}"));
    let self_made_key = {
        let registry = Registry::start().await;
        // The organisation's list says that a key was added; the registry never signed it.
        let key = modunest_core::statement::Key {
            org: "evil".parse().unwrap(),
            sequence: 1,
            previous: None,
            key: org_key("evil", 2).verifying_key().to_string(),
            change: KeyChange::Add,
            replaces: None,
            reason: None,
        };
        registry.append(Statement::Key(key).sign(&org_key("evil", 2)).unwrap());
        registry.publish(release(
            "demo/back",
            "1.0.0",
            &[],
            &crate::plugins::uses("evil/dep", "^1"),
        ));
        let (_, statement) = registry.statement(&release("evil/dep", "1.0.0", &[], ECHO));
        registry.append(statement.sign(&org_key("evil", 2)).unwrap());
        refusal(&registry).await
    };
    texts.push(format!("key that the registry did not sign: {self_made_key}"));
    let manifest = {
        let registry = Registry::start().await;
        let (name, statement) = registry.statement(&release("demo/back", "1.0.0", &[], ECHO));
        let Statement::Release(mut content) = statement else { panic!("a release") };
        Arc::make_mut(&mut content).services.clear();
        let (statement, clean) = (Statement::Release(content), Some(VerdictOutcome::Clean));
        registry.publish_signed(&name, statement, &org_key("demo", 2), clean);
        refusal(&registry).await
    };
    texts.push(format!("manifest says more than the statement: {manifest}"));
    insta::assert_snapshot!(texts.join("\n"));
}

#[tokio::test]
async fn a_changed_store_is_noticed() {
    let (registry, build) = one_plugin().await;
    let folder = tempfile::tempdir().unwrap();
    sync(&registry, folder.path()).await.unwrap();
    let config = registry.config(folder.path(), &[("demo/back", "^1")]);
    let syncer = Syncer::open(&config).unwrap();
    let generation = syncer.generations().current().unwrap().unwrap();
    let verify = || syncer.verify(&config, &generation).map_err(Error::from);
    assert_eq!(verify().unwrap(), 1);
    let library = syncer.store().entry(build.files).join("lib/plugin.so");
    let good = std::fs::read(&library).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let replace = |bytes: &[u8]| {
        std::fs::remove_file(&library).unwrap();
        std::fs::write(&library, bytes).unwrap();
    };
    replace(&bad);
    assert_eq!(verify().unwrap_err().exit_code(), EXIT_REFUSED);
    let agent = modunest_agent::Agent::start(config.clone()).await.unwrap();
    let status = agent.status();
    let reason = status.plugins[0].reason.clone().unwrap();
    assert!(reason.contains("was changed since it was proven"), "{reason}");
    agent.shutdown().await;
    replace(&good);
    std::fs::write(library.with_file_name("more"), "x").unwrap();
    assert!(verify().unwrap_err().to_string().ends_with("delete its folder and sync again"));
}
