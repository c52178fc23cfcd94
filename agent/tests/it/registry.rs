//! A registry made of core's own formats, served by a file server that can be told to lie.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use modunest_agent::Config;
use modunest_agent::config::{Listen, Registry as Settings, Wanted};
use modunest_core::archive::{Archive, PackFile, pack};
use modunest_core::closure::{
    CONTENT_TYPE, Closure, ClosureRequest, ClosureStep, Limits, Part, REQUEST_MAX_BYTES, push_frame,
};
use modunest_core::digest::Digest;
use modunest_core::index::{HEAD_LIVES_FOR, Head, LogHead, Update, Written, update};
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use modunest_core::relation::{BuildTarget, COMPONENT_WORLD};
use modunest_core::scan::{COMPONENT_NAME, RULESET};
use modunest_core::statement::{
    Build, Chain, Key, KeyChange, Link, Quarantine, SignedStatement, Statement, Subject, Trust,
    TrustLevel, Verdict, VerdictOutcome, Yank,
};
use modunest_core::time::Timestamp;
use modunest_tlog::{
    Checkpoint, Frontier, SigningKey, TILE_WIDTH, TileId, TreeHash, WitnessSigningKey, push_entry,
};

pub const ORIGIN: &str = "test.modunest";

/// What is to be released.
pub struct Release {
    pub manifest: String,
    pub files: Vec<PackFile>,
}

/// How the server treats one path.
#[derive(Clone)]
pub enum Lie {
    /// Other bytes.
    Bytes(Vec<u8>),
    /// The right bytes, cut off after so many, with the connection broken.
    Break(usize),
    /// A status without a body.
    Status(u16),
    /// No answer, ever.
    Silence,
}

#[derive(Default)]
struct Served {
    objects: BTreeMap<String, Vec<u8>>,
    /// How often a lie is told, and which.
    lies: BTreeMap<String, (usize, Lie)>,
    requests: Vec<(String, Option<String>)>,
    /// Requests without a trace context.
    untraced: usize,
    /// Whether closures are made, as the read side makes them.
    closures: bool,
    /// Bytes of the index that were sent, in whole answers.
    sent_bytes: usize,
}

#[derive(Clone)]
pub struct Registry {
    served: Arc<Mutex<Served>>,
    state: Arc<Mutex<Index>>,
    pub url: String,
    server: Arc<tokio::task::AbortHandle>,
}

struct Index {
    objects: BTreeMap<Digest, Vec<u8>>,
    root: Option<Digest>,
    epoch: u64,
    links: BTreeMap<(Subject, Chain), Link>,
    frontier: Frontier,
    /// Bytes of the last bundle of entries.
    bundle: Vec<u8>,
    head_key: SigningKey,
    /// Who cosigns checkpoints, and at which time in seconds.
    witness: Option<(WitnessSigningKey, u64)>,
}

pub fn registry_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN.parse().unwrap(), &[1; 32])
}

pub fn org_key(org: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(org.parse().unwrap(), &[seed; 32])
}

pub fn now() -> Timestamp {
    modunest_runtime::clock::now()
}

