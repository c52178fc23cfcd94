//! `modunest witness`: what logs and strangers may send it, and what it never forgets.

use modunest_core::statement::KeyChange;
use modunest_tests::process::{Process, run, until};
use modunest_tests::registry::{command, signing_key};
use modunest_tlog::{SignedCheckpoint, Submission};

use crate::ledger::{Ledger, ORIGIN, log_key};
use crate::witness_process::{Witness, submission};

const SIZE: &str = "text/x.tlog.size";

/// Two logs that part after their first three entries.
fn fork() -> (Ledger, Ledger) {
    let mut one = Ledger::with_releases(1);
    let mut other = one.clone();
    one.release("acme/one", "2.0.0", 10);
    other.release("acme/two", "2.0.0", 10);
    (one, other)
}

#[tokio::test]
async fn each_submission_has_the_status_of_the_specification() {
    let witness = Witness::start("witness.example").await;
    let (log, other) = fork();
    let small = Ledger::with_releases(1);

    let good = witness.submit(&small, 0).await;
    assert_eq!(good.status, 200, "{good:?}");
    let mut bytes = small.checkpoint().sign(&log_key()).unwrap().bytes().to_vec();
    bytes.extend_from_slice(good.body.as_bytes());
    let signed = SignedCheckpoint::verify(&bytes, ORIGIN, &[log_key().verifying_key()]).unwrap();
    assert_eq!(signed.cosignatures([&witness.key]).unwrap().len(), 1);

    let stale = witness.submit(&log, 0).await;
    assert_eq!(
        (stale.status, stale.content_type.as_str(), stale.body.as_str()),
        (409, SIZE, "3\n")
    );
    assert_eq!(witness.submit(&log, 3).await.status, 200);
    assert_eq!(witness.submit(&log, 5).await.status, 200, "the same again, for a newer time");

    // The other log is as long, and signed as well.
    let forked = witness.submit(&other, 5).await;
    assert_eq!((forked.status, forked.body.as_str()), (409, "5\n"));
    let mut longer = other.clone();
    longer.release("acme/two", "3.0.0", 10);
    assert_eq!(witness.submit(&longer, 5).await.status, 422);
    assert_eq!(witness.submit(&small, 5).await.status, 400, "older than the old size");

    let mut cut = Submission::parse(&submission(&longer, 5)).unwrap();
    cut.proof.pop();
    assert_eq!(witness.post(cut.to_bytes()).await.status, 422);
    let sign = |key, origin: &str| {
        let checkpoint =
            modunest_tlog::Checkpoint { origin: origin.to_owned(), ..log.checkpoint() };
        let checkpoint = checkpoint.sign(&key).unwrap().bytes().to_vec();
        Submission { old_size: 5, proof: Vec::new(), checkpoint }.to_bytes()
    };
    assert_eq!(witness.post(sign(signing_key(ORIGIN, 77), ORIGIN)).await.status, 403);
    assert_eq!(witness.post(sign(log_key(), "other.example")).await.status, 404);
    for malformed in ["", "old 5\n", "old 05\n\nx\n", "old 5\n\nx\n", "old 5\nnot a hash\n\nx\n"] {
        assert_eq!(witness.post(malformed).await.status, 400, "{malformed:?}");
    }
    assert_eq!(witness.post(vec![0xff; 200]).await.status, 400);
    assert_eq!(witness.post(vec![b'a'; 150 * 1024]).await.status, 413);

    // After all of that it stands where it stood.
    let mut grown = log.clone();
    grown.key("acme", 11, KeyChange::Add);
    assert_eq!(witness.submit(&grown, 5).await.status, 200);
}

#[tokio::test]
async fn of_many_at_once_from_one_size_one_history_wins() {
    let witness = Witness::start("witness.example").await;
    let base = Ledger::with_releases(2);
    assert_eq!(witness.submit(&base, 0).await.status, 200);
    let forks: Vec<Ledger> = (0..8)
        .map(|number| {
            let mut fork = base.clone();
            fork.release("acme/one", &format!("2.{number}.0"), 10);
            fork
        })
        .collect();
    let answers =
        futures_util::future::join_all(forks.iter().map(|fork| witness.submit(fork, base.size())))
            .await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 409)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_may_have_cosigned_survives_a_kill() {
    let mut witness = Witness::start("witness.example").await;
    let mut log = Ledger::with_releases(1);
    let mut known = 0;
    for round in 0..6 {
        let mut fork = log.clone();
        log.release("acme/one", &format!("2.{round}.0"), 10);
        fork.release("acme/two", &format!("2.{round}.0"), 10);
        // It is killed as soon as its state has changed: the answer may be on its way, or
        // not even made.
        let before = witness.state_file().map(|path| std::fs::read(path).unwrap());
        let url = format!("{}add-checkpoint", witness.url);
        let body = submission(&log, known);
        let client = modunest_runtime::http::client().unwrap();
        let sent = tokio::spawn(async move { client.post(url).body(body).send().await });
        until("the witness to write its state", async || {
            let now = witness.state_file().map(|path| std::fs::read(path).unwrap());
            (now != before).then_some(())
        })
        .await;
        witness = witness.kill_and_restart().await;
        drop(sent.await);
        let other = witness.submit(&fork, known).await;
        assert_eq!((other.status, other.body), (409, format!("{}\n", log.size())));
        assert_eq!(witness.submit(&log, log.size()).await.status, 200);
        known = log.size();
    }
}

#[tokio::test]
async fn it_starts_only_with_what_it_may_use() {
    let mut witness = Witness::start("witness.example").await;
    let log = Ledger::with_releases(1);
    assert_eq!(witness.submit(&log, 0).await.status, 200);

    let failed = async |mut process: Process| {
        let status = process.wait().await;
        (status.code(), process.log())
    };
    let (code, text) = failed(Witness::spawn(witness.folder())).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("another witness uses"), "{text}");

    assert!(witness.process.terminate().await.success(), "a graceful end");
    let state = witness.state_file().unwrap();
    std::fs::write(&state, "cut off").unwrap();
    let (code, text) = failed(Witness::spawn(witness.folder())).await;
    assert_eq!(code, Some(3));
    assert!(text.contains("Restore the file"), "{text}");
    std::fs::remove_file(&state).unwrap();

    let key = witness.folder().join("witness.key");
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    let (code, text) = failed(Witness::spawn(witness.folder())).await;
    assert_eq!(code, Some(3));
    assert!(text.contains("others may read this secret"), "{text}");
    mode(0o600);
    let shown = run(command().args(["witness", "key", "show", "--json"]).arg(&key)).good();
    assert_eq!(shown.json()["key"], witness.key.to_string());
    assert!(!shown.stdout.contains("PRIVATE"));
    let nothing = run(command().args(["witness", "serve", "--key"]).arg(&key));
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}
