//! The whole way through the deployed parts: published by `modunest`, loaded by an agent,
//! counted by the queue, and finished after a function died in the middle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use modunest_core::api::{Day, DownloadBatch, Downloaded, DownloadsView};
use modunest_core::closure::{CONTENT_TYPE, Frame, FrameReader, Part, Received};
use modunest_core::index::Head;
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_functions::faults::KILL_VARIABLE;
use modunest_tests::agent::{Host, sample};
use modunest_tests::client::Client;
use modunest_tests::deployed::Deployed;
use modunest_tests::fixtures::Plugin;
use modunest_tests::lambda::FINALIZE;
use modunest_tests::process::{program, run, until};
use modunest_tests::raw::Ask;
use modunest_tests::registry::publisher;
use modunest_tests::snapshot::Snapshot;
use reqwest::Method;
use serde_json::Value;

/// Writes of a publish at which the function that checks it is killed: when it takes the work
/// up, while it copies, and when it commits.
const KILLED_AT: [u64; 4] = [2, 5, 8, 11];
/// A dead function's lease runs out after 30 seconds; what follows takes a few.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_published_loaded_called_and_counted() {
    let registry = Deployed::start().await;
    let key = registry.file("demo.key");
    let key = key.to_str().unwrap();
    let modunest = |arguments: &[&str]| run(registry.modunest().args(arguments)).good();
    modunest(&["org", "new", "demo"]);
    modunest(&["key", "new", "demo", "--out", key]);
    modunest(&["key", "register", key]);
    for name in ["markdown", "markdown-2", "thumbnail", "gallery"] {
        let folder = sample(name);
        modunest(&["publish", "--only", "native", "--key", key, folder.to_str().unwrap()]);
    }
    // Everything that readers see proves, through the worker.
    let snapshot = Snapshot::read(&registry.url, &registry.keys).await;
    assert_eq!(snapshot.plugins.len(), 3, "{:?}", snapshot.plugins.keys());

    closures_agree(&registry).await;

    let total = || {
        let info = modunest(&["--json", "info", "demo/gallery"]).json();
        info["downloads"]["total"].as_u64()
    };
    // The harness has read each archive once to prove it.
    until("the harness's own reads to be counted", async || (total() == Some(1)).then_some(()))
        .await;
    let host = Host::at(registry.url.clone(), registry.keys.clone());
    let agent = host.wants("demo/gallery", "^1").start().await;
    let page = agent.text("/gallery").await;
    assert!(page.contains("Gallery"), "{page}");
    until("the agent's download to be counted", async || (total() == Some(2)).then_some(())).await;

    // Told twice, counted once.
    let nobody = Client::new(registry.url.clone(), None);
    let counting = nobody.with_token(Some(registry.count_token.token.clone()));
    let gallery = snapshot.plugins.values().find(|state| {
        state.releases.values().any(|one| one.release.plugin.to_string() == "demo/gallery")
    });
    let blob = gallery.unwrap().releases.values().next().unwrap().release.builds[0].archive;
    let batch = DownloadBatch {
        id: "00112233445566778899aabbccddeeff".parse().unwrap(),
        downloads: vec![Downloaded {
            blob,
            day: Day::of(modunest_runtime::clock::now()),
            count: 5,
        }],
    };
    for _ in 0..3 {
        let told = counting.answer(Method::POST, "/v1/downloads", Some(&batch)).await;
        assert_eq!(told.status, 204, "{told:?}");
    }
    let view: DownloadsView = nobody.get("/v1/plugins/demo/gallery/downloads").await;
    assert_eq!((view.total, view.versions[0].total, view.days[0].count), (7, 7, 7));
}

/// A function that was built alone has none, and would never be killed.
fn has_fault_points(function: &str) {
    let built = std::fs::read(program(function)).unwrap();
    let variable = KILL_VARIABLE.as_bytes();
    assert!(
        built.windows(variable.len()).any(|bytes| bytes == variable),
        "{function} has no fault points; run: cargo build -p modunest-functions -p modunest-tests"
    );
}

