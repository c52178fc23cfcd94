//! The sequencer among failures: whatever dies, gets lost, comes twice or is slow, there is one
//! log, the index is its fold, and every session ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::future::join_all;
use modunest_core::index::{Head, LogHead};
use modunest_core::keys::{ObjectKey, SessionId};
use modunest_core::publish::{LEASE, State};
use modunest_core::statement::{Link, SignedStatement, Statement, Yank};
use modunest_functions::Functions;
use serde_json::Value;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::faulty::{Death, Faulty, Random, Weather};
use crate::log::{checkpoint, root_of};
use crate::package::package;
use crate::registry::{ORIGIN, Publisher, Registry};

/// A release that waits to be checked, and the event that says so.
struct Opened {
    session: SessionId,
    statement: SignedStatement,
    event: Value,
}

async fn opened(
    registry: &Registry,
    publisher: &Publisher,
    plugin: &str,
    version: &str,
    link: Link,
) -> Opened {
    let package = package(plugin, version, link);
    let statement = package.sign(&publisher.key);
    let answer = registry.open(publisher, &statement).await;
    let session = answer.session.unwrap();
    for upload in &answer.uploads {
        assert_eq!(registry.upload(upload, &package.archive).await, 200);
    }
    let event = match answer.uploads.first() {
        Some(upload) => Registry::event(&format!("upload/{session}/{}", upload.archive)),
        None => Registry::event(&format!("ready/{session}")),
    };
    Opened { session, statement, event }
}

/// Reads head and checkpoint all the time, as agents do, and keeps what it saw.
struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    checkpoints: BTreeMap<u64, BTreeSet<modunest_core::digest::Digest>>,
    heads: Vec<Head>,
}

impl Watcher {
    fn start(registry: &Registry) -> Watcher {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (s3, noted) = (registry.s3.clone(), Arc::clone(&seen));
        let keys = registry.keys.verifying();
        let task = tokio::spawn(async move {
            let read = async |key: ObjectKey| {
                let answer = s3.get_object().bucket("public").key(key.to_string()).send().await;
                match answer {
                    Ok(answer) => Some(answer.body.collect().await.unwrap().to_vec()),
                    Err(_) => None,
                }
            };
            loop {
                // The head first: its log is never ahead of a checkpoint that is read later.
                let head = read(ObjectKey::Head).await;
                let Some(bytes) = read(ObjectKey::Checkpoint).await else { continue };
                let LogHead { size, root } = checkpoint(&bytes, &keys[0]);
                let mut seen = noted.lock().unwrap();
                if let Some(bytes) = head {
                    let head = Head::verify(&bytes, ORIGIN, &keys[1..2]).unwrap();
                    assert!(head.log.size <= size, "a head ahead of the checkpoint");
                    if let Some(last) = seen.heads.last() {
                        head.check_newer(last).unwrap();
                    }
                    if seen.heads.last().is_none_or(|last| last.epoch < head.epoch) {
                        seen.heads.push(head);
                    }
                }
                let newest = seen.checkpoints.last_key_value().map(|(size, _)| *size);
                assert!(newest.is_none_or(|newest| newest <= size), "the log shrank");
                seen.checkpoints.entry(size).or_default().insert(root);
            }
        });
        Watcher { seen, task }
    }

    /// Everything that was seen is of one log.
    fn check(self, log: &[SignedStatement]) {
        assert!(!self.task.is_finished(), "the watcher saw what must not be");
        self.task.abort();
        let seen = self.seen.lock().unwrap();
        for (size, roots) in &seen.checkpoints {
            let size = usize::try_from(*size).unwrap();
            assert_eq!(*roots, BTreeSet::from([root_of(&log[..size])]), "fork at {size}");
        }
        for head in &seen.heads {
            let size = usize::try_from(head.log.size).unwrap();
            assert_eq!(head.log.root, root_of(&log[..size]));
        }
    }
}

