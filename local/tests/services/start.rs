//! Starting: what stands in the way is named, with a way out.

use std::net::TcpListener;

use modunest_local::{Error, LocalServices};

use crate::harness::{BUCKET, Harness, config, content_of};

async fn refusal(config: modunest_local::Config) -> Error {
    match LocalServices::start(config, Vec::new()).await {
        Ok(_) => panic!("the services started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wanted = config(None);
    wanted.s3_listen = taken.local_addr().unwrap();
    let error = refusal(wanted).await;
    assert!(matches!(error, Error::PortInUse { service: "S3", .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&taken.local_addr().unwrap().to_string()) && text.contains("--port"),
        "{text}"
    );
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    let mut wanted = config(None);
    wanted.dynamodb_listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(refusal(wanted).await, Error::NotLoopback { service: "DynamoDB", .. }));
}

#[tokio::test]
async fn a_folder_has_one_user_at_a_time() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let first = Harness::start(Some(data.clone()), Vec::new()).await;
    let error = refusal(config(Some(data.clone()))).await;
    assert!(matches!(error, Error::FolderInUse { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(data.to_str().unwrap()) && text.contains(&std::process::id().to_string()),
        "{text}"
    );
    first.services.shutdown().await.unwrap();
    Harness::start(Some(data), Vec::new()).await.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn damaged_databases_are_named() {
    for file in ["s3.sqlite", "dynamodb.sqlite"] {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::write(
            folder.path().join(file),
            "this is no database, and long enough to be read as one".repeat(100),
        )
        .unwrap();
        let error = refusal(config(Some(folder.path().to_owned()))).await;
        assert!(matches!(error, Error::Damaged { .. }), "{file}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("backup"), "{text}");
    }
}

#[tokio::test]
async fn half_written_and_missing_files_are_reported() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    harness.put("lost", content_of("lost", 100_000)).await;
    harness.services.shutdown().await.unwrap();
    let objects = folder.path().join("objects");
    let file = std::fs::read_dir(&objects)
        .unwrap()
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::rename(&file, objects.join("00").join("0".repeat(32))).unwrap();

    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    let report = harness.services.start_report();
    assert_eq!((report.removed_files, report.removed_bytes), (1, 100_000));
    assert_eq!(report.damaged_objects, [format!("{BUCKET}/lost")]);
    let answer = harness.s3.get_object().bucket(BUCKET).key("lost").send().await.unwrap_err();
    assert_eq!(crate::harness::status(&answer), 500);
    // Writing the object again heals it.
    harness.put("lost", content_of("lost", 100_000)).await;
    assert_eq!(harness.get("lost").await.unwrap(), content_of("lost", 100_000));
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_ephemeral_registry_leaves_nothing() {
    let before = temporary_folders();
    let harness = Harness::ephemeral().await;
    harness.put("k", content_of("k", 100_000)).await;
    let during = temporary_folders();
    let own: Vec<_> = during.into_iter().filter(|folder| !before.contains(folder)).collect();
    assert!(!own.is_empty());
    harness.services.shutdown().await.unwrap();
    // Tests beside this one make and remove such folders too: one of these was ours.
    let own_pid = format!("process {}", std::process::id());
    let mine = own.iter().filter(|folder| {
        std::fs::read_to_string(folder.join("lock")).is_ok_and(|lock| lock.trim() == own_pid)
    });
    assert_eq!(mine.count(), 0);
}

fn temporary_folders() -> Vec<std::path::PathBuf> {
    std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("modunest-"))
        })
        .collect()
}
