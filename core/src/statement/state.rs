//! State as a fold over statements.

use std::collections::BTreeMap;

use modunest_tlog::VerifyingKey;
use semver::Version;

use super::{Link, Release, SignedStatement, Statement, StatementError, Subject};
use crate::digest::Digest;
use crate::name::{OrgName, PluginName};

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
    /// A key is added twice or revoked without having been added.
    #[error("{org}: {rule}")]
    Key {
        /// The organisation.
        org: OrgName,
        /// The broken rule.
        rule: &'static str,
    },
}

/// Who may sign for an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgState {
    /// The organisation.
    pub org: OrgName,
    /// Place of the next statement.
    pub next: Link,
    /// Every key there ever was, and whether it is still valid.
    pub keys: Vec<(VerifyingKey, bool)>,
}

impl OrgState {
    /// An organisation of which nothing was said yet.
    pub fn new(org: OrgName) -> Self {
        OrgState { org, next: Link::FIRST, keys: Vec::new() }
    }

    /// Takes the next statement, which one of the registry's keys must have signed.
    ///
    /// # Errors
    /// Changes nothing and says why when the statement does not follow.
    pub fn apply(
        &mut self,
        signed: &SignedStatement,
        registry: &[VerifyingKey],
    ) -> Result<(), FoldError> {
        let subject = Subject::Org(self.org.clone());
        let next = follows(&subject, self.next, signed)?;
        let wrong = |error| at(&subject, signed, error);
        signed.verify(registry).map_err(wrong)?;
        let Statement::Key(statement) = signed.statement() else {
            return Err(FoldError::Subject {
                expected: subject,
                found: signed.statement().subject(),
            });
        };
        let key = statement.verifying_key().map_err(|error| at(&subject, signed, error))?;
        let known = self.keys.iter_mut().find(|(k, _)| *k == key);
        let refuse = |rule| Err(FoldError::Key { org: statement.org.clone(), rule });
        match (known, statement.valid) {
            (None, true) => self.keys.push((key, true)),
            (Some(entry), false) if entry.1 => entry.1 = false,
            (Some(_), true) => {
                return refuse("a key that was added once cannot be added again; make a new one");
            }
            (Some(_), false) => return refuse("the key is revoked already"),
            (None, false) => return refuse("the key to revoke was never added"),
        }
        self.next = next;
        Ok(())
    }

    /// Keys that may sign now.
    pub fn valid_keys(&self) -> Vec<VerifyingKey> {
        self.keys.iter().filter(|(_, valid)| *valid).map(|(key, _)| key.clone()).collect()
    }

    /// Every key there ever was. What was signed before a revocation stays signed; the
    /// log's positions will tell before from after.
    pub fn all_keys(&self) -> Vec<VerifyingKey> {
        self.keys.iter().map(|(key, _)| key.clone()).collect()
    }
}

/// What may be done with a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Chosen like any other.
    Active,
    /// Passed over by the resolver unless locked.
    Yanked {
        /// Why, in the owner's words.
        reason: Option<String>,
    },
}

/// A release and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseState {
    /// The statement's content.
    pub release: Release,
    /// Digest of the release statement.
    pub statement: Digest,
    /// Its status now.
    pub status: Status,
}

/// A plugin's releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginState {
    /// The plugin.
    pub plugin: PluginName,
    /// Place of the next statement.
    pub next: Link,
    /// By version, ascending.
    pub releases: BTreeMap<Version, ReleaseState>,
}

impl PluginState {
    /// A plugin of which nothing was said yet.
    pub fn new(plugin: PluginName) -> Self {
        PluginState { plugin, next: Link::FIRST, releases: BTreeMap::new() }
    }

    /// Takes the next statement, which one of `keys` must have signed.
    ///
    /// # Errors
    /// Changes nothing and says why when the statement does not follow.
    pub fn apply(
        &mut self,
        signed: &SignedStatement,
        keys: &[VerifyingKey],
    ) -> Result<(), FoldError> {
        let subject = Subject::Plugin(self.plugin.clone());
        let next = follows(&subject, self.next, signed)?;
        signed.verify(keys).map_err(|error| at(&subject, signed, error))?;
        match signed.statement() {
            Statement::Release(release) => {
                if self.releases.contains_key(&release.version) {
                    return Err(FoldError::Twice {
                        plugin: self.plugin.clone(),
                        version: release.version.clone(),
                    });
                }
                let state = ReleaseState {
                    release: (**release).clone(),
                    statement: signed.digest(),
                    status: Status::Active,
                };
                self.releases.insert(release.version.clone(), state);
            }
            Statement::Yank(yank) => {
                let Some(state) = self.releases.get_mut(&yank.version) else {
                    return Err(FoldError::NoRelease {
                        plugin: self.plugin.clone(),
                        version: yank.version.clone(),
                    });
                };
                state.status = if yank.yanked {
                    Status::Yanked { reason: yank.reason.clone() }
                } else {
                    Status::Active
                };
            }
            Statement::Key(_) => {
                return Err(FoldError::Subject {
                    expected: subject,
                    found: signed.statement().subject(),
                });
            }
        }
        self.next = next;
        Ok(())
    }
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
