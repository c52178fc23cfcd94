//! The whole registry in one process: embedded services, functions and read side, each the
//! code that is deployed, speaking over loopback as when deployed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use modunest_core::api::{Discovery, PROTOCOL_VERSION, TokenCreated};
use modunest_core::statement::RegistryKeys;
use modunest_core::trust::{self, Config, TrustPolicy, WitnessPolicy};
use modunest_edge::native::{Downloads, serve};
use modunest_functions::{Functions, Keys};
use modunest_local::{BoundServices, LocalServices, Subscription, Timer};
use modunest_runtime::aws::Settings;
use modunest_tlog::SigningKey;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::commands::key::generate;
use crate::commands::trust::NO_WITNESSES;
use crate::commands::trust::ceremony::{self, Founders};
use crate::commands::trust::folder::Folder;
use crate::error::Error;
use crate::files;
use crate::profile::{PROFILE_FILE, Profile};
use crate::worker::{self, Installed, Worker};

/// Name of a registry that runs on one machine for its developer.
pub const ORIGIN: &str = "local.modunest";
/// Port of the read side and API; S3, DynamoDB and the functions take the next three.
pub const DEFAULT_PORT: u16 = 7878;

/// File with the administrator's token, in the data folder.
const TOKEN_FILE: &str = "admin.token";
/// File with the token that the read side counts downloads with, in the data folder.
const COUNT_TOKEN_FILE: &str = "count.token";
/// Folder of the trust root in the data folder: exactly what is served below `/trust/`.
const TRUST_FOLDER: &str = "trust";
const TABLE: &str = "modunest";
const STAGING_BUCKET: &str = "modunest-staging";
const PUBLIC_BUCKET: &str = "modunest-public";
/// The embedded services take any region; this one is in no cloud.
const REGION: &str = "local";
const ACCESS_KEY_ID: &str = "modunest-local";

/// How often sessions are looked at that nobody works on. A lease lasts 30 seconds.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often the head is looked at. It is signed anew every six hours.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);
/// How often the trust root is looked at. Its timestamp is signed anew every day.
const TRUST_EVERY: Duration = Duration::from_secs(60 * 60);
/// Memory for small objects at the read side: an idle registry stays below 100 MB, and the
/// machine is shared with the developer.
const MEMORY_CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Where and with what a registry starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder.
    pub data: PathBuf,
    /// Whether the services keep everything in memory.
    pub ephemeral: bool,
    /// The first of four ports; 0 for any free ones.
    pub port: u16,
    /// What answers readers.
    pub edge: Edge,
}

/// What answers readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Edge {
    /// The native shell, in this process
    Native,
    /// The worker in workerd, with the native shell behind it; needs node
    Workerd,
}

/// A running registry.
pub struct LocalRegistry {
    /// Where it answers.
    pub url: Url,
    /// Where its S3 service answers.
    pub s3_endpoint: String,
    /// Where its DynamoDB service answers.
    pub dynamodb_endpoint: String,
    /// The registry as its administrator uses it.
    pub profile: Profile,
    /// File of that profile.
    pub profile_file: PathBuf,
    /// The root that hosts are given.
    pub root_file: PathBuf,
    /// The administrator's token, when it was made just now.
    pub first_token: Option<TokenCreated>,
    services: LocalServices,
    timers: Vec<Timer>,
    read_side: Server,
    write_side: Server,
    /// Who counts downloads: the native shell, unless the worker in front of it does.
    downloads: Option<Downloads>,
    worker: Option<Worker>,
}

/// A server that stops when asked.
struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start<F>(serve: impl FnOnce(watch::Receiver<bool>) -> F) -> Server
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Server { stop, task: tokio::spawn(serve(stopped)) }
    }

    /// Lets open requests end.
    async fn stop(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        match self.task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::Failed(format!("a server failed: {error}"))),
            Err(error) => Err(Error::Failed(format!("a server failed: {error}"))),
        }
    }
}

