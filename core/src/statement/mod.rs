//! Statements: the signed facts that everything else is folded from.
//!
//! A statement is a [signed note](https://c2sp.org/signed-note) whose text is two lines: the
//! kind with its format version, and one line of JSON. Its bytes travel verbatim from who
//! signed it to the agent; nothing outside the signed text is believed.
//!
//! ```text
//! modunest/release/v1
//! {"plugin":"demo/markdown","version":"1.0.0", … }
//!
//! — demo hVx1…
//! ```
//!
//! The statements of one subject, a plugin or an organisation, form chains: each carries its
//! sequence number and the SHA-256 of the statement before it in its chain. What the registry
//! says about a plugin is a chain beside the owner's, so that neither waits for the other.

mod kinds;
mod release;
mod state;

use std::sync::Arc;

use modunest_tlog::{Note, NoteError, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use kinds::{
    Deprecation, Key, KeyChange, Ownership, Quarantine, Trust, TrustLevel, TrustLevelError,
    Verdict, VerdictOutcome, Yank,
};
pub use release::{BUILDS_MAX, Build, Disagreement, LIST_MAX, Release};
pub use state::{
    Authorities, FoldError, KeyEnd, KeyState, OrgState, PluginState, RegistryKey, RegistryKeys,
    ReleaseState, Status,
};

use crate::digest::Digest;
use crate::name::{NameError, OrgName, PluginName};

/// Longest statement, in bytes: 255 entries of one log bundle then stay near 2 MB.
pub const STATEMENT_MAX_BYTES: usize = 8 * 1024;
/// Longest reason or message in a statement, in characters.
pub const REASON_MAX_CHARS: usize = 500;

const RELEASE: &str = "modunest/release/v1";
const YANK: &str = "modunest/yank/v1";
const DEPRECATION: &str = "modunest/deprecation/v1";
const OWNERSHIP: &str = "modunest/ownership/v1";
const KEY: &str = "modunest/key/v1";
const VERDICT: &str = "modunest/verdict/v1";
const QUARANTINE: &str = "modunest/quarantine/v1";
const TRUST: &str = "modunest/trust/v1";

/// What statements are about, and what the index is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An organisation: who may sign for it.
    Org(OrgName),
    /// A plugin: its releases and their status.
    Plugin(PluginName),
}

impl Subject {
    /// The organisation whose keys sign, or that is spoken of.
    pub fn org(&self) -> OrgName {
        match self {
            Subject::Org(org) => org.clone(),
            Subject::Plugin(plugin) => plugin.org(),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Org(org) => org.fmt(f),
            Subject::Plugin(plugin) => plugin.fmt(f),
        }
    }
}

impl std::str::FromStr for Subject {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains('/') {
            text.parse().map(Subject::Plugin)
        } else {
            text.parse().map(Subject::Org)
        }
    }
}

/// Place in a subject's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// 1 for a subject's first statement, then one more each.
    pub sequence: u64,
    /// SHA-256 of the statement before; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

impl Link {
    /// The place of a subject's first statement.
    pub const FIRST: Link = Link { sequence: 1, previous: None };
}

/// Whose chain a statement stands in, within the statements of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// What the owner of a plugin says: signed by a key of the organisation that owns it.
    Owner,
    /// What the registry says, about a plugin or an organisation: signed by a statement key.
    Registry,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A release of a plugin. Shared, because states and solutions name it too.
    Release(Arc<Release>),
    /// A release is yanked, or no longer.
    Yank(Yank),
    /// A plugin or a release is deprecated, or no longer.
    Deprecation(Deprecation),
    /// A plugin goes to another organisation.
    Ownership(Ownership),
    /// A key may sign for an organisation, or no longer.
    Key(Key),
    /// What a scan of a release found.
    Verdict(Verdict),
    /// A release is quarantined, or no longer.
    Quarantine(Quarantine),
    /// How far the registry trusts a plugin.
    Trust(Trust),
}

