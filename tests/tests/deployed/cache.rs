//! A stock HTTP cache in front of each shell. It knows nothing of us but our headers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use modunest_core::api::Discovery;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_tests::client::Answer;
use modunest_tests::process::{Process, until};
use modunest_tests::raw::Ask;
use modunest_tests::registry::{ORIGIN, signing_key};
use modunest_tests::site::{Server, Store, noise};
use modunest_tests::tools;
use modunest_tests::workerd::{Setup, Worker};
use tempfile::TempDir;
use tokio::net::TcpStream;
use url::Url;

/// Larger than what a shell keeps in memory.
pub fn large() -> Vec<u8> {
    noise(3 * 1024 * 1024)
}

/// Both shells over one bucket.
pub struct Readers {
    pub store: Store,
    pub native: Server,
    pub worker: Worker,
}

impl Readers {
    pub async fn start(objects: &[(ObjectKey, &[u8])]) -> Readers {
        let store = Store::start().await;
        for (key, content) in objects {
            store.put(key, content).await;
        }
        let key = signing_key(ORIGIN, 1).verifying_key().to_string();
        let url = "https://plugins.example/".to_owned();
        let discovery = Discovery {
            protocols: vec![1],
            origin: ORIGIN.to_owned(),
            api: format!("{url}v1/"),
            files: url.clone(),
            keys: vec![key.clone()],
        };
        let native = Server::native(&store, None, discovery).await;
        let worker = Setup::new()
            .var("REGISTRY_ORIGIN", ORIGIN)
            .var("REGISTRY_KEYS", key)
            .var("PUBLIC_URL", url)
            .var("API_URL", "")
            .var("ORIGIN_URL", native.url.as_str())
            .var("SECOND_ORIGIN_URL", "")
            .start()
            .await;
        Readers { store, native, worker }
    }
}

/// nginx as anybody would set it up before an origin: cache what may be cached, revalidate what
/// is stale, and say what it did.
struct Nginx {
    url: Url,
    #[allow(dead_code, reason = "ended when dropped")]
    process: Process,
    #[allow(dead_code, reason = "removed when it ended")]
    folder: TempDir,
}

impl Nginx {
    async fn start(origin: &Url) -> Nginx {
        let folder = TempDir::new().unwrap();
        // Free now; nginx takes a number only.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config(folder.path(), origin, port)).unwrap();
        let mut command = Command::new(tools::system("nginx", "nginx-light"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let process = Process::start("nginx", command, folder.path());
        until("nginx", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Nginx { url: format!("http://127.0.0.1:{port}/").parse().unwrap(), process, folder }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (String, Answer) {
        let ask = Ask::get(path);
        let ask = fields.iter().fold(ask, |ask, (name, value)| ask.field(name, value));
        let answer = ask.answer(&self.url).await;
        (answer.header("x-cache").to_owned(), answer)
    }
}

fn config(root: &Path, origin: &Url, port: u16) -> String {
    let root = root.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {root}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {root}/nginx.pid;\nerror_log {root}/error.log;\n\
         events {{ }}\nhttp {{\n{temporary}  access_log off;\n  \
         proxy_cache_path {root}/cache keys_zone=all:1m;\n  server {{\n    \
         listen 127.0.0.1:{port};\n    location / {{\n      proxy_pass {origin};\n      \
         proxy_http_version 1.1;\n      proxy_cache all;\n      proxy_cache_revalidate on;\n      \
         add_header x-cache $upstream_cache_status always;\n    }}\n  }}\n}}\n"
    )
}

async fn caches_rightly(shell: &str, origin: &Url, store: &Store) {
    let nginx = Nginx::start(origin).await;
    let content = large();
    let blob = ObjectKey::Blob(Digest::of(&content)).path();
    for expected in ["MISS", "HIT", "HIT"] {
        let (cache, answer) = nginx.get(&blob, &[]).await;
        assert_eq!((cache.as_str(), answer.status.as_u16()), (expected, 200), "{shell}");
        assert!(answer.body == content, "{shell}: {expected}");
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    }
    let (cache, answer) = nginx.get(&blob, &[("range", "bytes=1000000-1999999")]).await;
    assert_eq!((cache.as_str(), answer.status.as_u16()), ("HIT", 206), "{shell}");
    assert!(answer.body == content[1_000_000..2_000_000], "{shell}");
    let tag = answer.header("etag").to_owned();
    let (_, answer) = nginx.get(&blob, &[("if-none-match", &tag)]).await;
    assert_eq!(answer.status, 304, "{shell}");

    // One that it did not have, and of which somebody wants a part first.
    let other = noise(2_500_000);
    let key = ObjectKey::Blob(Digest::of(&other));
    let (_, answer) = nginx.get(&key.path(), &[]).await;
    assert_eq!(answer.status, 404, "{shell}");
    store.put(&key, &other).await;
    let (_, answer) = nginx.get(&key.path(), &[("range", "bytes=-500")]).await;
    assert_eq!(answer.status, 206, "{shell}: the 404 was kept");
    assert!(answer.body == other[other.len() - 500..], "{shell}");
    let (_, answer) = nginx.get(&key.path(), &[]).await;
    assert!(answer.status == 200 && answer.body == other, "{shell}");
    store.delete(&key).await;

    // Both forms of a text, each to who takes it.
    let text = b"acme/one 1.0.0\n".repeat(200);
    let index = ObjectKey::Index(Digest::of(&text));
    store.put(&index, &text).await;
    for _ in 0..2 {
        let (_, packed) = nginx.get(&index.path(), &[("accept-encoding", "gzip")]).await;
        assert_eq!(packed.header("content-encoding"), "gzip", "{shell}");
        let (_, plain) = nginx.get(&index.path(), &[]).await;
        assert!(plain.headers.get("content-encoding").is_none(), "{shell}");
        assert!(plain.body == text, "{shell}");
    }

    for epoch in 1..=3 {
        let head = format!("modunest/head/v1\n{{\"epoch\":{epoch}}}\n");
        store.put(&ObjectKey::Head, head.as_bytes()).await;
        // As old as it may be, and no older.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let (cache, answer) = nginx.get("/head", &[]).await;
        assert_eq!(answer.body, head.as_bytes(), "{shell}: {cache}");
        assert!(["MISS", "EXPIRED"].contains(&cache.as_str()), "{shell}: {cache}");
    }
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (cache, answer) = nginx.get("/head", &[]).await;
    assert_eq!((cache.as_str(), answer.status.as_u16()), ("REVALIDATED", 200), "{shell}");

    for path in ["/healthz", "/readyz", "/nothing"] {
        nginx.get(path, &[]).await;
        assert_eq!(nginx.get(path, &[]).await.0, "MISS", "{shell}: {path} was kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_caches_by_our_headers_alone() {
    let content = large();
    let blob = ObjectKey::Blob(Digest::of(&content));
    let readers = Readers::start(&[(blob, &content)]).await;
    caches_rightly("native", &readers.native.url, &readers.store).await;
    caches_rightly("worker", &readers.worker.url, &readers.store).await;
}
