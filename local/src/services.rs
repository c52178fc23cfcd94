//! Starting and stopping everything together.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::dynamodb::DynamoDb;
use crate::events::{self, Delivery, Interest, Subscription};
use crate::files::Files;
use crate::folder::DataFolder;
use crate::index::Index;
use crate::s3::{Server, Store};
use crate::{Error, clock};

/// The folder of object files inside the data folder.
const OBJECTS_FOLDER: &str = "objects";

/// What the services need to know.
#[derive(Clone)]
pub struct Config {
    /// Where everything is kept. `None`: in memory and a temporary folder, and gone at the end.
    pub data_dir: Option<PathBuf>,
    /// Where S3 listens; loopback only, port 0 for any free one.
    pub s3_listen: SocketAddr,
    /// Where DynamoDB listens; loopback only, port 0 for any free one. It checks no signatures.
    pub dynamodb_listen: SocketAddr,
    /// The one access key id that S3 knows.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The region that buckets and events name, for example `eu-central-1`.
    pub region: String,
    /// Buckets that exist from the start; those that are there already are left as they are.
    pub buckets: Vec<String>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("s3_listen", &self.s3_listen)
            .field("dynamodb_listen", &self.dynamodb_listen)
            .field("access_key", &self.access_key)
            .field("secret_key", &"…")
            .field("region", &self.region)
            .field("buckets", &self.buckets)
            .finish()
    }
}

/// The data folder locked and both ports taken, but nothing served yet.
///
/// Subscribers often need clients of these very services, and so the addresses
/// before anything is served; this is the step between.
pub struct BoundServices {
    config: Config,
    folder: DataFolder,
    s3: TcpListener,
    dynamodb: TcpListener,
    s3_address: SocketAddr,
    dynamodb_address: SocketAddr,
}

impl BoundServices {
    /// Locks the data folder and takes both ports.
    ///
    /// # Errors
    /// [`Error::FolderInUse`], [`Error::Folder`], [`Error::PortInUse`],
    /// [`Error::Bind`], [`Error::NotLoopback`], [`Error::BucketName`] and
    /// [`Error::EmptyCredentials`].
    pub fn bind(config: Config) -> Result<Self, Error> {
        if config.access_key.is_empty() || config.secret_key.is_empty() {
            return Err(Error::EmptyCredentials);
        }
        if let Some(name) = config.buckets.iter().find(|name| !s3s::path::check_bucket_name(name)) {
            return Err(Error::BucketName { name: name.clone() });
        }
        let (s3, s3_address) = listen("S3", config.s3_listen)?;
        let (dynamodb, dynamodb_address) = listen("DynamoDB", config.dynamodb_listen)?;
        let folder = DataFolder::open(config.data_dir.as_deref())?;
        Ok(Self { config, folder, s3, dynamodb, s3_address, dynamodb_address })
    }

    /// Where S3 will answer, as `http://127.0.0.1:PORT`. Buckets are path-style.
    #[must_use]
    pub fn s3_endpoint(&self) -> String {
        format!("http://{}", self.s3_address)
    }

    /// Where DynamoDB will answer, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn dynamodb_endpoint(&self) -> String {
        format!("http://{}", self.dynamodb_address)
    }

    /// Opens the stores, sweeps what a crash left, and serves. Events that
    /// earlier runs left undelivered are delivered at once.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NewerFormat`], [`Error::Folder`],
    /// [`Error::UnknownBucket`], [`Error::OverlappingSubscriptions`],
    /// [`Error::Thread`], [`Error::Index`] and [`Error::DynamoDb`].
    pub async fn serve(self, subscriptions: Vec<Subscription>) -> Result<LocalServices, Error> {
        events::check(&subscriptions, &self.config.buckets)?;
        let Self { config, folder, s3, dynamodb, s3_address, dynamodb_address } = self;
        let committed = Arc::new(Notify::new());
        let interest = Arc::new(Interest::new(config.region.clone(), &subscriptions));
        let opened = {
            let committed = committed.clone();
            tokio::task::spawn_blocking(move || open(folder, dynamodb, interest, committed))
        };
        let opened = opened.await.map_err(|error| Error::Thread {
            name: "start-up",
            source: std::io::Error::other(error),
        })??;
        let Opened { folder, index, files, dynamodb, report } = opened;
        for bucket in &config.buckets {
            // One that exists already is what is wanted.
            let _exists = index.create_bucket(bucket.clone(), clock::now_ms()).await?;
        }
        let listener = tokio::net::TcpListener::from_std(s3).map_err(|source| Error::Bind {
            service: "S3",
            address: s3_address,
            source,
        })?;
        let store = Arc::new(Store { index: index.clone(), files, region: config.region });
        let server = Server::start(listener, store, &config.access_key, config.secret_key);
        let delivery = Delivery::start(index.clone(), subscriptions, committed);
        Ok(LocalServices {
            server,
            delivery,
            index,
            dynamodb,
            report,
            s3_address,
            dynamodb_address,
            _folder: folder,
        })
    }
}

/// What the start found that an earlier run had not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartReport {
    /// Half-written uploads that were removed; none of them had been acknowledged.
    pub removed_files: u64,
    /// Their size together.
    pub removed_bytes: u64,
    /// Events that wait for their subscriber.
    pub undelivered_events: u64,
    /// Objects, as `bucket/key`, whose file is gone: damage from outside, since a
    /// crash cannot do this. They answer 500 until they are written again.
    pub damaged_objects: Vec<String>,
}

