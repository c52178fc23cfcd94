//! Connections: HTTP/1.1 with keep-alive and pipelining, and a graceful end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

/// Connections that are open at the same time. Each takes a descriptor and some 10 KiB; the
/// next one waits in the system's queue.
pub const CONNECTIONS_MAX: usize = 8192;
/// How long a request's head may take, and how long a connection may idle: slow or silent
/// peers must not hold connections for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open requests may go on after the signal to stop: below the 30 seconds that
/// Kubernetes and systemd leave before they kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends, then lets open requests end.
///
/// # Errors
/// When the listener's address cannot be read; single connections fail by themselves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "serving");
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => match accepted {
                (permit, Ok((stream, peer))) => (permit, stream, peer),
                (_, Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = connect(stream, ConnectInfo(peer), router.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Mostly a client that went away.
                tracing::debug!(%error, %peer, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still open when the time to end them was over");
    }
    Ok(())
}

type Answer = http::Response<axum::body::Body>;

fn connect(
    stream: TcpStream,
    peer: ConnectInfo<std::net::SocketAddr>,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    // An answer is written in one go; waiting for more would only delay it. When the option
    // cannot be set the connection still works.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().call(request);
        async move { answer.await.map(|answer: Answer| answer).map_err(|never: Infallible| never) }
    });
    // No `pipeline_flush`: it would copy every body into one buffer with its head, which
    // costs a third of the work for 1 MiB. Head and body go out in one vectored write.
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
}
