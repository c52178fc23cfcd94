//! A gate between two programs: it lets connections through, and what comes back only up to a
//! number of bytes, until it is opened. What has come out in front of it by then was passed on
//! as it came, and not gathered first.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

/// The gate. It ends when dropped.
pub struct Gate {
    /// Its own address, to be used in the other's place.
    pub url: Url,
    allowed: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Gate {
    /// One in front of `behind` through which everything passes.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(behind: &Url) -> Gate {
        let target: SocketAddr =
            format!("{}:{}", behind.host_str().unwrap(), behind.port().unwrap()).parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (allowed, watched) = watch::channel(usize::MAX);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let watched = watched.clone();
                tokio::spawn(async move {
                    // Either side may end the connection at any time.
                    let _ended = pass(client, target, watched).await;
                });
            }
        });
        Gate { url, allowed, task }
    }

    /// Holds back what comes on each new connection beyond this many bytes.
    pub fn hold_after(&self, bytes: usize) {
        self.allowed.send_replace(bytes);
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.allowed.send_replace(usize::MAX);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    mut allowed: watch::Receiver<usize>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    });
    let mut passed = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from_server.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        passed += length;
        // An error means that the gate is gone, and with it the test.
        if allowed.wait_for(|allowed| passed <= *allowed).await.is_err() {
            break;
        }
        to_client.write_all(&buffer[..length]).await?;
    }
    requests.abort();
    to_client.shutdown().await
}
