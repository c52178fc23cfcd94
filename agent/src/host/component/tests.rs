#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modunest_core::archive::FileList;
use modunest_core::digest::Digest;
use modunest_core::statement::TrustLevel;
use modunest_sdk::Error;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};

use super::*;
use crate::host::ask::ServiceAsk;
use crate::host::instance::without_state;
use crate::host::side::HostSide;
use crate::host::{Call, Instance, Unserved};

/// The component whose source is in `tests/components/probe`.
const PROBE: &[u8] = include_bytes!("../../../../fuzz/corpus/scan/findings-probe.wasm");

/// Writes the probe into a folder.
pub(super) fn probe(folder: &Path) -> Source {
    let path = folder.join("plugin.wasm");
    std::fs::write(&path, PROBE).unwrap();
    Source { path, record: record("lib/plugin.wasm", PROBE) }
}

fn record(name: &str, bytes: &[u8]) -> FileRecord {
    FileRecord {
        name: name.to_owned(),
        size_bytes: bytes.len() as u64,
        executable: false,
        sha256: Digest::of(bytes),
    }
}

/// Compiled once for all tests of this file.
fn compiled() -> Compiled {
    static COMPILED: std::sync::OnceLock<Compiled> = std::sync::OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().unwrap();
        Compiled::load(
            &probe(folder.path()),
            &Cache::new(None),
            1,
            engine::pooled(TrustLevel::Verified, 1),
        )
        .unwrap()
    };
    COMPILED.get_or_init(compile).clone()
}

/// Remembers what it is asked, and answers services with their payload.
#[derive(Default)]
pub(super) struct Noting {
    operations: AtomicUsize,
    /// How often it was made anew.
    remade: AtomicUsize,
    /// Who answers services.
    answering: std::sync::Mutex<Option<Arc<dyn Instance>>>,
}

impl HostSide for Noting {
    fn assets(&self) -> &str {
        "/nowhere"
    }

    fn log(&self, _: u32, _: &[u8]) {}

    fn remade(&self, reason: &str) {
        assert!(!reason.is_empty());
        self.remade.fetch_add(1, Ordering::Relaxed);
    }

    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<OwnedBuffer, Error> {
        let answering = self.answering.lock().unwrap().clone();
        match answering {
            Some(instance) => instance.call(service(ask.service, ask.payload)),
            None => Ok([ask.plugin.as_bytes(), b" ", ask.payload].concat().into()),
        }
    }

    fn operate(&self, operation: u32, _: &[u8]) -> Result<OwnedBuffer, Error> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        Err(Error::Denied(format!("operation {operation} is not granted")))
    }
}

fn settings() -> Settings {
    Settings {
        memory_max_bytes: 64 * 1024 * 1024,
        stores: 1,
        load_timeout: Duration::from_secs(20),
        call_timeout: Duration::from_secs(20),
    }
}

fn start_with(
    settings: Settings,
    config: &[u8],
    side: Arc<Noting>,
) -> Result<ComponentInstance, LoadError> {
    let assets = Assets { folder: "/nowhere".into(), files: FileList::default() };
    ComponentInstance::start(compiled(), settings, config, side, Arc::new(assets))
}

/// A plugin of its own of what was compiled.
pub(super) fn start_compiled(compiled: Compiled) -> ComponentInstance {
    let assets = Assets { folder: "/nowhere".into(), files: FileList::default() };
    let side = Arc::<Noting>::default();
    ComponentInstance::start(compiled, settings(), b"", side, Arc::new(assets)).unwrap()
}

fn start() -> ComponentInstance {
    start_with(settings(), b"", Arc::default()).unwrap()
}

pub(super) fn service<'a>(target: &'a str, payload: &'a [u8]) -> Call<'a> {
    Call { kind: RequestKind::Service, target, payload, trace: "", caller: "", deadline_ms: 0 }
}

fn within(target: &str, timeout: Duration) -> Call<'_> {
    let now = modunest_runtime::clock::now().as_millis();
    Call { deadline_ms: now + timeout.as_millis() as u64, ..service(target, b"") }
}

