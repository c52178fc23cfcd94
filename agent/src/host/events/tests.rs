#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Condvar, Mutex};

use modunest_sdk::abi::{OwnedBuffer, RequestKind};

use super::*;
use crate::host::instance::{Loaded, without_state};
use crate::host::tests::cell;
use crate::host::{BreakerState, Call, Instance};

/// Writes down what it receives, once it is let. It cannot deal with `poison`, nor serve `fail`.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<String>>,
    /// Calls that came, also those that wait to be let in.
    entered: AtomicU64,
    open: Mutex<bool>,
    opened: Condvar,
}

struct Receiver(Arc<Recorder>);

impl Instance for Receiver {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        match (call.kind, call.target, call.payload) {
            (RequestKind::Http, "fail", _) | (RequestKind::Event, _, b"poison") => {
                return Err(Error::Failed("out of cheese".to_owned()));
            }
            (RequestKind::Http | RequestKind::Service, _, _) => return Ok(Vec::new().into()),
            (RequestKind::Event, _, _) => {}
            _ => return Err(Error::Unsupported("no hooks".to_owned())),
        }
        self.0.entered.fetch_add(1, Ordering::Relaxed);
        let open = self.0.open.lock().unwrap();
        drop(self.0.opened.wait_while(open, |open| !*open).unwrap());
        let text = String::from_utf8_lossy(call.payload).into_owned();
        self.0.seen.lock().unwrap().push(format!("{} {text}", call.caller));
        Ok(Vec::new().into())
    }
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
    without_state!();
}

