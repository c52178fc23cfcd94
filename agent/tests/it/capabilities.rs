//! What plugins may use: each operation through a real plugin, allowed and denied, and what
//! hostile ones try.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use modunest_agent::config::grants::Grant;
use modunest_agent::config::{Grants, Pattern};
use modunest_agent::{Agent, Config};
use modunest_sdk::operation as op;
use modunest_sdk::operation::files::{FileInfo, Found, Listing, Named, Read, Write};
use modunest_sdk::operation::form::{Blob, Form};
use modunest_sdk::operation::outbound::{Received, Send};
use modunest_sdk::operation::store::{Entry, Get, List, Page, Put, Swap, Swapped};
use modunest_sdk::operation::{environment, store};
use modunest_sdk::{Error, Status};

use crate::plugins::release;
use crate::registry::Registry;

/// A plugin that carries every operation it is asked for to its host.
pub struct Asker {
    pub agent: Agent,
    registry: Registry,
    config: Config,
    _folder: tempfile::TempDir,
}

/// Everything that can be asked for here.
const ASKS: &str = r#"
[capabilities]
files = ["private"]
kv = ["cache"]
clock = ["wall", "monotonic"]
random = ["secure"]
optional = ["http:*.example.org", "http:localhost", "http:127.0.0.1", "http:other.example",
    "env:HOME", "env:PATH", "files:read:/FOLDER/read", "files:write:/FOLDER/write"]
"#;

