//! The server: connections with bounds on their number and on every wait, and a drain.
//!
//! A drain loses no request that somebody could believe to be on its way: connections that wait
//! in the kernel's queue are taken in before the listener closes, and one that has not been used
//! yet stays open for its first request, for a short while.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use modunest_sdk::http::MAX_HEADERS;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::budget::FREE_BYTES;
use super::pace::{Pace, Paced};
use crate::config::GatewaySettings;

/// Pause after the system refused a connection, for want of descriptors above all.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How long a drain leaves a connection open that has not been used yet: whoever has connected
/// sends a request within a few round trips. Connections that are held ready and not used, as
/// browsers do, delay a stop by no more than this.
const FIRST_REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// A connection's buffer, as long as heads are not longer: what a body has beside its budget.
const BUFFER_MIN_BYTES: usize = FREE_BYTES;

/// A connection's place among all. What it becomes after an upgrade goes on to hold it.
#[derive(Clone)]
pub(super) struct ConnectionPlace(
    #[allow(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>,
);

/// Everything that runs for clients, so that a stop can wait for it and then cut it.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) tasks: TaskTracker,
    /// No new requests: what runs comes to its end.
    pub(super) draining: CancellationToken,
    /// The end of patience.
    pub(super) cut: CancellationToken,
}

impl Running {
    pub(super) fn new() -> Self {
        Running {
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Runs a task that the stop waits for, and cuts at the end of its patience.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// Serves until `stopped`, then drains: no new connections, idle ones end at once, requests and
/// streams have until the drain's timeout.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    gateway: &Gateway,
    mut stopped: watch::Receiver<bool>,
) {
    let (places, running) = (&gateway.connections, &gateway.running);
    loop {
        let accepted = async {
            // A place first: who finds none waits in the kernel's queue, not here.
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((place, stream))
        };
        // An error means that the agent was dropped, which is a stop as well.
        let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::select! {
            () = stop => break,
            accepted = accepted => match accepted {
                Ok((place, stream)) => {
                    connect(stream, place, &router, &gateway.rules().settings, running);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }
    // What has connected before is let in; nobody comes in between the last one and the end.
    if let Err(error) = take_in_rest(listener, |stream| {
        let place = places.clone().try_acquire_owned();
        place
            .map(|place| connect(stream, place, &router, &gateway.rules().settings, running))
            .is_ok()
    }) {
        tracing::warn!(%error, "connections that waited to be accepted are lost");
    }
    running.draining.cancel();
    running.tasks.close();
    let drain_timeout = gateway.rules().settings.drain_timeout;
    if tokio::time::timeout(drain_timeout, running.tasks.wait()).await.is_err() {
        tracing::warn!(left = running.tasks.len(), "requests did not end in time and are cut");
        running.cut.cancel();
        running.tasks.wait().await;
    }
}

/// Accepts what waits in the kernel's queue, as long as `connect` has a place for it, and closes
/// the listener.
fn take_in_rest(
    listener: TcpListener,
    mut connect: impl FnMut(TcpStream) -> bool,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                if !connect(TcpStream::from_std(stream)?) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The peer has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

fn connect(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    router: &Router,
    settings: &GatewaySettings,
    running: &Running,
) {
    // Pieces of a stream are meant to arrive when they are written.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection delays what is written");
    }
    let io = TokioIo::new(Paced::new(stream, Pace::of(settings)));
    let place = ConnectionPlace(Arc::new(place));
    let inner = TowerToHyperService::new(router.clone());
    let draining = running.draining.clone();
    let used = CancellationToken::new();
    let first = used.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        first.cancel();
        request.extensions_mut().insert(place.clone());
        let (answer, draining) = (inner.call(request), draining.clone());
        async move {
            let mut response = answer.await?;
            if draining.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // So that nobody sends a second request over a connection that ends.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(settings.header_bytes)
        .max_buf_size(settings.header_bytes.max(BUFFER_MIN_BYTES))
        .serve_connection(io, service)
        .with_upgrades();
    let draining = running.draining.clone();
    running.spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = draining.cancelled() => {
                let patience = tokio::time::sleep(FIRST_REQUEST_PATIENCE);
                let first = tokio::select! {
                    // Its end before its first request, or with it.
                    served = connection.as_mut() => Some(served),
                    () = used.cancelled() => None,
                    () = patience => None,
                };
                match first {
                    Some(served) => served,
                    None => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        if let Err(error) = served {
            // Clients that go away, time out or speak something else are no trouble of ours.
            tracing::debug!(%error, "a connection ended");
        }
    });
}