#[test]
fn a_component_serves_as_every_plugin_does() {
    let side = Arc::<Noting>::default();
    let plugin = start_with(settings(), b"", side.clone()).unwrap();
    let ask = |target, payload: &[u8]| plugin.call(service(target, payload));
    assert_eq!(ask("echo", b"hello"), Ok(b"hello".to_vec().into()));
    let large = vec![7; 16 * 1024 * 1024];
    assert_eq!(ask("echo", &large), Ok(large.clone().into()));
    let full = Call {
        trace: "00-x",
        caller: "demo/one",
        deadline_ms: u64::MAX,
        ..service("request", b"")
    };
    let text = String::from_utf8(plugin.call(full).unwrap().into_vec()).unwrap();
    assert_eq!(text, format!("request demo/one 00-x {}", u64::MAX));
    assert_eq!(ask("service", b"demo/two render"), Ok(b"demo/two from probe".to_vec().into()));
    assert_eq!(ask("operate", b""), Err(Error::Denied("operation 7 is not granted".to_owned())));
    assert_eq!(ask("fail", b""), Err(Error::Failed("as it was told to".to_owned())));
    assert!(matches!(ask("nothing", b""), Err(Error::NotFound(_))));
    assert!(matches!(ask("folder", b""), Err(Error::Unsupported(_))));
    let now: u64 = String::from_utf8(ask("now", b"").unwrap().into_vec()).unwrap().parse().unwrap();
    assert!(modunest_runtime::clock::now().as_millis() - now < 60_000);
    plugin.health().unwrap();
    plugin.stop().unwrap();
    assert_eq!(side.remade.load(Ordering::Relaxed), 0);
    assert!(plugin.memory_bytes() > 0);
}

#[test]
fn state_survives_calls_and_goes_on_in_a_successor() {
    let plugin = start();
    for expected in ["1", "2", "3"] {
        assert_eq!(plugin.call(service("count", b"")), Ok(expected.as_bytes().to_vec().into()));
    }
    let snapshot = plugin.snapshot().unwrap();
    let successor = start();
    successor.restore(&snapshot).unwrap();
    assert_eq!(successor.call(service("count", b"")), Ok(b"4".to_vec().into()));
    assert!(matches!(successor.restore(b"short"), Err(Error::InvalidInput(_))));
}

#[test]
fn its_own_files_are_read_as_they_were_proven_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join("assets/a"), b"A").unwrap();
    std::fs::write(folder.path().join("assets/b"), b"changed").unwrap();
    std::fs::write(folder.path().join("unlisted"), b"secret").unwrap();
    let files = FileList::new(vec![record("assets/b", b"B"), record("assets/a", b"A")]);
    let assets = Assets { folder: folder.path().to_owned(), files };
    let side = Arc::<Noting>::default();
    let plugin =
        ComponentInstance::start(compiled(), settings(), b"", side, Arc::new(assets)).unwrap();
    let ask = |target, payload: &[u8]| plugin.call(service(target, payload));
    assert_eq!(ask("assets", b""), Ok(b"assets/a\nassets/b".to_vec().into()));
    assert_eq!(ask("asset", b"assets/a"), Ok(b"A".to_vec().into()));
    assert!(matches!(ask("asset", b"assets/b"), Err(Error::Failed(_))));
    for name in ["unlisted", "../plugin.wasm", "/etc/passwd", "assets"] {
        assert!(matches!(ask("asset", name.as_bytes()), Err(Error::NotFound(_))), "{name}");
    }
    assert!(matches!(ask("read-file", b""), Err(Error::Denied(_))));
}

/// Each attack, what its caller hears, and that the plugin serves again afterwards.
#[test]
fn attacks_end_the_call_and_the_plugin_is_made_anew() {
    let side = Arc::<Noting>::default();
    let plugin = start_with(settings(), b"", side.clone()).unwrap();
    let mut worded = Vec::new();
    for attack in ["panic", "abort", "grow", "recurse", "large", "lie"] {
        assert_eq!(plugin.call(service("count", b"")).map(|_| ()), Ok(()));
        let error = plugin.call(service(attack, b"")).unwrap_err();
        worded.push(format!("{attack}: {error}"));
        assert_eq!(
            plugin.call(service("echo", b"still")),
            Ok(b"still".to_vec().into()),
            "{attack}"
        );
    }
    insta::assert_snapshot!(worded.join("\n"));
    // The store is new, so what it counted is gone; an answer that is only too large is not
    // a trap.
    assert_eq!(plugin.call(service("count", b"")), Ok(b"1".to_vec().into()));
    assert_eq!(side.remade.load(Ordering::Relaxed), 5);
}

#[test]
fn an_endless_call_ends_at_its_deadline_wherever_it_spins() {
    let plugin = start();
    let error = plugin.call(within("spin", Duration::from_millis(50))).unwrap_err();
    assert_eq!(error, Error::DeadlineExceeded("it did not end in time".to_owned()));
    assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));

    let hurried = Settings { call_timeout: Duration::from_millis(50), ..settings() };
    let plugin = start_with(hurried, b"", Arc::default()).unwrap();
    let error = plugin.call(service("spin", b"")).unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded(_)));

    let hurried = Settings { load_timeout: Duration::from_millis(50), ..settings() };
    let refused = start_with(hurried, b"spin", Arc::default()).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::Start(Error::DeadlineExceeded(_))));
    let refused = start_with(settings(), b"refuse", Arc::default()).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::Start(Error::InvalidInput(_))));
}

