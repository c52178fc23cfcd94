//! Every kind of statement but the release.

use modunest_tlog::VerifyingKey;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{REASON_MAX_CHARS, StatementError, field};
use crate::digest::Digest;
use crate::name::{OrgName, PluginName};

fn check_text(name: &'static str, text: Option<&String>) -> Result<(), StatementError> {
    match text {
        Some(text) if text.chars().count() > REASON_MAX_CHARS => {
            Err(field(name, format!("at most {REASON_MAX_CHARS} characters")))
        }
        _ => Ok(()),
    }
}

/// A yank, or the end of one. Signed by the plugin's organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yank {
    /// The plugin.
    pub plugin: PluginName,
    /// The release.
    pub version: Version,
    /// Place in the owner's chain.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// True to yank, false to take a yank back.
    pub yanked: bool,
    /// Shown to those who locked the release; at most [`REASON_MAX_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Yank {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("reason", self.reason.as_ref())
    }
}

/// A deprecation, or the end of one: still allowed, with a warning. Signed by the plugin's
/// organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deprecation {
    /// The plugin.
    pub plugin: PluginName,
    /// The release; absent for all of them, also those to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Place in the owner's chain.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// True to deprecate, false to take it back.
    pub deprecated: bool,
    /// What to do instead; at most [`REASON_MAX_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Deprecation {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("message", self.message.as_ref())
    }
}

/// A plugin goes to another organisation, whose keys sign for it from then on. Its name stays.
/// Signed by the organisation that gives it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ownership {
    /// The plugin.
    pub plugin: PluginName,
    /// Place in the owner's chain.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Who owns it from here on.
    pub owner: OrgName,
}

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyChange {
    /// It may sign from here on.
    Add,
    /// It may sign from here on, and the key that it replaces signs nothing more. What that
    /// one signed before stays good.
    Rotate,
    /// It signs nothing more, and nothing that it ever signed is good any longer.
    Revoke,
}

/// A publisher's key of an organisation. Signed by the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The organisation.
    pub org: OrgName,
    /// Place in the organisation's chain.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The key as `name+hash+base64`; its name is the organisation's.
    pub key: String,
    /// What happens to it.
    pub change: KeyChange,
    /// The key that it replaces; present in a rotation and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Why; at most [`REASON_MAX_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Key {
    /// The key itself.
    ///
    /// # Errors
    /// When the text is no key, or a weak one.
    pub fn verifying_key(&self) -> Result<VerifyingKey, StatementError> {
        parse_key("key", &self.key)
    }

    /// The key that it replaces, in a rotation.
    ///
    /// # Errors
    /// When the text is no key, or a weak one.
    pub fn replaced_key(&self) -> Result<Option<VerifyingKey>, StatementError> {
        self.replaces.as_ref().map(|text| parse_key("replaces", text)).transpose()
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("reason", self.reason.as_ref())?;
        let key = self.verifying_key()?;
        let replaced = self.replaced_key()?;
        if (self.change == KeyChange::Rotate) != replaced.is_some() {
            return Err(field(
                "replaces",
                "a rotation names the key it replaces, nothing else does",
            ));
        }
        if replaced.as_ref() == Some(&key) {
            return Err(field("replaces", "a key cannot replace itself"));
        }
        for (name, key) in [("key", Some(key)), ("replaces", replaced)] {
            if key.is_some_and(|key| key.name().as_str() != self.org.as_str()) {
                return Err(field(
                    name,
                    format!("its name must be the organisation's, {}", self.org),
                ));
            }
        }
        Ok(())
    }
}

fn parse_key(name: &'static str, text: &str) -> Result<VerifyingKey, StatementError> {
    text.parse().map_err(|error: modunest_tlog::KeyError| field(name, error.to_string()))
}

/// What a scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictOutcome {
    /// Nothing was found.
    Clean,
    /// Something was found that an operator may want to know.
    Findings,
    /// It must not be loaded.
    Rejected,
}

impl VerdictOutcome {
    /// The word in the statement.
    pub const fn as_str(self) -> &'static str {
        match self {
            VerdictOutcome::Clean => "clean",
            VerdictOutcome::Findings => "findings",
            VerdictOutcome::Rejected => "rejected",
        }
    }
}

/// The registry's scan of a release. A later verdict replaces an earlier one. Signed by the
/// registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The plugin.
    pub plugin: PluginName,
    /// The release.
    pub version: Version,
    /// Place in the registry's chain about the plugin.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// SHA-256 of the release statement that was scanned.
    pub statement: Digest,
    /// Number of the rules that were applied (`scan::RULESET`).
    pub ruleset: u32,
    /// What they came to.
    pub outcome: VerdictOutcome,
    /// SHA-256 of the report, which is served at `/report/<digest>`.
    pub report: Digest,
}

/// A quarantine, or the end of one: the resolver refuses the release, hosts unload or deny
/// it. Signed by the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// The plugin.
    pub plugin: PluginName,
    /// The release.
    pub version: Version,
    /// Place in the registry's chain about the plugin.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// True to quarantine, false to release from it.
    pub quarantined: bool,
    /// Why; at most [`REASON_MAX_CHARS`].
    pub reason: String,
}

impl Quarantine {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("reason", Some(&self.reason))
    }
}

/// How far the registry trusts a plugin, from least to most. Hosts choose the lowest level
/// that they load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustLevel {
    /// The registry warns of it.
    Untrusted,
    /// Nobody but its author vouches for it. What nothing is said about has this level.
    #[default]
    Community,
    /// The registry knows who is behind it.
    Verified,
    /// Made by those who run the registry.
    Internal,
}

impl TrustLevel {
    /// Every level, from least to most.
    pub const ALL: [TrustLevel; 4] =
        [TrustLevel::Untrusted, TrustLevel::Community, TrustLevel::Verified, TrustLevel::Internal];

    /// The word in statements and configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrustLevel::Untrusted => "untrusted",
            TrustLevel::Community => "community",
            TrustLevel::Verified => "verified",
            TrustLevel::Internal => "internal",
        }
    }
}

impl std::fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a trust level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a trust level is untrusted, community, verified or internal")]
pub struct TrustLevelError;

impl std::str::FromStr for TrustLevel {
    type Err = TrustLevelError;

    fn from_str(text: &str) -> Result<Self, TrustLevelError> {
        TrustLevel::ALL.into_iter().find(|level| level.as_str() == text).ok_or(TrustLevelError)
    }
}

/// How far the registry trusts a plugin from here on. Signed by the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The plugin.
    pub plugin: PluginName,
    /// Place in the registry's chain about the plugin.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The level.
    pub level: TrustLevel,
    /// Why; at most [`REASON_MAX_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Trust {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("reason", self.reason.as_ref())
    }
}
