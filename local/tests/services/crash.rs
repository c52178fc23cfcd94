//! `kill -9` under load: what was acknowledged is there, whole, and no event is lost.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;

use crate::dynamodb::{TABLE, create_table, read, text};
use crate::harness::{
    ACCESS_KEY, BUCKET, SECRET_KEY, content_of, dynamodb_client, get, keys, s3_client,
    sha256_base64,
};

/// Concurrent writers while the process is killed.
const WRITERS: usize = 24;

/// Writes acknowledged before the kill, so that every round has something to lose.
const ACKNOWLEDGED_BEFORE_KILL: usize = 150;

struct Server {
    child: Child,
    s3: aws_sdk_s3::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    undelivered: u64,
}

impl Server {
    fn start(data: &Path, events: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_modunest-local-serve"))
            .arg(data)
            .arg(BUCKET)
            .arg(events)
            .env("MODUNEST_LOCAL_ACCESS_KEY", ACCESS_KEY)
            .env("MODUNEST_LOCAL_SECRET_KEY", SECRET_KEY)
            // Slow handlers, so that every kill finds undelivered events.
            .env("MODUNEST_LOCAL_HANDLER_PAUSE_MS", "100")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self {
            undelivered: ready["undelivered_events"].as_u64().unwrap(),
            child,
            s3: s3_client(ready["s3"].as_str().unwrap(), SECRET_KEY),
            dynamodb: dynamodb_client(ready["dynamodb"].as_str().unwrap()),
        }
    }

    fn kill(mut self) {
        // SIGKILL: nothing in the process gets to run.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn size_of(key: &str) -> usize {
    // Half inline, half in files.
    let number: usize = key.bytes().map(usize::from).sum();
    if number.is_multiple_of(2) { 200 + number } else { 70_000 + number * 31 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_and_no_event_is_lost_to_kill_9() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, events) = (folder.path().join("data"), folder.path().join("events"));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for round in 0..3 {
        let server = Server::start(&data, &events);
        if round == 0 {
            create_table(&server.dynamodb).await;
        }
        load_until_killed(server, round, acknowledged.clone()).await;
    }

    let server = Server::start(&data, &events);
    assert!(server.undelivered > 0, "the kills came between commit and delivery");
    let (objects, items): (Vec<String>, Vec<String>) =
        acknowledged.lock().unwrap().drain(..).partition(|key: &String| key.starts_with("object/"));
    assert!(
        objects.len() > 100 && items.len() > 100,
        "{} objects, {} items",
        objects.len(),
        items.len()
    );
    for key in &items {
        assert_eq!(read(&server.dynamodb, key).await.as_ref(), Some(key), "{key}");
    }
    let present: BTreeSet<String> = keys(&server.s3).await.into_iter().collect();
    for key in &objects {
        assert!(present.contains(key), "{key} was acknowledged");
    }
    // Unacknowledged ones may be there, but never in part.
    for key in &present {
        assert_eq!(get(&server.s3, key).await.unwrap(), content_of(key, size_of(key)), "{key}");
    }
    let wait = async {
        loop {
            let delivered: HashSet<String> =
                std::fs::read_to_string(&events).unwrap().lines().map(str::to_owned).collect();
            if present.iter().all(|key| delivered.contains(key)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("every object's event");
    server.kill();
}

async fn load_until_killed(server: Server, round: usize, acknowledged: Arc<Mutex<Vec<String>>>) {
    let running = Arc::new(AtomicBool::new(true));
    let count = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (s3, dynamodb) = (server.s3.clone(), server.dynamodb.clone());
            let (running, count, acknowledged) =
                (running.clone(), count.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if !running.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = format!("object/{round}/{writer}/{n}");
                    let bytes = content_of(&key, size_of(&key));
                    let put = s3
                        .put_object()
                        .bucket(BUCKET)
                        .key(&key)
                        .checksum_sha256(sha256_base64(&bytes))
                        .body(ByteStream::from(bytes));
                    if put.send().await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().push(key);
                    let item = format!("item/{round}/{writer}/{n}");
                    let put = dynamodb
                        .put_item()
                        .table_name(TABLE)
                        .item("pk", text(&item))
                        .item("value", text(&item));
                    if put.send().await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().push(item);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let wait = async {
        while count.load(Ordering::SeqCst) < ACKNOWLEDGED_BEFORE_KILL {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the load to get going");
    server.kill();
    running.store(false, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
}
