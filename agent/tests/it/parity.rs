//! One table of what plugins do with their host and with one another, driven unchanged against
//! the same plugin in each of its homes: what is heard must be the same, word for word.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use futures_util::{SinkExt as _, StreamExt as _};
use modunest_agent::config::grants::Grant;
use modunest_agent::config::{Config, Pattern};
use modunest_agent::secrets::HostKey;
use modunest_agent::{Agent, host};
use modunest_sdk::Error;
use modunest_sdk::operation as op;
use modunest_sdk::operation::environment::Variable;
use modunest_sdk::operation::files::{Named, Read, Write};
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::outbound::{Received, Send};
use modunest_sdk::operation::store::{Get, List, Put, Swap};
use tokio_tungstenite::tungstenite::Message;

use crate::homes::Home;
use crate::links::plugin;
use crate::registry::Registry;

const PATIENCE: Duration = Duration::from_secs(60);

/// What `demo/one` asks for: some of it free, some granted, some refused.
const CAPABILITIES: &str = r#"
[capabilities]
files = ["private"]
kv = ["cache"]
clock = ["wall", "monotonic"]
random = ["secure"]
optional = ["http:granted.example", "http:refused.example", "env:CARGO_PKG_NAME", "env:PATH",
    "files:read:/FOLDER/read", "files:write:/FOLDER/write"]
"#;

const GRANTS: [&str; 4] = [
    "http:granted.example",
    "env:CARGO_PKG_NAME",
    "files:read:/FOLDER/read",
    "files:write:/FOLDER/write",
];

/// What `demo/one` has of `demo/back`.
const TIES: &str = r#"
[dependencies]
"demo/back" = "^1"

[[import]]
plugin = "demo/back"
service = "plain"
version = "^1.1"
[[import]]
plugin = "demo/back"
service = "store"
methods = ["get"]
[[import]]
plugin = "demo/back"
service = "open"
[[import]]
plugin = "demo/back"
service = "shut"
[[import]]
plugin = "demo/back"
service = "spin"

[[event]]
name = "added"
from = "demo/back"
queue = 64

[[route]]
path = "/one"
methods = ["GET", "POST"]
stream = ["upload", "websocket"]
[[route]]
path = "/team"
methods = ["POST"]
guards = ["demo/back:allow", "demo/back:team"]
[[route]]
path = "/denied"
methods = ["POST"]
guards = ["demo/back:allow", "demo/back:deny", "demo/back:team"]
[[route]]
path = "/undecided"
methods = ["POST"]
guards = ["demo/back:fails"]
[[route]]
path = "/late"
methods = ["POST"]
guards = ["demo/back:late"]
"#;

const BACK: &str = r#"
[[service]]
name = "plain"
version = "1.2.0"
[[service]]
name = "store"
version = "2.0.0"
methods = ["get", "put"]
[[service]]
name = "open"
version = "1.0.0"
guards = ["allow"]
[[service]]
name = "shut"
version = "1.0.0"
guards = ["allow", "deny"]
[[service]]
name = "spin"
version = "1.0.0"

[[event]]
name = "added"

[[guard]]
name = "allow"
exported = true
[[guard]]
name = "deny"
exported = true
[[guard]]
name = "team"
exported = true
[[guard]]
name = "fails"
exported = true
[[guard]]
name = "late"
exported = true

[[route]]
path = "/back"
methods = ["POST"]
"#;

