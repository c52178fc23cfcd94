//! Whom a registry's answers are believed for.

use std::time::Duration;

use modunest_core::index::HEAD_LIVES_FOR;
use modunest_core::statement::{RegistryKeys, TrustLevel};
use modunest_core::trust::{Config, TrustPolicy};
use modunest_tlog::{Policy, VerifyingKey};

/// The keys and policies of a registry, as its trust root names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Name of the registry and of its log.
    pub origin: String,
    /// Signs checkpoints.
    pub log_keys: Vec<VerifyingKey>,
    /// Sign heads.
    pub head_keys: RegistryKeys,
    /// Sign what the registry itself says.
    pub statement_keys: RegistryKeys,
    /// Who must have cosigned a checkpoint.
    pub witnesses: Policy,
    /// What the registry asks of every host.
    pub policy: TrustPolicy,
}

impl From<&Config> for Authority {
    fn from(config: &Config) -> Self {
        Authority {
            origin: config.origin.to_string(),
            log_keys: vec![config.log_key.clone()],
            head_keys: config.head_keys.clone(),
            statement_keys: config.statement_keys.clone(),
            witnesses: config.witnesses.policy().clone(),
            policy: config.policy,
        }
    }
}

impl Authority {
    /// Keys that were pinned one by one: each may sign everything.
    pub fn pinned(origin: &str, keys: &[VerifyingKey]) -> Self {
        let all = RegistryKeys::in_use(keys.iter().cloned());
        Authority {
            origin: origin.to_owned(),
            log_keys: keys.to_vec(),
            head_keys: all.clone(),
            statement_keys: all,
            witnesses: Policy::none(),
            policy: TrustPolicy {
                head_max_age: HEAD_LIVES_FOR,
                checkpoint_max_age: Duration::from_secs(24 * 60 * 60),
                verdict_required: false,
                lowest_level: TrustLevel::Untrusted,
            },
        }
    }
}
