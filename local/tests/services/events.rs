//! Events: after the commit, until they are taken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modunest_local::Subscription;
use serde_json::Value;

use crate::harness::{BUCKET, Harness, content_of};

/// Long enough for a busy machine, and never waited out by a test that passes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Value>>>);

impl Seen {
    fn subscription(&self) -> Subscription {
        let seen = self.0.clone();
        Subscription::new(BUCKET, move |event| {
            seen.lock().unwrap().push(event);
            async { Ok::<(), String>(()) }
        })
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test]
async fn an_event_has_the_shape_that_s3_documents() {
    let seen = Seen::default();
    let harness = Harness::start(None, vec![seen.subscription().prefix("upload/")]).await;
    harness.put("elsewhere", "not wanted").await;
    harness.put("upload/a b+é.zip", "hello").await;
    harness
        .s3
        .copy_object()
        .bucket(BUCKET)
        .key("upload/copy")
        .copy_source(format!("{BUCKET}/elsewhere"))
        .send()
        .await
        .unwrap();
    eventually("both events", || seen.len() == 2).await;
    let events = seen.0.lock().unwrap().clone();
    let put = events
        .iter()
        .find(|event| event.pointer("/Records/0/eventName").unwrap() == "ObjectCreated:Put")
        .expect("a put event");
    let record = &put["Records"][0];
    assert_eq!(record["eventSource"], "aws:s3");
    assert_eq!(record["eventVersion"], "2.1");
    assert_eq!(record["s3"]["bucket"]["name"], BUCKET);
    let object = &record["s3"]["object"];
    assert_eq!(object["key"], "upload/a+b%2B%C3%A9.zip");
    assert_eq!(object["size"], 5);
    assert_eq!(object["eTag"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(object["sequencer"].as_str().unwrap().len(), 16);
    assert!(record["eventTime"].as_str().unwrap().ends_with('Z'));
    assert!(
        events
            .iter()
            .any(|event| event.pointer("/Records/0/eventName").unwrap() == "ObjectCreated:Copy")
    );
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_comes_after_its_object() {
    let client = Arc::new(std::sync::OnceLock::new());
    let found = Arc::new(AtomicUsize::new(0));
    let (handler_client, handler_found) = (client.clone(), found.clone());
    let subscription = Subscription::new(BUCKET, move |event: Value| {
        let (client, found) = (handler_client.clone(), handler_found.clone());
        async move {
            let client: &aws_sdk_s3::Client = client.get().ok_or("the client is not ready")?;
            let key = event.pointer("/Records/0/s3/object/key").and_then(Value::as_str).unwrap();
            client.head_object().bucket(BUCKET).key(key).send().await.map_err(|_| "not there")?;
            found.fetch_add(1, Ordering::SeqCst);
            Ok::<(), &str>(())
        }
    });
    let harness = Harness::start(None, vec![subscription]).await;
    client.set(harness.s3.clone()).unwrap();
    for key in ["a", "b", "c"] {
        harness.put(key, "x").await;
    }
    eventually("all objects found", || found.load(Ordering::SeqCst) == 3).await;
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_gets_its_event_again_and_delays_no_other() {
    let tries = Arc::new(AtomicUsize::new(0));
    let others = Arc::new(AtomicUsize::new(0));
    let (handler_tries, handler_others) = (tries.clone(), others.clone());
    let subscription = Subscription::new(BUCKET, move |event: Value| {
        let (tries, others) = (handler_tries.clone(), handler_others.clone());
        async move {
            if event.pointer("/Records/0/s3/object/key").unwrap() != "stubborn" {
                others.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 => Err("not now"),
                1 => panic!("on purpose"),
                _ => Ok(()),
            }
        }
    });
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), vec![subscription]).await;
    harness.put("stubborn", "x").await;
    for n in 0..40 {
        harness.put(&format!("other/{n}"), "x").await;
    }
    eventually("the others", || others.load(Ordering::SeqCst) == 40).await;
    eventually("the third try", || tries.load(Ordering::SeqCst) == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    harness.services.shutdown().await.unwrap();

    let seen = Seen::default();
    let again = Harness::start(Some(folder.path().to_owned()), vec![seen.subscription()]).await;
    assert_eq!(again.services.start_report().undelivered_events, 0, "what was taken is forgotten");
    again.services.shutdown().await.unwrap();
    assert_eq!(seen.len(), 0);
}

#[tokio::test]
async fn events_not_taken_before_a_restart_come_after_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let refuses = Subscription::new(BUCKET, |_| async { Err::<(), &str>("never") });
    let harness = Harness::start(Some(folder.path().to_owned()), vec![refuses]).await;
    for n in 0..100 {
        harness.put(&format!("k/{n}"), content_of("k", 10)).await;
    }
    harness.services.shutdown().await.unwrap();
    let seen = Seen::default();
    let again = Harness::start(Some(folder.path().to_owned()), vec![seen.subscription()]).await;
    assert_eq!(again.services.start_report().undelivered_events, 100);
    eventually("all events", || seen.len() == 100).await;
    again.services.shutdown().await.unwrap();
}
