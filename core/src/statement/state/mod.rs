//! State as a fold over statements, each at its position in the log.

mod org;
mod plugin;

use std::collections::BTreeMap;

use modunest_tlog::VerifyingKey;
use semver::Version;

use super::{Link, SignedStatement, StatementError, Subject};
use crate::name::{OrgName, PluginName};

pub use org::{KeyEnd, KeyState, OrgState};
pub use plugin::{PluginState, ReleaseState, Status};

/// A key with which the registry itself makes statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryKey {
    /// The key.
    pub key: VerifyingKey,
    /// Believed at log positions below this one only; `None` while it is in use.
    pub until: Option<u64>,
}

/// The registry's statement keys, present and past, as the trust root names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryKeys(pub Vec<RegistryKey>);

impl RegistryKeys {
    /// Keys that are all in use.
    pub fn in_use(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        RegistryKeys(keys.into_iter().map(|key| RegistryKey { key, until: None }).collect())
    }

    /// Keys whose statements at `position` are believed.
    pub fn at(&self, position: u64) -> impl Iterator<Item = &VerifyingKey> {
        self.0
            .iter()
            .filter(move |key| key.until.is_none_or(|until| position < until))
            .map(|key| &key.key)
    }
}

/// Who may say what about a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Authorities<'a> {
    /// The registry's keys.
    pub registry: &'a RegistryKeys,
    /// The organisations that own or owned it.
    pub orgs: &'a BTreeMap<OrgName, OrgState>,
}

/// Why statements do not fold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The statement is about something else.
    #[error("a statement about {found} stands in the list of {expected}")]
    Subject {
        /// Whose list it is.
        expected: Subject,
        /// What the statement is about.
        found: Subject,
    },
    /// The chain is broken.
    #[error("the chain of {subject} is broken at statement {}: it follows {}", .found.sequence, .expected.sequence - 1)]
    Chain {
        /// Whose chain.
        subject: Subject,
        /// The link that was due.
        expected: Link,
        /// The link that the statement has.
        found: Link,
    },
    /// The signature or a field is wrong.
    #[error("statement {sequence} of {subject}: {error}")]
    Statement {
        /// Whose statement.
        subject: Subject,
        /// Its place in the chain.
        sequence: u64,
        /// What is wrong.
        error: StatementError,
    },
    /// A version is released twice.
    #[error("{plugin} {version} is released twice")]
    Twice {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: Version,
    },
    /// A yank of a version that was never released.
    #[error("{plugin} has no release {version} to change")]
    NoRelease {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: Version,
    },
    /// Nothing is known of the keys of the organisation that owns the plugin.
    #[error("nothing is known of the keys of {org}, so what it says of {plugin} is not proven")]
    NoKeys {
        /// The plugin.
        plugin: PluginName,
        /// Who owns it.
        org: OrgName,
    },
    /// A verdict about another statement than the release's.
    #[error("a verdict about {plugin} {version} names another statement than the release's")]
    Verdict {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: Version,
    },
    /// A key is added twice or ended without having been added.
    #[error("{org}: {rule}")]
    Key {
        /// The organisation.
        org: OrgName,
        /// The broken rule.
        rule: &'static str,
    },
}

fn follows(subject: &Subject, expected: Link, signed: &SignedStatement) -> Result<Link, FoldError> {
    let found = signed.statement().subject();
    if found != *subject {
        return Err(FoldError::Subject { expected: subject.clone(), found });
    }
    let found = signed.statement().link();
    if found != expected {
        return Err(FoldError::Chain { subject: subject.clone(), expected, found });
    }
    Ok(signed.next_link())
}

fn at(subject: &Subject, signed: &SignedStatement, error: StatementError) -> FoldError {
    FoldError::Statement {
        subject: subject.clone(),
        sequence: signed.statement().link().sequence,
        error,
    }
}
