//! One trace runs through everything, and every error names one that the log has.

use modunest_core::statement::Link;
use modunest_runtime::trace;
use modunest_tests::agent::Host;
use modunest_tests::client::request;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{run, until};
use modunest_tests::registry::{Folder, Registry};
use reqwest::Method;
use serde_json::Value;

/// The trace of a line: its own, or that of the span it was written in.
fn trace_of(line: &Value) -> Option<&str> {
    line["trace_id"].as_str().or_else(|| line["span"]["trace_id"].as_str()).or_else(|| {
        let spans = line["spans"].as_array()?;
        spans.iter().find_map(|span| span["trace_id"].as_str())
    })
}

fn messages(lines: &[Value], trace_id: &str) -> Vec<String> {
    let of_trace = lines.iter().filter(|line| trace_of(line) == Some(trace_id));
    of_trace.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn one_trace_runs_from_the_client_to_the_index() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let context = trace::root();
    trace::scope(context, "test", publisher.publish(&package)).await;
    let trace_id = context.trace_id();
    let seen = until("the trace's last line", async || {
        let seen = messages(&registry.process.log_lines(), &trace_id);
        seen.iter().any(|message| message == "published").then_some(seen)
    })
    .await;
    // The request that opened the session, and what the storage event set off.
    assert!(seen.iter().any(|message| message == "opened a session"), "{seen:?}");
}

#[tokio::test]
async fn every_error_names_a_trace_that_the_log_has() {
    let registry = Registry::start_in(&Folder::new(), &[("MODUNEST_LOG", "info")]).await;
    let publisher = registry.publisher("acme").await;
    let client = &publisher.client;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let signed = publisher.sign(&package, Link::FIRST);
    let forged =
        request(&publisher.sign(&package, Link { sequence: 2, previous: Some(signed.digest()) }));
    let nothing = None::<&Value>;
    let unknown = "/v1/sessions/0123456789abcdef0123456789abcdef";
    let mut answers = vec![
        client.answer(Method::POST, "/v1/releases", Some(&forged)).await,
        client.answer(Method::POST, "/v1/releases", Some(&serde_json::json!({}))).await,
        client.answer(Method::GET, unknown, nothing).await,
        client.answer(Method::GET, "/v1/nothing", nothing).await,
        client.answer(Method::PATCH, "/v1/orgs", nothing).await,
        registry.nobody().answer(Method::GET, "/v1/whoami", nothing).await,
    ];
    // The read side's errors as well.
    let absent = modunest_core::keys::ObjectKey::Blob(modunest_core::digest::Digest::of(b"x"));
    answers.push(client.answer(Method::GET, &absent.path(), nothing).await);
    answers.push(client.answer(Method::GET, "/nothing", nothing).await);
    for answer in answers {
        let problem = answer.problem();
        let trace_id = problem.trace_id.clone();
        assert!(answer.header("traceparent").contains(&trace_id), "{answer:?}");
        until(&format!("the log to have the trace of {problem:?}"), async || {
            let lines = registry.process.log_lines();
            (!messages(&lines, &trace_id).is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_rejected_release_names_the_trace_of_its_publish() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let mut broken = package.archive.clone();
    broken.truncate(broken.len() - 1);
    let context = trace::root();
    let package = package.with_archive(broken);
    let view = trace::scope(context, "test", publisher.attempt(&package)).await;
    let problem = view.unwrap().rejection.unwrap();
    assert_eq!(problem.trace_id, context.trace_id());
    let seen = messages(&registry.process.log_lines(), &problem.trace_id);
    assert!(seen.iter().any(|message| message == "rejected a release"), "{seen:?}");
}

#[tokio::test]
async fn an_agents_trace_reaches_the_read_side() {
    let filter = [("MODUNEST_LOG", "debug")];
    let registry = Registry::start_in(&Folder::new(), &filter).await;
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").route("/one").pack()).await;
    let host = Host::of(&registry).await.wants("acme/one", "^1");
    let agent = host.start().await;
    let lines = agent.process.log_lines();
    let loaded = lines.iter().find(|line| line["message"] == "generation loaded").unwrap();
    let trace_id = trace_of(loaded).unwrap_or_else(|| panic!("{loaded:#}"));
    let seen = messages(&registry.process.log_lines(), trace_id);
    assert!(!seen.is_empty(), "no line of the registry has {trace_id}");
}

/// The trace that a command named in its error.
fn shown_trace(stderr: &str) -> String {
    let line = stderr.lines().find_map(|line| line.strip_prefix("trace "));
    line.unwrap_or_else(|| panic!("no trace in {stderr}")).to_owned()
}

#[tokio::test]
async fn the_trace_that_a_command_shows_is_in_the_registrys_log() {
    let filter = [("MODUNEST_LOG", "debug")];
    let registry = Registry::start_in(&Folder::new(), &filter).await;
    let mut command = registry.modunest();
    let refused = run(command.arg("whoami").env("MODUNEST_TOKEN", "mnt_nobody"));
    let host = Host::of(&registry).await.wants("acme/nothing", "^1");
    let unresolved = host.run(&["sync"]);
    for stderr in [refused.stderr, unresolved.stderr] {
        let trace_id = shown_trace(&stderr);
        let seen = messages(&registry.process.log_lines(), &trace_id);
        assert!(!seen.is_empty(), "no line of the registry has the trace of: {stderr}");
    }
}
