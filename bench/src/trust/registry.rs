//! A registry in this process: embedded services on the measured disk, the write side, and a
//! read side whose answers are counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use modunest_core::api::{Discovery, PROTOCOL_VERSION};
use modunest_core::closure::{ANSWER_MAX_BYTES, FrameError, FrameReader, Part};
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use modunest_core::statement::SignedStatement;
use modunest_edge::native;
use modunest_functions::{Functions, Keys, Sequenced};
use modunest_local::{LocalServices, Subscription};
use modunest_runtime::aws::Settings;
use modunest_tlog::{SigningKey, TileKind, VerifyingKey};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use crate::error::Error;
use crate::host::plugins::ORIGIN;

const TABLE: &str = "modunest";
const STAGING_BUCKET: &str = "modunest-staging";
const PUBLIC_BUCKET: &str = "modunest-public";
/// The embedded services take any region and key; these are in no cloud.
const REGION: &str = "local";
const ACCESS_KEY_ID: &str = "modunest-bench";
const SECRET: &str = "of no use outside this process";
/// The functions, the edge and the services alone; nobody uploads here.
const NOBODY: [Subscription; 0] = [];

/// Keys that sign benchmarks and nothing else.
const LOG_SEED: [u8; 32] = [11; 32];
const HEAD_SEED: [u8; 32] = [12; 32];
const STATEMENT_SEED: [u8; 32] = [13; 32];

/// A running registry.
pub struct Registry {
    /// Where it answers readers.
    pub url: Url,
    functions: Functions,
    keys: Keys,
    settings: Settings,
    counts: Counter,
    services: LocalServices,
    stop: oneshot::Sender<()>,
    edge: JoinHandle<std::io::Result<()>>,
}

/// Answers that readers got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// How many.
    pub requests: u64,
    /// Bytes of bodies that are statements: index files and bundles of entries.
    pub statement_bytes: u64,
    /// Bytes of all other bodies and of what else is in a closure: they prove the statements.
    pub proof_bytes: u64,
}

type Counter = Arc<Mutex<Counts>>;

impl Registry {
    /// Starts an empty one.
    pub async fn start(data: &Path) -> Result<Registry, Error> {
        let what = "the registry";
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = modunest_local::Config {
            data_dir: Some(data.to_owned()),
            s3_listen: any,
            dynamodb_listen: any,
            access_key: ACCESS_KEY_ID.to_owned(),
            secret_key: SECRET.to_owned(),
            region: REGION.to_owned(),
            buckets: vec![STAGING_BUCKET.to_owned(), PUBLIC_BUCKET.to_owned()],
        };
        let services = LocalServices::start(config, NOBODY.to_vec()).await;
        let services = services.map_err(Error::wrong(what))?;
        let settings = Settings {
            region: REGION.to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET.to_owned(),
            session_token: None,
            s3_endpoint: Some(services.s3_endpoint()),
            dynamodb_endpoint: Some(services.dynamodb_endpoint()),
            kms_endpoint: None,
        };
        let keys = keys()?;
        let functions = Functions::new(modunest_functions::Config {
            table: TABLE.to_owned(),
            staging_bucket: STAGING_BUCKET.to_owned(),
            public_bucket: PUBLIC_BUCKET.to_owned(),
            origin: ORIGIN.to_owned(),
            keys: keys.clone(),
            trust: None,
            online_key: None,
            aws: settings.clone(),
            public_s3_endpoint: None,
            sole_writer: true,
            clock: modunest_functions::Config::system_clock(),
        });
        let functions = functions.await.map_err(Error::wrong(what))?;
        functions.create_table().await.map_err(Error::wrong(what))?;
        functions.sequence().await.map_err(Error::wrong(what))?;

        let listener = TcpListener::bind(any).await;
        let listener =
            listener.map_err(|source| Error::Io { what: "a free port".to_owned(), source })?;
        let address = listener.local_addr().map_err(Error::wrong(what))?;
        let url: Url = format!("http://{address}/").parse().map_err(Error::wrong(what))?;
        let router = native::router(native::Config {
            aws: settings.clone(),
            public_bucket: PUBLIC_BUCKET.to_owned(),
            api_origin: None,
            discovery: Discovery {
                protocols: vec![PROTOCOL_VERSION],
                origin: ORIGIN.to_owned(),
                api: url.to_string(),
                files: url.to_string(),
                keys: keys.verifying().map(|key| key.to_string()).to_vec(),
            },
            memory_cache_bytes: native::MEMORY_CACHE_BYTES,
            downloads: None,
        });
        let counts = Counter::default();
        let counted = from_fn_with_state(Arc::clone(&counts), count);
        let router = router.map_err(Error::wrong(what))?.layer(counted);
        let (stop, stopped) = oneshot::channel::<()>();
        let edge = tokio::spawn(native::serve(listener, router, async move {
            let _stopped_or_dropped = stopped.await;
        }));
        Ok(Registry { url, functions, keys, settings, counts, services, stop, edge })
    }

