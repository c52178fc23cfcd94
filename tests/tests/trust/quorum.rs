//! A registry whose trust root asks for witnesses, the witnesses, and a host that was given that
//! root: all of them processes, and each of them fails in turn.

use std::path::PathBuf;

use bytes::Bytes;
use modunest_core::keys::ObjectKey;
use modunest_core::publish::State;
use modunest_tests::agent::Host;
use modunest_tests::client::Publisher;
use modunest_tests::fixtures::{Package, Plugin};
use modunest_tests::liar::Liar;
use modunest_tests::process::{Finished, run, until};
use modunest_tests::registry::{Folder, ORIGIN, Registry, command, signing_key};
use modunest_tests::snapshot::object;
use modunest_tlog::{Policy, SignedCheckpoint, VerifyingKey};

use crate::registry::key;
use crate::witness_process::Witness;

struct World {
    registry: Registry,
    publisher: Publisher,
    log: VerifyingKey,
    policy: Policy,
}

fn plugin(version: &str) -> Package {
    Plugin::new("acme/one", version).route("/one").pack()
}

fn ceremony(folder: &Folder, arguments: &[&str]) -> Finished {
    run(command().current_dir(folder.data()).arg("trust").args(arguments)).good()
}

impl World {
    /// A registry whose operator names three witnesses of which two must cosign.
    async fn start(witnesses: &[&Witness; 3], mut registry: Registry) -> World {
        let keys = ["log.key", "head.key", "statement.key"].map(|name| key(&registry, name));
        let folder = registry.folder.clone();
        let _ended = registry.process.terminate().await;
        let lines = witnesses.map(Witness::policy_line).concat();
        let names = witnesses.map(|witness| witness.name.as_str()).join(" ");
        let text = format!("{lines}group enough 2 {names}\nquorum enough\n");
        std::fs::write(folder.data().join("policy"), &text).unwrap();
        let [log, head, statement] = keys.each_ref().map(ToString::to_string);
        let keys_given = ["--log-key", &log, "--head-key", &head, "--statement-key", &statement];
        let template = [&["template", "--origin", ORIGIN], &keys_given[..]].concat();
        let made = ceremony(&folder, &[&template[..], &["--witness-policy", "policy"]].concat());
        std::fs::write(folder.data().join("next.json"), made.stdout).unwrap();
        let at_hand = ["--folder", "trust", "--key", "root.key", "--key", "online.key"];
        ceremony(&folder, &[&["config", "--config", "next.json"], &at_hand[..]].concat());
        let registry = Registry::start_in(&folder, &[]).await;
        let publisher = Publisher { client: registry.admin(), key: signing_key("acme", 1) };
        let [log, ..] = keys;
        World { registry, publisher, log, policy: Policy::parse(text.as_bytes()).unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.registry.folder.data().join("trust").join("1.root.json")
    }

    /// Who cosigned the checkpoint that readers see.
    async fn cosigned(&self) -> Vec<String> {
        let bytes = object(&self.publisher.client, ObjectKey::Checkpoint).await;
        let keys = std::slice::from_ref(&self.log);
        let signed = SignedCheckpoint::verify(&bytes, ORIGIN, keys).unwrap();
        let counted = self.policy.check(&signed).unwrap();
        counted.into_iter().map(|(witness, _)| witness.name.clone()).collect()
    }
}

/// Takes every line off a note but the text's and the first signature.
fn without_cosignatures(note: &Bytes) -> Bytes {
    let text = std::str::from_utf8(note).unwrap();
    let (body, signatures) = text.split_once("\n\n").unwrap();
    let first = signatures.lines().next().unwrap();
    format!("{body}\n\n{first}\n").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_goes_on_by_quorum_and_a_host_believes_nothing_less() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&plugin("1.0.0")).await;
    let log = key(&registry, "log.key");
    let mut one = Witness::of("w1", log.clone()).await;
    let mut two = Witness::of("w2", log).await;
    // The third follows another log, and refuses this one.
    let refuses = Witness::start("w3").await;
    let world = World::start(&[&one, &two, &refuses], registry).await;

    // Two of three are enough, and what was published before has their word too.
    world.publisher.publish(&plugin("1.1.0")).await;
    assert_eq!(world.cosigned().await, ["w1", "w2"]);
    let liar = Liar::start(world.registry.started.url.clone()).await;
    let host = Host::rooted(liar.url.clone(), &world.root()).wants("acme/one", "^1").curious();

    // Somebody on the way takes the cosignatures off: a host on its first day, and one that
    // has believed before, load nothing of it.
    let strip = |path: &str, body: Bytes| match path {
        "/checkpoint" => without_cosignatures(&body),
        _ => body,
    };
    liar.lie(strip);
    let refused = host.run(&["sync"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("witness"), "{refused:?}");
    liar.repent();
    let agent = host.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
    liar.lie(strip);
    world.publisher.publish(&plugin("1.2.0")).await;
    let refused = host.run(&["sync", "--update"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
    liar.repent();
    let serves = async |version: &str| {
        let expected = format!("acme/one {version}");
        until("the new version to serve", async || {
            let synced = host.run(&["sync", "--update"]);
            (synced.code == Some(0) && agent.text("/one").await == expected).then_some(())
        })
        .await;
    };
    serves("1.2.0").await;

    // A quorum is missing: what is published stays unseen, and the registry's readers see the
    // last checkpoint that was cosigned.
    two.process.kill();
    let package = plugin("1.3.0");
    let link = world.publisher.next_link(&package.manifest.name).await;
    let opened = world.publisher.open(&world.publisher.sign(&package, link)).await.unwrap();
    for upload in &opened.uploads {
        let answer = world.publisher.upload(upload, package.archive.clone()).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
    let session = opened.session.unwrap();
    until("the registry to say what it lacks", async || {
        let log = world.registry.process.log();
        (log.contains("the checkpoint is not published") && log.contains("w2: http")).then_some(())
    })
    .await;
    assert_eq!(world.publisher.session(session).await.state, State::Committing);
    assert_eq!(world.cosigned().await, ["w1", "w2"]);
    let _synced = host.run(&["sync", "--update"]).good();
    assert_eq!(agent.text("/one").await, "acme/one 1.2.0");

    // The witness is back, and nobody has to do anything.
    two = two.back().await;
    let view = world.publisher.follow(session).await;
    assert_eq!(view.state, State::Published, "{view:?}");
    serves("1.3.0").await;
    one.process.kill();
    two.process.kill();
}
