//! `modunest dev`: a plugin that is served while it is written, as its author would use it.

use std::path::Path;
use std::time::{Duration, Instant};

use modunest_tests::agent::sample;
use modunest_tests::process::{Process, run};
use modunest_tests::registry::{Folder, command};

/// How long a build may take, on a machine that compiles beside it.
const LIMIT: Duration = Duration::from_secs(500);

/// A plugin that counts requests, and says so in these words.
fn source(words: &str) -> String {
    format!(
        r#"use std::sync::atomic::{{AtomicU64, Ordering}};

use modunest_sdk::{{Error, Host, HttpRequest, HttpResponse, Plugin, export_plugin}};

pub struct Counter(AtomicU64);

impl Plugin for Counter {{
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {{
        Ok(Self(AtomicU64::new(0)))
    }}

    fn http(&self, _request: HttpRequest) -> Result<HttpResponse, Error> {{
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(HttpResponse::new(200, "text/plain", format!("{words} {{count}}")))
    }}

    fn snapshot(&self) -> Result<Vec<u8>, Error> {{
        Ok(self.0.load(Ordering::Relaxed).to_string().into_bytes())
    }}

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {{
        let text = std::str::from_utf8(snapshot).map_err(|e| Error::invalid_input(e.to_string()))?;
        let count = text.parse().map_err(|_| Error::invalid_input("no count"))?;
        self.0.store(count, Ordering::Relaxed);
        Ok(())
    }}
}}

export_plugin!(Counter);
"#
    )
}

/// Waits until the command has printed this behind `from`; answers what it has printed until
/// there.
async fn said(process: &mut Process, from: usize, text: &str) -> String {
    let start = Instant::now();
    loop {
        let ended = process.ended();
        let output = process.output().split_off(from);
        if output.contains(text) {
            return output;
        }
        assert!(
            ended.is_none() && start.elapsed() < LIMIT,
            "it has not said \"{text}\":\n{output}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn get(url: &str) -> String {
    let client = modunest_runtime::http::client().unwrap();
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

fn begin(folder: &Folder) -> std::path::PathBuf {
    let made = folder.file("counter");
    let mut new = command();
    new.args(["new", "demo/counter"]).arg(&made).args(["--template", "page", "--sdk"]);
    let _made = run(new.arg(sample("gallery").join("../.."))).good();
    let manifest = made.join("plugin.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text + "\n[state]\nversion = 1\naccepts = []\n").unwrap();
    write(&made, &source("first"));
    made
}

fn write(plugin: &Path, text: &str) {
    std::fs::write(plugin.join("src/lib.rs"), text).unwrap();
}

#[tokio::test]
async fn a_saved_file_is_served_with_the_state_and_a_broken_one_is_not() {
    let folder = Folder::new();
    let made = begin(&folder);
    let mut dev = command();
    dev.arg("dev")
        .arg(&made)
        .args(["--gateway-port", "0", "--only", "native"])
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_NET_OFFLINE", "true")
        .env("XDG_CACHE_HOME", folder.file("cache"));
    let mut process = Process::start("dev", dev, &folder.logs());
    let output = said(&mut process, 0, "/counter").await;
    assert!(output.contains("serving demo/counter 0.1.0-dev.1 on http://127.0.0.1:"), "{output}");
    let (_, url) = output.split_once("GET http://").unwrap();
    let url = format!("http://{}", url.lines().next().unwrap());
    assert_eq!((get(&url).await, get(&url).await), ("first 1".to_owned(), "first 2".to_owned()));

    let from = process.output().len();
    write(&made, &source("second"));
    let output = said(&mut process, from, "0.1.0-dev.2").await;
    assert!(output.contains("changed: src/lib.rs"), "{output}");
    assert_eq!(get(&url).await, "second 3");

    // What does not compile is told with the compiler's words.
    let from = process.output().len();
    write(&made, &source("third").replace("Ok(Self(", "Ok(Selves("));
    let output = said(&mut process, from, "waiting for a change").await;
    assert!(output.contains("src/lib.rs:") && output.contains("Selves"), "{output}");
    assert!(output.contains("demo/counter 0.1.0-dev.2 goes on"), "{output}");
    assert_eq!(get(&url).await, "second 4");

    // Neither what does not load.
    let from = process.output().len();
    let broken = source("third").replace(
        "Ok(Self(",
        "if true { return Err(Error::failed(\"no database\")); }\n        Ok(Self(",
    );
    write(&made, &broken);
    let output = said(&mut process, from, "waiting for a change").await;
    assert!(output.contains("no database") && output.contains("0.1.0-dev.2 goes on"), "{output}");
    assert_eq!(get(&url).await, "second 5");

    let from = process.output().len();
    write(&made, &source("third"));
    said(&mut process, from, "serving demo/counter").await;
    assert_eq!(get(&url).await, "third 6");
    assert!(process.terminate().await.success());
}
