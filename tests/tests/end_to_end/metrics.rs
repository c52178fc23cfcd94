//! What a host counts, as Prometheus reads it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use modunest_tests::agent::{Agent, Host};
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::until;
use modunest_tests::registry::Registry;
use modunest_tests::tools;
use serde_json::{Value, json};

/// What Prometheus' own client for Python makes of what an agent answers now.
async fn read(agent: &Agent) -> Value {
    let answer = agent.metrics().await;
    // By this Prometheus chooses how to read it.
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/prometheus/check.py");
    let mut child = Command::new(tools::python("python"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&answer.body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The sum of a family's samples that have these labels.
fn sum(read: &Value, family: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = read["samples"][family].as_array();
    let samples = samples.unwrap_or_else(|| panic!("no {family} in {read:#}"));
    let fits = |sample: &&Value| labels.iter().all(|(name, value)| sample[0][name] == *value);
    samples.iter().filter(fits).map(|sample| sample[1].as_f64().unwrap()).sum()
}

#[tokio::test]
async fn prometheus_reads_all_that_is_counted() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let page = |version: &str| {
        Plugin::new("acme/page", version).asks("acme/base", "^1").route("/page").pack()
    };
    let fails = Plugin::new("acme/fails", "1.0.0").fails("the database is away");
    for package in [Plugin::new("acme/base", "1.0.0").says().pack(), page("1.0.0"), fails.pack()] {
        publisher.publish(&package).await;
    }
    let host = Host::of(&registry).await.wants("acme/page", "^1").wants("acme/fails", "^1");
    let host = host.curious().section("[lifecycle.canary]\nshare_percent = 50\ncalls = 1000000");
    let agent = host.start().await;
    assert_eq!(read(&agent).await["findings"], json!([]));
    for _ in 0..3 {
        assert_eq!(agent.get("/page").await.status, 200);
    }
    let of_page = ("plugin", "acme/page");
    let all = read(&agent).await;
    assert_eq!(all["findings"], json!([]));
    assert_eq!(sum(&all, "modunest_plugin_calls", &[of_page, ("outcome", "answered")]), 3.0);
    assert_eq!(sum(&all, "modunest_plugin_call_duration_seconds", &[of_page, ("le", "+Inf")]), 3.0);
    assert_eq!(sum(&all, "modunest_plugins", &[("state", "failed")]), 1.0);

    // With a release that is tried, which has series of its own.
    publisher.publish(&page("1.1.0")).await;
    until("the host to let go of its lock", async || {
        (host.run(&["sync", "--update"]).code == Some(0)).then_some(())
    })
    .await;
    until("the new release to be tried", async || {
        (!agent.plugin("acme/page").await["canary"].is_null()).then_some(())
    })
    .await;
    for _ in 0..4 {
        assert_eq!(agent.get("/page").await.status, 200);
    }
    let all = read(&agent).await;
    assert_eq!(all["findings"], json!([]));
    let of_canary = [of_page, ("version", "1.1.0"), ("variant", "canary")];
    assert_eq!(sum(&all, "modunest_plugin_calls", &of_canary), 2.0);
    assert_eq!(sum(&all, "modunest_plugin_calls", &[of_page]), 7.0);
}