/// A release and its verdict stand in the log once each.
fn stands_once(log: &[SignedStatement], release: &SignedStatement) {
    let at: Vec<usize> = (0..log.len()).filter(|at| log[*at] == *release).collect();
    let [at] = at[..] else { panic!("{} times in the log", at.len()) };
    match log[at + 1].statement() {
        Statement::Verdict(verdict) => assert_eq!(verdict.statement, release.digest()),
        other => panic!("no verdict behind the release: {other:?}"),
    }
}

/// A worker dies at every one of its writes in turn, from the first check of a release to the
/// last word about its session.
async fn dies_at_every_write(death: fn(u64) -> Death) {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let watcher = Watcher::start(&registry);
    let mut deaths = 0;
    for write in 1.. {
        let plugin = format!("demo/plugin-{write}");
        let opened = opened(&registry, &publisher, &plugin, "1.0.0", Link::FIRST).await;
        let faulty = registry.faulty(write).await;
        let worker = registry.through(&faulty, false).await;
        let ended = faulty.live(Some(death(write)), worker.finalize(&opened.event)).await;
        drop(worker);
        let survivor = registry.another(true).await;
        survivor.sequence().await.unwrap();
        survivor.sweep().await.unwrap();
        survivor.finalize(&opened.event).await.unwrap();
        let view = registry.session(&publisher, opened.session).await;
        assert_eq!(view.state, State::Published, "write {write}: {view:?}");
        survivor.sweep().await.unwrap();
        assert_eq!(registry.staged().await, Vec::<String>::new(), "write {write}");
        if ended.is_some() {
            break;
        }
        deaths += 1;
    }
    // Checks, copies, bundle, swap, tiles, index, checkpoint, head and table.
    assert!(deaths > 20, "{deaths} writes");
    let log = registry.log().await;
    assert_eq!(log.len(), 1 + 2 * (deaths + 1));
    watcher.check(&log);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_dies_before_every_write() {
    dies_at_every_write(Death::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_dies_after_every_write() {
    dies_at_every_write(Death::After).await;
}

/// Processes that work on the same registry, each with its own bad luck.
struct World<'a> {
    registry: &'a Registry,
    publisher: Publisher,
    random: Random,
    processes: Vec<(Faulty, Functions)>,
    /// Everything that was ever opened.
    opened: Vec<Opened>,
    /// What an answer said is in the log.
    promised: Vec<SignedStatement>,
    versions: u64,
}

const PLUGINS: u64 = 4;
const PROCESSES: u64 = 3;
const ROUNDS: u64 = 10;
const STORM: Weather = Weather { failed: 3, lost: 4, slow: 25 };

enum Job {
    Finalize(Value),
    Say(SignedStatement),
    Sequence,
    Sweep,
}

impl World<'_> {
    /// The newest link of a plugin's owner and one of its releases, as readers see them.
    async fn next(&self, plugin: &str) -> (Link, Option<String>) {
        let state = self.registry.plugin_state(plugin).await;
        (state.next, state.releases.keys().next_back().map(ToString::to_string))
    }

    async fn job(&mut self) -> Job {
        let plugin = format!("demo/plugin-{}", self.random.below(PLUGINS));
        match self.random.below(10) {
            0..=4 => {
                let (link, _) = self.next(&plugin).await;
                self.versions += 1;
                let version = format!("1.{}.0", self.versions);
                // The table may not know yet what readers see; the publisher tries again.
                let opened = opened(self.registry, &self.publisher, &plugin, &version, link).await;
                let event = opened.event.clone();
                self.opened.push(opened);
                Job::Finalize(event)
            }
            5 => match self.opened.last() {
                // Delivered twice, perhaps while the first delivery is at work.
                Some(last) => Job::Finalize(last.event.clone()),
                None => Job::Sequence,
            },
            6 | 7 => match self.next(&plugin).await {
                (link, Some(version)) => Job::Say(
                    Statement::Yank(Yank {
                        plugin: plugin.parse().unwrap(),
                        version: version.parse().unwrap(),
                        sequence: link.sequence,
                        previous: link.previous,
                        yanked: self.random.chance(50),
                        reason: None,
                    })
                    .sign(&self.publisher.key)
                    .unwrap(),
                ),
                (_, None) => Job::Sequence,
            },
            8 => Job::Sequence,
            _ => Job::Sweep,
        }
    }

    /// Some jobs at once, each in some process; some processes die meanwhile.
    async fn round(&mut self) {
        let mut jobs = Vec::new();
        for _ in 0..2 + self.random.below(4) {
            let process = usize::try_from(self.random.below(PROCESSES)).unwrap();
            jobs.push((process, self.job().await));
        }
        let deaths: Vec<Option<Death>> = (0..PROCESSES)
            .map(|_| {
                let write = 1 + self.random.below(30);
                match self.random.below(4) {
                    0 => Some(Death::Before(write)),
                    1 => Some(Death::After(write)),
                    _ => None,
                }
            })
            .collect();
        let token = &self.publisher.token;
        let lives = self.processes.iter().zip(&deaths).enumerate().map(|(at, (process, death))| {
            let (faulty, functions) = process;
            let work = jobs.iter().filter(move |(process, _)| *process == at).map(
                move |(_, job)| async move {
                    match job {
                        Job::Finalize(event) => drop(functions.finalize(event).await),
                        Job::Sequence => drop(functions.sequence().await),
                        Job::Sweep => drop(functions.sweep().await),
                        Job::Say(statement) => {
                            let said = say(functions, token, statement).await;
                            return said.then(|| statement.clone());
                        }
                    }
                    None
                },
            );
            async move { faulty.live(*death, join_all(work)).await }
        });
        let done = join_all(lives).await;
        for (at, done) in done.into_iter().enumerate() {
            match done {
                Some(said) => self.promised.extend(said.into_iter().flatten()),
                // Its successor starts with nothing in its memory.
                None => {
                    let seed = self.random.below(u64::MAX);
                    self.processes[at] = process(self.registry, seed).await;
                }
            }
        }
        self.registry.move_clock(Duration::from_secs(self.random.below(45)));
    }
}

async fn process(registry: &Registry, seed: u64) -> (Faulty, Functions) {
    let faulty = registry.faulty(seed).await;
    let functions = registry.through(&faulty, false).await;
    faulty.weather(STORM);
    (faulty, functions)
}

/// Whether the process says that it is in the log.
async fn say(functions: &Functions, token: &str, statement: &SignedStatement) -> bool {
    let request = Request::builder()
        .method("POST")
        .uri("/v1/statements")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(Registry::publish_body(statement).to_string()))
        .unwrap();
    functions.router().oneshot(request).await.unwrap().status().is_success()
}