impl Recorder {
    fn let_in(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait_for(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count || Instant::now() > until {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn publishing(name: &str, when_full: &str) -> Arc<Cell> {
    cell(name, &format!("[[event]]\nname = \"news\"\nwhen_full = \"{when_full}\"\n"), &[])
}

fn receiving(name: &str, queue: usize, from: &[&Arc<Cell>]) -> (Arc<Cell>, Arc<Recorder>) {
    let mut more = "[dependencies]\n".to_owned();
    for publisher in from {
        more += &format!("\"{}\" = \"1\"\n", publisher.name());
    }
    for publisher in from {
        let from = publisher.name();
        more += &format!("[[event]]\nname = \"news\"\nfrom = \"{from}\"\nqueue = {queue}\n");
    }
    let cell = cell(name, &more, from);
    open_mailbox(&cell, None);
    let recorder = Arc::new(Recorder::default());
    cell.set(State::Loading, None);
    cell.open(Loaded::Other(Box::new(Receiver(recorder.clone())))).unwrap();
    (cell, recorder)
}

fn host(cells: &[&Arc<Cell>]) -> Host {
    let cells = cells.iter().map(|cell| (cell.name().clone(), (*cell).clone())).collect();
    Host { cells, ..Host::empty() }
}

fn publish(cell: &Cell, payload: &str) -> Result<(), Error> {
    cell.publish(&[b"\x04news", payload.as_bytes()].concat()).map(drop)
}

fn call(cell: &Cell, kind: RequestKind, target: &str) -> Result<OwnedBuffer, Error> {
    cell.call(Call { kind, target, payload: b"", trace: "", caller: "", deadline_ms: 0 })
}

/// Waits until something is so.
fn wait_until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "it does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_receiver_hears_everything_in_the_order_of_each_publisher() {
    let publishers = ["demo/pa", "demo/pb"].map(|name| publishing(name, "wait"));
    let from: Vec<&Arc<Cell>> = publishers.iter().collect();
    let receivers = ["demo/ra", "demo/rb", "demo/rc"].map(|name| receiving(name, 3, &from));
    for (_, recorder) in &receivers {
        recorder.let_in();
    }
    let all: Vec<&Arc<Cell>> = from.iter().copied().chain(receivers.iter().map(|r| &r.0)).collect();
    connect(&host(&all), true);
    std::thread::scope(|scope| {
        for publisher in &publishers {
            scope.spawn(|| {
                for n in 0..100 {
                    publish(publisher, &n.to_string()).unwrap();
                }
            });
        }
    });
    for (_, recorder) in &receivers {
        let seen = recorder.wait_for(200);
        for publisher in &publishers {
            let own: Vec<&String> =
                seen.iter().filter(|line| line.starts_with(publisher.name().as_str())).collect();
            let expected: Vec<String> =
                (0..100).map(|n| format!("{} {n}", publisher.name())).collect();
            assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn one_full_mailbox_keeps_an_event_from_all() {
    let publisher = publishing("demo/pub", "refuse");
    let (one, quick) = receiving("demo/quick", 64, &[&publisher]);
    let (other, stuck) = receiving("demo/stuck", 2, &[&publisher]);
    quick.let_in();
    connect(&host(&[&publisher, &one, &other]), true);
    let published = (0..5).filter(|n| publish(&publisher, &n.to_string()).is_ok()).count();
    assert_eq!(published, 2);
    let refused = publish(&publisher, "x").unwrap_err();
    assert_eq!(
        refused,
        Error::Unavailable("2 events demo/pub:news already wait for demo/stuck".into())
    );
    assert_eq!(quick.wait_for(2), ["demo/pub 0", "demo/pub 1"]);
    stuck.let_in();
    assert_eq!(stuck.wait_for(2), ["demo/pub 0", "demo/pub 1"]);
    let counters = publisher.links().events.counters();
    assert_eq!((counters.published, counters.refused), (2, 4));
}

#[test]
fn whoever_waits_for_room_gives_up_at_the_deadline() {
    let publisher = publishing("demo/pub", "wait");
    let (receiver, stuck) = receiving("demo/stuck", 1, &[&publisher]);
    connect(&host(&[&publisher, &receiver]), true);
    publish(&publisher, "first").unwrap();
    let deadline_ms = modunest_runtime::clock::now().as_millis() + 50;
    let frame = frame::Frame { deadline_ms, ..frame::Frame::default() };
    let late = frame::within(frame, || publish(&publisher, "second"));
    assert!(matches!(late, Err(Error::DeadlineExceeded(_))), "{late:?}");
    stuck.let_in();
    publish(&publisher, "third").unwrap();
    assert_eq!(stuck.wait_for(2), ["demo/pub first", "demo/pub third"]);
}

#[test]
fn a_successor_takes_the_mailbox_over() {
    let publisher = publishing("demo/pub", "refuse");
    let (old, stuck) = receiving("demo/one", 8, &[&publisher]);
    connect(&host(&[&publisher, &old]), true);
    for n in 0..4 {
        publish(&publisher, &n.to_string()).unwrap();
    }
    while stuck.entered.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let more =
        "[dependencies]\n\"demo/pub\" = \"1\"\n[[event]]\nname = \"news\"\nfrom = \"demo/pub\"\n";
    let new = cell("demo/one", more, &[&publisher]);
    open_mailbox(&new, Some(&old));
    let fresh = Arc::new(Recorder::default());
    fresh.let_in();
    new.set(State::Loading, None);
    new.open(Loaded::Other(Box::new(Receiver(fresh.clone())))).unwrap();
    connect(&host(&[&publisher, &new]), true);
    publish(&publisher, "4").unwrap();
    // The first is with the old instance, which deals with it before it goes.
    stuck.let_in();
    assert_eq!(fresh.wait_for(4), (1..5).map(|n| format!("demo/pub {n}")).collect::<Vec<_>>());
    assert_eq!(*stuck.seen.lock().unwrap(), ["demo/pub 0"]);
}

/// Three events come while a receiver takes none, which is looked for more often than an event is
/// tried. Once it is `back`, it gets all of them.
fn comes_later(away: impl Fn(&Cell), back: impl Fn(&Cell)) {
    let publisher = publishing("demo/pub", "refuse");
    let (receiver, recorder) = receiving("demo/one", 8, &[&publisher]);
    recorder.let_in();
    connect(&host(&[&publisher, &receiver]), true);
    away(&receiver);
    let before = receiver.meter().read().refused;
    for n in 0..3 {
        publish(&publisher, &n.to_string()).unwrap();
    }
    let attempts = u64::from(receiver.links().settings().event_attempts);
    wait_until(|| receiver.meter().read().refused > before + attempts);
    assert_eq!(receiver.links().events.counters().waiting, 3);
    back(&receiver);
    assert_eq!(recorder.wait_for(3), ["demo/pub 0", "demo/pub 1", "demo/pub 2"]);
    let counters = receiver.links().events.counters();
    assert_eq!((counters.dead, counters.retried), (0, 0));
}

#[test]
fn events_wait_while_their_receiver_starts_anew() {
    let away = |cell: &Cell| {
        let reason = Some("its process was killed".to_owned());
        assert!(cell.turn_from(&[State::Ready], State::Restarting, reason));
    };
    comes_later(away, Cell::resumed);
}

#[test]
fn events_wait_while_their_receiver_is_left_alone() {
    let away = |cell: &Cell| {
        while cell.breakers().states().0.state() == BreakerState::Closed {
            assert!(call(cell, RequestKind::Http, "fail").is_err());
        }
    };
    comes_later(away, |cell| cell.breakers().reset(|_| {}));
}

#[test]
fn an_event_that_nobody_can_deal_with_keeps_nobody_from_the_plugin() {
    let publisher = publishing("demo/pub", "refuse");
    let (receiver, recorder) = receiving("demo/one", 8, &[&publisher]);
    recorder.let_in();
    connect(&host(&[&publisher, &receiver]), true);
    for payload in ["poison", "good", "better"] {
        publish(&publisher, payload).unwrap();
    }
    assert_eq!(recorder.wait_for(2), ["demo/pub good", "demo/pub better"]);
    wait_until(|| receiver.links().events.counters().delivered == 2);
    let counters = receiver.links().events.counters();
    assert_eq!((counters.dead, counters.retried), (1, 4));
    // A route and a service.
    assert!(call(&receiver, RequestKind::Http, "/").is_ok());
    assert!(call(&receiver, RequestKind::Service, "echo").is_ok());
    assert!(receiver.breakers().are_quiet());
}

#[test]
fn who_serves_speaks_to_its_receivers_until_the_switch() {
    for state in [State::Ready, State::Unhealthy, State::Switching, State::Restarting] {
        let publisher = publishing("demo/pub", "refuse");
        let (receiver, recorder) = receiving("demo/one", 8, &[&publisher]);
        recorder.let_in();
        connect(&host(&[&publisher, &receiver]), true);
        publisher.set(state, None);
        // The next generation is without the receiver, and is not switched to yet.
        connect(&host(&[&publisher]), false);
        publish(&publisher, "news").unwrap();
        assert_eq!(recorder.wait_for(1), ["demo/pub news"], "{state:?}");
    }
}
