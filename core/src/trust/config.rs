//! The trust configuration: the one target of the trust root.
//!
//! ```json
//! {
//!   "format": "modunest/trust-config/v1",
//!   "origin": "registry.example.org",
//!   "log_key": "registry.example.org+hash+base64",
//!   "head_keys": [{ "key": "registry.example.org+hash+base64" }],
//!   "statement_keys": [
//!     { "key": "registry.example.org+hash+base64", "until": 4711 },
//!     { "key": "registry.example.org+hash+base64" }
//!   ],
//!   "witness_policy": "quorum none\n",
//!   "trust_policy": {
//!     "head_max_age_s": 86400,
//!     "checkpoint_max_age_s": 86400,
//!     "verdict_required": true,
//!     "lowest_level": "community"
//!   }
//! }
//! ```

use std::time::Duration;

use modunest_tlog::{KeyError, KeyName, Policy, PolicyError, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::index::HEAD_LIVES_FOR;
use crate::statement::{RegistryKey, RegistryKeys, TrustLevel};

use super::metadata::json_line;

const FORMAT: &str = "modunest/trust-config/v1";
/// Longest configuration, in bytes: the longest witness policy with every byte escaped in
/// two, and the keys beside it.
pub const CONFIG_MAX_BYTES: usize = 160 * 1024;
/// Most head keys and most statement keys, stolen ones included.
pub const KEYS_MAX: usize = 16;
/// Smallest age that a policy can demand: below it, clocks and caches decide.
pub const MAX_AGE_SMALLEST: Duration = Duration::from_secs(60);
/// Largest age that a policy can allow: what is older than a month is an archive.
pub const MAX_AGE_LARGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Longer than [`CONFIG_MAX_BYTES`].
    #[error("a trust configuration has at most {CONFIG_MAX_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// Not the JSON that is described in [`crate::trust`].
    #[error("not a trust configuration: {0}")]
    Form(String),
    /// Another format or version.
    #[error("the format is \"{0}\", not {FORMAT}; update this program if it is a newer one")]
    Format(String),
    /// The origin cannot be a key's name.
    #[error("origin: {0}")]
    Origin(KeyError),
    /// A key cannot be used.
    #[error("{field}: {error}")]
    Key {
        /// Where it stands.
        field: &'static str,
        /// Why not.
        error: KeyError,
    },
    /// A key of another name.
    #[error("{field}: the key's name is {found}, not the origin {origin}")]
    KeyName {
        /// Where it stands.
        field: &'static str,
        /// Its name.
        found: KeyName,
        /// The name that it must have.
        origin: KeyName,
    },
    /// The same key twice.
    #[error("{0}: a key stands there twice")]
    Twice(&'static str),
    /// None or too many.
    #[error("{field}: {count} keys; at least one and at most {KEYS_MAX} can stand there")]
    Count {
        /// Where.
        field: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Every key is retired.
    #[error("{0}: every key has an `until`; name one that is in use")]
    NoneInUse(&'static str),
    /// The witness policy cannot be used.
    #[error("witness_policy: {0}")]
    Witnesses(PolicyError),
    /// The witness policy is about another log.
    #[error("witness_policy: it names the log key {found}, log_key is another one")]
    OtherLog {
        /// The key in the policy.
        found: String,
    },
    /// An age out of range.
    #[error("{field}: {seconds} s is not from {} to {} s", MAX_AGE_SMALLEST.as_secs(), MAX_AGE_LARGEST.as_secs())]
    Age {
        /// Which.
        field: &'static str,
        /// What it says.
        seconds: u64,
    },
}

/// Who witnesses the log, as text and as it was read (<https://c2sp.org/tlog-policy>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    text: String,
    policy: Policy,
}

impl WitnessPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(text: String) -> Result<Self, PolicyError> {
        let policy = Policy::parse(text.as_bytes())?;
        Ok(WitnessPolicy { text, policy })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it says.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// What the registry asks of every agent. An agent's own configuration can ask for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustPolicy {
    /// How old the index head may be.
    pub head_max_age: Duration,
    /// How old the newest cosignature of a checkpoint may be, where witnesses are asked for.
    pub checkpoint_max_age: Duration,
    /// Whether a release needs a verdict of the registry's scan.
    pub verdict_required: bool,
    /// Plugins below this level are not loaded.
    pub lowest_level: TrustLevel,
}

/// As strict as a registry without witnesses can be: ages as long as a head lives, and a
/// verdict for every release.
impl Default for TrustPolicy {
    fn default() -> Self {
        TrustPolicy {
            head_max_age: HEAD_LIVES_FOR,
            checkpoint_max_age: HEAD_LIVES_FOR,
            verdict_required: true,
            lowest_level: TrustLevel::default(),
        }
    }
}

/// The registry's own keys, and what it asks of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the registry and of its log: the name of every key here.
    pub origin: KeyName,
    /// Signs `checkpoint`.
    pub log_key: VerifyingKey,
    /// Sign `head`. An `until` is a log size: heads over smaller logs are still believed.
    pub head_keys: RegistryKeys,
    /// Sign what the registry itself says in statements.
    pub statement_keys: RegistryKeys,
    /// Who must have cosigned a checkpoint.
    pub witnesses: WitnessPolicy,
    /// The rest.
    pub policy: TrustPolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: String,
    origin: String,
    log_key: String,
    head_keys: Vec<WireKey>,
    statement_keys: Vec<WireKey>,
    witness_policy: String,
    trust_policy: WirePolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKey {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePolicy {
    head_max_age_s: u64,
    checkpoint_max_age_s: u64,
    verdict_required: bool,
    lowest_level: TrustLevel,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ConfigError`], for the first rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > CONFIG_MAX_BYTES {
            return Err(ConfigError::TooLong(bytes.len()));
        }
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|error| ConfigError::Form(error.to_string()))?;
        if wire.format != FORMAT {
            return Err(ConfigError::Format(wire.format));
        }
        let origin: KeyName = wire.origin.parse().map_err(ConfigError::Origin)?;
        let log_key = key("log_key", &wire.log_key, &origin)?;
        let head_keys = keys("head_keys", wire.head_keys, &origin)?;
        let statement_keys = keys("statement_keys", wire.statement_keys, &origin)?;
        let witnesses =
            WitnessPolicy::parse(wire.witness_policy).map_err(ConfigError::Witnesses)?;
        if let Some(other) = witnesses.policy.logs.iter().find(|log| log.key != log_key) {
            return Err(ConfigError::OtherLog { found: other.key.to_string() });
        }
        let policy = TrustPolicy {
            head_max_age: age("head_max_age_s", wire.trust_policy.head_max_age_s)?,
            checkpoint_max_age: age(
                "checkpoint_max_age_s",
                wire.trust_policy.checkpoint_max_age_s,
            )?,
            verdict_required: wire.trust_policy.verdict_required,
            lowest_level: wire.trust_policy.lowest_level,
        };
        Ok(Config { origin, log_key, head_keys, statement_keys, witnesses, policy })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let keys = |keys: &RegistryKeys| {
            let wire = |key: &RegistryKey| WireKey { key: key.key.to_string(), until: key.until };
            keys.0.iter().map(wire).collect()
        };
        json_line(&Wire {
            format: FORMAT.to_owned(),
            origin: self.origin.to_string(),
            log_key: self.log_key.to_string(),
            head_keys: keys(&self.head_keys),
            statement_keys: keys(&self.statement_keys),
            witness_policy: self.witnesses.text.clone(),
            trust_policy: WirePolicy {
                head_max_age_s: self.policy.head_max_age.as_secs(),
                checkpoint_max_age_s: self.policy.checkpoint_max_age.as_secs(),
                verdict_required: self.policy.verdict_required,
                lowest_level: self.policy.lowest_level,
            },
        })
    }
}

fn key(field: &'static str, text: &str, origin: &KeyName) -> Result<VerifyingKey, ConfigError> {
    let key: VerifyingKey = text.parse().map_err(|error| ConfigError::Key { field, error })?;
    if key.name() != origin {
        let (found, origin) = (key.name().clone(), origin.clone());
        return Err(ConfigError::KeyName { field, found, origin });
    }
    Ok(key)
}

fn keys(
    field: &'static str,
    wire: Vec<WireKey>,
    origin: &KeyName,
) -> Result<RegistryKeys, ConfigError> {
    if !(1..=KEYS_MAX).contains(&wire.len()) {
        return Err(ConfigError::Count { field, count: wire.len() });
    }
    let mut keys: Vec<RegistryKey> = Vec::new();
    for WireKey { key: text, until } in wire {
        let key = key(field, &text, origin)?;
        if keys.iter().any(|known| known.key == key) {
            return Err(ConfigError::Twice(field));
        }
        keys.push(RegistryKey { key, until });
    }
    if keys.iter().all(|key| key.until.is_some()) {
        return Err(ConfigError::NoneInUse(field));
    }
    Ok(RegistryKeys(keys))
}

fn age(field: &'static str, seconds: u64) -> Result<Duration, ConfigError> {
    let age = Duration::from_secs(seconds);
    if (MAX_AGE_SMALLEST..=MAX_AGE_LARGEST).contains(&age) {
        Ok(age)
    } else {
        Err(ConfigError::Age { field, seconds })
    }
}
