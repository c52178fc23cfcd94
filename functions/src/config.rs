//! Settings, validated before anything is served.

use std::fmt;
use std::sync::Arc;

use modunest_core::time::Timestamp;
use modunest_runtime::aws::Settings;
use modunest_tlog::SigningKey;

use crate::error::Error;

/// Where the time comes from. Leases and deadlines are decided by it, so tests move it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the write side needs to know.
#[derive(Clone)]
pub struct Config {
    /// The DynamoDB table.
    pub table: String,
    /// The bucket that publishers upload to.
    pub staging_bucket: String,
    /// The bucket that readers read from.
    pub public_bucket: String,
    /// Name of the registry; also the name of its key.
    pub origin: String,
    /// The registry's key: signs heads and statements about publisher keys.
    pub registry_key: SigningKey,
    /// Where DynamoDB and S3 are.
    pub aws: Settings,
    /// Where publishers reach S3, when that is not where this process reaches it.
    pub public_s3_endpoint: Option<String>,
    /// True when no other process writes to this registry, as on one machine under a lock:
    /// leases of other processes are then those of dead ones, and void at once.
    pub sole_writer: bool,
    /// Where the time comes from; [`Config::system_clock`] outside tests.
    pub clock: Clock,
}

impl Config {
    /// The system's clock.
    pub fn system_clock() -> Clock {
        Arc::new(modunest_runtime::clock::now)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let empty = |name: &'static str, text: &str| {
            if text.is_empty() {
                Err(Error::Config { setting: name, rule: "must not be empty" })
            } else {
                Ok(())
            }
        };
        empty("table", &self.table)?;
        empty("staging_bucket", &self.staging_bucket)?;
        empty("public_bucket", &self.public_bucket)?;
        empty("origin", &self.origin)?;
        if self.staging_bucket == self.public_bucket {
            return Err(Error::Config {
                setting: "staging_bucket",
                rule: "must differ from public_bucket: whoever may upload could else publish",
            });
        }
        if self.registry_key.name().as_str() != self.origin {
            return Err(Error::Config {
                setting: "registry_key",
                rule: "must be named like the origin",
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("table", &self.table)
            .field("staging_bucket", &self.staging_bucket)
            .field("public_bucket", &self.public_bucket)
            .field("origin", &self.origin)
            .field("registry_key", &self.registry_key.verifying_key())
            .field("aws", &self.aws)
            .field("public_s3_endpoint", &self.public_s3_endpoint)
            .field("sole_writer", &self.sole_writer)
            .finish_non_exhaustive()
    }
}