#[test]
fn a_storm_of_host_calls_ends_at_its_deadline() {
    let side = Arc::<Noting>::default();
    let plugin = start_with(settings(), b"", side.clone()).unwrap();
    let mut storms = 0;
    // Slow machines do not get through one storm in time, quick ones do; both go on.
    while storms < 3 {
        match plugin.call(within("storm", Duration::from_millis(20))) {
            Ok(_) | Err(Error::DeadlineExceeded(_)) => storms += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(side.operations.load(Ordering::Relaxed) > 0);
    assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
}

#[test]
fn calls_wait_for_their_turn_until_their_deadline() {
    let plugin = start();
    std::thread::scope(|scope| {
        let (started, waiting) = std::sync::mpsc::channel();
        let plugin = &plugin;
        let spinning = scope.spawn(move || {
            started.send(()).unwrap();
            plugin.call(within("spin", Duration::from_millis(400)))
        });
        waiting.recv().unwrap();
        while is_idle(plugin) {
            std::thread::yield_now();
        }
        let unserved = plugin.try_call(within("echo", Duration::from_millis(30))).unwrap_err();
        let late = Error::DeadlineExceeded("while it waited for its turn".to_owned());
        assert_eq!(unserved, Unserved::Refused(late));
        // Whoever can wait is served behind it.
        assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
        assert!(matches!(spinning.join().unwrap(), Err(Error::DeadlineExceeded(_))));
    });
}

/// Serves each call until it is told to end.
#[derive(Default)]
struct Busy {
    entered: AtomicUsize,
    is_over: std::sync::atomic::AtomicBool,
}

impl Instance for Arc<Busy> {
    fn call(&self, _: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Ok(Vec::new().into())
    }
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
    without_state!();
}

#[test]
fn calls_of_a_runner_wait_for_their_turn_in_the_agent() {
    let busy = Arc::<Busy>::default();
    let plugin = Confined::new(busy.clone(), 2, settings().call_timeout);
    std::thread::scope(|scope| {
        let served = [(); 2].map(|()| scope.spawn(|| plugin.call(service("echo", b""))));
        while busy.entered.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        let unserved = plugin.try_call(within("echo", Duration::from_millis(30))).unwrap_err();
        let late = Error::DeadlineExceeded("while it waited for its turn".to_owned());
        assert_eq!(unserved, Unserved::Refused(late));
        let waits = scope.spawn(|| plugin.call(service("echo", b"")));
        busy.is_over.store(true, Ordering::Relaxed);
        assert!(served.into_iter().all(|call| call.join().unwrap().is_ok()));
        assert!(waits.join().unwrap().is_ok());
    });
    assert_eq!(busy.entered.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_call_whose_future_is_dropped_is_given_up() {
    let side = Arc::<Noting>::default();
    let plugin = start_with(settings(), b"", side.clone()).unwrap();
    let spin = plugin.call_async(service("spin", b""));
    let dropped = tokio::time::timeout(Duration::from_millis(50), spin).await;
    assert!(dropped.is_err() && plugin.is_idle());
    // One that was never begun costs nothing.
    drop(plugin.call_async(service("spin", b"")));
    let answer = plugin.call_async(service("count", b"")).await;
    assert_eq!(answer, Ok(b"1".to_vec().into()));
    assert_eq!(side.remade.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn calls_have_their_turns_in_the_order_in_which_they_came() {
    let plugin = start();
    let served = std::sync::Mutex::new(Vec::new());
    let (plugin, served) = (&plugin, &served);
    let call = |number: usize| async move {
        // The first computes until its deadline, while the others come.
        let call = if number == 0 {
            within("spin", Duration::from_millis(200))
        } else {
            service("count", b"")
        };
        let answer = plugin.call_async(call).await;
        served.lock().unwrap().push(number);
        assert_eq!(answer.is_ok(), number > 0);
    };
    futures_util::future::join_all((0..10).map(call)).await;
    assert_eq!(*served.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[test]
fn epochs_rest_while_nothing_is_served_and_pass_while_anything_is() {
    let plugin = start();
    while !compiled().runtime.is_asleep() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It is woken, and does not fall asleep at its next look, which is a second later.
    let late = plugin.call(within("spin", Duration::from_millis(1500)));
    assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
    // What is gone keeps nobody awake.
    drop(plugin);
    while !compiled().runtime.is_asleep() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_idle(plugin: &ComponentInstance) -> bool {
    plugin.is_idle()
}

#[test]
fn several_stores_serve_at_the_same_time() {
    let plugin = start_with(Settings { stores: 2, ..settings() }, b"", Arc::default()).unwrap();
    std::thread::scope(|scope| {
        let plugin = &plugin;
        let spinning = scope.spawn(move || plugin.call(within("spin", Duration::from_secs(1))));
        while is_idle(plugin) {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
        }
        assert!(!spinning.is_finished());
        assert!(spinning.join().unwrap().is_err());
    });
}

#[test]
fn a_chain_that_comes_back_is_refused_and_does_not_hang() {
    let side = Arc::<Noting>::default();
    let plugin = Arc::new(start_with(settings(), b"", side.clone()).unwrap());
    *side.answering.lock().unwrap() = Some(plugin.clone());
    let back = plugin.call(service("service", b"demo/self echo"));
    assert!(matches!(back, Err(Error::Denied(_))), "{back:?}");
    *side.answering.lock().unwrap() = None;
}

#[test]
fn a_chain_that_comes_back_to_a_runner_is_refused_by_the_agent() {
    let side = Arc::<Noting>::default();
    // With two stores it could serve itself; what is told to the agent is one.
    let plugin = start_with(Settings { stores: 2, ..settings() }, b"", side.clone()).unwrap();
    let plugin = Arc::new(Confined::new(plugin, 1, settings().call_timeout));
    *side.answering.lock().unwrap() = Some(plugin.clone());
    let back = plugin.call(service("service", b"demo/self echo"));
    assert!(matches!(back, Err(Error::Denied(_))), "{back:?}");
    // A plugin on the way there and not back is called as ever.
    *side.answering.lock().unwrap() =
        Some(Arc::new(Confined::new(start(), 1, settings().call_timeout)));
    assert_eq!(
        plugin.call(service("service", b"demo/two echo")),
        Ok(b"from probe".to_vec().into())
    );
    *side.answering.lock().unwrap() = None;
}

#[test]
fn what_is_sealed_for_a_runner_runs_without_a_compiler() {
    let folder = tempfile::tempdir().unwrap();
    let source = probe(folder.path());
    let cache = Cache::new(Some(folder.path().join("compiled")));
    let runtime = engine::runtime().unwrap();
    // Compiled now, and the second time kept.
    for _ in 0..2 {
        let code = cache.sealed(runtime, &source).unwrap();
        let compiled = Compiled::open(&code).unwrap();
        let assets = Assets { folder: "/nowhere".into(), files: FileList::default() };
        let side = Arc::<Noting>::default();
        let plugin =
            ComponentInstance::start(compiled, settings(), b"", side, Arc::new(assets)).unwrap();
        assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
        std::fs::remove_file(&source.path).ok();
    }
    let junk = crate::files::sealed("junk", b"no machine code").unwrap();
    assert!(matches!(Compiled::open(&junk), Err(LoadError::Compile(_))));
}

/// Passes what it is asked on to the next, which is asked for the same or, at the end, for its
/// last word.
struct Passing {
    next: ComponentInstance,
    what: &'static str,
}

impl HostSide for Passing {
    fn assets(&self) -> &str {
        "/nowhere"
    }

    fn log(&self, _: u32, _: &[u8]) {}

    fn remade(&self, _: &str) {}

    fn call_service(&self, _: ServiceAsk<'_>) -> Result<OwnedBuffer, Error> {
        self.next.call(service(self.what, b"demo/next service"))
    }

    fn operate(&self, _: u32, _: &[u8]) -> Result<OwnedBuffer, Error> {
        Err(Error::Denied("nothing is granted".to_owned()))
    }
}

#[test]
fn chains_of_components_have_stack_for_all_and_their_neighbours_keep_answering() {
    // Ten in a row, the last one recursing until its stack ends.
    let mut front = start();
    for number in 0..9 {
        let what = if number == 0 { "recurse" } else { "service" };
        let side = Arc::new(Passing { next: front, what });
        let assets = Assets { folder: "/nowhere".into(), files: FileList::default() };
        let started = ComponentInstance::start(compiled(), settings(), b"", side, Arc::new(assets));
        front = started.unwrap();
    }
    let neighbour = start();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (neighbour, over) = (&neighbour, &over);
        let watching = scope.spawn(move || {
            let mut times = Vec::new();
            loop {
                let since = Instant::now();
                assert_eq!(neighbour.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
                times.push(since.elapsed());
                if over.load(Ordering::Relaxed) {
                    return times;
                }
            }
        });
        for _ in 0..20 {
            let answer = front.call(service("service", b"demo/next service"));
            // The trap of the last is an error to the others, which go on.
            assert!(matches!(answer, Err(Error::Panicked(_))), "{answer:?}");
        }
        over.store(true, Ordering::Relaxed);
        let mut times = watching.join().unwrap();
        times.sort();
        eprintln!(
            "neighbour: {} calls, no error, p99 {:?}",
            times.len(),
            times[times.len() * 99 / 100]
        );
    });
}