impl Registry {
    /// An empty registry with the organisation `demo`.
    pub async fn start() -> Self {
        let served = Arc::new(Mutex::new(Served::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(served.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let registry = Registry {
            served,
            state: Arc::new(Mutex::new(Index {
                objects: BTreeMap::new(),
                root: None,
                epoch: 0,
                links: BTreeMap::new(),
                frontier: Frontier::new(),
                bundle: Vec::new(),
                head_key: registry_key(),
                witness: None,
            })),
            url,
            server: Arc::new(server.abort_handle()),
        };
        registry.add_org("demo");
        registry
    }

    /// Nobody answers any more.
    pub fn stop(&self) {
        self.server.abort();
    }

    pub fn add_org(&self, org: &str) {
        self.key(org, KeyChange::Add, &org_key(org, 2), None);
    }

    /// Says something about a key of an organisation.
    pub fn key(&self, org: &str, change: KeyChange, key: &SigningKey, old: Option<&SigningKey>) {
        let link = self.link(org, Chain::Registry);
        let statement = Statement::Key(Key {
            org: org.parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            key: key.verifying_key().to_string(),
            change,
            replaces: old.map(|key| key.verifying_key().to_string()),
            reason: None,
        });
        self.append(statement.sign(&registry_key()).unwrap());
    }

    /// Place of the next statement in a chain.
    pub fn link(&self, subject: &str, chain: Chain) -> Link {
        let subject: Subject = subject.parse().unwrap();
        self.state.lock().unwrap().links.get(&(subject, chain)).copied().unwrap_or(Link::FIRST)
    }

    /// Appends a statement, and signs a checkpoint and a head over the result.
    pub fn append(&self, signed: SignedStatement) {
        let mut index = self.state.lock().unwrap();
        let statement = signed.statement();
        index.links.insert((statement.subject(), statement.chain()), signed.next_link());
        let position = self.log(&mut index, signed.bytes());
        self.list(&mut index, position, signed);
        self.sign(&mut index);
    }

    /// Lists a statement in the index at a position, whatever the log has there, and signs a
    /// head over the result.
    pub fn only_list(&self, position: u64, signed: SignedStatement) {
        let mut index = self.state.lock().unwrap();
        self.list(&mut index, position, signed);
        self.sign(&mut index);
    }

    /// Appends entries that are no statements, of which the index knows nothing.
    pub fn fill(&self, size: u64) {
        let mut index = self.state.lock().unwrap();
        while index.frontier.size() < size {
            let number = index.frontier.size();
            self.log(&mut index, &number.to_be_bytes());
        }
        self.sign(&mut index);
    }

    fn log(&self, index: &mut Index, entry: &[u8]) -> u64 {
        let position = index.frontier.append(TreeHash::of_leaf(entry));
        push_entry(&mut index.bundle, entry).unwrap();
        if index.frontier.size().is_multiple_of(TILE_WIDTH) {
            let bundle = std::mem::take(&mut index.bundle);
            let tile = TileId::entries(position / TILE_WIDTH, index.frontier.size()).unwrap();
            self.set(&ObjectKey::Tile(tile).path(), bundle);
        }
        position
    }

    fn list(&self, index: &mut Index, position: u64, signed: SignedStatement) {
        let updated = update(index.root, &[(position, signed)], &index.objects).unwrap();
        let Update::Done { root, written, .. } = updated else {
            panic!("the source is the whole store");
        };
        for object in written {
            let (key, digest, bytes) = match object {
                Written::Node(d, bytes) => (ObjectKey::Node(d), d, bytes),
                Written::Bin(d, bytes) => (ObjectKey::Bin(d), d, bytes),
                Written::File(d, bytes) => (ObjectKey::Index(d), d, bytes),
            };
            self.set(&key.path(), bytes.clone());
            index.objects.insert(digest, bytes);
        }
        index.root = Some(root);
    }

    fn sign(&self, index: &mut Index) {
        for (id, bytes) in index.frontier.take_tiles() {
            self.set(&ObjectKey::Tile(id).path(), bytes);
        }
        let size = index.frontier.size();
        if !index.bundle.is_empty() {
            let tile = TileId::entries(size / TILE_WIDTH, size).unwrap();
            self.set(&ObjectKey::Tile(tile).path(), index.bundle.clone());
        }
        index.epoch += 1;
        let root = index.root.unwrap();
        let checkpoint =
            Checkpoint { origin: ORIGIN.to_owned(), size, root: index.frontier.root() };
        let mut signed = checkpoint.sign(&registry_key()).unwrap();
        if let Some((witness, time_s)) = &index.witness {
            let cosignature = witness.cosign(&checkpoint.to_string(), *time_s);
            signed.push(witness.witness_key(), &cosignature);
        }
        self.set("/checkpoint", signed.bytes().to_vec());
        let head = index.head(index.epoch, root).sign(&index.head_key).unwrap();
        self.set("/head", head);
    }

    /// From now on, this key signs heads.
    pub fn sign_heads_with(&self, key: SigningKey) {
        self.state.lock().unwrap().head_key = key;
    }

    /// From now on, this witness cosigns, at this time.
    pub fn witness(&self, witness: WitnessSigningKey, time_s: u64) {
        self.state.lock().unwrap().witness = Some((witness, time_s));
    }

    /// What the newest head would say with this epoch and this index.
    pub fn head(&self, epoch: u64, root: Digest) -> Head {
        self.state.lock().unwrap().head(epoch, root)
    }

    /// Entries of the log.
    pub fn size(&self) -> u64 {
        self.state.lock().unwrap().frontier.size()
    }

    /// Publishes a release with a clean verdict, and answers its build.
    pub fn publish(&self, release: Release) -> Build {
        let (name, statement) = self.statement(&release);
        let key = org_key(name.org().as_str(), 2);
        self.publish_signed(&name, statement, &key, Some(VerdictOutcome::Clean))
    }

    /// Publishes a release, signed with any key, with or without a verdict.
    pub fn publish_signed(
        &self,
        name: &PluginName,
        statement: Statement,
        key: &SigningKey,
        outcome: Option<VerdictOutcome>,
    ) -> Build {
        let Statement::Release(content) = &statement else { panic!("a release") };
        let (build, version) = (content.builds[0].clone(), content.version.clone());
        let signed = statement.sign(key).unwrap();
        let digest = signed.digest();
        self.append(signed);
        if let Some(outcome) = outcome {
            let link = self.link(name.as_str(), Chain::Registry);
            let verdict = Verdict {
                plugin: name.clone(),
                version,
                sequence: link.sequence,
                previous: link.previous,
                statement: digest,
                ruleset: RULESET,
                outcome,
                report: Digest::of(b"report"),
            };
            self.append(Statement::Verdict(verdict).sign(&registry_key()).unwrap());
        }
        build
    }

    /// Quarantines a release, or ends that.
    pub fn quarantine(&self, plugin: &str, version: &str, quarantined: bool) {
        let link = self.link(plugin, Chain::Registry);
        let quarantine = Quarantine {
            plugin: plugin.parse().unwrap(),
            version: version.parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            quarantined,
            reason: "it phones home".to_owned(),
        };
        self.append(Statement::Quarantine(quarantine).sign(&registry_key()).unwrap());
    }

    /// Sets how far a plugin is trusted.
    pub fn trust(&self, plugin: &str, level: TrustLevel) {
        let link = self.link(plugin, Chain::Registry);
        let trust = Trust {
            plugin: plugin.parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            level,
            reason: None,
        };
        self.append(Statement::Trust(trust).sign(&registry_key()).unwrap());
    }

    /// The statement of a release, its archive stored.
    pub fn statement(&self, release: &Release) -> (PluginName, Statement) {
        let manifest = Manifest::parse(&release.manifest).unwrap_or_else(|e| panic!("{e}"));
        let mut files = release.files.clone();
        files.push(PackFile {
            name: "plugin.toml".to_owned(),
            content: release.manifest.clone().into_bytes(),
            executable: false,
        });
        let archive = pack(files).unwrap();
        let list = Archive::open(&archive).unwrap().file_list().unwrap();
        let digest = Digest::of(&archive);
        let facts = modunest_agent::host::facts();
        let build = Build {
            target: if release.files.iter().any(|file| file.name == COMPONENT_NAME) {
                BuildTarget::Wasm { world: COMPONENT_WORLD }
            } else {
                BuildTarget::Native { target: facts.target, libc: None, abi: 1 }
            },
            archive: digest,
            size_bytes: archive.len() as u64,
            files: list.digest(),
        };
        self.set(&ObjectKey::Blob(digest).path(), archive);
        let link = self.link(manifest.name.as_str(), Chain::Owner);
        let statement = modunest_core::statement::Release {
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            sequence: link.sequence,
            previous: link.previous,
            manifest: Digest::of(release.manifest.as_bytes()),
            host: manifest.host.clone(),
            dependencies: manifest.dependencies.clone(),
            incompatible: manifest.incompatible.clone(),
            services: manifest.exports(),
            capabilities: manifest.capability_texts(),
            builds: vec![build],
        };
        (manifest.name, Statement::Release(std::sync::Arc::new(statement)))
    }

    pub fn yank(&self, plugin: &str, version: &str) {
        let signed = self.yank_statement(plugin, version, true);
        self.append(signed);
    }

    pub fn yank_statement(&self, plugin: &str, version: &str, yanked: bool) -> SignedStatement {
        let link = self.link(plugin, Chain::Owner);
        let name: PluginName = plugin.parse().unwrap();
        let key = org_key(name.org().as_str(), 2);
        let yank = Yank {
            plugin: name,
            version: version.parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            yanked,
            reason: None,
        };
        Statement::Yank(yank).sign(&key).unwrap()
    }

    pub fn root(&self) -> Digest {
        self.state.lock().unwrap().root.unwrap()
    }

    pub fn epoch(&self) -> u64 {
        self.state.lock().unwrap().epoch
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.served.lock().unwrap().objects[path].clone()
    }

    pub fn set(&self, path: &str, bytes: Vec<u8>) {
        self.served.lock().unwrap().objects.insert(path.to_owned(), bytes);
    }

    /// Tells a lie so many times.
    pub fn lie(&self, path: &str, times: usize, lie: Lie) {
        self.served.lock().unwrap().lies.insert(path.to_owned(), (times, lie));
    }

    pub fn tell_the_truth(&self) {
        self.served.lock().unwrap().lies.clear();
    }

    /// Paths that were asked for since the last call, with their ranges.
    pub fn requests(&self) -> usize {
        self.served.lock().unwrap().requests.len()
    }

    pub fn take_requests(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.served.lock().unwrap().requests)
    }

    /// From now on, closures are offered.
    pub fn offer_closures(&self) {
        self.served.lock().unwrap().closures = true;
    }

    /// Bytes of the index that were sent since the last call.
    pub fn take_sent_bytes(&self) -> usize {
        std::mem::take(&mut self.served.lock().unwrap().sent_bytes)
    }

    /// What the read side would answer.
    pub fn closure(&self, request: &ClosureRequest) -> Vec<u8> {
        self.served.lock().unwrap().closure(request.clone())
    }

    pub fn untraced(&self) -> usize {
        self.served.lock().unwrap().untraced
    }

    /// A configuration that wants these plugins.
    pub fn config(&self, state_dir: &std::path::Path, plugins: &[(&str, &str)]) -> Config {
        let settings = Settings {
            name: "test".to_owned(),
            url: self.url.parse().unwrap(),
            origin: ORIGIN.to_owned(),
            root: None,
            keys: vec![registry_key().verifying_key()],
        };
        let mut config = Config::new(state_dir, settings);
        config.admin = Listen::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        // This program is the tests' own and becomes no runner.
        config.host.process.runner = Some(env!("CARGO_BIN_EXE_modunest-agent").into());
        config.host.slots = 2;
        config.host.check_every = Duration::from_secs(3600);
        for (name, requirement) in plugins {
            let wanted = Wanted { requirement: requirement.parse().unwrap(), config: Vec::new() };
            config.plugins.insert(name.parse().unwrap(), wanted);
        }
        config
    }
}

impl Index {
    fn head(&self, epoch: u64, index: Digest) -> Head {
        let root = Digest::from_bytes(*self.frontier.root().as_bytes());
        Head {
            origin: ORIGIN.to_owned(),
            epoch,
            log: LogHead { size: self.frontier.size(), root },
            index,
            revocations: None,
            issued_at: now(),
            expires_at: now().plus(HEAD_LIVES_FOR),
        }
    }
}

impl Served {
    /// Whether a request is left without an answer.
    fn keeps_silent(&mut self, path: &str) -> bool {
        let is_silent = matches!(self.lies.get(path), Some((1.., Lie::Silence)));
        if is_silent {
            self.requests.push((path.to_owned(), None));
        }
        is_silent
    }

    fn closure(&self, request: ClosureRequest) -> Vec<u8> {
        let head = &self.objects["/head"];
        let mut closure = Closure::new(request, head, Limits::WORKER).unwrap();
        let mut answer = Vec::new();
        push_frame(&mut answer, Part::Object(ObjectKey::Head), head);
        while let ClosureStep::Need(keys) = closure.step() {
            for key in keys {
                let Some(bytes) = self.objects.get(&key.path()) else {
                    closure.missing(key).unwrap();
                    continue;
                };
                if let Some((part, sent)) = closure.provide(key, bytes).unwrap() {
                    push_frame(&mut answer, part, &sent);
                }
            }
        }
        if let Some((part, hashes)) = closure.proof() {
            push_frame(&mut answer, part, &hashes);
        }
        answer
    }
}

async fn serve(State(served): State<Arc<Mutex<Served>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, REQUEST_MAX_BYTES).await.unwrap();
    let path = parts.uri.path().to_owned();
    let header = |name: &str| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    if served.lock().unwrap().keeps_silent(&path) {
        return std::future::pending().await;
    }
    let mut served = served.lock().unwrap();
    served.untraced += usize::from(header("traceparent").is_none());
    served.requests.push((path.clone(), header("range")));
    let mut found = served.objects.get(&path).cloned();
    let is_closure = path == CLOSURE_PATH && served.closures;
    if is_closure {
        assert_eq!(parts.method, "POST");
        found = Some(served.closure(ClosureRequest::parse(&body).unwrap()));
    }
    let kind = if is_closure { CONTENT_TYPE } else { "application/octet-stream" };
    if let Some((times, lie)) = served.lies.get_mut(&path).filter(|(times, _)| *times > 0) {
        *times -= 1;
        match lie.clone() {
            Lie::Bytes(bytes) => found = Some(bytes),
            Lie::Status(status) => {
                return Response::builder().status(status).body(Body::empty()).unwrap();
            }
            Lie::Silence => unreachable!("nobody answers"),
            Lie::Break(after) => {
                let bytes = found.unwrap();
                let length = bytes.len();
                let first = bytes[..after].to_vec();
                let pieces = futures_util::stream::once(async move { Ok(first) });
                // Late enough for the first piece to be on its way.
                let pieces = futures_util::StreamExt::chain(
                    pieces,
                    futures_util::stream::once(async {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Err(std::io::Error::other("the test breaks the connection"))
                    }),
                );
                let body = Body::from_stream(pieces);
                let response = Response::builder()
                    .header("content-length", length)
                    .header("content-type", kind);
                return response.body(body).unwrap();
            }
        }
    }
    let Some(bytes) = found else {
        return Response::builder().status(404).body(Body::empty()).unwrap();
    };
    let etag = format!("\"{}\"", Digest::of(&bytes));
    if header("if-none-match").as_deref() == Some(etag.as_str()) {
        return Response::builder().status(304).header("etag", etag).body(Body::empty()).unwrap();
    }
    let from = header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut response = Response::builder().header("etag", etag).header("content-type", kind);
    let body = match from {
        Some(from) if from < bytes.len() => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            response = response.status(206).header("content-range", range);
            bytes[from..].to_vec()
        }
        _ => bytes,
    };
    if !path.starts_with("/blob/") {
        served.sent_bytes += body.len();
    }
    response.body(Body::from(body)).unwrap()
}