async fn simulate(seed: u64) {
    let registry = Registry::start_silent().await;
    let publisher = registry.publisher("demo").await;
    let watcher = Watcher::start(&registry);
    let mut processes = Vec::new();
    for at in 0..PROCESSES {
        processes.push(process(&registry, seed ^ at).await);
    }
    let mut world = World {
        registry: &registry,
        publisher,
        random: Random(seed),
        processes,
        opened: Vec::new(),
        promised: Vec::new(),
        versions: 0,
    };
    for _ in 0..ROUNDS {
        world.round().await;
    }
    let World { publisher, opened, promised, processes, .. } = world;
    drop(processes);
    // The storm is over. What lies there is taken up by whoever is left.
    let survivor = registry.another(false).await;
    for opened in &opened {
        survivor.finalize(&opened.event).await.unwrap();
    }
    for _ in 0..3 {
        registry.move_clock(LEASE + Duration::from_secs(1));
        survivor.sweep().await.unwrap();
    }
    let log = registry.log().await;
    for statement in &promised {
        assert_eq!(log.iter().filter(|entry| *entry == statement).count(), 1, "seed {seed}");
    }
    for opened in &opened {
        let view = registry.session(&publisher, opened.session).await;
        assert!(view.state.is_end(), "seed {seed}: {view:?}");
        if view.state == State::Published {
            stands_once(&log, &opened.statement);
        } else {
            assert!(!log.contains(&opened.statement), "seed {seed}: {view:?}");
        }
    }
    watcher.check(&log);
    assert_eq!(registry.staged().await, Vec::<String>::new(), "seed {seed}");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_in_a_storm_1() {
    simulate(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_in_a_storm_2() {
    simulate(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_in_a_storm_3() {
    simulate(3).await;
}
