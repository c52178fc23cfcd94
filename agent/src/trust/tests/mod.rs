//! A registry with all its keys, a host, and whoever stands between them.
#![allow(clippy::unwrap_used)]

mod attacks;
mod rotation;
mod upkeep;

use std::collections::BTreeMap;
use std::future::{Future, Ready, pending, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modunest_core::keys::ObjectKey;
use modunest_core::statement::{RegistryKeys, TrustLevel};
use modunest_core::time::Timestamp;
use modunest_core::trust::{
    self, CONFIG_MAX_BYTES, Config, Current, File, METADATA_MAX_BYTES, Meta, ROOT_LIVES_FOR,
    RoleKeys, RoleName, Roles, SNAPSHOT_LIVES_FOR, Signed, SigningKey, Snapshot, TARGETS_LIVE_FOR,
    TIMESTAMP_LIVES_FOR, Targets, TrustPolicy, WitnessPolicy,
};
use modunest_tlog::SigningKey as NoteKey;

use super::{Error, Kind, Root, Trusted, Updater, from_folder};
use crate::registry;

/// 2030-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_893_456_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOLDERS: [u8; 3] = [1, 2, 3];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A configuration that differs from others by its log key.
fn config(seed: u8) -> Config {
    let key = |seed: u8| {
        NoteKey::from_seed("registry.example.org".parse().unwrap(), &[seed; 32]).verifying_key()
    };
    Config {
        origin: "registry.example.org".parse().unwrap(),
        log_key: key(seed),
        head_keys: RegistryKeys::in_use([key(101)]),
        statement_keys: RegistryKeys::in_use([key(102)]),
        witnesses: WitnessPolicy::parse("quorum none\n".to_owned()).unwrap(),
        policy: TrustPolicy {
            head_max_age: DAY,
            checkpoint_max_age: DAY,
            verdict_required: true,
            lowest_level: TrustLevel::Community,
        },
    }
}

type Answer = Ready<Result<Option<Vec<u8>>, registry::Error>>;

/// What somebody serves below `/trust/`.
#[derive(Clone, Default)]
struct Server {
    files: BTreeMap<File, Vec<u8>>,
    /// What was asked for.
    asked: Arc<Mutex<Vec<File>>>,
    down: bool,
}

impl Server {
    fn fetch(&self) -> impl Fn(ObjectKey, usize) -> Answer + Send + Sync + use<> {
        let server = self.clone();
        move |key, _limit| {
            let ObjectKey::Trust(file) = key else { panic!("{key}") };
            server.asked.lock().unwrap().push(file);
            let url = key.path();
            ready(if server.down {
                Err(registry::Error::Unreachable { url, reason: "down".to_owned() })
            } else {
                Ok(server.files.get(&file).cloned())
            })
        }
    }

    fn put(&mut self, file: File, bytes: Vec<u8>) {
        self.files.insert(file, bytes);
    }

    fn newest(&self, of: fn(u64) -> File) -> (u64, &[u8]) {
        let version = (1..1000).take_while(|v| self.files.contains_key(&of(*v))).last().unwrap();
        (version, &self.files[&of(version)])
    }
}

/// The registry's operator, with all keys.
#[derive(Clone)]
struct Operator {
    server: Server,
    holders: Vec<u8>,
    online: u8,
}

impl Operator {
    fn new(now: Timestamp) -> Self {
        let server = Server::default();
        let mut operator = Operator { server, holders: HOLDERS.to_vec(), online: 9 };
        let (root, by) = (operator.root(1, now), operator.holders.clone());
        operator.publish_root(root, &by);
        operator.configure(&config(50), now);
        operator.renew(now);
        operator
    }

    fn root(&self, version: u64, now: Timestamp) -> trust::Root {
        let holders: Vec<_> = self.holders.iter().map(|seed| key(*seed).public()).collect();
        let online = [key(self.online).public()];
        let roles = Roles {
            root: RoleKeys::new(&holders, 2),
            targets: RoleKeys::new(&holders, 2),
            snapshot: RoleKeys::new(&online, 1),
            timestamp: RoleKeys::new(&online, 1),
        };
        let keys = holders.iter().chain(&online);
        trust::Root::new(version, now.plus(ROOT_LIVES_FOR), keys, roles).unwrap()
    }

    fn publish_root(&mut self, root: trust::Root, by: &[u8]) {
        let version = root.common.version;
        self.server.put(File::Root(version), sign(root, by));
    }

    fn configure(&mut self, config: &Config, now: Timestamp) {
        let bytes = config.to_bytes();
        let version = self.server.files.keys().filter(|f| matches!(f, File::Targets(_))).count();
        let targets = Targets::new(version as u64 + 1, now.plus(TARGETS_LIVE_FOR), &bytes);
        let digest = targets.config().digest();
        let by = self.holders.clone();
        self.server.put(File::Targets(version as u64 + 1), sign(targets, &by));
        self.server.put(File::Config(digest), bytes);
    }

    fn renew(&mut self, now: Timestamp) {
        let files = &self.server.files;
        let snapshots = files.keys().filter(|file| matches!(file, File::Snapshot(_)));
        let snapshot = snapshots.max().map(|file| files[file].as_slice());
        let current = Current {
            root: self.server.newest(File::Root).1,
            targets: self.server.newest(File::Targets).1,
            snapshot,
            timestamp: files.get(&File::Timestamp).map(Vec::as_slice),
        };
        let renewed = trust::renew(current, &[key(self.online)], now).unwrap();
        for (file, bytes) in renewed.files {
            self.server.put(file, bytes);
        }
    }

    fn pinned(&self) -> Root {
        Root::from_bytes(self.server.files[&File::Root(1)].clone()).unwrap()
    }
}

fn sign<T: trust::Role>(signed: T, by: &[u8]) -> Vec<u8> {
    let mut signed = Signed::new(signed);
    by.iter().for_each(|seed| signed.sign(&key(*seed)));
    signed.to_bytes()
}

/// A host with a folder of its own.
struct Host {
    folder: tempfile::TempDir,
    root: Root,
}

impl Host {
    fn new(root: Root) -> Self {
        Host { folder: tempfile::tempdir().unwrap(), root }
    }

    /// A new process each time: what is not on disk is forgotten.
    async fn refresh(&self, server: &Server, now: Timestamp) -> Result<Trusted, Error> {
        Updater::open(self.root.clone(), self.folder.path())?.refresh(server.fetch(), now).await
    }
}

/// A registry, and a host that has read it once.
async fn world() -> (Operator, Host) {
    let operator = Operator::new(NOW);
    let host = Host::new(operator.pinned());
    let trusted = host.refresh(&operator.server, NOW).await.unwrap();
    assert_eq!(trusted.config, config(50));
    assert_eq!(trusted.versions.map(|(_, version)| version), [1, 1, 1, 1]);
    assert_eq!(trusted.expires, NOW.plus(TIMESTAMP_LIVES_FOR));
    assert_eq!(trusted.offline, None);
    (operator, host)
}