impl LocalRegistry {
    /// Starts everything and returns when the registry answers.
    ///
    /// # Errors
    /// When the folder or a port cannot be used, with the way out.
    pub async fn start(options: &Options) -> Result<LocalRegistry, Error> {
        make_private_folder(&options.data)?;
        let installed = match options.edge {
            Edge::Native => None,
            Edge::Workerd => Some(Installed::find().await?),
        };
        let mut read_side = listen(options.port, 0, "the registry").await?;
        let write_side = listen(options.port, 3, "the functions").await?;
        let url = url_of(&read_side)?;
        if installed.is_some() {
            // The worker takes the port itself, which was free just now.
            read_side = listen(0, 0, "the native shell").await?;
        }
        let api_origin = url_of(&write_side)?;

        let secret = secret(&options.data.join("s3.secret"), || {
            Ok(hex(&modunest_runtime::random::bytes::<32>()))
        })?;
        let keys = Keys {
            log: registry_key(&options.data.join("log.key"))?.into(),
            head: registry_key(&options.data.join("head.key"))?.into(),
            statement: registry_key(&options.data.join("statement.key"))?,
        };
        let public_keys = keys.verifying().map(|key| key.to_string());
        let trust = TrustRoot::open(&options.data, &keys)?;

        let bound = BoundServices::bind(modunest_local::Config {
            data_dir: (!options.ephemeral).then(|| options.data.join("services")),
            s3_listen: address(options.port, 1),
            dynamodb_listen: address(options.port, 2),
            access_key: ACCESS_KEY_ID.to_owned(),
            secret_key: secret.clone(),
            region: REGION.to_owned(),
            buckets: vec![STAGING_BUCKET.to_owned(), PUBLIC_BUCKET.to_owned()],
        })
        .map_err(|error| Error::Failed(error.to_string()))?;
        let (s3_endpoint, dynamodb_endpoint) = (bound.s3_endpoint(), bound.dynamodb_endpoint());
        let aws = Settings {
            region: REGION.to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: secret,
            session_token: None,
            s3_endpoint: Some(s3_endpoint.clone()),
            dynamodb_endpoint: Some(dynamodb_endpoint.clone()),
            kms_endpoint: None,
        };
        let failed = |error: modunest_functions::Error| Error::Failed(error.to_string());
        let functions = Functions::new(modunest_functions::Config {
            table: TABLE.to_owned(),
            staging_bucket: STAGING_BUCKET.to_owned(),
            public_bucket: PUBLIC_BUCKET.to_owned(),
            origin: ORIGIN.to_owned(),
            keys,
            trust: Some(trust.config),
            online_key: Some(trust.online_key),
            aws: aws.clone(),
            public_s3_endpoint: None,
            sole_writer: true,
            clock: modunest_functions::Config::system_clock(),
        })
        .await
        .map_err(failed)?;

        let finalize = functions.clone();
        let uploads = Subscription::new(STAGING_BUCKET, move |event: serde_json::Value| {
            let functions = finalize.clone();
            async move { functions.finalize(&event).await }
        });
        let services =
            bound.serve(vec![uploads]).await.map_err(|error| Error::Failed(error.to_string()))?;

        functions.create_table().await.map_err(failed)?;
        let first_token = match functions.bootstrap().await.map_err(failed)? {
            // An earlier start was cut off after it made the user and before it wrote the
            // token down: nobody has it, and nobody else can make one.
            None if !options.data.join(TOKEN_FILE).exists() => {
                Some(functions.recover().await.map_err(failed)?)
            }
            made => made,
        };
        // Whatever a crash left is finished before anybody is answered, and there is a head.
        functions.sweep().await.map_err(failed)?;
        functions.sequence().await.map_err(failed)?;
        functions.offer_trust(trust.files).await.map_err(failed)?;
        functions.renew_trust().await.map_err(failed)?;

        let count_token = count_token(&functions, &options.data.join(COUNT_TOKEN_FILE)).await?;
        let downloads = match installed {
            Some(_) => None,
            None => Some(
                Downloads::start(api_origin.clone(), count_token.clone())
                    .map_err(|error| Error::Failed(error.to_string()))?,
            ),
        };
        let edge = modunest_edge::native::router(modunest_edge::native::Config {
            aws,
            public_bucket: PUBLIC_BUCKET.to_owned(),
            api_origin: Some(api_origin.clone()),
            discovery: Discovery {
                protocols: vec![PROTOCOL_VERSION],
                origin: ORIGIN.to_owned(),
                api: url
                    .join("/v1/")
                    .map_err(|error| Error::Failed(error.to_string()))?
                    .to_string(),
                files: url.to_string(),
                keys: public_keys.to_vec(),
            },
            memory_cache_bytes: MEMORY_CACHE_BYTES,
            downloads: downloads.clone(),
        })
        .map_err(|error| Error::Failed(error.to_string()))?;

        let api = functions.router();
        let files = url_of(&read_side)?;
        let read_side = Server::start(|stopped| serve(read_side, edge, until(stopped)));
        let write_side = Server::start(|stopped| serve(write_side, api, until(stopped)));
        let profile_file = options.data.join(PROFILE_FILE);
        let root_file = options.data.join(TRUST_FOLDER).join(trust::File::Root(1).to_string());
        let root_file = std::path::absolute(&root_file).unwrap_or(root_file);
        let profile = write_profile(&profile_file, &url, &public_keys, first_token.as_ref())?;
        let worker = match installed {
            None => None,
            Some(installed) => {
                let (url, api) = (url.clone(), api_origin);
                let keys = public_keys.join(" ");
                let setup = worker::Setup { url, origin: ORIGIN, keys, api, files, count_token };
                Some(Worker::start(&installed, &setup, &options.data).await?)
            }
        };
        Ok(LocalRegistry {
            timers: timers(&functions),
            url,
            s3_endpoint,
            dynamodb_endpoint,
            profile,
            profile_file,
            root_file,
            first_token,
            services,
            read_side,
            write_side,
            downloads,
            worker,
        })
    }