/// Why a statement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than [`STATEMENT_MAX_BYTES`].
    #[error("the statement has {0} bytes; at most {STATEMENT_MAX_BYTES} are allowed")]
    TooLong(usize),
    /// Not a signed note, or not signed by whom it must be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a kind line and one line of JSON.
    #[error("a statement is a line with its kind and one line of JSON")]
    Form,
    /// A kind that this version does not know.
    #[error("statement kind \"{0}\" is not known here; a newer version may know it")]
    Kind(String),
    /// The JSON does not fit the kind.
    #[error("the statement's JSON does not fit its kind: {0}")]
    Json(String),
    /// A field breaks a rule.
    #[error("{field}: {rule}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The rule, with the way out.
        rule: String,
    },
}

fn field(field: &'static str, rule: impl Into<String>) -> StatementError {
    StatementError::Field { field, rule: rule.into() }
}

impl Statement {
    /// What the statement is about.
    pub fn subject(&self) -> Subject {
        let plugin = match self {
            Statement::Key(key) => return Subject::Org(key.org.clone()),
            Statement::Release(it) => &it.plugin,
            Statement::Yank(it) => &it.plugin,
            Statement::Deprecation(it) => &it.plugin,
            Statement::Ownership(it) => &it.plugin,
            Statement::Verdict(it) => &it.plugin,
            Statement::Quarantine(it) => &it.plugin,
            Statement::Trust(it) => &it.plugin,
        };
        Subject::Plugin(plugin.clone())
    }

    /// Its kind with the format version: the first line of its text.
    pub const fn kind(&self) -> &'static str {
        match self {
            Statement::Release(_) => RELEASE,
            Statement::Yank(_) => YANK,
            Statement::Deprecation(_) => DEPRECATION,
            Statement::Ownership(_) => OWNERSHIP,
            Statement::Key(_) => KEY,
            Statement::Verdict(_) => VERDICT,
            Statement::Quarantine(_) => QUARANTINE,
            Statement::Trust(_) => TRUST,
        }
    }

    /// Whose chain it stands in.
    pub const fn chain(&self) -> Chain {
        match self {
            Statement::Release(_)
            | Statement::Yank(_)
            | Statement::Deprecation(_)
            | Statement::Ownership(_) => Chain::Owner,
            Statement::Key(_)
            | Statement::Verdict(_)
            | Statement::Quarantine(_)
            | Statement::Trust(_) => Chain::Registry,
        }
    }

    /// Place in the chain.
    pub fn link(&self) -> Link {
        let (sequence, previous) = match self {
            Statement::Release(it) => (it.sequence, it.previous),
            Statement::Yank(it) => (it.sequence, it.previous),
            Statement::Deprecation(it) => (it.sequence, it.previous),
            Statement::Ownership(it) => (it.sequence, it.previous),
            Statement::Key(it) => (it.sequence, it.previous),
            Statement::Verdict(it) => (it.sequence, it.previous),
            Statement::Quarantine(it) => (it.sequence, it.previous),
            Statement::Trust(it) => (it.sequence, it.previous),
        };
        Link { sequence, previous }
    }

    /// The text that is signed.
    ///
    /// # Errors
    /// When a field breaks a rule, or the text is too long to leave room for a signature.
    pub fn text(&self) -> Result<String, StatementError> {
        self.check()?;
        let json = match self {
            Statement::Release(it) => serde_json::to_string(&**it),
            Statement::Yank(it) => serde_json::to_string(it),
            Statement::Deprecation(it) => serde_json::to_string(it),
            Statement::Ownership(it) => serde_json::to_string(it),
            Statement::Key(it) => serde_json::to_string(it),
            Statement::Verdict(it) => serde_json::to_string(it),
            Statement::Quarantine(it) => serde_json::to_string(it),
            Statement::Trust(it) => serde_json::to_string(it),
        };
        let json = json.map_err(|error| StatementError::Json(error.to_string()))?;
        Ok(format!("{}\n{json}\n", self.kind()))
    }

    /// Signs the statement.
    ///
    /// # Errors
    /// When a field breaks a rule or the result is longer than [`STATEMENT_MAX_BYTES`].
    pub fn sign(&self, key: &SigningKey) -> Result<SignedStatement, StatementError> {
        let bytes = modunest_tlog::sign(&self.text()?, &[key])?;
        SignedStatement::parse(bytes)
    }

    fn check(&self) -> Result<(), StatementError> {
        let link = self.link();
        if (link.sequence == 1) != link.previous.is_none() || link.sequence == 0 {
            return Err(field(
                "previous",
                "the first statement has sequence 1 and no previous, every other has one",
            ));
        }
        match self {
            Statement::Release(it) => it.check(),
            Statement::Yank(it) => it.check(),
            Statement::Deprecation(it) => it.check(),
            Statement::Ownership(_) | Statement::Verdict(_) => Ok(()),
            Statement::Key(it) => it.check(),
            Statement::Quarantine(it) => it.check(),
            Statement::Trust(it) => it.check(),
        }
    }

    fn parse_text(text: &str) -> Result<Statement, StatementError> {
        let (kind, json) = text.split_once('\n').ok_or(StatementError::Form)?;
        let json = json.strip_suffix('\n').ok_or(StatementError::Form)?;
        if json.contains('\n') {
            return Err(StatementError::Form);
        }
        let bad = |error: serde_json::Error| StatementError::Json(error.to_string());
        let statement = match kind {
            RELEASE => Statement::Release(Arc::new(serde_json::from_str(json).map_err(bad)?)),
            YANK => Statement::Yank(serde_json::from_str(json).map_err(bad)?),
            DEPRECATION => Statement::Deprecation(serde_json::from_str(json).map_err(bad)?),
            OWNERSHIP => Statement::Ownership(serde_json::from_str(json).map_err(bad)?),
            KEY => Statement::Key(serde_json::from_str(json).map_err(bad)?),
            VERDICT => Statement::Verdict(serde_json::from_str(json).map_err(bad)?),
            QUARANTINE => Statement::Quarantine(serde_json::from_str(json).map_err(bad)?),
            TRUST => Statement::Trust(serde_json::from_str(json).map_err(bad)?),
            other => return Err(StatementError::Kind(other.chars().take(80).collect())),
        };
        statement.check()?;
        Ok(statement)
    }
}

