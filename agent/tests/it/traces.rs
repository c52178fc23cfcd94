//! Spans reach a collector, with the identifiers that travelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use modunest_agent::Agent;
use modunest_agent::config::grants::Grant;
use modunest_runtime::telemetry::{self, Settings};
use modunest_sdk::operation::HTTP_SEND;
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::outbound::{Received, Send};

use crate::capabilities::decoded;
use crate::homes::Home;
use crate::operator::Process;
use crate::plugins::{ECHO, release, route, uses};
use crate::process::plugin;
use crate::registry::Registry;
use crate::screens::config_file;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// The length-delimited fields of a protobuf message, by number; others are skipped.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let skipped = match key & 7 {
            0 => {
                varint(&mut bytes);
                0
            }
            1 => 8,
            5 => 4,
            2 => {
                let length = varint(&mut bytes) as usize;
                found.push((key >> 3, &bytes[..length]));
                length
            }
            other => panic!("wire type {other}"),
        };
        bytes = &bytes[skipped..];
    }
    found
}

/// Name, span and parent of each span of [`TRACE`] (opentelemetry-proto, `trace.proto`).
fn spans(request: &[u8]) -> Vec<(String, String, String)> {
    let of = |bytes, number| {
        fields(bytes).into_iter().filter(move |(n, _)| *n == number).map(|(_, bytes)| bytes)
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut found = Vec::new();
    for resource in of(request, 1) {
        for scope in of(resource, 2) {
            for span in of(scope, 2) {
                let fields: BTreeMap<u64, &[u8]> = fields(span).into_iter().rev().collect();
                if hex(fields[&1]) == TRACE {
                    let parent = fields.get(&4).map(|parent| hex(parent)).unwrap_or_default();
                    let name = String::from_utf8(fields[&5].to_vec()).unwrap();
                    found.push((name, hex(fields[&2]), parent));
                }
            }
        }
    }
    found
}

type Collected = Arc<Mutex<Vec<(String, String, String)>>>;

async fn collect(State(collected): State<Collected>, body: Bytes) {
    collected.lock().unwrap().extend(spans(&body));
}

async fn ask(agent: &Agent) -> u16 {
    let url = format!("http://{}/front", agent.gateway_addr());
    let request = reqwest::Client::new().post(url).body("call demo/back echo hello");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    request.send().await.unwrap().status().as_u16()
}

/// Who calls, and who is called: every home in both places, alone and beside others.
const PAIRS: [(Home, Home); 8] = [
    (Home::Native, Home::Native),
    (Home::Near, Home::Near),
    (Home::Inside, Home::Inside),
    (Home::Runner, Home::Runner),
    (Home::Native, Home::Inside),
    (Home::Inside, Home::Near),
    (Home::Near, Home::Runner),
    (Home::Runner, Home::Native),
];

/// An agent with `demo/front`, whose route calls a service of `demo/back`.
async fn pair(front: Home, back: Home) -> (tempfile::TempDir, Agent) {
    let registry = Registry::start().await;
    let more = uses("demo/back", "^1") + "\n[[route]]\npath = \"/front\"\nmethods = [\"POST\"]\n";
    registry.publish(front.release("demo/front", &more));
    registry.publish(back.release("demo/back", ECHO));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/front", "^1")]);
    config.host.load_timeout = Duration::from_secs(60);
    for (home, name) in [(front, "demo/front"), (back, "demo/back")] {
        registry.trust(name, home.trust());
        if home == Home::Near {
            config.host.in_process.push(name.parse().unwrap());
        }
    }
    let agent = Agent::start(config).await.unwrap();
    for (home, name) in [(front, "demo/front"), (back, "demo/back")] {
        assert_eq!(plugin(&agent, name).tier, home.tier());
    }
    (folder, agent)
}

/// A server on this machine.
async fn served(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn collector() -> (String, Collected) {
    let collected = Collected::default();
    let router = Router::new().route("/v1/traces", post(collect)).with_state(collected.clone());
    (served(router).await, collected)
}

/// The spans that came until now, taken out: by name, their identifiers and those of what is around
/// them.
fn by_name(collected: &Collected) -> BTreeMap<String, (String, String)> {
    let spans = std::mem::take(&mut *collected.lock().unwrap());
    spans.into_iter().map(|(name, id, parent)| (name, (id, parent))).collect()
}

/// A server that answers with the `traceparent` that it was sent.
async fn mirror() -> String {
    let answer = async |headers: HeaderMap| -> String {
        let sent: Vec<_> = headers.get_all("traceparent").iter().collect();
        assert!(sent.len() <= 1, "{sent:?}");
        sent.first().map_or("none", |value| value.to_str().unwrap()).to_owned()
    };
    let moved = async || (StatusCode::FOUND, [(LOCATION, "/")]);
    served(Router::new().route("/", get(answer)).route("/moved", get(moved))).await
}

/// Manifest lines that ask for requests to this machine.
const ASKS: &str = "\n[capabilities]\noptional = [\"http:127.0.0.1\"]\n";

/// What the mirror answers to a request of a plugin, whose route at `url` asks for operations.
async fn mirrored(url: &str, send: Send<'_>) -> String {
    let request = reqwest::Client::new().post(format!("{url}/ask/{HTTP_SEND}")).body(send.encode());
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-status"]),
        (200, &"0".parse().unwrap())
    );
    let received: Received = decoded(&answer.bytes().await.unwrap());
    String::from_utf8(received.body.0).unwrap()
}

/// The binary, whose last spans wait for more when it is told to stop. Its plugins are in processes
/// of their own.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_has_recorded_reaches_the_collector_at_its_end() {
    let (collector, collected) = collector().await;
    let mirror = mirror().await;
    let registry = Registry::start().await;
    let to = |name: &str| format!("FORWARD_ECHO=\"demo/{name}\"");
    let on = |name: &str| uses(&format!("demo/{name}"), "^1");
    registry.publish(release("demo/third", "1.0.0", &[], ECHO));
    registry.publish(release("demo/second", "1.0.0", &[&to("third")], &(on("third") + ECHO)));
    registry.publish(release("demo/first", "1.0.0", &[&to("second")], &(on("second") + ECHO)));
    let front = on("first") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/first\""], &front));
    let asker = ASKS.to_owned() + &route("/asker").replace("GET", "POST");
    registry.publish(release("demo/asker", "1.0.0", &["OPERATE"], &asker));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&registry, folder.path(), &[("demo/front", "^1"), ("demo/asker", "^1")]);
    let settings = std::fs::read_to_string(&path).unwrap();
    let settings = settings.replace("http:api.example.org", "http:127.0.0.1");
    let settings = settings.replace("in_process = [\"demo/*\"]\n", "");
    std::fs::write(&path, settings + &format!("[telemetry]\notlp = \"{collector}\"\n")).unwrap();

    // By itself it would send them in an hour.
    let process = Process::start_with(&path, [("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).await;
    let gateway = format!("http://{}", process.status().await.gateway);
    let request = reqwest::Client::new().get(format!("{gateway}/front"));
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let heard = mirrored(&format!("{gateway}/asker"), Send::get(&mirror)).await;
    assert!(collected.lock().unwrap().is_empty());
    tokio::task::spawn_blocking(|| process.stop()).await.unwrap();

    let spans = by_name(&collected);
    for chain in [
        &[
            "GET /front",
            "route demo/front /front",
            "service demo/first echo",
            "service demo/second echo",
            "service demo/third echo",
        ][..],
        &["POST /asker", "route demo/asker /asker", "GET 127.0.0.1"],
    ] {
        let mut above = CALLER;
        for name in chain {
            let (id, parent) = spans.get(*name).unwrap_or_else(|| panic!("no {name} in {spans:?}"));
            assert_eq!(parent, above, "{name}");
            above = id;
        }
    }
    assert_eq!(heard, format!("00-{TRACE}-{}-01", spans["GET 127.0.0.1"].0));
}

/// Without a collector, and whatever calls: a future or a thread.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_plugins_carry_the_trace_of_the_call_unless_they_say_otherwise() {
    let mirror = mirror().await;
    for home in Home::ALL {
        let registry = Registry::start().await;
        let more = ASKS.to_owned() + &route("/asker").replace("GET", "POST");
        registry.publish(home.release("demo/asker", &more));
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry.config(folder.path(), &[("demo/asker", "^1")]);
        config.host.load_timeout = Duration::from_secs(60);
        home.settle(&mut config);
        registry.trust("demo/asker", home.trust());
        config.host.grants.rules.push(Grant {
            plugins: vec!["demo/*".parse().unwrap()],
            allow: vec!["http:127.0.0.1".parse().unwrap()],
            defaults: true,
            quota: None,
        });
        let agent = Agent::start(config).await.unwrap();
        assert_eq!(plugin(&agent, "demo/asker").tier, home.tier());
        let url = format!("http://{}/asker", agent.gateway_addr());
        for path in ["", "/moved"] {
            let place = format!("{mirror}{path}");
            let heard = mirrored(&url, Send { redirects: 1, ..Send::get(&place) }).await;
            assert!(heard.starts_with(&format!("00-{TRACE}-")), "{home:?}: {heard}");
            assert!(heard.ends_with("-01") && !heard.contains(CALLER), "{home:?}: {heard}");
        }
        let own = format!("00-{}-{CALLER}-00", TRACE.replace('4', "5"));
        let headers = vec![("Traceparent", own.as_str())];
        assert_eq!(mirrored(&url, Send { headers, ..Send::get(&mirror) }).await, own, "{home:?}");
        agent.shutdown().await;
    }
}

/// One test, because a process exports once.
#[tokio::test(flavor = "multi_thread")]
async fn nested_calls_are_one_trace_and_a_collector_that_is_away_holds_nobody_up() {
    let (address, collected) = collector().await;
    let settings = Settings::read(Some(&address), "test", "1").unwrap().unwrap();
    let settings = Settings { delay: Duration::from_millis(50), ..settings };
    for (front, back) in PAIRS {
        let (_folder, agent) = pair(front, back).await;
        let exporter = telemetry::start(settings.clone()).unwrap();
        assert!(telemetry::start(settings.clone()).is_err());
        assert_eq!(ask(&agent).await, 200);
        tokio::task::spawn_blocking(move || exporter.shutdown()).await.unwrap();
        let spans = by_name(&collected);
        let names: Vec<&str> = spans.keys().map(String::as_str).collect();
        let expected = ["POST /front", "route demo/front /front", "service demo/back echo"];
        assert_eq!(names, expected, "{front:?} calls {back:?}");
        assert_eq!(spans["POST /front"].1, CALLER);
        assert_eq!(spans["route demo/front /front"].1, spans["POST /front"].0);
        assert_eq!(spans["service demo/back echo"].1, spans["route demo/front /front"].0);
        agent.shutdown().await;
    }

    // Nobody listens any more, and a queue of one is full at once.
    let endpoint = "http://127.0.0.1:9/v1/traces".to_owned();
    let (_folder, agent) = pair(Home::Native, Home::Native).await;
    let exporter = telemetry::start(Settings { endpoint, queue: 1, batch: 1, ..settings }).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&agent).await, 200);
    }
    let since = Instant::now();
    while telemetry::counts().unwrap().dropped == 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", telemetry::counts());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::task::spawn_blocking(move || exporter.shutdown()).await.unwrap();
    assert_eq!(telemetry::counts(), None);
    agent.shutdown().await;
}
