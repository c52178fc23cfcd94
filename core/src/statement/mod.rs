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
//! The statements of one subject, a plugin or an organisation, form a chain: each carries
//! its sequence number and the SHA-256 of the statement before it.

mod release;
mod state;

use modunest_tlog::{Note, NoteError, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use release::{BUILDS_MAX, Build, Disagreement, LIST_MAX, Release};
pub use state::{FoldError, OrgState, PluginState, ReleaseState, Status};

use crate::digest::Digest;
use crate::name::{NameError, OrgName, PluginName};
use semver::Version;

/// Longest statement, in bytes: 255 entries of one log bundle then stay near 2 MB.
pub const STATEMENT_MAX_BYTES: usize = 8 * 1024;
/// Longest reason of a yank or revocation, in characters.
pub const REASON_MAX_CHARS: usize = 500;

const RELEASE: &str = "modunest/release/v1";
const YANK: &str = "modunest/yank/v1";
const KEY: &str = "modunest/key/v1";

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

/// A yank, or the end of one. Signed by the plugin's organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yank {
    /// The plugin.
    pub plugin: PluginName,
    /// The release.
    pub version: Version,
    /// Place in the plugin's chain.
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
    /// True to add the key, false to revoke it.
    pub valid: bool,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A release of a plugin.
    Release(Box<Release>),
    /// A release is yanked, or no longer.
    Yank(Yank),
    /// A key may sign for an organisation, or no longer.
    Key(Key),
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
        match self {
            Statement::Release(release) => Subject::Plugin(release.plugin.clone()),
            Statement::Yank(yank) => Subject::Plugin(yank.plugin.clone()),
            Statement::Key(key) => Subject::Org(key.org.clone()),
        }
    }

    /// Place in the subject's chain.
    pub fn link(&self) -> Link {
        match self {
            Statement::Release(r) => Link { sequence: r.sequence, previous: r.previous },
            Statement::Yank(y) => Link { sequence: y.sequence, previous: y.previous },
            Statement::Key(k) => Link { sequence: k.sequence, previous: k.previous },
        }
    }

    /// The text that is signed.
    ///
    /// # Errors
    /// When a field breaks a rule, or the text is too long to leave room for a signature.
    pub fn text(&self) -> Result<String, StatementError> {
        self.check()?;
        let (kind, json) = match self {
            Statement::Release(release) => (RELEASE, serde_json::to_string(release)),
            Statement::Yank(yank) => (YANK, serde_json::to_string(yank)),
            Statement::Key(key) => (KEY, serde_json::to_string(key)),
        };
        let json = json.map_err(|error| StatementError::Json(error.to_string()))?;
        Ok(format!("{kind}\n{json}\n"))
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
            Statement::Release(release) => release.check(),
            Statement::Yank(yank) => match &yank.reason {
                Some(reason) if reason.chars().count() > REASON_MAX_CHARS => {
                    Err(field("reason", format!("at most {REASON_MAX_CHARS} characters")))
                }
                _ => Ok(()),
            },
            Statement::Key(key) => {
                let parsed = key.verifying_key()?;
                if parsed.name().as_str() == key.org.as_str() {
                    Ok(())
                } else {
                    Err(field("key", format!("its name must be the organisation's, {}", key.org)))
                }
            }
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
            RELEASE => Statement::Release(serde_json::from_str(json).map_err(bad)?),
            YANK => Statement::Yank(serde_json::from_str(json).map_err(bad)?),
            KEY => Statement::Key(serde_json::from_str(json).map_err(bad)?),
            other => return Err(StatementError::Kind(other.chars().take(80).collect())),
        };
        statement.check()?;
        Ok(statement)
    }
}

impl Key {
    /// The key itself.
    ///
    /// # Errors
    /// When the text is no key, or a weak one.
    pub fn verifying_key(&self) -> Result<VerifyingKey, StatementError> {
        self.key.parse().map_err(|error: modunest_tlog::KeyError| field("key", error.to_string()))
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

    /// Proves that one of `keys` signed.
    ///
    /// # Errors
    /// [`StatementError::Note`].
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<(), StatementError> {
        let keys: Vec<VerifyingKey> = keys.into_iter().cloned().collect();
        Note::parse(&self.bytes)?.verify(&keys)?;
        Ok(())
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

    /// Place of the statement that follows this one.
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
