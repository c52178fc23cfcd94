//! Parts of a registry inside the test's own process, each behind a socket: the embedded
//! services, the native shell over them, and any axum router.

use aws_sdk_s3::primitives::ByteStream;
use axum::Router;
use modunest_core::api::Discovery;
use modunest_core::keys::ObjectKey;
use modunest_local::{LocalServices, Subscription};
use modunest_runtime::aws::Settings;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

/// The bucket that publishers upload to.
pub const STAGING: &str = "modunest-staging";
/// The bucket that readers read from.
pub const PUBLIC: &str = "modunest-public";
/// The bucket that holds the registry's key.
pub const KEYS: &str = "modunest-keys";
/// The table.
pub const TABLE: &str = "modunest";

/// The embedded DynamoDB and S3.
pub struct Store {
    /// Where they are, and who we are to them.
    pub settings: Settings,
    /// A client.
    pub s3: aws_sdk_s3::Client,
    services: LocalServices,
}

impl Store {
    /// Starts them, with nothing in them and nobody who wants to hear of it.
    pub async fn start() -> Store {
        Store::start_with(Vec::new()).await
    }

    /// Starts them with subscribers to events.
    ///
    /// # Panics
    /// When they cannot start.
    pub async fn start_with(subscriptions: Vec<Subscription>) -> Store {
        let any = "127.0.0.1:0".parse().unwrap();
        let config = modunest_local::Config {
            data_dir: None,
            s3_listen: any,
            dynamodb_listen: any,
            access_key: "AKIATESTS".to_owned(),
            secret_key: "the tests' own secret".to_owned(),
            region: "eu-central-1".to_owned(),
            buckets: [STAGING, PUBLIC, KEYS].map(str::to_owned).to_vec(),
        };
        let settings = Settings {
            region: config.region.clone(),
            access_key_id: config.access_key.clone(),
            secret_access_key: config.secret_key.clone(),
            session_token: None,
            s3_endpoint: None,
            dynamodb_endpoint: None,
            kms_endpoint: None,
        };
        let services = LocalServices::start(config, subscriptions).await.unwrap();
        let settings = Settings {
            s3_endpoint: Some(services.s3_endpoint()),
            dynamodb_endpoint: Some(services.dynamodb_endpoint()),
            ..settings
        };
        Store { s3: modunest_runtime::aws::s3(&settings), settings, services }
    }

    /// Puts an object into the public bucket.
    ///
    /// # Panics
    /// When S3 refuses.
    pub async fn put(&self, key: &ObjectKey, content: &[u8]) {
        self.put_in(PUBLIC, &key.to_string(), content).await;
    }

    /// Puts an object into a bucket.
    ///
    /// # Panics
    /// When S3 refuses.
    pub async fn put_in(&self, bucket: &str, key: &str, content: &[u8]) {
        let body = ByteStream::from(content.to_vec());
        self.s3.put_object().bucket(bucket).key(key).body(body).send().await.unwrap();
    }

    /// Removes an object from the public bucket.
    ///
    /// # Panics
    /// When S3 refuses.
    pub async fn delete(&self, key: &ObjectKey) {
        self.s3.delete_object().bucket(PUBLIC).key(key.to_string()).send().await.unwrap();
    }

    /// Ends them in order.
    ///
    /// # Panics
    /// When one had failed already.
    pub async fn stop(self) {
        self.services.shutdown().await.unwrap();
    }
}

/// A server in this process. It ends when dropped.
pub struct Server {
    /// Where it answers.
    pub url: Url,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Serves a router as the native shell serves its own.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(modunest_edge::native::serve(listener, router, async move {
            let _stopped_or_dropped = stopped.await;
        }));
        Server { url, stop: Some(stop), task }
    }

    /// The native shell over the public bucket of `store`.
    ///
    /// # Panics
    /// When its configuration cannot work.
    pub async fn native(store: &Store, api: Option<Url>, discovery: Discovery) -> Server {
        let router = modunest_edge::native::router(modunest_edge::native::Config {
            aws: store.settings.clone(),
            public_bucket: PUBLIC.to_owned(),
            api_origin: api,
            discovery,
            memory_cache_bytes: modunest_edge::native::MEMORY_CACHE_BYTES,
            downloads: None,
        });
        Server::start(router.unwrap()).await
    }

    /// Lets open requests end, and stops.
    ///
    /// # Panics
    /// When it had failed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that differ everywhere, so that a shifted range shows, and that nothing compresses.
pub fn noise(size: usize) -> Vec<u8> {
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
