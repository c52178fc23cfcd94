//! WebSockets: messages in both directions, limits, closes.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use modunest_agent::Agent;
use modunest_agent::config::GatewaySettings;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{setup, url};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(20);

async fn agent(change: impl FnOnce(&mut GatewaySettings)) -> (super::Setup, Agent) {
    let mut setup = setup().await;
    change(&mut setup.config.gateway_limits);
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    (setup, agent)
}

async fn open(agent: &Agent, path: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}{path}", agent.gateway_addr());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "other, echo".parse().unwrap());
    let (socket, response) = connect_async(request).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], "echo");
    Ok(socket)
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
}

/// The code with which the other side closes.
async fn closed(socket: &mut Socket) -> CloseCode {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is closed") {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code,
            Some(Ok(_)) => {}
            other => panic!("no close: {other:?}"),
        }
    }
}

async fn count(agent: &Agent) -> String {
    reqwest::get(url(agent, "/front/count")).await.unwrap().text().await.unwrap()
}

async fn until_count(agent: &Agent, wanted: &str) {
    let waiting = async {
        while count(agent).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_echoed_pushed_and_ended() {
    let (_setup, agent) = agent(|_| {}).await;
    let mut socket = open(&agent, "/front/socket").await.unwrap();
    for text in ["hello", "", "größer"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text(text));
    }
    let binary = Message::binary(vec![7; 1024 * 1024]);
    socket.send(binary.clone()).await.unwrap();
    assert_eq!(next(&mut socket).await, binary);
    // What happens elsewhere reaches the client by itself.
    assert_eq!(reqwest::get(url(&agent, "/front/wake")).await.unwrap().status(), 200);
    assert_eq!(next(&mut socket).await, Message::text("woken 1"));
    socket.send(Message::Ping(vec![1, 2].into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong(vec![1, 2].into()));
    socket.send(Message::text("end")).await.unwrap();
    assert_eq!(closed(&mut socket).await, CloseCode::Normal);
    until_count(&agent, "0 open, 0 closed").await;

    // A client that goes away is told, and a plugin's failure closes with the reason.
    let gone = open(&agent, "/front/socket").await.unwrap();
    assert_eq!(count(&agent).await, "1 open, 0 closed");
    drop(gone);
    until_count(&agent, "0 open, 1 closed").await;
    let mut failing = open(&agent, "/front/socket").await.unwrap();
    failing.send(Message::text("fail")).await.unwrap();
    assert_eq!(closed(&mut failing).await, CloseCode::Error);
    until_count(&agent, "0 open, 2 closed").await;

    // A path without one answers as usual.
    let refused = open(&agent, "/front/head").await;
    assert!(matches!(&refused, Err(Error::Http(answer)) if answer.status() == 200), "{refused:?}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_too_fast_and_too_quiet() {
    let (_setup, agent) = agent(|limits| {
        limits.message_bytes = 1000;
        limits.messages_per_s = 5;
        limits.idle_timeout = Duration::from_millis(600);
    })
    .await;
    let mut large = open(&agent, "/front/socket").await.unwrap();
    large.send(Message::binary(vec![0; 1001])).await.unwrap();
    assert_eq!(closed(&mut large).await, CloseCode::Size);

    let mut fast = open(&agent, "/front/socket").await.unwrap();
    for _ in 0..50 {
        if fast.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    assert_eq!(closed(&mut fast).await, CloseCode::Policy);

    // A client that reads answers pings, and stays; one that does not is closed.
    let mut present = open(&agent, "/front/socket").await.unwrap();
    let stays = tokio::time::timeout(Duration::from_millis(1800), async {
        while let Some(Ok(message)) = present.next().await {
            assert!(matches!(message, Message::Ping(_)), "{message:?}");
        }
    });
    assert!(stays.await.is_err(), "it was closed though it answers");
    drop(present);
    let absent = open(&agent, "/front/socket").await.unwrap();
    until_count(&agent, "0 open, 4 closed").await;
    drop(absent);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_blamed_for_its_slow_plugin() {
    let (_setup, agent) = agent(|limits| limits.idle_timeout = Duration::from_millis(400)).await;
    let mut socket = open(&agent, "/front/socket").await.unwrap();
    // Each takes longer than a client may be silent.
    for text in ["sleep 900", "sleep 901", "sleep 902"] {
        socket.send(Message::text(text)).await.unwrap();
        let answer = loop {
            match next(&mut socket).await {
                Message::Ping(_) => {}
                other => break other,
            }
        };
        assert_eq!(answer, Message::text(text));
    }
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_good_bye() {
    let (_setup, agent) = agent(|_| {}).await;
    let mut socket = open(&agent, "/front/socket").await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("hello"));
    let stopping = tokio::spawn(agent.shutdown());
    assert_eq!(closed(&mut socket).await, CloseCode::Away);
    drop(socket);
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}
