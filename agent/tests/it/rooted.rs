//! A registry that is believed for its trust root: keys change, witnesses are asked for.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use modunest_agent::registry::Error as Refused;
use modunest_agent::sync::{Error, Options, Outcome, Syncer};
use modunest_agent::{Config, trust as agent_trust};
use modunest_core::keys::ObjectKey;
use modunest_core::statement::{RegistryKey, RegistryKeys, TrustLevel};
use modunest_core::trust::{
    self, Current, File, ROOT_LIVES_FOR, Role, RoleKeys, Roles, Root, Signed, SigningKey,
    TARGETS_LIVE_FOR, Targets, TrustPolicy, WitnessPolicy,
};
use modunest_tlog::WitnessSigningKey;

use crate::plugins::{ECHO, release};
use crate::registry::{ORIGIN, Registry, now, org_key, registry_key};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn offline() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn online() -> SigningKey {
    SigningKey::from_seed(&[6; 32])
}

fn sign<T: Role>(signed: T) -> Vec<u8> {
    let mut signed = Signed::new(signed);
    signed.sign(&offline());
    signed.to_bytes()
}

/// What a registry serves below `/trust/`, with one key offline and one online.
struct Operator {
    registry: Registry,
    root: Vec<u8>,
    targets: Vec<u8>,
    version: u64,
    snapshot: Option<Vec<u8>>,
    timestamp: Option<Vec<u8>>,
}

impl Operator {
    fn new(registry: &Registry, config: &trust::Config) -> Self {
        let keys = [offline().public(), online().public()];
        let role = |key: usize| RoleKeys::new(&keys[key..=key], 1);
        let roles =
            Roles { root: role(0), targets: role(0), snapshot: role(1), timestamp: role(1) };
        let root = Root::new(1, now().plus(ROOT_LIVES_FOR), &keys, roles).unwrap();
        let mut operator = Operator {
            registry: registry.clone(),
            root: sign(root),
            targets: Vec::new(),
            version: 0,
            snapshot: None,
            timestamp: None,
        };
        operator.put(File::Root(1), operator.root.clone());
        operator.configure(config);
        operator
    }

    fn put(&self, file: File, bytes: Vec<u8>) {
        self.registry.set(&ObjectKey::Trust(file).path(), bytes);
    }

    fn configure(&mut self, config: &trust::Config) {
        self.version += 1;
        let bytes = config.to_bytes();
        let targets = Targets::new(self.version, now().plus(TARGETS_LIVE_FOR), &bytes);
        self.put(File::Config(targets.config().digest()), bytes);
        self.targets = sign(targets);
        self.put(File::Targets(self.version), self.targets.clone());
        let current = Current {
            root: &self.root,
            targets: &self.targets,
            snapshot: self.snapshot.as_deref(),
            timestamp: self.timestamp.as_deref(),
        };
        for (file, bytes) in trust::renew(current, &[online()], now()).unwrap().files {
            match file {
                File::Snapshot(_) => self.snapshot = Some(bytes.clone()),
                File::Timestamp => self.timestamp = Some(bytes.clone()),
                _ => {}
            }
            self.put(file, bytes);
        }
    }

    fn agent(&self, folder: &Path) -> Config {
        let path = folder.join("root.json");
        std::fs::write(&path, &self.root).unwrap();
        let mut config = self.registry.config(folder, &[("demo/back", "^1")]);
        config.registry.keys.clear();
        config.registry.root = Some(path);
        config
    }
}

fn config() -> trust::Config {
    let keys = || RegistryKeys::in_use([registry_key().verifying_key()]);
    trust::Config {
        origin: ORIGIN.parse().unwrap(),
        log_key: registry_key().verifying_key(),
        head_keys: keys(),
        statement_keys: keys(),
        witnesses: WitnessPolicy::parse("quorum none\n".to_owned()).unwrap(),
        policy: TrustPolicy {
            head_max_age: DAY,
            checkpoint_max_age: DAY,
            verdict_required: true,
            lowest_level: TrustLevel::Community,
        },
    }
}

async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    registry
}

async fn sync(syncer: &Syncer, config: &Config) -> Result<Outcome, Error> {
    syncer.sync(config, Options::default(), &ProgressBar::hidden()).await
}

/// A new process.
async fn sync_anew(config: &Config) -> Result<Outcome, Error> {
    sync(&Syncer::open(config)?, config).await
}

