//! The sequencer's collection of cosignatures, from real witnesses and from servers that are
//! none.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use modunest_functions::witness::{Collector, Error};
use modunest_tlog::{Policy, SignedCheckpoint, TreeHash, WitnessKey, WitnessSigningKey};
use tokio::net::TcpListener;

use crate::ledger::{Ledger, log_key};
use crate::witness_process::Witness;

fn collector(policy: &str) -> (Collector, Policy) {
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let client = modunest_runtime::http::client().unwrap();
    (Collector::new(policy.clone(), client), policy)
}

async fn collect(collector: &Collector, ledger: &Ledger) -> Result<SignedCheckpoint, Error> {
    let checkpoint = ledger.checkpoint().sign(&log_key()).unwrap();
    let proofs = async |old| Ok::<_, Infallible>(ledger.consistency(old));
    collector.collect(checkpoint, proofs).await
}

/// Two of three, and their lines.
fn two_of_three(lines: &[String]) -> String {
    let names: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    format!("{}group all 2 {}\nquorum all\n", lines.concat(), names.join(" "))
}

/// A server that answers every submission the same.
async fn server(status: StatusCode, content_type: &'static str, body: String) -> String {
    let router = Router::new().fallback(move || async move {
        (status, [(CONTENT_TYPE, content_type)], body).into_response()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn stranger(seed: u8) -> WitnessKey {
    let name = format!("stranger{seed}").parse().unwrap();
    WitnessSigningKey::from_seed(name, &[seed; 32]).witness_key().clone()
}

#[tokio::test]
async fn witnesses_cosign_a_log_as_it_grows() {
    let witnesses =
        [Witness::start("w1").await, Witness::start("w2").await, Witness::start("w3").await];
    let lines: Vec<String> = witnesses.iter().map(Witness::policy_line).collect();
    let names = "w1 w2 w3";
    let text = format!("{}group all all {names}\nquorum all\n", lines.concat());
    let (first, policy) = collector(&text);
    let mut ledger = Ledger::with_releases(1);
    let signed = collect(&first, &ledger).await.unwrap();
    assert_eq!(policy.check(&signed).unwrap().len(), 3);
    for round in 0..3 {
        ledger.release("acme/one", &format!("2.{round}.0"), 10);
        let signed = collect(&first, &ledger).await.unwrap();
        assert_eq!(policy.check(&signed).unwrap().len(), 3);
    }
    // The same checkpoint again, as the heartbeat asks for it.
    assert_eq!(policy.check(&collect(&first, &ledger).await.unwrap()).unwrap().len(), 3);
    // Another process knows nothing of their sizes, and learns them.
    ledger.release("acme/one", "3.0.0", 10);
    let (second, _) = collector(&text);
    assert_eq!(policy.check(&collect(&second, &ledger).await.unwrap()).unwrap().len(), 3);
    // And what the first process knows is now out of date.
    ledger.release("acme/one", "4.0.0", 10);
    assert_eq!(policy.check(&collect(&first, &ledger).await.unwrap()).unwrap().len(), 3);
}

#[tokio::test]
async fn a_quorum_is_enough_and_its_lack_names_everyone() {
    let (one, two, mut three) =
        (Witness::start("w1").await, Witness::start("w2").await, Witness::start("w3").await);
    three.process.kill();
    let lines = [one.policy_line(), two.policy_line(), three.policy_line()];
    let (collector, policy) = collector(&two_of_three(&lines));
    let mut ledger = Ledger::with_releases(2);
    let signed = collect(&collector, &ledger).await.unwrap();
    assert_eq!(policy.check(&signed).unwrap().len(), 2);

    let (mut one, mut two) = (one, two);
    one.process.kill();
    two.process.kill();
    ledger.release("acme/one", "2.0.0", 10);
    let error = collect(&collector, &ledger).await.unwrap_err();
    let names: Vec<&str> = error.failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 3, "{error}");
    for name in ["w1", "w2", "w3"] {
        assert!(error.to_string().contains(&format!("{name}: http://")), "{error}");
    }
}

#[tokio::test]
async fn a_forked_or_shrunk_log_gets_no_cosignature() {
    let witness = Witness::start("w1").await;
    let (collector, _) = collector(&format!("{}quorum w1\n", witness.policy_line()));
    let base = Ledger::with_releases(1);
    let (mut one, mut other) = (base.clone(), base.clone());
    one.release("acme/one", "2.0.0", 10);
    other.release("acme/two", "2.0.0", 10);
    let _signed = collect(&collector, &one).await.unwrap();
    let error = collect(&collector, &other).await.unwrap_err().to_string();
    assert!(error.contains("the log was forked"), "{error}");
    let error = collect(&collector, &base).await.unwrap_err().to_string();
    assert!(error.contains("cosigned size 5 already"), "{error}");
    other.release("acme/two", "3.0.0", 10);
    let error = collect(&collector, &other).await.unwrap_err().to_string();
    assert!(error.contains("status 422"), "{error}");
}

#[tokio::test]
async fn servers_that_are_no_witnesses_are_told_apart() {
    const PLAIN: &str = "text/plain";
    const SIZE: &str = "text/x.tlog.size";
    let ledger = Ledger::with_releases(2);
    let text = ledger.checkpoint().to_string();
    let other = Ledger::with_releases(3).checkpoint().to_string();
    let key = WitnessSigningKey::from_seed("stranger1".parse().unwrap(), &[1; 32]);
    let cosigned = |text: &str| key.cosign(text, 9).line(key.witness_key());
    let wrong_key = WitnessSigningKey::from_seed("stranger2".parse().unwrap(), &[2; 32]);
    let by_another = wrong_key.cosign(&text, 9).line(wrong_key.witness_key());
    for (status, content_type, body, why) in [
        (200, PLAIN, cosigned(&other), "does not verify"),
        (200, PLAIN, format!("{other}\n{}", cosigned(&other)), "does not verify"),
        (200, PLAIN, by_another, "no line by the key"),
        (200, PLAIN, "hello\n".to_owned(), "not signature lines"),
        (200, PLAIN, "x".repeat(1024 * 1024), "more than 65536 bytes"),
        (409, SIZE, "6\n".to_owned(), "cosigned size 6 already"),
        (409, SIZE, "0\n".to_owned(), "refuses the very size"),
        (409, SIZE, "five\n".to_owned(), "in decimal"),
        (409, SIZE, "5\n".to_owned(), "forked"),
        (409, PLAIN, "4\n".to_owned(), "status 409: 4"),
        (302, PLAIN, String::new(), "status 302"),
        (500, PLAIN, "out of\u{7} order\n".to_owned(), "status 500: out of order"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let url = server(status, content_type, body).await;
        let (collector, _) = collector(&format!("witness x {} {url}\nquorum x\n", stranger(1)));
        let error = collect(&collector, &ledger).await.unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let (collector, _) = collector(&format!("witness x {}\nquorum x\n", stranger(1)));
    let error = collect(&collector, &ledger).await.unwrap_err().to_string();
    assert!(error.contains("no address"), "{error}");
}

#[tokio::test]
async fn a_witness_that_names_ever_other_sizes_is_left() {
    let asked = Arc::new(AtomicU64::new(1));
    let counter = Arc::clone(&asked);
    let router = Router::new().fallback(move || async move {
        let size = counter.fetch_add(1, Ordering::SeqCst);
        (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n"))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (collector, _) = collector(&format!("witness x {} {url}\nquorum x\n", stranger(1)));
    let error = collect(&collector, &Ledger::with_releases(9)).await.unwrap_err().to_string();
    assert!(error.contains("another size each time"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "three tries and no more");
}

#[tokio::test]
async fn a_proof_that_cannot_be_made_is_said() {
    let witness = Witness::start("w1").await;
    let (collector, _) = collector(&format!("{}quorum w1\n", witness.policy_line()));
    let ledger = Ledger::with_releases(1);
    let _signed = collect(&collector, &ledger).await.unwrap();
    let mut grown = ledger.clone();
    grown.release("acme/one", "2.0.0", 10);
    let checkpoint = grown.checkpoint().sign(&log_key()).unwrap();
    let no_tiles = async |_| Err::<Vec<TreeHash>, _>("the store does not answer");
    let error = collector.collect(checkpoint, no_tiles).await.unwrap_err().to_string();
    assert!(error.contains("from size 3 cannot be made: the store does not answer"), "{error}");
}
