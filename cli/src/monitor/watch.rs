//! Names and keys whose activity is reported.

use std::str::FromStr;

use modunest_core::name::OrgName;
use modunest_core::statement::{SignedStatement, Statement, Subject};

use crate::log::signer_id;

/// What to watch, as it was named: an organisation with all its plugins, a plugin, or a key
/// by its name and hash or its whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    text: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Subject(Subject),
    /// `name+hash`.
    Key(String),
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = match text.splitn(3, '+').collect::<Vec<_>>().as_slice() {
            [_] => What::Subject(text.parse().map_err(|error| format!("{error}"))?),
            [name, hash, ..] if is_hash(hash) => What::Key(format!("{name}+{hash}")),
            _ => {
                return Err(
                    "a key is named by its name and hash, such as demo+01234567, or by its whole \
                     text"
                        .to_owned(),
                );
            }
        };
        Ok(Watched { text: text.to_owned(), what })
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Watched {
    /// As it was named.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a statement is about it or by it.
    pub fn is_touched(&self, signed: &SignedStatement) -> bool {
        let statement = signed.statement();
        let subject = statement.subject();
        match &self.what {
            What::Subject(Subject::Plugin(plugin)) => subject == Subject::Plugin(plugin.clone()),
            What::Subject(Subject::Org(org)) => {
                subject.org() == *org || given_to(statement) == Some(org) || signs(signed, org)
            }
            What::Key(id) => {
                let named = match statement {
                    Statement::Key(it) => vec![Some(&it.key), it.replaces.as_ref()],
                    _ => Vec::new(),
                };
                let mut named = named.into_iter().flatten();
                signer_id(signed).as_ref() == Some(id)
                    || named.any(|key| {
                        key.strip_prefix(id.as_str()).is_some_and(|k| k.starts_with('+'))
                    })
            }
        }
    }
}

fn given_to(statement: &Statement) -> Option<&OrgName> {
    match statement {
        Statement::Ownership(it) => Some(&it.owner),
        _ => None,
    }
}

/// Keys are named like their organisation.
fn signs(signed: &SignedStatement, org: &OrgName) -> bool {
    signer_id(signed)
        .is_some_and(|id| id.rsplit_once('+').is_some_and(|(name, _)| name == org.as_str()))
}
