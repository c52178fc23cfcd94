//! A plugin's releases, and what its owner and the registry say about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use modunest_tlog::VerifyingKey;
use semver::Version;

use super::{Authorities, FoldError, at, follows};
use crate::digest::Digest;
use crate::name::{OrgName, PluginName};
use crate::statement::{
    Chain, Link, Release, SignedStatement, Statement, Subject, TrustLevel, VerdictOutcome,
};

/// What may be done with a release: the gravest of what holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Chosen like any other.
    Active,
    /// Chosen, with a warning.
    Deprecated {
        /// What to do instead, in the owner's words.
        message: Option<String>,
    },
    /// Passed over by the resolver unless locked.
    Yanked {
        /// Why, in the owner's words.
        reason: Option<String>,
    },
    /// Refused: the registry quarantined it, its scan ended in a rejection, or the key that
    /// signed it was revoked.
    Quarantined {
        /// Why.
        reason: String,
    },
}

/// A release, and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseState {
    /// The statement's content.
    pub release: Arc<Release>,
    /// Digest of the release statement.
    pub statement: Digest,
    /// Its position in the log.
    pub position: u64,
    /// The key that signed it.
    pub signer: VerifyingKey,
    /// Position at which that key was revoked, if it was.
    pub signer_revoked: Option<u64>,
    /// The newest verdict's outcome and report.
    pub verdict: Option<(VerdictOutcome, Digest)>,
    /// Set while it is deprecated by itself, with the message.
    pub deprecated: Option<Option<String>>,
    /// Set while it is yanked, with the reason.
    pub yanked: Option<Option<String>>,
    /// Set while it is quarantined, with the reason.
    pub quarantined: Option<String>,
}

/// A plugin's releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginState {
    /// The plugin.
    pub plugin: PluginName,
    /// The organisation whose keys sign for it now.
    pub owner: OrgName,
    /// Place of the owner's next statement.
    pub next: Link,
    /// Place of the registry's next statement about it.
    pub registry_next: Link,
    /// How far the registry trusts it.
    pub trust: TrustLevel,
    /// Set while all of it is deprecated, with the message.
    pub deprecated: Option<Option<String>>,
    /// By version, ascending.
    pub releases: BTreeMap<Version, ReleaseState>,
}

impl PluginState {
    /// A plugin of which nothing was said yet.
    pub fn new(plugin: PluginName) -> Self {
        PluginState {
            owner: plugin.org(),
            plugin,
            next: Link::FIRST,
            registry_next: Link::FIRST,
            trust: TrustLevel::default(),
            deprecated: None,
            releases: BTreeMap::new(),
        }
    }

    /// Place of the next statement in one of the plugin's chains.
    pub const fn next(&self, chain: Chain) -> Link {
        match chain {
            Chain::Owner => self.next,
            Chain::Registry => self.registry_next,
        }
    }

    /// Takes the next statement, which stands at `position` of the log: of the owner, signed
    /// with a key that was its organisation's at that position, or of the registry.
    ///
    /// # Errors
    /// Changes nothing and says why when the statement does not follow.
    pub fn apply(
        &mut self,
        position: u64,
        signed: &SignedStatement,
        authorities: Authorities<'_>,
    ) -> Result<(), FoldError> {
        let subject = Subject::Plugin(self.plugin.clone());
        let chain = signed.statement().chain();
        let next = follows(&subject, self.next(chain), signed)?;
        let wrong = |error| at(&subject, signed, error);
        let (signer, signer_revoked) = match chain {
            Chain::Registry => {
                (signed.verify(authorities.registry.at(position)).map_err(wrong)?, None)
            }
            Chain::Owner => {
                let org = authorities.orgs.get(&self.owner).ok_or_else(|| FoldError::NoKeys {
                    plugin: self.plugin.clone(),
                    org: self.owner.clone(),
                })?;
                let signer = signed.verify(org.keys_at(position)).map_err(wrong)?;
                let revoked = org.key(&signer).and_then(super::KeyState::revoked);
                (signer, revoked)
            }
        };
        self.take(position, signed, signer, signer_revoked)?;
        match chain {
            Chain::Owner => self.next = next,
            Chain::Registry => self.registry_next = next,
        }
        Ok(())
    }

    fn take(
        &mut self,
        position: u64,
        signed: &SignedStatement,
        signer: VerifyingKey,
        signer_revoked: Option<u64>,
    ) -> Result<(), FoldError> {
        match signed.statement() {
            Statement::Release(release) => {
                if self.releases.contains_key(&release.version) {
                    return Err(FoldError::Twice {
                        plugin: self.plugin.clone(),
                        version: release.version.clone(),
                    });
                }
                let state = ReleaseState {
                    release: Arc::clone(release),
                    statement: signed.digest(),
                    position,
                    signer,
                    signer_revoked,
                    verdict: None,
                    deprecated: None,
                    yanked: None,
                    quarantined: None,
                };
                self.releases.insert(release.version.clone(), state);
            }
            Statement::Yank(yank) => {
                self.release(&yank.version)?.yanked = yank.yanked.then(|| yank.reason.clone());
            }
            Statement::Deprecation(it) => {
                let notice = it.deprecated.then(|| it.message.clone());
                match &it.version {
                    Some(version) => self.release(version)?.deprecated = notice,
                    None => self.deprecated = notice,
                }
            }
            Statement::Ownership(it) => self.owner = it.owner.clone(),
            Statement::Verdict(verdict) => {
                let release = self.release(&verdict.version)?;
                if release.statement != verdict.statement {
                    return Err(FoldError::Verdict {
                        plugin: verdict.plugin.clone(),
                        version: verdict.version.clone(),
                    });
                }
                release.verdict = Some((verdict.outcome, verdict.report));
            }
            Statement::Quarantine(it) => {
                self.release(&it.version)?.quarantined = it.quarantined.then(|| it.reason.clone());
            }
            Statement::Trust(it) => self.trust = it.level,
            Statement::Key(_) => {
                return Err(FoldError::Subject {
                    expected: Subject::Plugin(self.plugin.clone()),
                    found: signed.statement().subject(),
                });
            }
        }
        Ok(())
    }

    fn release(&mut self, version: &Version) -> Result<&mut ReleaseState, FoldError> {
        self.releases.get_mut(version).ok_or_else(|| FoldError::NoRelease {
            plugin: self.plugin.clone(),
            version: version.clone(),
        })
    }

    /// What may be done with one of the releases.
    pub fn status(&self, release: &ReleaseState) -> Status {
        if let Some(reason) = &release.quarantined {
            return Status::Quarantined { reason: reason.clone() };
        }
        if let Some(position) = release.signer_revoked {
            return Status::Quarantined {
                reason: format!(
                    "the key that signed it was revoked at position {position} of the log"
                ),
            };
        }
        if let Some((VerdictOutcome::Rejected, report)) = &release.verdict {
            return Status::Quarantined {
                reason: format!("the registry's scan rejected it (report {report})"),
            };
        }
        if let Some(reason) = &release.yanked {
            return Status::Yanked { reason: reason.clone() };
        }
        match release.deprecated.as_ref().or(self.deprecated.as_ref()) {
            Some(message) => Status::Deprecated { message: message.clone() },
            None => Status::Active,
        }
    }
}