/// A statement as it travels: the signed bytes, and what they say. Its form is checked; its
/// signature is checked by [`SignedStatement::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStatement {
    bytes: Vec<u8>,
    statement: Statement,
}

impl SignedStatement {
    /// Checks size, form and fields, not the signature.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, StatementError> {
        if bytes.len() > STATEMENT_MAX_BYTES {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let statement = {
            let note = Note::parse(&bytes)?;
            // One statement has one spelling: a second signature line would be a second digest.
            if note.signatures().len() != 1 {
                return Err(StatementError::Form);
            }
            Statement::parse_text(note.unverified_text())?
        };
        Ok(SignedStatement { bytes, statement })
    }

    /// Proves that one of `keys` signed, and answers which.
    ///
    /// # Errors
    /// [`StatementError::Note`].
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<VerifyingKey, StatementError> {
        let keys: Vec<&VerifyingKey> = keys.into_iter().collect();
        let note = Note::parse(&self.bytes)?;
        let verified = note.verify(keys)?;
        // A statement has one signature, and it was found to be one of the keys'.
        verified.signers.first().map(|key| (*key).clone()).ok_or(StatementError::Form)
    }

    /// The bytes, verbatim.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: the statement's name, and the next one's `previous`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Place of the statement that follows this one in its chain.
    pub fn next_link(&self) -> Link {
        Link { sequence: self.statement.link().sequence + 1, previous: Some(self.digest()) }
    }
}

/// What holds for any bytes; the fuzz target and the corpus test call this. A statement is
/// carried verbatim, has one signature, and could be signed as it stands.
///
/// Answers whether the bytes were a statement at all.
///
/// # Panics
/// When a promise is broken: that is a bug in the parser.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedStatement::parse(bytes.to_vec()) else { return false };
    assert_eq!(signed.bytes(), bytes);
    assert_eq!(Note::parse(bytes).map(|note| note.signatures().len()), Ok(1));
    // Nobody signs what breaks a rule, so a statement that breaks one is not read either.
    assert!(signed.statement().text().is_ok());
    true
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use fixture::test_release;
