//! The HTTP listener of the store.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::{Service, Store};

/// Connections at once. Each costs some 20 KiB idle; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take for a request's head, and a kept connection may stay silent.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The pause after the system refused a connection, for want of file handles mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The running listener.
pub(crate) struct Server {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `store` to whoever signs with the key; nobody else gets an answer but 403.
    pub(crate) fn start(
        listener: TcpListener,
        store: Arc<Store>,
        access_key: &str,
        secret_key: String,
    ) -> Self {
        let mut builder = S3ServiceBuilder::new(Service(store));
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(serve(listener, builder.build(), stopped));
        Self { stop, task }
    }

    /// Accepts nothing more and waits a little for the requests that run.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the S3 listener ended abnormally");
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, mut stopped: watch::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            _ = stopped.changed() => break,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "S3 cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "S3 cannot set TCP_NODELAY");
        }
        let connection =
            graceful.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an S3 connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("S3 requests still run at shutdown; they are cut off");
    }
}
