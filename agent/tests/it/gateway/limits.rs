//! What clients may cost: sizes, numbers, times.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use modunest_agent::Agent;
use modunest_agent::config::{GatewaySettings, Listen};
use modunest_sdk::http::MAX_BODY_BYTES;
use reqwest::{Body, Client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Setup, setup, setup_with, url};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(setup: &mut Setup, change: impl FnOnce(&mut GatewaySettings)) -> Agent {
    change(&mut setup.config.gateway_limits);
    Agent::start(setup.config.clone()).await.unwrap()
}

/// Sends bytes over a connection of its own and reads until the other side closes.
async fn raw(agent: &Agent, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    until_closed(&mut stream).await
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await {
        Ok(Ok(_)) => {}
        // Bytes that were on their way when the server closed.
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => {}
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => panic!("the server did not close: {}", String::from_utf8_lossy(&answer)),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_are_bounded() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.header_bytes = 16 * 1024;
        limits.body_bytes = 20 * 1024 * 1024;
    })
    .await;
    let line = "GET /front/head HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let large = format!("{line}A: {}\r\n\r\n", "a".repeat(17 * 1024));
    assert_eq!(status(&raw(&agent, large.as_bytes()).await), "431");
    let many = format!("{line}{}\r\n", "a: b\r\n".repeat(200));
    assert_eq!(status(&raw(&agent, many.as_bytes()).await), "431");
    // Ambiguous framing is refused, so that no second request hides in a first.
    for framing in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let post = format!("POST /front/head HTTP/1.1\r\nHost: x\r\n{framing}\r\nabcd");
        assert_eq!(status(&raw(&agent, post.as_bytes()).await), "400", "{framing}");
    }

    let client = Client::new();
    let post = async |path: &str, size: usize, chunked: bool| {
        let body: Body = if chunked {
            let pieces = vec![Ok::<_, std::io::Error>(vec![0_u8; size])];
            Body::wrap_stream(futures_util::stream::iter(pieces))
        } else {
            vec![0; size].into()
        };
        let sent = client.post(url(&agent, path)).body(body).send().await;
        // A server that has refused may close while the client still sends.
        sent.map_or(413, |response| response.status().as_u16())
    };
    assert_eq!(post("/front/head", MAX_BODY_BYTES, false).await, 200);
    // `/front` takes uploads, and so it is asked; up to the limit.
    assert_eq!(post("/front/upload", MAX_BODY_BYTES + 1, false).await, 200);
    assert_eq!(post("/front/upload", 21 * 1024 * 1024, false).await, 413);
    assert_eq!(post("/front/upload", 21 * 1024 * 1024, true).await, 400, "broken off half-way");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_hold_nothing_up() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.header_timeout = Duration::from_millis(300);
        limits.idle_timeout = Duration::from_millis(300);
        limits.plugin_calls = 1;
        limits.plugin_queue = 1;
    })
    .await;
    // A head that comes byte by byte is cut by the head's time as a whole.
    let slow_head = async {
        let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
        for byte in b"GET /front/head HTTP/1.1\r\nHost: x\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        until_closed(&mut stream).await
    };
    // So is a connection that says nothing at all.
    let silent = async { raw(&agent, b"").await };
    // And one that stays open after its answer.
    let idle = async {
        let answer = raw(&agent, b"GET /other/head HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(status(&answer), "200");
    };
    // A body that stops is answered.
    let stopped = async {
        raw(&agent, b"POST /front/head HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc").await
    };
    // Meanwhile many of them, and a neighbour that is served at once though the plugin has one
    // place: who is slow to ask holds none.
    let crowd = async {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
            let post = b"POST /front/head HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc";
            stream.write_all(post).await.unwrap();
            streams.push(stream);
        }
        for _ in 0..5 {
            let answer = reqwest::get(url(&agent, "/front/head")).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    };
    let (slow_head, silent, (), stopped, ()) =
        tokio::join!(slow_head, silent, idle, stopped, crowd);
    assert!(slow_head.is_empty() || status(&slow_head) == "408", "{slow_head}");
    assert!(silent.is_empty() || status(&silent) == "408", "{silent}");
    assert_eq!(status(&stopped), "408", "{stopped}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| limits.idle_timeout = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
    stream.write_all(b"GET /front/big?400 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let closed = async {
        loop {
            let answer = reqwest::get(url(&agent, "/front/count")).await.unwrap();
            if answer.text().await.unwrap() == "0 open, 1 closed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the plugin hears that the client is gone");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_busy_has_a_short_queue() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.plugin_calls = 2;
        limits.plugin_queue = 1;
        limits.request_timeout = Some(Duration::from_secs(5));
    })
    .await;
    let slow = || reqwest::get(url(&agent, "/front/slow?1500"));
    let (first, second) = (tokio::spawn(slow()), tokio::spawn(slow()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let third = tokio::spawn(slow());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = slow().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()),
        (503, &b"1"[..])
    );
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "plugin-unavailable");
    // A neighbour has places of its own.
    assert_eq!(reqwest::get(url(&agent, "/other/head")).await.unwrap().status(), 200);
    for waiting in [first, second, third] {
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    }
    // Who waits for too long is told so.
    let mut setup = setup_with(&[]).await;
    // In the agent's own process, where a call that is late goes on and keeps its place.
    setup.config.host.in_process = vec!["demo/*".parse().unwrap()];
    let short = start(&mut setup, |limits| {
        limits.plugin_calls = 1;
        limits.request_timeout = Some(Duration::from_millis(400));
    })
    .await;
    let (late, behind) = tokio::join!(reqwest::get(url(&short, "/front/slow?1500")), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        reqwest::get(url(&short, "/front/slow?0")).await
    });
    assert_eq!(late.unwrap().status(), 504);
    // A plugin in a process of its own gives up the late call, and its place with it.
    let behind = behind.unwrap().status().as_u16();
    assert!(behind == 503 || behind == 200, "{behind}");
    short.shutdown().await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_their_turn() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.connections = 2;
        limits.header_timeout = Duration::from_millis(500);
    })
    .await;
    let hold = [
        TcpStream::connect(agent.gateway_addr()).await.unwrap(),
        TcpStream::connect(agent.gateway_addr()).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Served once the silent ones are cut off.
    let answer = reqwest::get(url(&agent, "/other/head")).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(hold);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_memory_are_bounded_together() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| limits.buffered_bytes = 20 * 1024 * 1024).await;
    let size = 12 * 1024 * 1024;
    let mut first = TcpStream::connect(agent.gateway_addr()).await.unwrap();
    let head = format!("POST /front/head HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    first.write_all(head.as_bytes()).await.unwrap();
    first.write_all(&vec![0; size - 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = Client::new().post(url(&agent, "/other/head")).body(vec![0; size]).send().await;
    // Refused, perhaps while it was still sending.
    assert!(second.map_or(503, |answer| answer.status().as_u16()) == 503);
    first.write_all(&[0]).await.unwrap();
    let mut begin = [0; 12];
    first.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    drop(first);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_what_runs() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| {
        limits.drain_delay = Duration::from_secs(3);
        limits.drain_timeout = Duration::from_secs(15);
    })
    .await;
    let Listen::Tcp(admin) = agent.admin().clone() else { panic!("a TCP address") };
    let address = agent.gateway_addr();
    // Load that goes on over the whole stop: nothing that was accepted may fail.
    let load: Vec<_> = (0..4)
        .map(|_| {
            let url = url(&agent, "/front/slow?20");
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    match Client::new().get(&url).send().await {
                        Ok(answer) => {
                            assert_eq!(answer.status(), 200);
                            assert_eq!(answer.text().await.unwrap(), "slept");
                            answered += 1;
                        }
                        // Nobody listens any more; whoever has connected is answered.
                        Err(error) if error.is_connect() => return answered,
                        Err(error) => panic!("a request failed while draining: {error:?}"),
                    }
                }
            })
        })
        .collect();
    let long = tokio::spawn(reqwest::get(url(&agent, "/front/slow?2000")));
    let events = reqwest::get(url(&agent, "/other/events")).await.unwrap();
    let download = reqwest::get(url(&agent, "/other/big?40")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(agent.shutdown());
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Not ready, and still there for those who have not noticed yet.
    let ready = reqwest::get(format!("http://{admin}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("the agent is stopping"));
    assert!(TcpStream::connect(address).await.is_ok());
    // What runs comes to its end; what only waits is ended.
    let started = Instant::now();
    assert_eq!(events.text().await.unwrap(), "data: 0\n\n");
    assert_eq!(download.bytes().await.unwrap().len(), 5 + 40 * 256 * 1024);
    assert_eq!(long.await.unwrap().unwrap().text().await.unwrap(), "slept");
    for client in load {
        assert!(client.await.unwrap() > 0);
    }
    stopping.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(14), "it did not wait for its patience's end");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_first_request_of_a_connection_and_for_no_second() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| limits.drain_timeout = PATIENCE).await;
    let address = agent.gateway_addr();
    let mut early = Vec::new();
    for _ in 0..8 {
        early.push(TcpStream::connect(address).await.unwrap());
    }
    let mut used = TcpStream::connect(address).await.unwrap();
    let request = b"GET /front/head HTTP/1.1\r\nHost: x\r\n\r\n";
    used.write_all(request).await.unwrap();
    let mut answer = [0; 15];
    used.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let stopping = tokio::spawn(agent.shutdown());
    // The one that was used before is closed: that is how it is known that the drain has begun.
    until_closed(&mut used).await;
    for mut connection in early {
        connection.write_all(request).await.unwrap();
        let answer = until_closed(&mut connection).await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    stopping.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cuts_what_does_not_end() {
    let mut setup = setup().await;
    let agent = start(&mut setup, |limits| limits.drain_timeout = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(agent.gateway_addr()).await.unwrap();
    stream.write_all(b"GET /front/big?4000 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::timeout(PATIENCE, agent.shutdown()).await.expect("it ends without the client");
}