/// The running services. Call [`shutdown`](Self::shutdown) at the end.
#[must_use = "the services stop when this is dropped"]
pub struct LocalServices {
    server: Server,
    delivery: Delivery,
    index: Index,
    dynamodb: DynamoDb,
    report: StartReport,
    s3_address: SocketAddr,
    dynamodb_address: SocketAddr,
    /// Declared last: unlocked, or removed, when everything else is closed.
    _folder: DataFolder,
}

impl LocalServices {
    /// [`BoundServices::bind`] and [`BoundServices::serve`] in one step.
    ///
    /// # Errors
    /// Those of both.
    pub async fn start(config: Config, subscriptions: Vec<Subscription>) -> Result<Self, Error> {
        BoundServices::bind(config)?.serve(subscriptions).await
    }

    /// Where S3 answers, as `http://127.0.0.1:PORT`. Buckets are path-style.
    #[must_use]
    pub fn s3_endpoint(&self) -> String {
        format!("http://{}", self.s3_address)
    }

    /// Where DynamoDB answers, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn dynamodb_endpoint(&self) -> String {
        format!("http://{}", self.dynamodb_address)
    }

    /// What the start found that an earlier run had not finished.
    #[must_use]
    pub fn start_report(&self) -> &StartReport {
        &self.report
    }

    /// Lets running handlers and requests end, each within some seconds, then
    /// closes both databases and unlocks the folder.
    ///
    /// # Errors
    /// [`Error::Index`] or [`Error::DynamoDb`] if one had already died.
    pub async fn shutdown(self) -> Result<(), Error> {
        // Handlers use both services, so they end first.
        self.delivery.stop().await;
        self.server.stop().await;
        let (index, dynamodb) = (self.index, self.dynamodb);
        let closed = tokio::task::spawn_blocking(move || {
            let index = index.close();
            dynamodb.stop()?;
            Ok::<_, Error>(index?)
        });
        closed.await.map_err(|error| Error::Thread {
            name: "shutdown",
            source: std::io::Error::other(error),
        })?
    }
}

struct Opened {
    folder: DataFolder,
    index: Index,
    files: Files,
    dynamodb: DynamoDb,
    report: StartReport,
}

/// Everything that touches the disk before serving. Blocks.
fn open(
    folder: DataFolder,
    dynamodb: TcpListener,
    interest: Arc<Interest>,
    committed: Arc<Notify>,
) -> Result<Opened, Error> {
    let durable = !folder.is_ephemeral();
    let files = Files::open(folder.path().join(OBJECTS_FOLDER), durable)?;
    let index = Index::open(folder.path(), durable, files.clone(), interest, committed)?;
    let report = sweep(&index, &files)?;
    let dynamodb = DynamoDb::start(dynamodb, durable.then_some(folder.path()))?;
    Ok(Opened { folder, index, files, dynamodb, report })
}

fn sweep(index: &Index, files: &Files) -> Result<StartReport, Error> {
    let known = index.file_names()?;
    let swept = files.sweep(&known).map_err(|source| Error::Folder {
        action: "sweep",
        path: files.root().to_owned(),
        source,
    })?;
    let mut report = StartReport {
        removed_files: swept.removed,
        removed_bytes: swept.removed_bytes,
        undelivered_events: index.outbox_len()?,
        damaged_objects: Vec::new(),
    };
    for name in &swept.missing {
        if let Some((bucket, key)) = index.object_of_file(name)? {
            tracing::error!(bucket, key, %name, "an object's file is missing; restore it from a backup or write the object again");
            report.damaged_objects.push(format!("{bucket}/{key}"));
        }
    }
    for path in &swept.foreign {
        tracing::warn!(path = %path.display(), "a file that is not an object lies among the objects; it is left alone");
    }
    if report.removed_files > 0 {
        tracing::warn!(
            files = report.removed_files,
            bytes = report.removed_bytes,
            "removed uploads that an earlier run did not finish; none had been acknowledged"
        );
    }
    if report.undelivered_events > 0 {
        tracing::info!(events = report.undelivered_events, "delivering events of an earlier run");
    }
    Ok(report)
}

fn listen(service: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback { service, address });
    }
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortInUse { service, address },
        _ => Error::Bind { service, address, source },
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            data_dir: None,
            s3_listen: "127.0.0.1:0".parse().unwrap(),
            dynamodb_listen: "127.0.0.1:0".parse().unwrap(),
            access_key: "access".into(),
            secret_key: "do-not-print".into(),
            region: "local".into(),
            buckets: vec!["registry".into()],
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let printed = format!("{:?}", config());
        assert!(printed.contains("access") && !printed.contains("do-not-print"), "{printed}");
    }

    #[test]
    fn bad_settings_are_refused_before_anything_is_made() {
        let folder = tempfile::TempDir::new().unwrap();
        let data_dir = Some(folder.path().join("data"));
        let name = Config { data_dir: data_dir.clone(), buckets: vec!["../up".into()], ..config() };
        assert!(matches!(BoundServices::bind(name), Err(Error::BucketName { .. })));
        let secret = Config { data_dir, secret_key: String::new(), ..config() };
        assert!(matches!(BoundServices::bind(secret), Err(Error::EmptyCredentials)));
        assert!(!folder.path().join("data").exists());
    }
}
