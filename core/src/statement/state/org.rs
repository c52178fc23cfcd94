//! Who may sign for an organisation, and when.

use modunest_tlog::VerifyingKey;

use super::{FoldError, RegistryKeys, at, follows};
use crate::name::OrgName;
use crate::statement::{KeyChange, Link, SignedStatement, Statement, Subject};

/// How a key's time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEnd {
    /// Another key replaced it at this position. What it signed before stays good.
    Rotated(u64),
    /// It was revoked at this position. Nothing that it signed is good any longer.
    Revoked(u64),
}

impl KeyEnd {
    /// The first position at which the key no longer signs.
    pub const fn position(self) -> u64 {
        match self {
            KeyEnd::Rotated(position) | KeyEnd::Revoked(position) => position,
        }
    }
}

/// A key of an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The key.
    pub key: VerifyingKey,
    /// Position of the statement that added it: it signs behind that.
    pub since: u64,
    /// How its time ended; `None` while it may sign.
    pub end: Option<KeyEnd>,
}

impl KeyState {
    /// Whether a statement at `position` may be signed with it.
    pub fn signs_at(&self, position: u64) -> bool {
        self.since < position && self.end.is_none_or(|end| position < end.position())
    }

    /// Position at which it was revoked.
    pub const fn revoked(&self) -> Option<u64> {
        match self.end {
            Some(KeyEnd::Revoked(position)) => Some(position),
            _ => None,
        }
    }
}

/// Who may sign for an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgState {
    /// The organisation.
    pub org: OrgName,
    /// Place of the next statement.
    pub next: Link,
    /// Every key there ever was, in the order they were added.
    pub keys: Vec<KeyState>,
}

impl OrgState {
    /// An organisation of which nothing was said yet.
    pub fn new(org: OrgName) -> Self {
        OrgState { org, next: Link::FIRST, keys: Vec::new() }
    }

    /// Takes the next statement, which stands at `position` of the log and which one of the
    /// registry's keys must have signed.
    ///
    /// # Errors
    /// Changes nothing and says why when the statement does not follow.
    pub fn apply(
        &mut self,
        position: u64,
        signed: &SignedStatement,
        registry: &RegistryKeys,
    ) -> Result<(), FoldError> {
        let subject = Subject::Org(self.org.clone());
        let next = follows(&subject, self.next, signed)?;
        let wrong = |error| at(&subject, signed, error);
        signed.verify(registry.at(position)).map_err(wrong)?;
        let Statement::Key(statement) = signed.statement() else {
            return Err(FoldError::Subject {
                expected: subject,
                found: signed.statement().subject(),
            });
        };
        let key = statement.verifying_key().map_err(wrong)?;
        let refuse = |rule| FoldError::Key { org: statement.org.clone(), rule };
        match statement.change {
            KeyChange::Add => self.add(position, key).map_err(refuse)?,
            KeyChange::Rotate => {
                let replaced = statement.replaced_key().map_err(wrong)?;
                let old = self.valid(replaced.as_ref()).ok_or(refuse(
                    "the key to replace was never added, or its time has ended already",
                ))?;
                self.add(position, key).map_err(refuse)?;
                self.keys[old].end = Some(KeyEnd::Rotated(position));
            }
            KeyChange::Revoke => {
                let entry = self.keys.iter_mut().find(|entry| entry.key == key);
                let entry = entry.ok_or(refuse("the key to revoke was never added"))?;
                if entry.revoked().is_some() {
                    return Err(refuse("the key is revoked already"));
                }
                entry.end = Some(KeyEnd::Revoked(position));
            }
        }
        self.next = next;
        Ok(())
    }

    fn add(&mut self, position: u64, key: VerifyingKey) -> Result<(), &'static str> {
        if self.keys.iter().any(|entry| entry.key == key) {
            return Err("a key that was added once cannot be added again; make a new one");
        }
        self.keys.push(KeyState { key, since: position, end: None });
        Ok(())
    }

    fn valid(&self, key: Option<&VerifyingKey>) -> Option<usize> {
        self.keys.iter().position(|entry| entry.end.is_none() && Some(&entry.key) == key)
    }

    /// Keys that may sign now.
    pub fn valid_keys(&self) -> Vec<VerifyingKey> {
        self.keys
            .iter()
            .filter(|entry| entry.end.is_none())
            .map(|entry| entry.key.clone())
            .collect()
    }

    /// Keys with which a statement at `position` may be signed.
    pub fn keys_at(&self, position: u64) -> impl Iterator<Item = &VerifyingKey> {
        self.keys.iter().filter(move |entry| entry.signs_at(position)).map(|entry| &entry.key)
    }

    /// What is known of a key.
    pub fn key(&self, key: &VerifyingKey) -> Option<&KeyState> {
        self.keys.iter().find(|entry| entry.key == *key)
    }
}