    /// Waits for a part to end that nobody asked to.
    pub async fn failed(&self) -> Error {
        match &self.worker {
            Some(worker) => worker.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Lets open requests end, stops everything and unlocks the folder.
    ///
    /// # Errors
    /// When a part had failed already.
    pub async fn shutdown(self) -> Result<(), Error> {
        for timer in self.timers {
            timer.stop().await;
        }
        // The write side last: the read side's requests and counts go there.
        let worker = match self.worker {
            Some(worker) => worker.stop().await,
            None => Ok(()),
        };
        let read_side = self.read_side.stop().await.and(worker);
        if let Some(downloads) = self.downloads {
            downloads.stop().await;
        }
        self.write_side.stop().await.and(read_side)?;
        self.services.shutdown().await.map_err(|error| Error::Failed(error.to_string()))
    }
}

/// The trust root of a registry on one machine. Its one holder is this machine: root key and
/// online key lie in the data folder, and whoever can read that can change everything. Only a
/// registry with more than one person needs more (`modunest trust`).
struct TrustRoot {
    config: Config,
    online_key: trust::SigningKey,
    /// What is served below `/trust/`; the timestamp last.
    files: Vec<(trust::File, Vec<u8>)>,
}

impl TrustRoot {
    /// The trust root in the data folder, made on the first start.
    fn open(data: &Path, keys: &Keys) -> Result<TrustRoot, Error> {
        let root_key = trust_key(&data.join("root.key"))?;
        let online_key = trust_key(&data.join("online.key"))?;
        let folder = Folder::new(&data.join(TRUST_FOLDER));
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        if folder.newest::<trust::Root>()?.is_none() {
            let [log_key, head, statement] = keys.verifying();
            let config = Config {
                origin: log_key.name().clone(),
                log_key,
                head_keys: RegistryKeys::in_use([head]),
                statement_keys: RegistryKeys::in_use([statement]),
                witnesses: WitnessPolicy::parse(NO_WITNESSES.to_owned())
                    .map_err(|error| failed(&error))?,
                policy: TrustPolicy::default(),
            };
            let founders = Founders {
                root: vec![root_key.public()],
                threshold: 1,
                targets: (vec![root_key.public()], 1),
                online: vec![online_key.public()],
            };
            let at_hand = [root_key, online_key.clone()];
            let now = modunest_runtime::clock::now();
            ceremony::create(&folder, &founders, &config, &at_hand, now)?;
        }
        let Some((targets, _)) = folder.newest::<trust::Targets>()? else {
            return Err(Error::Input(format!(
                "{} has no configuration; delete the folder and start again",
                folder.path().display()
            )));
        };
        let config = ceremony::read_config(&folder, &targets.signed)?;
        let config = Config::parse(&config).map_err(|error| failed(&error))?;
        let mut files = Vec::new();
        for file in folder.list()? {
            files.extend(folder.read(file)?.map(|bytes| (file, bytes)));
        }
        files.sort_by_key(|(file, _)| *file == trust::File::Timestamp);
        Ok(TrustRoot { config, online_key, files })
    }
}

/// A key of the trust root, made on the first start.
fn trust_key(file: &Path) -> Result<trust::SigningKey, Error> {
    let text = secret(file, || {
        Ok(trust::SigningKey::from_seed(&modunest_runtime::random::bytes())
            .expose()
            .trim()
            .to_owned())
    })?;
    text.parse().map_err(|error| Error::Input(format!("{}: {error}", file.display())))
}

/// The token that the read side counts with: the one in the folder, while it is good.
async fn count_token(functions: &Functions, file: &Path) -> Result<String, Error> {
    let existing = if file.exists() { Some(files::read_secret(file)?) } else { None };
    let made = functions.counting_token(existing.as_deref()).await;
    match (made.map_err(|error| Error::Failed(error.to_string()))?, existing) {
        (Some(created), _) => {
            files::write_secret(file, &format!("{}\n", created.token))?;
            Ok(created.token)
        }
        (None, Some(token)) => Ok(token),
        (None, None) => Err(Error::Failed("there is no token to count downloads with".to_owned())),
    }
}

fn timers(functions: &Functions) -> Vec<Timer> {
    let (sweep, heartbeat, trust) = (functions.clone(), functions.clone(), functions.clone());
    vec![
        Timer::every("sweep", SWEEP_EVERY, move || {
            let functions = sweep.clone();
            async move {
                if let Err(error) = functions.sweep().await {
                    tracing::warn!(%error, "the sweep failed; it runs again");
                }
            }
        }),
        Timer::every("heartbeat", HEARTBEAT_EVERY, move || {
            let functions = heartbeat.clone();
            async move {
                if let Err(error) = functions.sequence().await {
                    tracing::warn!(%error, "the sequencer failed; it runs again");
                }
            }
        }),
        Timer::every("trust", TRUST_EVERY, move || {
            let functions = trust.clone();
            async move {
                if let Err(error) = functions.renew_trust().await {
                    tracing::warn!(%error, "the trust root could not be renewed; it is tried again");
                }
            }
        }),
    ]
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the registry was dropped: stop as well.
    let _dropped = stopped.wait_for(|stop| *stop).await;
}

fn address(port: u16, offset: u16) -> SocketAddr {
    let port = if port == 0 { 0 } else { port.saturating_add(offset) };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn listen(port: u16, offset: u16, what: &str) -> Result<TcpListener, Error> {
    let address = address(port, offset);
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there. Choose another range with --port N (the four ports from N on are used), or --port 0 for any free ones".to_owned()
            }
            _ => error.to_string(),
        };
        Error::Failed(format!("{what} cannot listen at {address}: {hint}"))
    })
}

