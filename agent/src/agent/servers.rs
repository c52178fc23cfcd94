//! The agent's listeners, and their end.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::turn::told;
use crate::Error;
use crate::config::Listen;

fn serve<L>(listener: L, router: axum::Router, stopped: watch::Receiver<bool>) -> JoinHandle<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await;
        if let Err(error) = served {
            tracing::error!(%error, "a server ended");
        }
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    told(&mut stopped).await;
}

pub(super) enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl AdminListener {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, Error> {
        let bind = |source| Error::Bind { address: listen.to_string(), source };
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(AdminListener::Tcp).map_err(bind)
            }
            Listen::Unix(path) => {
                // A socket that nobody answers on is left from a crash.
                if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
                    std::fs::remove_file(path).map_err(bind)?;
                }
                let listener = bind_for_owner(path).map_err(bind)?;
                Ok(AdminListener::Unix(listener, path.clone()))
            }
        }
    }

    pub(super) fn address(&self, asked: &Listen) -> Listen {
        match self {
            AdminListener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| asked.clone(), Listen::Tcp)
            }
            AdminListener::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    pub(super) fn serve(
        self,
        router: axum::Router,
        stopped: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        match self {
            AdminListener::Tcp(listener) => serve(listener, router, stopped),
            AdminListener::Unix(listener, path) => {
                let served = serve(listener, router, stopped);
                tokio::spawn(async move {
                    drop(served.await);
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
                    }
                })
            }
        }
    }
}

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 64;

/// A socket that only the agent's own user may open: whoever may connect may do everything. It
/// has its mode before it has its name, so there is no moment in between.
fn bind_for_owner(path: &Path) -> std::io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}
