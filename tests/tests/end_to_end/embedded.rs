//! `modunest up` on a machine that is not as it should be, and across restarts.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{Finished, run};
use modunest_tests::registry::{Folder, Registry, command};
use modunest_tests::snapshot::Snapshot;

fn up(data: &Path, port: &str) -> Command {
    let mut command = command();
    command.args(["up", "--port", port, "--data"]).arg(data);
    command
}

/// It ended with an error for people: one that names what it is about, and no panic.
fn fails_clearly(finished: &Finished, names: &str) {
    assert!(matches!(finished.code, Some(1..=3)), "{finished:?}");
    assert!(finished.stderr.contains("error: "), "{finished:?}");
    assert!(finished.stderr.contains(names), "{names}: {finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    // Four free ports in a row, of which another program takes one after the other. They are
    // below those that the system gives away, so that no other test gets one of them.
    let first = u16::try_from(20_000 + std::process::id() % 10_000).unwrap();
    let mut ports = (first..30_004)
        .step_by(4)
        .map(|first| first..first + 4)
        .find(|range| range.clone().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .expect("four free ports in a row");
    let port = ports.start.to_string();
    for taken in &mut ports {
        let _other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let finished = run(&mut up(&Folder::new().data(), &port));
        fails_clearly(&finished, &taken.to_string());
        assert!(finished.stderr.contains("--port"), "no way out: {finished:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    let file = folder.file("file");
    fs::write(&file, "").unwrap();
    for data in [file.join("data"), file, Path::new("/proc/modunest").to_owned()] {
        let finished = run(&mut up(&data, "0"));
        fails_clearly(&finished, data.to_str().unwrap());
    }
}

#[tokio::test]
async fn a_folder_serves_one_process() {
    let registry = Registry::start().await;
    let data = registry.folder.data();
    let second = run(&mut up(&data, "0"));
    fails_clearly(&second, data.to_str().unwrap());
    // The first one noticed nothing.
    registry.publisher("acme").await.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let keys = registry.keys().await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    let before = Snapshot::read(&registry.started.url, &keys).await;
    assert!(registry.process.terminate().await.success());
    let registry = Registry::start_in(&registry.folder, &[]).await;
    assert_eq!(Snapshot::read(&registry.started.url, &keys).await, before);
    let registry = registry.kill_and_restart().await;
    assert_eq!(Snapshot::read(&registry.started.url, &keys).await, before);
    // The same token, key and organisation still publish.
    let publisher =
        modunest_tests::client::Publisher { client: registry.admin(), key: publisher.key };
    publisher.publish(&Plugin::new("acme/one", "1.1.0").pack()).await;
}

/// Damages one file of a registry's folder and tries to start on it.
async fn damaged(file: &str, damage: impl FnOnce(&Path)) -> Finished {
    let mut registry = Registry::start().await;
    assert!(registry.process.terminate().await.success());
    let data = registry.folder.data();
    damage(&data.join(file));
    run(&mut up(&data, "0"))
}

#[tokio::test]
async fn half_written_secrets_are_named() {
    let empty = |path: &Path| fs::write(path, "").unwrap();
    for secret in ["log.key", "head.key", "statement.key", "s3.secret"] {
        fails_clearly(&damaged(secret, empty).await, secret);
    }
    let cut = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, &text[..text.len() / 2]).unwrap();
    };
    fails_clearly(&damaged("head.key", cut).await, "head.key");
    let opened = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let finished = damaged("head.key", opened).await;
    fails_clearly(&finished, "head.key");
    assert!(finished.stderr.contains("chmod 600"), "no way out: {finished:?}");
    fails_clearly(
        &damaged("profile.toml", |path| fs::write(path, "[").unwrap()).await,
        "profile.toml",
    );
}

#[tokio::test]
async fn damaged_databases_are_refused() {
    let mut registry = Registry::start().await;
    assert!(registry.process.terminate().await.success());
    let services = registry.folder.data().join("services");
    let databases: Vec<_> = fs::read_dir(&services)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .collect();
    assert_eq!(databases.len(), 2, "{databases:?}");
    for database in databases {
        let copy = registry.folder.copy();
        let path = copy.data().join("services").join(database.file_name().unwrap());
        for journal in ["wal", "shm"] {
            // With them the database could be made whole again.
            let journal = path.with_extension(format!("sqlite-{journal}"));
            if journal.exists() {
                fs::remove_file(journal).unwrap();
            }
        }
        fs::write(&path, b"this is no database, and not empty either".repeat(100)).unwrap();
        let finished = run(&mut up(&copy.data(), "0"));
        fails_clearly(&finished, path.to_str().unwrap());
    }
}
