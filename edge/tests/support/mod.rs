//! The read side over loopback, in front of the embedded S3.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use modunest_core::api::Discovery;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::{Code, Problem};
use modunest_edge::native::{Config, Downloads, MEMORY_CACHE_BYTES, router, serve};
use modunest_local::LocalServices;
use modunest_runtime::aws::Settings;
use reqwest::{Method, RequestBuilder, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

pub const BUCKET: &str = "public";
pub const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A server that stops when asked, and whose end is waited for.
pub struct Server {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, router, async move {
            let _stopped_or_dropped = stopped.await;
        }));
        Server { address, stop, task }
    }

    pub fn origin(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

pub struct Site {
    pub local: Option<LocalServices>,
    pub settings: Settings,
    pub s3: aws_sdk_s3::Client,
    pub edge: Server,
    pub client: reqwest::Client,
}

impl Site {
    pub async fn start(api_origin: Option<Url>) -> Site {
        Self::start_with(api_origin, None).await
    }

    /// A read side that counts downloads.
    pub async fn start_counting(downloads: Downloads) -> Site {
        Self::start_with(None, Some(downloads)).await
    }

    async fn start_with(api_origin: Option<Url>, downloads: Option<Downloads>) -> Site {
        let local = LocalServices::start(
            modunest_local::Config {
                data_dir: None,
                s3_listen: "127.0.0.1:0".parse().unwrap(),
                dynamodb_listen: "127.0.0.1:0".parse().unwrap(),
                access_key: "local".to_owned(),
                secret_key: "not so secret".to_owned(),
                region: "local".to_owned(),
                buckets: vec![BUCKET.to_owned()],
            },
            Vec::new(),
        )
        .await
        .unwrap();
        let settings = Settings {
            region: "local".to_owned(),
            access_key_id: "local".to_owned(),
            secret_access_key: "not so secret".to_owned(),
            session_token: None,
            s3_endpoint: Some(local.s3_endpoint()),
            dynamodb_endpoint: None,
            kms_endpoint: None,
        };
        let config = Config { downloads, ..config(&settings, api_origin) };
        let edge = Server::start(router(config).unwrap()).await;
        Site {
            s3: modunest_runtime::aws::s3(&settings),
            local: Some(local),
            settings,
            edge,
            client: modunest_runtime::http::client().unwrap(),
        }
    }

    /// A second read side over the same bucket, which has nothing in memory.
    pub async fn another_edge(&self, memory_cache_bytes: u64) -> Server {
        let config = Config { memory_cache_bytes, ..config(&self.settings, None) };
        Server::start(router(config).unwrap()).await
    }

    /// A read side whose requests to the bucket are slow, and counted.
    pub async fn slow_edge(&self) -> (Server, Arc<AtomicUsize>) {
        let s3 = self.settings.s3_endpoint.as_deref().unwrap();
        let s3 = s3.strip_prefix("http://").unwrap().parse().unwrap();
        let (address, gets) = slow_proxy(s3).await;
        let s3_endpoint = Some(format!("http://{address}"));
        let settings = Settings { s3_endpoint, ..self.settings.clone() };
        (Server::start(router(config(&settings, None)).unwrap()).await, gets)
    }

    pub async fn put(&self, key: &ObjectKey, content: impl Into<Vec<u8>>) {
        self.s3
            .put_object()
            .bucket(BUCKET)
            .key(key.to_string())
            .body(content.into().into())
            .send()
            .await
            .unwrap();
    }

    pub async fn put_blob(&self, content: &[u8]) -> ObjectKey {
        let key = ObjectKey::Blob(Digest::of(content));
        self.put(&key, content).await;
        key
    }

    pub async fn delete(&self, key: &ObjectKey) {
        self.s3.delete_object().bucket(BUCKET).key(key.to_string()).send().await.unwrap();
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.edge.address))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    pub async fn stop_s3(&mut self) {
        self.local.take().unwrap().shutdown().await.unwrap();
    }

    pub async fn stop(self) {
        self.edge.stop().await;
        if let Some(local) = self.local {
            local.shutdown().await.unwrap();
        }
    }
}

fn config(settings: &Settings, api_origin: Option<Url>) -> Config {
    Config {
        aws: settings.clone(),
        public_bucket: BUCKET.to_owned(),
        api_origin,
        discovery: Discovery {
            protocols: vec![1],
            origin: "local.modunest".to_owned(),
            api: "http://127.0.0.1/v1/".to_owned(),
            files: "http://127.0.0.1/".to_owned(),
            keys: vec!["local.modunest+00aa11bb+AQ==".to_owned()],
        },
        memory_cache_bytes: MEMORY_CACHE_BYTES,
        downloads: None,
    }
}

/// Passes connections on, each request a little later, and counts the GETs of objects.
async fn slow_proxy(target: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    const GET: &[u8] = b"GET /public/";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gets = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&gets);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let server = TcpStream::connect(target).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _until_closed = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    // The client writes a request's head in one piece.
                    let found = buffer[..length].windows(GET.len()).filter(|w| *w == GET).count();
                    counter.fetch_add(found, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if to_server.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, gets)
}

pub fn field<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// Checks what every problem has, and reads it.
pub async fn problem(response: Response, code: Code) -> Problem {
    assert_eq!(response.status().as_u16(), code.status());
    assert_eq!(field(&response, "content-type"), "application/problem+json");
    assert_eq!(field(&response, "cache-control"), "no-store");
    let traceparent = field(&response, "traceparent").to_owned();
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.code, code);
    assert_eq!(traceparent.split('-').nth(1), Some(problem.trace_id.as_str()));
    problem
}

/// Bytes that differ everywhere, so that a shifted range shows.
pub fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect()
}
