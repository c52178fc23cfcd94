//! Settings, validated before anything is served.

use std::fmt;
use std::sync::Arc;

use modunest_core::statement::RegistryKeys;
use modunest_core::time::Timestamp;
use modunest_core::trust;
use modunest_runtime::aws::Settings;
use modunest_tlog::VerifyingKey;

use crate::error::Error;
use crate::signing::Keys;

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
    /// Name of the registry and of its log; also the name of its keys.
    pub origin: String,
    /// The registry's keys.
    pub keys: Keys,
    /// What readers are told about keys and witnesses, for a registry that has a trust root.
    /// It names the statement keys of former times, and whose cosignatures a checkpoint needs
    /// before it is published.
    pub trust: Option<trust::Config>,
    /// The trust root's online key: signs snapshot and timestamp. `None` where the operator
    /// does that with `modunest trust refresh`.
    pub online_key: Option<trust::SigningKey>,
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
        let Keys { log, head, statement, .. } = &self.keys;
        for (setting, name) in [
            ("keys.log", log.name()),
            ("keys.head", head.name()),
            ("keys.statement", statement.name()),
        ] {
            if name.as_str() != self.origin {
                return Err(Error::Config { setting, rule: "must be named like the origin" });
            }
        }
        match &self.trust {
            Some(trust) => self.check_trust(trust),
            None => Ok(()),
        }
    }

    /// What is signed with keys that readers do not know would be refused by all of them.
    fn check_trust(&self, trust: &trust::Config) -> Result<(), Error> {
        let [log, head, statement] = self.keys.verifying();
        let in_use = |keys: &RegistryKeys, key: &VerifyingKey| {
            keys.0.iter().any(|known| known.key == *key && known.until.is_none())
        };
        for (good, rule) in [
            (trust.log_key == log, "must have the log's key: make a new one, or use that key"),
            (in_use(&trust.head_keys, &head), "must have the head key, without an `until`"),
            (
                in_use(&trust.statement_keys, &statement),
                "must have the statement key, without an `until`",
            ),
        ] {
            if !good {
                return Err(Error::Config { setting: "trust", rule });
            }
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
            .field("keys", &self.keys.verifying())
            .field("trust", &self.trust)
            .field("aws", &self.aws)
            .field("public_s3_endpoint", &self.public_s3_endpoint)
            .field("sole_writer", &self.sole_writer)
            .finish_non_exhaustive()
    }
}