fn refused(outcome: Result<Outcome, Error>) -> Refused {
    match outcome {
        Err(Error::Registry(error)) => *error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was believed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_root_alone_and_without_a_network_afterwards() {
    let registry = registry().await;
    registry.offer_closures();
    let operator = Operator::new(&registry, &config());
    let folder = tempfile::tempdir().unwrap();
    let agent = operator.agent(folder.path());
    assert!(sync_anew(&agent).await.unwrap().changed);
    registry.stop();
    let outcome = sync_anew(&agent).await.unwrap();
    assert!(outcome.offline.is_some());
    assert_eq!(outcome.proven.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_believed_without_a_root() {
    let registry = registry().await;
    let operator = Operator::new(&registry, &config());
    let folder = tempfile::tempdir().unwrap();
    let mut agent = operator.agent(folder.path());
    agent.registry.origin = "other.modunest".to_owned();
    assert!(matches!(refused(sync_anew(&agent).await), Refused::Origin { .. }));
    let path = ObjectKey::Trust(File::Timestamp).path();
    registry.set(&path, b"{}".to_vec());
    let folder = tempfile::tempdir().unwrap();
    let error = refused(sync_anew(&operator.agent(folder.path())).await);
    let Refused::Trust(error) = error else { panic!("{error}") };
    assert!(matches!(*error, agent_trust::Error::Malformed(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_head_key_is_replaced() {
    let registry = registry().await;
    let mut operator = Operator::new(&registry, &config());
    let folder = tempfile::tempdir().unwrap();
    let agent = operator.agent(folder.path());
    let syncer = Syncer::open(&agent).unwrap();
    sync(&syncer, &agent).await.unwrap();
    // The thief has signed a head far in front of the registry's.
    let forged = registry.head(registry.epoch() + 1_000_000, registry.root());
    let honest = registry.get("/head");
    registry.set("/head", forged.sign(&registry_key()).unwrap());
    sync(&syncer, &agent).await.unwrap();
    registry.set("/head", honest);
    assert!(matches!(refused(sync(&syncer, &agent).await), Refused::Rollback(_)));
    // The new configuration believes the old key below the theft only.
    let new = org_key(ORIGIN, 3);
    let until = Some(registry.size() - 1);
    let mut next = config();
    next.head_keys = RegistryKeys(vec![
        RegistryKey { key: registry_key().verifying_key(), until },
        RegistryKey { key: new.verifying_key(), until: None },
    ]);
    operator.configure(&next);
    registry.sign_heads_with(new);
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    // The running agent meets an unknown key, asks its root, and lets go of the thief's head.
    let outcome = sync(&syncer, &agent).await.unwrap();
    assert_eq!(outcome.head.epoch, registry.epoch());
    let stolen = registry.head(registry.epoch() + 1, registry.root());
    registry.set("/head", stolen.sign(&registry_key()).unwrap());
    assert!(matches!(refused(sync(&syncer, &agent).await), Refused::Head(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_by_policy() {
    let registry = registry().await;
    let witness = || WitnessSigningKey::from_seed("w.example.org".parse().unwrap(), &[8; 32]);
    let mut asks = config();
    let text = format!("witness W {}\nquorum W\n", witness().witness_key());
    asks.witnesses = WitnessPolicy::parse(text).unwrap();
    let operator = Operator::new(&registry, &asks);
    let folder = tempfile::tempdir().unwrap();
    let agent = operator.agent(folder.path());
    assert!(matches!(refused(sync_anew(&agent).await), Refused::Cosignatures(_)));
    let size = registry.size();
    registry.witness(witness(), now().as_secs() - 2 * DAY.as_secs());
    registry.fill(size);
    assert!(matches!(refused(sync_anew(&agent).await), Refused::CheckpointAge { .. }));
    registry.witness(witness(), now().as_secs());
    registry.fill(size);
    sync_anew(&agent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_serves_a_host_without_a_network_and_is_not_believed() {
    let registry = registry().await;
    let operator = Operator::new(&registry, &config());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let agent = operator.agent(one.path());
    let syncer = Syncer::open(&agent).unwrap();
    let out = one.path().join("bundle");
    // Nothing is locked yet.
    assert!(matches!(syncer.bundle(&agent, &out, None).await, Err(Error::Frozen(_))));
    sync(&syncer, &agent).await.unwrap();
    // A second host knows the log as it is now; then it grows.
    let known = operator.agent(two.path());
    sync_anew(&known).await.unwrap();
    let known_size = registry.size();
    registry.fill(300);
    registry.publish(release("demo/back", "1.1.0", &[], ECHO));
    let update = Options { update: true, ..Options::default() };
    syncer.sync(&agent, update, &ProgressBar::hidden()).await.unwrap();
    // Newer ones that are not locked do not matter.
    registry.publish(release("demo/back", "1.2.0", &[], ECHO));
    let bundled = syncer.bundle(&agent, &out, Some(known_size)).await.unwrap();
    assert_eq!((bundled.plugins, bundled.log_size), (1, registry.size()));
    registry.stop();

    let load = async |config: &Config, path: &Path| {
        sync(&Syncer::open_bundle(config, path)?, config).await
    };
    let cold = tempfile::tempdir().unwrap();
    for agent in [&operator.agent(cold.path()), &known] {
        let outcome = load(agent, &out).await.unwrap();
        assert_eq!(outcome.offline, None);
        assert_eq!(outcome.generation.lock.plugins[0].version.to_string(), "1.1.0");
        // And from then on without the bundle.
        assert_eq!(sync_anew(agent).await.unwrap().proven.len(), 1);
    }
    // Not with an object altered or missing.
    let good = std::fs::read(&out).unwrap();
    let bad = one.path().join("bad");
    let mut at = b"modunest/bundle/v1\n".len();
    let mut tried = 0;
    while at < good.len() {
        let line = at + good[at..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let text = std::str::from_utf8(&good[at..line - 1]).unwrap();
        let (name, length) = text.split_once(' ').unwrap();
        let end = line + length.parse::<usize>().unwrap();
        let mut altered = good.clone();
        altered[end - 2] ^= 1;
        let without = [&good[..at], &good[end..]].concat();
        // The lock file is no proof of anything: its versions are preferred.
        let lies = [("altered", altered), ("missing", without)];
        for (what, bytes) in lies.into_iter().filter(|_| name != "modunest.lock") {
            std::fs::write(&bad, bytes).unwrap();
            let fresh = tempfile::tempdir().unwrap();
            let outcome = load(&operator.agent(fresh.path()), &bad).await;
            // Some tiles are for the host that knows the log's beginning alone.
            assert!(outcome.is_err() || name.starts_with("tile/"), "{what} {name}");
            tried += usize::from(outcome.is_err());
        }
        at = end;
    }
    assert!(tried > 20, "{tried}");
}
