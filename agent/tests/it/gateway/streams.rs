//! Bodies larger than memory, events, and clients that go away.

use std::time::Duration;

use futures_util::StreamExt as _;
use modunest_agent::Agent;
use modunest_agent::sync::Options;
use reqwest::{Body, Client};

use super::{route, setup, url};
use crate::plugins::release_of;
use crate::process::plugin;
use crate::turns::Heard;

const MIB: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

async fn text(agent: &Agent, path: &str) -> String {
    reqwest::get(url(agent, path)).await.unwrap().text().await.unwrap()
}

/// Waits until `/front/count` says so.
async fn until_count(agent: &Agent, wanted: &str) {
    let waiting = async {
        while text(agent, "/front/count").await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("{} instead of {wanted}", text(agent, "/front/count").await);
    }
}

/// Resident memory of this process, which the agent runs in.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_pass_in_both_directions_with_bounded_memory() {
    let setup = setup().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    // Once small, so that everything is loaded.
    assert_eq!(reqwest::get(url(&agent, "/front/big?1")).await.unwrap().status(), 200);
    let before = resident_bytes();
    let mut most = before;
    let answer = reqwest::get(url(&agent, "/front/big?400")).await.unwrap();
    assert_eq!(answer.headers().get("content-length"), None);
    let (mut size, mut pieces) = (0, answer.bytes_stream());
    while let Some(piece) = pieces.next().await {
        size += piece.unwrap().len();
        most = most.max(resident_bytes());
    }
    assert_eq!(size, 5 + 400 * MIB / 4);
    let down = most - before;

    // Up, without a length: the first 16 MiB are held until it is known to be large.
    let before = resident_bytes();
    let mut most = before;
    let pieces = (0..400).map(move |number: usize| {
        most = most.max(resident_bytes());
        if number == 399 {
            println!("{}", most - before);
            assert!(most - before < 64 * MIB, "{} bytes more while uploading", most - before);
        }
        Ok::<_, std::io::Error>(vec![1_u8; MIB / 4])
    });
    let body = Body::wrap_stream(futures_util::stream::iter(pieces));
    let answer = Client::new().post(url(&agent, "/front/upload")).body(body).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "104857600 bytes, sum 104857600");
    println!("{down} bytes more while downloading");
    assert!(down < 32 * MIB, "{down} bytes more while downloading");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_is_an_error_for_the_plugin() {
    let setup = setup().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    let pieces = (0..30).map(|number| {
        if number < 20 { Ok(vec![1_u8; MIB]) } else { Err(std::io::Error::other("unplugged")) }
    });
    let body = Body::wrap_stream(futures_util::stream::iter(pieces));
    let sent = Client::new().post(url(&agent, "/front/upload")).body(body).send().await;
    assert!(sent.is_err(), "nobody is there to be answered");
    // The plugin's thread is free again.
    assert_eq!(text(&agent, "/front/count").await, "0 open, 0 closed");
    // A plugin that answers before the end is heard.
    let pieces = (0..40).map(|_| Ok::<_, std::io::Error>(vec![1_u8; MIB]));
    let body = Body::wrap_stream(futures_util::stream::iter(pieces));
    let sent = Client::new().post(url(&agent, "/front/count")).body(body).send().await;
    // Its connection may be closed before the client has read the answer.
    assert!(sent.map_or(200, |answer| answer.status().as_u16()) == 200);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_breaks_the_connection() {
    let setup = setup().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    // It fails right behind its head, which may not have left by then.
    match reqwest::get(url(&agent, "/front/stuck")).await {
        Ok(answer) => {
            assert_eq!(answer.status(), 200);
            assert!(answer.bytes().await.is_err(), "a part is not the whole");
        }
        Err(error) => assert!(error.is_request() && !error.is_connect(), "{error:?}"),
    }
    until_count(&agent, "0 open, 1 closed").await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_when_they_happen_and_a_leaver_is_noticed() {
    let setup = setup().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..20 {
        let answer = reqwest::get(url(&agent, "/front/events")).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answers.push(answer);
    }
    for answer in &mut answers {
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: 0\n\n");
    }
    // Twenty wait, on more streams than the plugin has threads; all are woken at once.
    assert_eq!(text(&agent, "/front/wake").await, "awake");
    for answer in &mut answers {
        let chunk = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await;
        assert_eq!(chunk.unwrap().unwrap().unwrap(), "data: 1\n\n");
    }
    answers.truncate(5);
    until_count(&agent, "5 open, 15 closed").await;
    drop(answers);
    until_count(&agent, "0 open, 20 closed").await;
    // An answer to HEAD has no body to pull.
    let head = Client::new().head(url(&agent, "/front/events")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    until_count(&agent, "0 open, 21 closed").await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_waits_for_downloads_and_ends_events() {
    let mut setup = setup().await;
    setup.config.host.check_every = Duration::from_secs(1);
    let options = Options { update: true, ..Options::default() };
    let agent = Agent::start_with(setup.config.clone(), options).await.unwrap();
    let events = reqwest::get(url(&agent, "/other/events")).await.unwrap();
    let mut download = reqwest::get(url(&agent, "/other/big?80")).await.unwrap();
    let first = download.chunk().await.unwrap().unwrap().len();
    let library = super::library(&["ROUTE=\"/other\""]);
    setup.registry.publish(release_of("demo/other", "1.1.0", library, &route("/other")));
    // The old instance still serves what it began; who only waits is sent to the new one.
    let ended = tokio::time::timeout(PATIENCE, events.text()).await.expect("events end");
    assert_eq!(ended.unwrap(), "data: 0\n\n");
    let rest = download.bytes().await.unwrap().len();
    assert_eq!(first + rest, 5 + 80 * MIB / 4);
    assert_eq!(text(&agent, "/other/count").await, "0 open, 0 closed");
    agent.shutdown().await;
}

/// A download does not keep its plugin from handing its state over, and goes on at the instance that
/// began it, which is not stopped before its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_while_its_plugin_hands_its_state_over() {
    let mut setup = setup().await;
    let library = super::library(&["ROUTE=\"/other\""]);
    let other = |version: &str| {
        let more = route("/other") + "\n[state]\nversion = 1\naccepts = []\n";
        setup.registry.publish(release_of("demo/other", version, library.clone(), &more))
    };
    other("1.1.0");
    let heard = Heard::default();
    setup.config.host.hooks = heard.hooks();
    setup.config.host.lifecycle.keep_old = Duration::ZERO;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    // More than any buffer holds.
    let mut download = reqwest::get(url(&agent, "/other/big?400")).await.unwrap();
    let first = download.chunk().await.unwrap().unwrap().len();
    assert_eq!(text(&agent, "/other/count").await, "1 open, 0 closed");
    other("1.2.0");
    let options = Options { update: true, ..Options::default() };
    assert!(agent.sync_with(options).await.unwrap().changed);
    assert_eq!(plugin(&agent, "demo/other").version, "1.2.0");
    assert_eq!(text(&agent, "/other/count").await, "0 open, 0 closed");
    heard.until("demo/other 1.1.0 stopping").await;
    let rest = download.bytes().await.unwrap().len();
    assert_eq!(first + rest, 5 + 400 * MIB / 4);
    heard.until("demo/other 1.1.0 stopped").await;
    agent.shutdown().await;
}
