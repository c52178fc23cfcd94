//! The write side of Modu-Nest: what changes the registry.
//!
//! In scope: the API's write paths, checking what publishers uploaded, the sequencer of the
//! index, users, tokens, organisations and their keys, and the sweep that ends what a crash
//! interrupted. Out of scope: everything readers need, which is files in the public bucket
//! and served without this crate.
//!
//! [`Functions`] is the whole of it as a library; Lambda functions and `modunest up` are thin
//! around it. DynamoDB and S3 are reached through the AWS SDK only.
//!
//! A publish, in the order of the modules: `publish` opens a session, `finalize` checks
//! what was uploaded, `sequence` puts the statement into the index and shows a new head.
//! Every step is recorded before it is done and may be repeated; `sweep` repeats those that
//! nobody finished.

mod config;
mod error;
mod kms;
mod signing;
mod trust;

#[cfg(feature = "faults")]
pub mod faults;
#[cfg(not(feature = "faults"))]
mod faults;

mod storage;
mod store;

mod identity;

mod finalize;
mod publish;
mod sequence;
mod sweep;

mod downloads;

mod api;

pub mod lambda;
pub mod witness;

use std::sync::Arc;

use modunest_core::name::UserName;
use modunest_core::statement::RegistryKeys;
use modunest_core::time::Timestamp;
use modunest_runtime::aws;
use tokio::sync::Semaphore;

pub use config::{Clock, Config};
pub use error::Error;
pub use kms::{KmsKey, KmsKeyId, KmsKeyIdError};
pub use sequence::Sequenced;
pub use signing::{Keys, Signer};
pub use sweep::Swept;

use sequence::Sequencer;
use storage::Storage;
use store::Store;
use witness::Collector;

/// Releases checked at once. At worst each holds an archive of 50 MB and a library that
/// unpacks to 256 MB; checking is processor work, so more would not be faster on two cores.
const CHECKS_AT_ONCE: usize = 2;

/// The user that the first start makes.
const FIRST_USER: &str = "admin";

/// The write side. Clones share everything.
#[derive(Clone)]
pub struct Functions(Arc<Inner>);

struct Inner {
    store: Store,
    storage: Storage,
    origin: String,
    keys: Keys,
    online: Option<trust::Online>,
    /// The statement keys, present and past.
    registry_keys: RegistryKeys,
    clock: Clock,
    sole_writer: bool,
    /// Names this process in the leases it takes.
    instance: String,
    checks: Semaphore,
    sequencer: Sequencer,
    archives: downloads::Archives,
}

/// Whether the services answer that everything here needs. `None` is good; otherwise why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The table.
    pub table: Option<String>,
    /// The buckets.
    pub buckets: Option<String>,
}

impl Readiness {
    /// Whether all of them answer.
    pub fn is_ready(&self) -> bool {
        self.table.is_none() && self.buckets.is_none()
    }
}

impl Functions {
    /// Takes the settings. Nothing is asked of any service yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that cannot be.
    pub async fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let s3 = aws::s3(&config.aws);
        let presigner = match &config.public_s3_endpoint {
            None => s3.clone(),
            Some(endpoint) => aws::s3(&aws::Settings {
                s3_endpoint: Some(endpoint.clone()),
                ..config.aws.clone()
            }),
        };
        let (registry_keys, witnesses) = match config.trust {
            None => (RegistryKeys::in_use([config.keys.statement.verifying_key()]), None),
            Some(trust) => {
                let policy = trust.witnesses.policy();
                let witnesses = if policy.asks_for_witnesses() {
                    Some(Collector::new(policy.clone(), http_client()?))
                } else {
                    None
                };
                (trust.statement_keys, witnesses)
            }
        };
        let instance: [u8; 8] = modunest_runtime::random::bytes();
        Ok(Functions(Arc::new(Inner {
            store: Store::new(aws::dynamodb(&config.aws), config.table),
            storage: Storage::new(s3, presigner, config.staging_bucket, config.public_bucket),
            origin: config.origin,
            keys: config.keys,
            online: config.online_key.map(trust::Online::new),
            registry_keys,
            clock: config.clock,
            sole_writer: config.sole_writer,
            instance: format!("{:016x}", u64::from_be_bytes(instance)),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            sequencer: Sequencer::new(witnesses),
            archives: downloads::Archives::new(),
        })))
    }

    /// Makes the table where there is none. Deployments use a template instead.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn create_table(&self) -> Result<(), Error> {
        self.0.store.create_table().await
    }

    /// On a registry without users, makes the user `admin`, who administers the registry,
    /// with a token of all scopes. `None` when that happened before.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn bootstrap(&self) -> Result<Option<modunest_core::api::TokenCreated>, Error> {
        self.first_user(first_user()?).await
    }

    /// Makes another token of all scopes for the first user. For operators who lost theirs:
    /// whoever can call this has the database anyway.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such user yet.
    pub async fn recover(&self) -> Result<modunest_core::api::TokenCreated, Error> {
        self.recovery_token(first_user()?).await
    }

    /// Makes a token of the first user that may only count downloads, for an edge on the
    /// same machine. `None` when `existing` is such a token and lives on for a while.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such user yet.
    pub async fn counting_token(
        &self,
        existing: Option<&str>,
    ) -> Result<Option<modunest_core::api::TokenCreated>, Error> {
        self.token_to_count(first_user()?, existing).await
    }

    /// Every path of the API, with `/healthz` and `/readyz`.
    pub fn router(&self) -> axum::Router {
        api::router(self.clone())
    }

    /// Asks the table and both buckets.
    pub async fn ready(&self) -> Readiness {
        let (table, buckets) = tokio::join!(self.0.store.table_ready(), self.0.storage.reachable());
        let table = match table {
            Ok(Some(true)) => None,
            Ok(Some(false)) => Some("the table is not active yet".to_owned()),
            Ok(None) => Some("there is no table".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        Readiness { table, buckets: buckets.err().map(|error| error.to_string()) }
    }

    fn now(&self) -> Timestamp {
        (self.0.clock)()
    }
}

fn http_client() -> Result<reqwest::Client, Error> {
    modunest_runtime::http::client().map_err(|error| Error::Unavailable {
        service: "HTTP client",
        operation: "start",
        detail: error.to_string(),
    })
}

fn first_user() -> Result<UserName, Error> {
    FIRST_USER.parse().map_err(|_| Error::Broken("the first user's name is not valid"))
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").field("origin", &self.0.origin).finish_non_exhaustive()
    }
}