/// Both shells answer with the same objects, and with all that a resolution needs.
async fn closures_agree(registry: &Deployed) {
    let request = r#"{"plugins":[{"plugin":"demo/gallery","requirement":"^1"}]}"#;
    let (mut answers, mut proofs) = (Vec::new(), 0);
    for base in [&registry.url, &registry.cdn.url] {
        let answer = Ask::new("POST", CLOSURE_PATH).body(request).answer(base).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), CONTENT_TYPE);
        assert_eq!(answer.header("cache-control"), "no-store");
        let mut reader = FrameReader::new();
        reader.push(&answer.body).unwrap();
        let head = Head::read_unproven(&reader.next_frame().unwrap().unwrap().bytes).unwrap();
        let mut received = Received::new(head.index, None);
        let mut objects = BTreeMap::new();
        while let Some(Frame { part, bytes }) = reader.next_frame().unwrap() {
            match part {
                Part::Object(key) => {
                    received.accept(key, &bytes).unwrap();
                    assert!(objects.insert(key, bytes).is_none(), "{key} twice");
                }
                // A key of the organisation, four releases, a verdict behind each.
                Part::Proof => {
                    let all = Received::new(head.index, None);
                    let proven = std::mem::replace(&mut received, all).prove(&bytes, &head.log);
                    assert_eq!(proven.unwrap().len(), 9);
                    proofs += 1;
                }
            }
        }
        reader.finish().unwrap();
        answers.push(objects);
    }
    assert_eq!(proofs, 2);
    assert_eq!(answers[0].keys().collect::<Vec<_>>(), answers[1].keys().collect::<Vec<_>>());
    assert!(answers[0] == answers[1]);
    // The organisation and its three plugins.
    let files = answers[0].keys().filter(|key| matches!(key, ObjectKey::Index(_))).count();
    assert_eq!(files, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_function_left_is_finished() {
    has_fault_points(FINALIZE);
    let registry = Deployed::start().await;
    let publisher = publisher(registry.admin(), "acme").await;
    let mut sessions = Vec::new();
    for (number, point) in KILLED_AT.into_iter().enumerate() {
        registry.lambda.kill(FINALIZE);
        let mut environment = registry.environment.clone();
        environment.push((KILL_VARIABLE.to_owned(), point.to_string()));
        registry.lambda.run(FINALIZE, &environment);
        let package = Plugin::new(&format!("acme/plugin-{number}"), "1.0.0").pack();
        let signed = publisher.sign(&package, Link::FIRST);
        let opened = publisher.open(&signed).await.unwrap();
        let upload = publisher.upload(&opened.uploads[0], package.archive.clone()).await;
        assert!(upload.status.is_success(), "{upload:?}");
        until("the function to be killed", async || {
            registry.lambda.has_ended(FINALIZE).then_some(())
        })
        .await;
        sessions.push((opened.session.unwrap(), package));
    }
    registry.lambda.run(FINALIZE, &registry.environment);
    let began = Instant::now();
    for (session, package) in &sessions {
        loop {
            let view = publisher.session(*session).await;
            if view.state == State::Published {
                break;
            }
            assert!(!view.state.is_end(), "{}: {view:?}", package.manifest.name);
            assert!(
                began.elapsed() < TAKEN_OVER_WITHIN,
                "{view:?}\n{}",
                registry.lambda.log(FINALIZE)
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    let snapshot = Snapshot::read(&registry.url, &registry.keys).await;
    assert_eq!(snapshot.plugins.len(), sessions.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_done_but_for_what_failed() {
    let registry = Deployed::start().await;
    let key = format!("upload/{}/{}", "0".repeat(32), "0".repeat(64));
    let event = |key: &str| serde_json::json!({"Records": [{"s3": {"object": {"key": key}}}]});
    let (unknown, stranger) = (event(&key), event("else/where"));
    let test = serde_json::json!({"Event": "s3:TestEvent"});
    let messages = [("one", &unknown), ("two", &stranger), ("three", &test)];
    let batch = modunest_tests::lambda::queue_batch(&messages);
    // None of them can ever be more than passed over.
    let answer = registry.lambda.invoke(FINALIZE, &batch).await.unwrap();
    assert_eq!(answer["batchItemFailures"], Value::Array(vec![]), "{answer}");

    // A table that is gone is a reason to come again: for those that need it, and no other.
    let environment: Vec<_> = registry
        .environment
        .iter()
        .map(|(name, value)| {
            let elsewhere = name == "MODUNEST_TABLE";
            (name.clone(), if elsewhere { "nowhere".to_owned() } else { value.clone() })
        })
        .collect();
    registry.lambda.kill(FINALIZE);
    registry.lambda.run(FINALIZE, &environment);
    let answer = registry.lambda.invoke(FINALIZE, &batch).await.unwrap();
    assert_eq!(
        answer["batchItemFailures"],
        serde_json::json!([{"itemIdentifier": "one"}]),
        "{answer}"
    );
}