fn url_of(listener: &TcpListener) -> Result<Url, Error> {
    let address = listener.local_addr().map_err(Error::file("socket"))?;
    format!("http://{address}/").parse().map_err(|error| Error::Failed(format!("{error}")))
}

fn make_private_folder(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Error::Failed(format!(
            "the data folder {} cannot be made: {error}. Choose one that you may write with --data DIR",
            folder.display()
        ))
    })
}

/// Reads a secret, or makes it on the first start.
fn secret(file: &Path, make: impl FnOnce() -> Result<String, Error>) -> Result<String, Error> {
    if file.exists() {
        let text = files::read_secret(file)?;
        if text.is_empty() {
            return Err(Error::Input(format!(
                "{} is empty: an earlier start was cut off before there was any data. Delete it and start again",
                file.display()
            )));
        }
        return Ok(text);
    }
    let text = make()?;
    files::create_secret(file, &format!("{text}\n")).map_err(|error| {
        Error::Failed(format!("{error}. Choose a data folder that you may write with --data DIR"))
    })?;
    Ok(text)
}

/// One of the registry's own keys, made on the first start.
fn registry_key(file: &Path) -> Result<SigningKey, Error> {
    let text = secret(file, || Ok(generate(ORIGIN)?.expose()))?;
    text.parse().map_err(|error| Error::Input(format!("{}: {error}", file.display())))
}

fn write_profile(
    file: &Path,
    url: &Url,
    keys: &[String],
    first_token: Option<&TokenCreated>,
) -> Result<Profile, Error> {
    let token_file = file.with_file_name(TOKEN_FILE);
    if let Some(created) = first_token {
        files::write_secret(&token_file, &format!("{}\n", created.token))?;
    }
    let mut profile = match file.exists() {
        // What the developer added, such as a key_file, stays.
        true => Profile::load(Some(file))?,
        false => Profile::new(url.clone(), ORIGIN.to_owned(), Vec::new()),
    };
    profile.url = url.clone();
    profile.keys = keys.to_vec();
    profile.token_file.get_or_insert_with(|| TOKEN_FILE.into());
    profile.save(file)?;
    Profile::load(Some(file))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
