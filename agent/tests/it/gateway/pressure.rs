//! Slow clients and busy plugins: whoever has nothing to do with them goes on.

use std::time::Duration;

use futures_util::StreamExt as _;
use modunest_agent::Agent;
use modunest_agent::config::GatewaySettings;
use reqwest::{Body, Client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{Setup, library, route, setup, url};
use crate::plugins::release_of;
use crate::process::plugin;
use crate::upkeep::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);
/// Below what one message holds, and above what sockets do.
const WHOLE_KIB: usize = 15 * 1024;

async fn start(setup: &mut Setup, change: impl FnOnce(&mut GatewaySettings)) -> Agent {
    change(&mut setup.config.gateway_limits);
    Agent::start(setup.config.clone()).await.unwrap()
}

/// A client that asks for a large answer in one piece, and takes its first bytes.
async fn slow_reader(agent: &Agent) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(agent.gateway_addr()).await.unwrap();
    let get =
        format!("GET /front/whole?{WHOLE_KIB} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream
}

/// Reads a little every 50 ms until the other side closes. How much it was.
async fn read_slowly(stream: &mut TcpStream) -> usize {
    let (mut size, mut piece) = (0, vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut piece).await {
            // A server that gives up resets.
            Ok(0) | Err(_) => return size,
            Ok(read) => size += read,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status(agent: &Agent, path: &str) -> u16 {
    let answer = reqwest::get(url(agent, path)).await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_have_their_share_of_the_memory_until_they_are_sent() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.buffered_bytes = 20 * 1024 * 1024;
        limits.request_timeout = Some(Duration::from_secs(2));
    })
    .await;
    let mut reader = slow_reader(&agent).await;
    let large = format!("/other/whole?{WHOLE_KIB}");
    let refused = reqwest::get(url(&agent, &large)).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "unavailable");
    // Small ones go on, and so does what is streamed in small pieces.
    assert_eq!(status(&agent, "/other/whole?64").await, 200);
    assert_eq!(status(&agent, "/other/big?40").await, 200);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > WHOLE_KIB * 1024, "all of it");
    assert_eq!(status(&agent, &large).await, 200);
    // And so does one whose client leaves in the middle of it.
    drop(slow_reader(&agent).await);
    assert_eq!(status(&agent, &large).await, 200);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_whole_answer_too_slowly_is_cut_off() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.buffered_bytes = 20 * 1024 * 1024;
        limits.idle_timeout = Duration::from_secs(2);
        limits.progress_bytes = 12 * 1024 * 1024;
    })
    .await;
    let mut reader = slow_reader(&agent).await;
    // It goes on reading, and still another has its memory.
    let large = format!("/other/whole?{WHOLE_KIB}");
    let (read, next) = tokio::join!(read_slowly(&mut reader), status(&agent, &large));
    assert!(read < WHOLE_KIB * 1024, "{read} bytes");
    assert_eq!(next, 200);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_leave_places_and_memory_for_others() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.plugin_calls = 4;
        limits.buffered_bytes = 20 * 1024 * 1024;
        limits.request_timeout = Some(Duration::from_secs(5));
    })
    .await;
    // They begin, and then nothing comes.
    let mut uploads = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
        let post =
            "POST /front/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\nbegun";
        stream.write_all(post.as_bytes()).await.unwrap();
        uploads.push(stream);
    }
    let wait = || plugin(&agent, "demo/front");
    wait_for("two uploads, and four that wait", async || wait().running == 2 && wait().queued == 4)
        .await;
    assert_eq!(status(&agent, "/front/head").await, 200);
    // Six times what an upload holds is taken, and no more.
    let body = vec![0; 13 * 1024 * 1024];
    let large = Client::new().post(url(&agent, "/other/head")).body(body).send().await.unwrap();
    assert_eq!(large.status(), 200);
    drop(uploads);
    wait_for("their ends", async || wait().running == 0 && wait().queued == 0).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_trickles_is_given_up() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| limits.idle_timeout = Duration::from_millis(500)).await;
    let bytes = futures_util::stream::iter(0..).then(|number| async move {
        // Enough to be an upload, then a byte every 50 ms.
        let size = if number == 0 { 17 * 1024 * 1024 } else { 1 };
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, std::io::Error>(vec![1_u8; size])
    });
    let post = Client::new().post(url(&agent, "/front/upload")).body(Body::wrap_stream(bytes));
    let sent = tokio::time::timeout(PATIENCE, post.send()).await.expect("it is given up");
    // Its connection may be closed before the client has read the answer.
    assert!(sent.map_or(400, |answer| answer.status().as_u16()) == 400);
    let none = async || plugin(&agent, "demo/front").running == 0;
    wait_for("the plugin's place", none).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_busy_plugins_do_not_keep_a_neighbour_waiting() {
    const PLUGINS: usize = 16;
    const CALLERS: usize = 16;
    let mut setup = setup().await;
    let over = setup.folder.path().join("over");
    let wait_for_file = format!("WAIT_FOR=\"{}\"", over.display());
    for number in 0..PLUGINS {
        let path = format!("/slow{number}");
        let library = library(&[&format!("ROUTE=\"{path}\""), &wait_for_file]);
        let name = format!("demo/slow{number}");
        setup.registry.publish(release_of(&name, "1.0.0", library, &route(&path)));
    }
    let names: Vec<String> = (0..PLUGINS).map(|number| format!("demo/slow{number}")).collect();
    let mut wanted: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "^1")).collect();
    wanted.push(("demo/other", "^1"));
    setup.config = setup.registry.config(setup.folder.path(), &wanted);
    setup.config.host.in_process = vec!["demo/*".parse().unwrap()];
    let agent = start(&mut setup, |limits| limits.request_timeout = Some(PATIENCE)).await;
    let callers: Vec<_> = (0..PLUGINS * CALLERS)
        .map(|number| {
            let url = url(&agent, &format!("/slow{}/wait", number % PLUGINS));
            tokio::spawn(async move { reqwest::get(url).await.unwrap().status().as_u16() })
        })
        .collect();
    wait_for("as many calls as may be", async || {
        let running = names.iter().map(|name| plugin(&agent, name).running).sum::<u64>();
        running >= GatewaySettings::default().calls as u64
    })
    .await;
    for _ in 0..50 {
        assert_eq!(status(&agent, "/other/head").await, 200);
    }
    std::fs::write(over, "").unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 200);
    }
    agent.shutdown().await;
}
