//! A registry's log and index made from its keys alone, so that tests can also make one that
//! lies, and a server for its files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::index::{Head, LogHead, Update, Written, update};
use modunest_core::keys::ObjectKey;
use modunest_core::relation::{BuildTarget, HostRequirement};
use modunest_core::statement::{
    Build, Chain, Key, KeyChange, Link, Quarantine, RegistryKeys, Release, SignedStatement,
    Statement, Subject, TrustLevel, Verdict, VerdictOutcome,
};
use modunest_core::time::Timestamp;
use modunest_core::trust::{Config, TrustPolicy, WitnessPolicy};
use modunest_tests::registry::signing_key;
use modunest_tlog::{
    Checkpoint, Frontier, Plan, SigningKey, TILE_WIDTH, TileId, Tiles, TreeHash, push_entry,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

/// The name of registry and log.
pub const ORIGIN: &str = "registry.example";
/// Seeds of its keys.
const LOG: u8 = 1;
const HEAD: u8 = 2;
const STATEMENTS: u8 = 3;

pub type Files = BTreeMap<String, Bytes>;

/// The log's key.
pub fn log_key() -> SigningKey {
    signing_key(ORIGIN, LOG)
}

/// A publisher's key.
pub fn org_key(org: &str, seed: u8) -> SigningKey {
    signing_key(org, seed)
}

/// What whoever reads the registry believes.
pub fn config(witnesses: &str) -> Config {
    let own = |seed| signing_key(ORIGIN, seed).verifying_key();
    let day = Duration::from_secs(24 * 60 * 60);
    Config {
        origin: ORIGIN.parse().unwrap(),
        log_key: own(LOG),
        head_keys: RegistryKeys::in_use([own(HEAD)]),
        statement_keys: RegistryKeys::in_use([own(STATEMENTS)]),
        witnesses: WitnessPolicy::parse(witnesses.to_owned()).unwrap(),
        policy: TrustPolicy {
            head_max_age: day,
            checkpoint_max_age: day,
            verdict_required: true,
            lowest_level: TrustLevel::Community,
        },
    }
}

/// A log of statements, and the index over them.
#[derive(Clone, Default)]
pub struct Ledger {
    entries: Vec<Vec<u8>>,
    statements: Vec<(u64, SignedStatement)>,
    links: BTreeMap<(Subject, Chain), Link>,
}

impl Ledger {
    /// Appends what `make` makes of the place in the chain.
    pub fn say(
        &mut self,
        subject: Subject,
        chain: Chain,
        key: &SigningKey,
        make: impl FnOnce(Link) -> Statement,
    ) -> SignedStatement {
        let place = (subject, chain);
        let link = self.links.get(&place).copied().unwrap_or(Link::FIRST);
        let signed = make(link).sign(key).unwrap();
        self.links.insert(place, signed.next_link());
        self.statements.push((self.size(), signed.clone()));
        self.entries.push(signed.bytes().to_vec());
        signed
    }

    /// Appends bytes that stand in the log and not in the index.
    pub fn smuggle(&mut self, entry: &[u8]) {
        self.entries.push(entry.to_vec());
    }

    /// The newest entry.
    pub fn last(&self) -> Vec<u8> {
        self.entries.last().unwrap().clone()
    }

    /// The newest entries, in their order.
    pub fn tail(&self, count: usize) -> Vec<Vec<u8>> {
        self.entries[self.entries.len() - count..].to_vec()
    }

    /// Adds a key to an organisation, or revokes it.
    pub fn key(&mut self, org: &str, seed: u8, change: KeyChange) {
        let subject: Subject = org.parse().unwrap();
        let text = org_key(org, seed).verifying_key().to_string();
        self.say(subject, Chain::Registry, &signing_key(ORIGIN, STATEMENTS), |link| {
            Statement::Key(Key {
                org: org.parse().unwrap(),
                sequence: link.sequence,
                previous: link.previous,
                key: text,
                change,
                replaces: None,
                reason: None,
            })
        });
    }

    /// Releases a version signed with the organisation's key of that seed; the scan is clean.
    pub fn release(&mut self, plugin: &str, version: &str, seed: u8) {
        let name: modunest_core::name::PluginName = plugin.parse().unwrap();
        let subject = Subject::Plugin(name.clone());
        let org = name.org();
        let signed =
            self.say(subject.clone(), Chain::Owner, &org_key(org.as_str(), seed), |link| {
                Statement::Release(Arc::new(Release {
                    plugin: name.clone(),
                    version: version.parse().unwrap(),
                    sequence: link.sequence,
                    previous: link.previous,
                    manifest: Digest::of(b"manifest"),
                    host: HostRequirement { abi: 1, version: None },
                    dependencies: vec![],
                    incompatible: vec![],
                    services: vec![],
                    capabilities: vec![],
                    builds: vec![Build {
                        target: BuildTarget::Native {
                            target: "x86_64-unknown-linux-gnu".parse().unwrap(),
                            libc: None,
                            abi: 1,
                        },
                        archive: Digest::of(b"archive"),
                        size_bytes: 7,
                        files: Digest::of(b"files"),
                    }],
                }))
            });
        self.say(subject, Chain::Registry, &signing_key(ORIGIN, STATEMENTS), |link| {
            Statement::Verdict(Verdict {
                plugin: name,
                version: version.parse().unwrap(),
                sequence: link.sequence,
                previous: link.previous,
                statement: signed.digest(),
                ruleset: 1,
                outcome: VerdictOutcome::Clean,
                report: Digest::of(b"report"),
            })
        });
    }

    /// Quarantines a version, signed with the registry's key of that seed.
    pub fn quarantine(&mut self, plugin: &str, version: &str, signed_with: &SigningKey) {
        let name: modunest_core::name::PluginName = plugin.parse().unwrap();
        self.say(Subject::Plugin(name.clone()), Chain::Registry, signed_with, |link| {
            Statement::Quarantine(Quarantine {
                plugin: name,
                version: version.parse().unwrap(),
                sequence: link.sequence,
                previous: link.previous,
                quarantined: true,
                reason: "it steals keys".to_owned(),
            })
        });
    }

    /// An organisation with one key, and as many releases of one plugin.
    pub fn with_releases(count: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.key("acme", 10, KeyChange::Add);
        for number in 0..count {
            ledger.release("acme/one", &format!("1.{number}.0"), 10);
        }
        ledger
    }

    pub fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    fn frontier(&self) -> Frontier {
        let mut frontier = Frontier::new();
        for entry in &self.entries {
            frontier.append(TreeHash::of_leaf(entry));
        }
        frontier
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let root = self.frontier().root();
        Checkpoint { origin: ORIGIN.to_owned(), size: self.size(), root }
    }

    /// The proof that this log continues itself when it was smaller.
    pub fn consistency(&self, old: u64) -> Vec<TreeHash> {
        let mut tiles = Tiles::default();
        for (id, bytes) in self.frontier().take_tiles() {
            tiles.insert(id, &bytes).unwrap();
        }
        Plan::consistency(old, self.size()).unwrap().hashes(&tiles).unwrap()
    }

    /// Every file of a registry with this log, its head signed at `now`.
    pub fn files(&self, epoch: u64, now: Timestamp) -> Files {
        let mut files = Files::new();
        let mut put = |key: ObjectKey, bytes: Vec<u8>| drop(files.insert(key.path(), bytes.into()));
        for (tile, bytes) in self.frontier().take_tiles() {
            put(ObjectKey::Tile(tile), bytes);
        }
        for index in 0..self.size().div_ceil(TILE_WIDTH) {
            let tile = TileId::entries(index, self.size()).unwrap();
            let first = usize::try_from(index * TILE_WIDTH).unwrap();
            let mut bundle = Vec::new();
            for entry in &self.entries[first..first + usize::from(tile.width())] {
                push_entry(&mut bundle, entry).unwrap();
            }
            put(ObjectKey::Tile(tile), bundle);
        }
        let Update::Done { root: index, written, .. } =
            update(None, &self.statements, &BTreeMap::new()).unwrap()
        else {
            panic!("an empty index needs nothing")
        };
        for object in written {
            match object {
                Written::Node(digest, bytes) => put(ObjectKey::Node(digest), bytes),
                Written::Bin(digest, bytes) => put(ObjectKey::Bin(digest), bytes),
                Written::File(digest, bytes) => put(ObjectKey::Index(digest), bytes),
            }
        }
        let checkpoint = self.checkpoint();
        put(ObjectKey::Checkpoint, checkpoint.sign(&log_key()).unwrap().bytes().to_vec());
        let head = Head {
            origin: ORIGIN.to_owned(),
            epoch,
            log: LogHead {
                size: checkpoint.size,
                root: Digest::from_bytes(*checkpoint.root.as_bytes()),
            },
            index,
            revocations: None,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(24 * 60 * 60)),
        };
        put(ObjectKey::Head, head.sign(&signing_key(ORIGIN, HEAD)).unwrap());
        files
    }
}

/// A server of files. It ends when dropped.
pub struct Site {
    pub url: Url,
    files: Arc<Mutex<Files>>,
    task: JoinHandle<()>,
}

impl Site {
    pub async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let files: Arc<Mutex<Files>> = Arc::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&files));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Site { url, files, task }
    }

    /// Serves these files besides those from before, of which the newest of a name counts.
    pub fn serve(&self, files: Files) {
        self.files.lock().unwrap().extend(files);
    }

    /// Changes a file.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.lock().unwrap();
        let mut bytes = files.get(path).unwrap().to_vec();
        change(&mut bytes);
        files.insert(path.to_owned(), bytes.into());
    }

    /// Takes a file away.
    pub fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(path).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(files): State<Arc<Mutex<Files>>>,
    request: Request,
) -> Result<Bytes, StatusCode> {
    files.lock().unwrap().get(request.uri().path()).cloned().ok_or(StatusCode::NOT_FOUND)
}