/// Something to do, and how what comes of it is written down.
enum Step {
    /// `demo/one` asks for an operation.
    Ask(u32, Vec<u8>),
    /// The same, where the answer is another one each time: its length is written down.
    Measure(u32, Vec<u8>),
    /// `demo/one` sends a request: what came back of it, without what the server says of itself.
    Request(Vec<u8>),
    /// The plugin at a path is told what to do.
    Tell(&'static str, String),
    /// The same, with a header `x-team`.
    TellFrom(&'static str, &'static str),
    /// A page is fetched: its length and its sum.
    Fetch(&'static str),
    /// So many bytes of the value one are sent.
    Upload(usize),
    /// Messages to a WebSocket, and what is answered to each.
    Talk(&'static [&'static str]),
    /// `demo/one` has taken or given up so many events.
    Await(u64),
}

/// Everything that is done. `folder` has what is granted, `port` is that of a server.
fn table(folder: &Path, port: u16) -> Vec<(&'static str, Step)> {
    use Step::{Ask, Await, Fetch, Measure, Request, Talk, Tell, TellFrom, Upload};
    let place = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let get = |store: &str, key: &[u8]| Ask(op::STORE_GET, Get { store, key }.encode());
    let put = |store: &str, key: &[u8], value: &[u8]| {
        Ask(op::STORE_PUT, Put { store, key, value }.encode())
    };
    let swap = |expected: Option<&[u8]>, value: &[u8]| {
        let (store, key) = ("cache", b"a".as_slice());
        Ask(op::STORE_SWAP, Swap { store, key, expected, value: Some(value) }.encode())
    };
    let list = List { store: "cache", prefix: b"", after: None, limit: 10 };
    let read = |path: &str| Ask(op::FILE_READ, Read { path, offset: 0, length: 100 }.encode());
    let write = |path: &str, content: &[u8]| {
        Ask(op::FILE_WRITE, Write { path, append: false, content }.encode())
    };
    let named = |number: u32, path: &str| Ask(number, Named { path }.encode());
    let send = |url: &str| Request(Send::get(url).encode());
    let server = |path: &str| format!("http://granted.example:{port}{path}");
    let post = Send { method: "POST", body: b"hello", ..Send::get("") };
    let variable = |name: &str| Ask(op::ENVIRONMENT, Variable { name }.encode());
    let tell = |path: &'static str, text: &str| Tell(path, text.to_owned());
    vec![
        ("kv: nothing is there", get("cache", b"a")),
        ("kv: put", put("cache", b"a", b"one")),
        ("kv: get", get("cache", b"a")),
        ("kv: swap another", swap(Some(b"none"), b"two")),
        ("kv: swap", swap(Some(b"one"), b"two")),
        ("kv: list", Ask(op::STORE_LIST, list.encode())),
        ("kv: delete", Ask(op::STORE_DELETE, Get { store: "cache", key: b"a" }.encode())),
        ("kv: a store that was not asked for", put("other", b"a", b"")),
        ("kv: an empty key", put("cache", b"", b"")),
        ("kv: junk", Ask(op::STORE_PUT, b"junk".to_vec())),
        ("files: write", write("notes/today.txt", b"hello")),
        ("files: read", read("notes/today.txt")),
        ("files: list", named(op::FILE_LIST, "notes")),
        ("files: up", read("../secret.txt")),
        ("files: of the system", read("/etc/passwd")),
        ("files: nothing", read("nothing")),
        ("files: read what was granted", read(&place("read/a.txt"))),
        ("files: write what was granted to be read", write(&place("read/a.txt"), b"x")),
        ("files: write what was granted", write(&place("write/b.txt"), b"written")),
        ("files: read it again", read(&place("write/b.txt"))),
        ("files: beside it", read(&place("secret.txt"))),
        ("files: delete", named(op::FILE_DELETE, "notes/today.txt")),
        ("http: get", send(&server("/"))),
        ("http: post", Request(Send { url: &server("/echo"), ..post }.encode())),
        ("http: redirected to this machine", send(&server("/to-own"))),
        ("http: a host that was refused", send("http://refused.example/")),
        ("http: this machine", send(&format!("http://127.0.0.1:{port}/"))),
        ("http: a file", send("file:///etc/passwd")),
        ("clock: wall", Measure(op::CLOCK_WALL, Vec::new())),
        ("clock: monotonic", Measure(op::CLOCK_MONOTONIC, Vec::new())),
        ("random", Measure(op::RANDOM, 1000u32.encode())),
        ("random: too many", Ask(op::RANDOM, u32::MAX.encode())),
        ("environment", variable("CARGO_PKG_NAME")),
        ("environment: refused", variable("PATH")),
        ("environment: no name", variable("a=b")),
        ("no such operation", Ask(9999, Vec::new())),
        ("secrets: the configuration", tell("/one/config", "")),
        ("services: by name", tell("/one", "call demo/back plain hello")),
        ("services: a method", tell("/one", "call demo/back store/get key")),
        ("services: a method that is not imported", tell("/one", "call demo/back store/put key")),
        ("services: not imported", tell("/one", "call demo/back third x")),
        ("services: a stranger's", tell("/one", "call demo/stranger plain x")),
        ("services: not opened", tell("/one", "open demo/back:third")),
        ("services: a guessed handle", Tell("/one", format!("handle {} - x", "0".repeat(32)))),
        ("services: behind a guard that allows", tell("/one", "call demo/back open x")),
        ("services: behind a guard that denies", tell("/one", "call demo/back shut x")),
        ("guards: allowed", TellFrom("/team", "red")),
        ("guards: denied by the second", TellFrom("/team", "blue")),
        ("guards: denied before the last", TellFrom("/denied", "red")),
        ("guards: one that fails", TellFrom("/undecided", "red")),
        ("guards: in this order", tell("/back", "seen")),
        ("events: publish", tell("/back", "publish added a")),
        ("events: one that is refused twice", tell("/back", "publish added twice b")),
        ("events: one that is never taken", tell("/back", "publish added never c")),
        ("events: one behind it", tell("/back", "publish added d")),
        ("events: undeclared", tell("/back", "publish removed e")),
        ("events: by whoever does not declare it", tell("/one", "publish added f")),
        ("events: all are dealt with", Await(4)),
        ("events: in this order", tell("/one", "seen")),
        ("streams: down", Fetch("/one/big?40")),
        ("streams: up, in a message", Upload(1024)),
        ("streams: up, piece by piece", Upload(20 * 1024 * 1024)),
        ("streams: both ways", Talk(&["hello", "again", "bye"])),
        ("assets", tell("/one/asset", "plugin.toml.not")),
        ("state: it is one", tell("/one/count", "")),
        ("state: it stays", tell("/one/count", "")),
        ("panic: it ends the call", tell("/one/panic", "")),
        ("panic: and nothing else", tell("/one/echo", "still")),
    ]
}

/// Two plugins in one home.
struct Host {
    agent: Agent,
    folder: tempfile::TempDir,
    port: u16,
}

impl Host {
    async fn start(home: Home, change: impl FnOnce(&mut Config)) -> Host {
        let registry = Registry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        for name in ["read", "write"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        std::fs::write(path.join("read/a.txt"), "readable").unwrap();
        std::fs::write(path.join("secret.txt"), "nobody reads this").unwrap();
        let placed = |text: &str| text.replace("/FOLDER", path.to_str().unwrap());
        let port = serve().await;
        registry.publish(home.release("demo/back", BACK));
        registry.publish(home.release("demo/one", &(placed(CAPABILITIES) + TIES)));
        let mut config = registry.config(&path.join("state"), &[("demo/one", "^1")]);
        home.settle(&mut config);
        config.host.load_timeout = PATIENCE;
        config.host.links.event_attempts = 3;
        config.host.grants.rules.push(Grant {
            plugins: vec![Pattern::Plugin("demo/one".parse().unwrap())],
            allow: GRANTS.iter().map(|text| placed(text).parse().unwrap()).collect(),
            defaults: true,
            quota: None,
        });
        let outbound = &mut config.host.grants.outbound;
        outbound.networks = vec!["127.0.0.0/8".parse().unwrap()];
        outbound.addresses.insert("granted.example".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
        let key = HostKey::create(&config.state_dir).unwrap().public();
        let sealed = key.seal(&"demo/one".parse().unwrap(), b"open sesame").unwrap();
        let one = config.plugins.get_mut(&"demo/one".parse().unwrap()).unwrap();
        one.config = serde_json::to_vec(&serde_json::json!({ "token": sealed })).unwrap();
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        for name in ["demo/one", "demo/back"] {
            let seen = plugin(&agent, name);
            assert_eq!((seen.state.as_str(), seen.tier.as_str()), ("ready", home.tier()));
        }
        Host { agent, folder, port }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    async fn post(&self, path: &str, team: &str, body: Vec<u8>) -> (u16, Option<i32>, Vec<u8>) {
        let url = format!("http://{}{path}", self.agent.gateway_addr());
        let request = reqwest::Client::new().post(url).header("x-team", team).body(body);
        let answer = request.send().await.unwrap();
        let status = answer.headers().get("x-status");
        let status = status.map(|status| status.to_str().unwrap().parse().unwrap());
        (answer.status().as_u16(), status, answer.bytes().await.unwrap().to_vec())
    }

    /// What an operation came to.
    async fn ask(&self, number: u32, request: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (status, code, body) = self.post(&format!("/one/ask/{number}"), "", request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let text = String::from_utf8_lossy(&body);
        Error::from_status(code.unwrap(), &text).map_or(Ok(body.clone()), Err)
    }

    async fn tell(&self, path: &str, team: &str, command: &str) -> String {
        let (status, _, body) = self.post(path, team, command.as_bytes().to_vec()).await;
        let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let detail = problem.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
        let text = detail.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        format!("{status} {}", text.trim_end().replace('\n', ", "))
    }

    async fn step(&self, step: Step) -> String {
        match step {
            Step::Ask(number, request) => match self.ask(number, request).await {
                Ok(answer) => format!("\"{}\"", answer.escape_ascii()),
                Err(error) => error.to_string(),
            },
            Step::Measure(number, request) => match self.ask(number, request).await {
                Ok(answer) => format!("{} bytes", answer.len()),
                Err(error) => error.to_string(),
            },
            Step::Request(request) => match self.ask(op::HTTP_SEND, request).await {
                Ok(answer) => {
                    let Received { status, url, body, .. } = Received::decode(&answer).unwrap();
                    format!("{status} {url} \"{}\"", body.0.escape_ascii())
                }
                Err(error) => error.to_string(),
            },
            Step::Tell(path, command) => self.tell(path, "", &command).await,
            Step::TellFrom(path, team) => self.tell(path, team, "seen").await,
            Step::Fetch(path) => {
                let url = format!("http://{}{path}", self.agent.gateway_addr());
                let body = reqwest::get(url).await.unwrap().bytes().await.unwrap();
                let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
                format!("{} bytes, sum {sum}", body.len())
            }
            Step::Upload(bytes) => {
                let (status, _, body) = self.post("/one/upload", "", vec![1; bytes]).await;
                format!("{status} {}", String::from_utf8_lossy(&body))
            }
            Step::Talk(messages) => {
                let url = format!("ws://{}/one/socket", self.agent.gateway_addr());
                let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
                let mut heard = Vec::new();
                for message in messages {
                    socket.send(Message::text(*message)).await.unwrap();
                    let answer = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
                    heard.push(match answer {
                        Some(Ok(Message::Text(text))) => text.to_string(),
                        Some(Ok(Message::Close(_))) | None => "closed".to_owned(),
                        other => format!("{other:?}"),
                    });
                }
                heard.join(", ")
            }
            Step::Await(events) => {
                let counters =
                    || -> host::EventCounters { plugin(&self.agent, "demo/one").links.events };
                let waiting = async {
                    while counters().delivered + counters().dead < events {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, waiting).await.unwrap();
                let host::EventCounters { delivered, retried, dead, waiting, .. } = counters();
                format!("{delivered} taken, {retried} tried again, {dead} given up, {waiting} wait")
            }
        }
    }
}

/// A server that one plugin may reach; one of its pages never answers.
async fn serve() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to_own = axum::response::Redirect::temporary(&format!("http://127.0.0.1:{port}/"));
    let router = Router::new()
        .route("/", get(async || "hello from outside"))
        .route("/echo", any(async |body: String| format!("you said {body}")))
        .route("/to-own", get(async move || to_own))
        .route("/never", get(std::future::pending::<&'static str>));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_does_is_the_same_in_every_home() {
    let mut transcripts = Vec::new();
    for home in Home::ALL {
        let host = Host::start(home, |_| ()).await;
        let mut lines = Vec::new();
        for (what, step) in table(&host.path(), host.port) {
            lines.push(format!("{what}\n  {}", host.step(step).await));
        }
        // Where a panic was, each compiler tells from the folder that it was started in.
        let text = lines
            .join("\n")
            .replace("agent/tests/components/probe/", "")
            .replace(host.path().to_str().unwrap(), "/FOLDER")
            .replace(&host.port.to_string(), "PORT");
        host.agent.shutdown().await;
        transcripts.push((home, text));
    }
    let (_, first) = &transcripts[0];
    for (home, text) in &transcripts[1..] {
        let others = text.lines().zip(first.lines()).find(|(one, other)| one != other);
        assert_eq!(others, None, "{home:?} differs");
        assert_eq!(text.lines().count(), first.lines().count(), "{home:?}");
    }
    insta::assert_snapshot!(first);
}

/// A plugin that waits for its host past its deadline is ended in time, wherever it runs: what it
/// waits for never comes. In the agent's own process nobody can end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_includes_what_is_waited_for() {
    for home in Home::WALLED {
        let host = Host::start(home, |config| {
            config.host.call_timeout = Duration::from_secs(1);
            config.host.links.guard_timeout = Duration::from_secs(1);
            config.host.process.grace = Duration::from_millis(500);
            config.host.process.restarts.first_pause = Duration::from_millis(10);
        })
        .await;
        let never = Send::get(&format!("http://granted.example:{}/never", host.port)).encode();
        let (status, ..) = host.post(&format!("/one/ask/{}", op::HTTP_SEND), "", never).await;
        // The host call is the first to notice: its caller hears of it, or is ended with it.
        assert!(status == 504 || status == 200, "{home:?}: {status}");
        let late = host.tell("/one", "", "call demo/back spin x").await;
        assert!(late.starts_with("504 "), "{home:?}: {late}");
        // A native plugin that does not end takes its process along.
        let waiting = async {
            while !host.tell("/one", "", "call demo/back plain x").await.starts_with("200 ") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("its neighbour comes back");
        let guarded = host.tell("/late", "", "seen").await;
        assert!(guarded.starts_with("503 ") || guarded.starts_with("504 "), "{home:?}: {guarded}");
        host.agent.shutdown().await;
    }
}

/// What was granted is reached by its operations in every home, and by the system's own calls
/// only where they lead there. A component has none, and in the agent's own process there is no
/// sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_follows_the_grant() {
    for home in Home::WALLED {
        let host = Host::start(home, |_| ()).await;
        let place = |name: &str| host.path().join(name).to_str().unwrap().to_owned();
        let private = host.path().join("state/private/demo/one/own.txt");
        let read = |path: &str| Read { path, offset: 0, length: 100 }.encode();
        let write = |path: &str| Write { path, append: false, content: b"by operation" }.encode();
        assert_eq!(host.ask(op::FILE_READ, read(&place("read/a.txt"))).await.unwrap(), b"readable");
        host.ask(op::FILE_WRITE, write(&place("write/b.txt"))).await.unwrap();
        host.ask(op::FILE_WRITE, write("own.txt")).await.unwrap();
        assert!(host.ask(op::FILE_READ, read(&place("secret.txt"))).await.is_err());

        // The kernel says it, or the library that has nothing below it.
        let refused = match home {
            Home::Near | Home::Native => "403 demo/one 1.0.0: denied: permission denied",
            Home::Inside | Home::Runner => "403 demo/one 1.0.0: denied: unsupported",
        };
        let granted = |answer: &'static str| if home == Home::Native { answer } else { refused };
        let private = private.to_str().unwrap();
        for (action, path, expected) in [
            ("raw-read", place("read/a.txt"), granted("200 readable")),
            ("raw-write", place("read/a.txt"), refused),
            ("raw-read", place("write/b.txt"), granted("200 by operation")),
            ("raw-write", place("write/b.txt"), granted("200 ")),
            ("raw-write", place("write/c.txt"), granted("200 ")),
            ("raw-read", private.to_owned(), granted("200 by operation")),
            ("raw-read", place("secret.txt"), refused),
            ("raw-write", place("secret.txt"), refused),
            ("raw-write", place("new.txt"), refused),
            ("raw-read", place("state/modunest.lock"), refused),
            ("raw-read", place("read/../secret.txt"), refused),
            ("raw-read", "/etc/passwd".to_owned(), refused),
            ("raw-read", "/proc/self/environ".to_owned(), refused),
            ("raw-write", "/tmp/modunest-raw".to_owned(), refused),
        ] {
            let heard = host.tell(&format!("/one/{action}"), "", &path).await;
            assert_eq!(heard.trim_end(), expected.trim_end(), "{home:?}: {action} {path}");
        }
        let secret = host.path().join("secret.txt");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "nobody reads this");
        host.agent.shutdown().await;
    }
}