    /// The key with which the registry itself makes statements.
    pub fn statement_key(&self) -> &SigningKey {
        &self.keys.statement
    }

    /// All of its keys.
    pub fn verifying_keys(&self) -> Vec<VerifyingKey> {
        self.keys.verifying().to_vec()
    }

    /// Puts statements before the sequencer.
    pub async fn hand_in(&self, statements: &[SignedStatement]) -> Result<(), Error> {
        self.functions.hand_in(statements).await.map_err(Error::wrong("handing statements in"))
    }

    /// Lets the sequencer take everything that is before it, which must be `count` statements.
    pub async fn sequence(&self, count: usize) -> Result<(), Error> {
        let what = "the sequencer";
        let Sequenced { added, refused, .. } =
            self.functions.sequence().await.map_err(Error::wrong(what))?;
        if (added, refused) == (count, 0) {
            return Ok(());
        }
        let why = format!("of {count} statements it took {added} and refused {refused}");
        Err(Error::Wrong { what, why })
    }

    /// Objects that readers can reach.
    pub async fn objects(&self) -> Result<i64, Error> {
        crate::registry::objects(&self.settings, PUBLIC_BUCKET).await
    }

    /// Answers since the last call.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it.
    pub async fn stop(self) -> Result<(), Error> {
        drop(self.stop);
        let served = self.edge.await.map_err(Error::wrong("the read side"))?;
        served.map_err(Error::wrong("the read side"))?;
        self.services.shutdown().await.map_err(Error::wrong("the services"))
    }
}

fn keys() -> Result<Keys, Error> {
    let key = |seed: &[u8; 32]| {
        let name = ORIGIN.parse().map_err(Error::wrong("a key's name"))?;
        Ok::<_, Error>(SigningKey::from_seed(name, seed))
    };
    Ok(Keys {
        log: key(&LOG_SEED)?.into(),
        head: key(&HEAD_SEED)?.into(),
        statement: key(&STATEMENT_SEED)?,
    })
}

/// Bytes of the index files in a closure.
fn index_files(answer: &[u8]) -> Result<usize, FrameError> {
    let mut reader = FrameReader::new();
    reader.push(answer)?;
    let mut bytes = 0;
    while let Some(frame) = reader.next_frame()? {
        if matches!(frame.part, Part::Object(ObjectKey::Index(_))) {
            bytes += frame.bytes.len();
        }
    }
    reader.finish()?;
    Ok(bytes)
}

/// Counts an answer, which is collected for that: every object here is small.
async fn count(
    State(counts): State<Counter>,
    request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let path = request.uri().path();
    let is_closure = path == CLOSURE_PATH;
    let is_statements = match ObjectKey::from_path(path) {
        Some(ObjectKey::Index(_)) => true,
        Some(ObjectKey::Tile(tile)) => tile.kind() == TileKind::Entries,
        _ => false,
    };
    let (head, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, ANSWER_MAX_BYTES).await;
    let body = body.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let of_statements = match (is_closure, is_statements) {
        (true, _) => index_files(&body).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?,
        (false, true) => body.len(),
        (false, false) => 0,
    };
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.requests += 1;
    counts.statement_bytes += of_statements as u64;
    counts.proof_bytes += (body.len() - of_statements) as u64;
    drop(counts);
    Ok(Response::from_parts(head, Body::from(body)))
}