impl Asker {
    pub async fn start(grants: &[&str], change: impl FnOnce(&mut Config)) -> Asker {
        let registry = Registry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        for name in ["read", "write"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        let place = |text: &str| text.replace("/FOLDER", path.to_str().unwrap());
        let route = "\n[[route]]\npath = \"/ask\"\nmethods = [\"POST\"]\n";
        let more = place(ASKS) + route;
        registry.publish(release("demo/asker", "1.0.0", &["OPERATE"], &more));
        let mut config = registry.config(&path.join("state"), &[("demo/asker", "^1")]);
        let allow = grants.iter().map(|text| place(text).parse().unwrap()).collect();
        config.host.grants.rules.push(Grant {
            plugins: vec![Pattern::Org("demo".parse().unwrap())],
            allow,
            defaults: true,
            quota: None,
        });
        change(&mut config);
        let agent = Agent::start(config.clone()).await.unwrap();
        assert_eq!(agent.status().plugins[0].state, "ready", "{:?}", agent.status().plugins);
        Asker { agent, registry, config, _folder: folder }
    }

    /// The folder with the granted folders and the agent's state.
    fn folder(&self) -> &Path {
        self.config.state_dir.parent().unwrap()
    }

    pub async fn ask(&self, number: u32, request: Vec<u8>) -> Result<Vec<u8>, Error> {
        let url = format!("http://{}/ask/{number}", self.agent.gateway_addr());
        let answer =
            modunest_runtime::http::client().unwrap().post(url).body(request).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let status: i32 = answer.headers()["x-status"].to_str().unwrap().parse().unwrap();
        let bytes = answer.bytes().await.unwrap().to_vec();
        match Error::from_status(status, &String::from_utf8_lossy(&bytes)) {
            Some(error) => Err(error),
            None => Ok(bytes),
        }
    }

    pub async fn refused(&self, number: u32, request: Vec<u8>) -> (Status, String) {
        let error = self.ask(number, request).await.unwrap_err();
        (error.status(), error.text().to_owned())
    }

    async fn send(&self, url: &str) -> Result<Received, Error> {
        let answer = self.ask(op::HTTP_SEND, Send::get(url).encode()).await?;
        Ok(decoded(&answer))
    }
}

pub fn decoded<T: for<'a> Form<'a>>(bytes: &[u8]) -> T {
    T::decode(bytes).unwrap()
}

fn put(store: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    Put { store, key, value }.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_keep_what_was_written() {
    let asker = Asker::start(&[], |config| config.host.grants.quota.store_bytes = 2000).await;
    let key = b"a".as_slice();
    let get = || Get { store: "cache", key }.encode();
    assert_eq!(decoded::<Entry>(&asker.ask(op::STORE_GET, get()).await.unwrap()).value, None);
    asker.ask(op::STORE_PUT, put("cache", key, b"one")).await.unwrap();
    let entry: Entry = decoded(&asker.ask(op::STORE_GET, get()).await.unwrap());
    assert_eq!(entry.value, Some(Blob(b"one".to_vec())));
    let swap = |expected: &'static [u8]| {
        Swap { store: "cache", key, expected: Some(expected), value: Some(b"two") }.encode()
    };
    let swapped: Swapped = decoded(&asker.ask(op::STORE_SWAP, swap(b"none")).await.unwrap());
    assert_eq!(swapped, Swapped { done: false, found: Some(Blob(b"one".to_vec())) });
    let swapped: Swapped = decoded(&asker.ask(op::STORE_SWAP, swap(b"one")).await.unwrap());
    assert!(swapped.done);
    let list = List { store: "cache", prefix: b"", after: None, limit: 10 }.encode();
    let page: Page = decoded(&asker.ask(op::STORE_LIST, list).await.unwrap());
    assert_eq!(page, Page { keys: vec![Blob(b"a".to_vec())], more: false });

    // Another store was not asked for, a key is bounded, and so is the quota.
    let (status, text) = asker.refused(op::STORE_PUT, put("other", key, b"")).await;
    assert_eq!(status, Status::Denied);
    assert_eq!(text, "demo/asker does not ask for kv:other in its manifest");
    let (status, _) = asker.refused(op::STORE_PUT, put("cache", b"", b"")).await;
    assert_eq!(status, Status::InvalidInput);
    let (status, _) = asker.refused(op::STORE_PUT, put("x\0y", key, b"")).await;
    assert_eq!(status, Status::InvalidInput);
    let large = vec![0; store::VALUE_MAX_BYTES + 1];
    let (status, _) = asker.refused(op::STORE_PUT, put("cache", key, &large)).await;
    assert_eq!(status, Status::InvalidInput);
    let (status, text) = asker.refused(op::STORE_PUT, put("cache", b"b", &[0; 1999])).await;
    assert_eq!(status, Status::Unavailable);
    assert!(text.contains("quota"), "{text}");
    let (status, _) = asker.refused(op::STORE_PUT, b"garbage".to_vec()).await;
    assert_eq!(status, Status::InvalidInput);

    // What was written is there for the next agent.
    asker.agent.shutdown().await;
    let agent = Agent::start(asker.config.clone()).await.unwrap();
    let asker = Asker { agent, ..asker };
    let entry: Entry = decoded(&asker.ask(op::STORE_GET, get()).await.unwrap());
    assert_eq!(entry.value, Some(Blob(b"two".to_vec())));
    asker.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_below_their_folder() {
    let grants = ["files:read:/FOLDER/read", "files:write:/FOLDER/write"];
    let asker = Asker::start(&grants, |config| {
        config.host.grants.quota.files_bytes = 1000;
        config.host.grants.quota.files_count = 5;
    })
    .await;
    let write = |path: &str, content: &[u8]| Write { path, append: false, content }.encode();
    let read = |path: &str| Read { path, offset: 0, length: 100 }.encode();
    let named = |path: &str| Named { path }.encode();
    asker.ask(op::FILE_WRITE, write("notes/today.txt", b"hello")).await.unwrap();
    let append = Write { path: "notes/today.txt", append: true, content: b" again" }.encode();
    asker.ask(op::FILE_WRITE, append).await.unwrap();
    assert_eq!(asker.ask(op::FILE_READ, read("notes/today.txt")).await.unwrap(), b"hello again");
    let private = asker.config.state_dir.join("private/demo/asker");
    assert_eq!(std::fs::read(private.join("notes/today.txt")).unwrap(), b"hello again");
    let listing: Listing = decoded(&asker.ask(op::FILE_LIST, named("notes")).await.unwrap());
    let found = Found { name: "today.txt".to_owned(), folder: false, size_bytes: 11 };
    assert_eq!(listing.entries, [found]);
    let info: FileInfo = decoded(&asker.ask(op::FILE_INFO, named("")).await.unwrap());
    assert!(info.folder);
    let folder = asker.ask(op::FILE_PRIVATE_FOLDER, Vec::new()).await.unwrap();
    assert_eq!(folder, private.to_str().unwrap().as_bytes());

    // Ways out: up, absolute, by a link, by a link in the middle, and to a pipe.
    let secret = asker.folder().join("secret.txt");
    std::fs::write(&secret, "nobody reads this").unwrap();
    std::os::unix::fs::symlink(&secret, private.join("link")).unwrap();
    std::os::unix::fs::symlink(asker.folder(), private.join("up")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(private.join("pipe")).status().unwrap();
    assert!(made.success());
    for (path, status) in [
        ("../secret.txt", Status::InvalidInput),
        ("notes/../../secret.txt", Status::InvalidInput),
        ("./link", Status::InvalidInput),
        ("notes//today.txt", Status::InvalidInput),
        ("notes/\0", Status::InvalidInput),
        ("link", Status::Denied),
        ("up/secret.txt", Status::Denied),
        ("pipe", Status::Denied),
        (secret.to_str().unwrap(), Status::Denied),
        ("/etc/passwd", Status::Denied),
        ("/proc/self/environ", Status::Denied),
        ("nothing", Status::NotFound),
        ("notes", Status::InvalidInput),
    ] {
        assert_eq!(asker.refused(op::FILE_READ, read(path)).await.0, status, "{path:?}");
    }
    for path in ["../x", "up/x", "/etc/x", "up/state/x"] {
        let (status, _) = asker.refused(op::FILE_WRITE, write(path, b"x")).await;
        assert!(matches!(status, Status::InvalidInput | Status::Denied), "{path}: {status:?}");
    }
    assert_eq!(asker.refused(op::FILE_WRITE, write("link", b"mine")).await.0, Status::Denied);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "nobody reads this");
    let (status, _) = asker.refused(op::FILE_DELETE, named("notes")).await;
    assert_eq!(status, Status::InvalidInput);
    asker.ask(op::FILE_DELETE, named("up")).await.unwrap();
    assert!(secret.exists());

    // Granted folders of the host: one to be read, one to be written.
    let readable = asker.folder().join("read/a.txt");
    let writable = asker.folder().join("write/deep/b.txt");
    let (readable, writable) = (readable.to_str().unwrap(), writable.to_str().unwrap());
    std::fs::write(readable, "readable").unwrap();
    assert_eq!(asker.ask(op::FILE_READ, read(readable)).await.unwrap(), b"readable");
    assert_eq!(asker.refused(op::FILE_WRITE, write(readable, b"x")).await.0, Status::Denied);
    asker.ask(op::FILE_WRITE, write(writable, b"written")).await.unwrap();
    assert_eq!(asker.ask(op::FILE_READ, read(writable)).await.unwrap(), b"written");

    // The quota, in bytes and in files: notes, today.txt, link, pipe and this are five.
    asker.ask(op::FILE_WRITE, write("fifth", b"")).await.unwrap();
    let (status, text) = asker.refused(op::FILE_WRITE, write("notes/today.txt", &[0; 1001])).await;
    assert_eq!((status, text.contains("quota")), (Status::Unavailable, true), "{text}");
    let (status, text) = asker.refused(op::FILE_WRITE, write("more", b"")).await;
    assert_eq!((status, text.contains("quota")), (Status::Unavailable, true), "{text}");
    asker.ask(op::FILE_DELETE, named("pipe")).await.unwrap();
    asker.ask(op::FILE_WRITE, write("more", b"")).await.unwrap();
    asker.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_random_numbers_and_the_environment() {
    let asker = Asker::start(&["env:HOME"], |_| ()).await;
    let wall: u64 = decoded(&asker.ask(op::CLOCK_WALL, Vec::new()).await.unwrap());
    assert!(wall > 1_700_000_000_000);
    let first: u64 = decoded(&asker.ask(op::CLOCK_MONOTONIC, Vec::new()).await.unwrap());
    let second: u64 = decoded(&asker.ask(op::CLOCK_MONOTONIC, Vec::new()).await.unwrap());
    assert!(second > first);
    let random = asker.ask(op::RANDOM, 1000u32.encode()).await.unwrap();
    assert_eq!(random.len(), 1000);
    assert_ne!(random, asker.ask(op::RANDOM, 1000u32.encode()).await.unwrap());
    assert_eq!(asker.refused(op::RANDOM, u32::MAX.encode()).await.0, Status::InvalidInput);
    let variable = |name: &str| environment::Variable { name }.encode();
    let home: environment::VariableValue =
        decoded(&asker.ask(op::ENVIRONMENT, variable("HOME")).await.unwrap());
    assert_eq!(home.value, std::env::var("HOME").ok());
    let (status, text) = asker.refused(op::ENVIRONMENT, variable("PATH")).await;
    assert_eq!(status, Status::Denied);
    assert_eq!(
        text,
        "demo/asker is not granted env:PATH; to grant it, add to the configuration: [[grant]] with plugins = [\"demo/asker\"] and allow = [\"env:PATH\"]"
    );
    assert_eq!(asker.refused(op::ENVIRONMENT, variable("a=b")).await.0, Status::InvalidInput);
    assert_eq!(asker.refused(9999, Vec::new()).await.0, Status::Unsupported);

    // Denials are counted, and every decision is shown.
    let status = asker.agent.status().plugins.remove(0);
    assert_eq!(status.denials, 1);
    let outcome = |asked: &str| {
        let found = status.capabilities.iter().find(|one| one.asked == asked).unwrap();
        found.outcome.clone()
    };
    assert_eq!(outcome("env:HOME"), "granted");
    assert_eq!(outcome("env:PATH"), "refused-optional");
    assert_eq!(outcome("kv:cache"), "free");
    asker.agent.shutdown().await;
}

/// A server that plugins may or may not reach; counts who did.
async fn server() -> (u16, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = async |State(seen): State<Arc<AtomicUsize>>, headers: HeaderMap, body: String| {
        seen.fetch_add(1, Ordering::Relaxed);
        let auth = headers.get(header::AUTHORIZATION).map_or("none", |v| v.to_str().unwrap());
        format!("{} {auth} {body}", headers[header::HOST].to_str().unwrap())
    };
    let to = |location: &str| {
        let location = location.to_owned();
        move || async move { (StatusCode::FOUND, [(header::LOCATION, location)]) }
    };
    let router = Router::new()
        .route("/", get(count))
        .route("/", post(count))
        .route("/loop", get(to("/loop")))
        .route("/large", get(async || -> Response { vec![0u8; 9 << 20].into_response() }))
        .route("/medium", get(async || -> Response { vec![0u8; 600].into_response() }))
        .route("/slow", get(async || tokio::time::sleep(std::time::Duration::from_secs(60)).await));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = router
        .route("/to-own", get(to(&format!("http://localhost:{port}/"))))
        .route("/to-own-in-digits", get(to(&format!("http://127.0.0.1:{port}/"))))
        .route("/to-granted", get(to(&format!("http://b.example.org:{port}/"))))
        .route("/to-other", get(to(&format!("http://other.example:{port}/"))))
        .route("/to-file", get(to("file:///etc/passwd")))
        .with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, seen)
}

/// Names that lead to this machine.
fn with_names(config: &mut Config) {
    let Grants { outbound, .. } = &mut config.host.grants;
    for name in ["a.example.org", "b.example.org", "other.example"] {
        outbound.addresses.insert(name.to_owned(), vec!["127.0.0.1".parse().unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_they_were_granted() {
    let (port, seen) = server().await;
    let asker = Asker::start(&["http:*.example.org"], |config| {
        with_names(config);
        config.host.grants.outbound.networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.host.grants.quota.http_concurrent = 1;
    })
    .await;
    let url = |path: &str| format!("http://a.example.org:{port}{path}");
    let answer = asker.send(&url("/")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.0, format!("a.example.org:{port} none ").into_bytes());
    let request = Send {
        method: "POST",
        headers: vec![("authorization", "Bearer x"), ("content-type", "text/plain")],
        body: b"hello",
        ..Send::get("")
    };
    let posted = Send { url: &url("/"), ..request.clone() }.encode();
    let answer: Received = decoded(&asker.ask(op::HTTP_SEND, posted).await.unwrap());
    assert_eq!(answer.body.0, format!("a.example.org:{port} Bearer x hello").into_bytes());
    // Another granted host does not hear what was meant for the first.
    let get = Send { method: "GET", url: &url("/to-granted"), body: b"", ..request }.encode();
    let answer: Received = decoded(&asker.ask(op::HTTP_SEND, get).await.unwrap());
    assert_eq!(answer.body.0, format!("b.example.org:{port} none ").into_bytes());
    assert_eq!(answer.url, format!("http://b.example.org:{port}/"));
    assert_eq!(seen.load(Ordering::Relaxed), 3);

    // Redirects are checked as the first step was, and end.
    for path in ["/to-own", "/to-own-in-digits", "/to-other"] {
        let error = asker.send(&url(path)).await.unwrap_err();
        assert_eq!(error.status(), Status::Denied, "{path}: {error}");
    }
    assert_eq!(asker.send(&url("/to-file")).await.unwrap_err().status(), Status::InvalidInput);
    assert_eq!(asker.send(&url("/loop")).await.unwrap().status, 302);
    assert_eq!(asker.send(&url("/large")).await.unwrap_err().status(), Status::Failed);
    let slow = Send { timeout_ms: 50, ..Send::get(&url("/slow")) }.encode();
    assert_eq!(asker.refused(op::HTTP_SEND, slow).await.0, Status::DeadlineExceeded);
    // One at a time: of two, one waits for its answer in vain, and the other is told at once.
    let slow = || Send { timeout_ms: 2000, ..Send::get(&url("/slow")) }.encode();
    let (one, other) =
        tokio::join!(asker.refused(op::HTTP_SEND, slow()), asker.refused(op::HTTP_SEND, slow()));
    let (waited, told) = if one.0 == Status::Unavailable { (other, one) } else { (one, other) };
    assert_eq!((waited.0, told.0), (Status::DeadlineExceeded, Status::Unavailable), "{told:?}");
    assert_eq!(told.1, "the plugin's quota of 1 requests at a time is used");
    assert_eq!(asker.send(&url("/medium")).await.unwrap().status, 200);

    // Neither other hosts nor other spellings of this one.
    for other in [
        format!("http://other.example:{port}/"),
        format!("http://a.example.org@other.example:{port}/"),
        format!("http://a.example.org:{port}@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://x.localhost:{port}/"),
        format!("http://example.org:{port}/"),
        "file:///etc/passwd".to_owned(),
        "gopher://a.example.org/".to_owned(),
        "http:".to_owned(),
    ] {
        let status = asker.send(&other).await.unwrap_err().status();
        assert!(matches!(status, Status::Denied | Status::InvalidInput), "{other}: {status:?}");
    }
    // Headers of the host's own, and splitting.
    for (name, value) in [("host", "other"), ("transfer-encoding", "chunked"), ("x", "a\r\nb: c")] {
        let request = Send { headers: vec![(name, value)], ..Send::get(&url("/")) }.encode();
        assert_eq!(asker.refused(op::HTTP_SEND, request).await.0, Status::InvalidInput, "{name}");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    asker.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_inside_are_refused() {
    let (port, seen) = server().await;
    // The name is granted, its address is the host's own.
    let asker = Asker::start(&["http:*.example.org"], with_names).await;
    let error = asker.send(&format!("http://a.example.org:{port}/")).await.unwrap_err();
    assert_eq!(error.status(), Status::Denied);
    assert!(error.text().contains("a.example.org leads to 127.0.0.1"), "{error}");
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    asker.agent.shutdown().await;

    // The operator's word for exactly the host itself, by name and in digits.
    let asker = Asker::start(&["http:localhost", "http:127.0.0.1"], |_| ()).await;
    assert_eq!(asker.send(&format!("http://localhost:{port}/")).await.unwrap().status, 200);
    assert_eq!(asker.send(&format!("http://127.0.0.1:{port}/")).await.unwrap().status, 200);
    let error = asker.send(&format!("http://127.0.0.2:{port}/")).await.unwrap_err();
    assert_eq!(error.status(), Status::Denied);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    asker.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_requests_are_used_up() {
    let (port, _) = server().await;
    let asker = Asker::start(&["http:localhost"], |config| {
        config.host.grants.quota.http_requests_per_minute = 3;
        config.host.grants.quota.http_bytes_per_minute = 1000;
    })
    .await;
    let url = format!("http://localhost:{port}/medium");
    assert_eq!(asker.send(&url).await.unwrap().body.0.len(), 600);
    let error = asker.send(&url).await.unwrap_err();
    assert_eq!(error.status(), Status::Unavailable);
    assert!(error.text().contains("bytes a minute"), "{error}");
    let small = format!("http://localhost:{port}/");
    // Its answer no longer fits either: what came of the last one counts too.
    assert!(asker.send(&small).await.unwrap_err().text().contains("bytes a minute"));
    let error = asker.send(&small).await.unwrap_err();
    assert!(error.text().contains("3 requests a minute"), "{error}");
    asker.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_needs_and_is_not_granted_keeps_it_from_loading() {
    let registry = Registry::start().await;
    let more = "\n[capabilities]\nhttp = [\"api.example.org\"]\nenv = [\"TZ\"]\nkv = [\"cache\"]\n";
    registry.publish(release("demo/needy", "1.0.0", &[], more));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/needy", "^1")]);
    let agent = Agent::start(config.clone()).await.unwrap();
    let status = agent.status().plugins.remove(0);
    assert_eq!(status.state, "failed");
    assert_eq!(
        status.reason.unwrap(),
        "it needs http:api.example.org, env:TZ, which it is not granted; to grant it, add to the configuration: [[grant]] with plugins = [\"demo/needy\"] and allow = [\"http:api.example.org\", \"env:TZ\"]"
    );
    agent.shutdown().await;
    let mut grant = Grant {
        plugins: vec![Pattern::Plugin("demo/needy".parse().unwrap())],
        allow: vec!["http:*.example.org".parse().unwrap(), "env:TZ".parse().unwrap()],
        defaults: true,
        quota: None,
    };
    config.host.grants.rules = vec![grant.clone()];
    let agent = Agent::start(config.clone()).await.unwrap();
    assert_eq!(agent.status().plugins[0].state, "ready");
    agent.shutdown().await;
    // Nothing is free any more, so the store needs a word, too.
    grant.defaults = false;
    config.host.grants.rules = vec![grant];
    let agent = Agent::start(config).await.unwrap();
    let reason = agent.status().plugins.remove(0).reason.unwrap();
    assert!(reason.starts_with("it needs kv:cache, which"), "{reason}");
    agent.shutdown().await;
    registry.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_see_nothing_of_one_another() {
    let asker = Asker::start(&[], |_| ()).await;
    asker.ask(op::STORE_PUT, put("cache", b"a", b"mine")).await.unwrap();
    let more = "\n[capabilities]\nfiles = [\"private\"]\nkv = [\"cache\"]\n\n[[route]]\npath = \"/ask\"\nmethods = [\"POST\"]\n";
    asker.registry.publish(release("demo/other", "1.0.0", &["OPERATE"], more));
    asker.agent.shutdown().await;
    let mut config = asker.config.clone();
    config.plugins = asker.registry.config(&config.state_dir, &[("demo/other", "^1")]).plugins;
    let agent = Agent::start(config.clone()).await.unwrap();
    let asker = Asker { agent, config, ..asker };
    let get = Get { store: "cache", key: b"a" }.encode();
    assert_eq!(decoded::<Entry>(&asker.ask(op::STORE_GET, get).await.unwrap()).value, None);
    let list = List { store: "cache", prefix: b"", after: None, limit: 10 }.encode();
    let page: Page = decoded(&asker.ask(op::STORE_LIST, list).await.unwrap());
    assert!(page.keys.is_empty());
    asker.agent.shutdown().await;
}

/// A free port of this machine; another program may take it meanwhile, which would fail the test.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The agent's own program over a configuration file, killed when it is dropped.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn run(config: &Path, gateway: u16) -> Process {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modunest-agent"));
    let process = Process(command.arg("--config").arg(config).arg("run").spawn().unwrap());
    let list = List { store: "cache", prefix: b"", after: None, limit: 1 }.encode();
    let url = format!("http://127.0.0.1:{gateway}/ask/{}", op::STORE_LIST);
    let client = modunest_runtime::http::client().unwrap();
    for _ in 0..600 {
        let asked = client.post(&url).body(list.clone()).send().await;
        if asked.is_ok_and(|answer| answer.status() == 200) {
            return process;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the agent did not come up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let registry = Registry::start().await;
    let more =
        "\n[capabilities]\nkv = [\"cache\"]\n\n[[route]]\npath = \"/ask\"\nmethods = [\"POST\"]\n";
    registry.publish(release("demo/asker", "1.0.0", &["OPERATE"], more));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let key = crate::registry::registry_key().verifying_key();
    let gateway = free_port();
    let text = format!(
        "state_dir = \"state\"\n[gateway]\nlisten = \"127.0.0.1:{gateway}\"\n[admin]\nlisten = \"unix:{}\"\n[[registry]]\nname = \"test\"\nurl = \"{}\"\norigin = \"{}\"\nkeys = [\"{key}\"]\n[plugins]\n\"demo/asker\" = \"^1\"\n[host]\nin_process = [\"demo/*\"]\n",
        folder.path().join("admin.sock").display(),
        registry.url,
        crate::registry::ORIGIN
    );
    std::fs::write(&path, text).unwrap();
    let answered = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    for round in 0..3 {
        let mut process = run(&path, gateway).await;
        let url = format!("http://127.0.0.1:{gateway}/ask/{}", op::STORE_PUT);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (url, answered) = (url.clone(), answered.clone());
                let client = modunest_runtime::http::client().unwrap();
                tokio::spawn(async move {
                    for number in 0.. {
                        let key = format!("{round}/{writer}/{number}");
                        let body = put("cache", key.as_bytes(), key.repeat(50).as_bytes());
                        let asked = client.post(&url).body(body).send().await;
                        let Ok(answer) = asked else { return };
                        assert_eq!(answer.headers()["x-status"], "0");
                        answered.lock().unwrap().push(key);
                    }
                })
            })
            .collect();
        let enough = 30 * (round + 1);
        while answered.lock().unwrap().len() < enough {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer gave up");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // SIGKILL, in the middle of whatever is being written.
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let process = run(&path, gateway).await;
    let url = format!("http://127.0.0.1:{gateway}/ask/{}", op::STORE_GET);
    let answered = answered.lock().unwrap().clone();
    assert!(answered.len() >= 90);
    for key in answered {
        let body = Get { store: "cache", key: key.as_bytes() }.encode();
        let answer =
            modunest_runtime::http::client().unwrap().post(&url).body(body).send().await.unwrap();
        let entry: Entry = decoded(&answer.bytes().await.unwrap());
        assert_eq!(entry.value, Some(Blob(key.repeat(50).into_bytes())), "{key} is lost");
    }
    drop(process);
}
