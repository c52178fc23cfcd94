//! Publisher keys: statements that the registry signs into an organisation's chain.

use modunest_core::api::{RegisterKey, StatementResponse};
use modunest_core::name::OrgName;
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::{Key, Link, Statement};
use modunest_tlog::{Note, VerifyingKey};

use super::Caller;
use crate::Functions;
use crate::error::Error;
use crate::store::orgs::{KEYS_MAX, Org};

/// How often a key statement is signed anew because another one of the organisation came
/// first.
const KEY_TRIES: u32 = 5;

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

fn check_proof(org: &OrgName, key: &VerifyingKey, request: &RegisterKey) -> Result<(), Error> {
    let text = RegisterKey::proof_text(org, &request.key);
    let proven = Note::parse(request.proof.as_bytes())
        .and_then(|note| note.verify([key]).map(|verified| verified.text == text));
    match proven {
        Ok(true) => Ok(()),
        Ok(false) => {
            refuse(Code::InvalidSignature, "/proof: it is signed by the key, but over another text")
        }
        Err(error) => refuse(Code::InvalidSignature, format!("/proof: {error}")),
    }
}

impl Functions {
    pub(crate) async fn register_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        request: &RegisterKey,
    ) -> Result<StatementResponse, Error> {
        self.authorise_manage(caller, org).await?;
        let key: VerifyingKey = match request.key.parse() {
            Ok(key) => key,
            Err(error) => return refuse(Code::InvalidRequest, format!("/key: {error}")),
        };
        if key.name().as_str() != org.as_str() {
            return refuse(
                Code::InvalidRequest,
                format!("/key: its name is {}, and must be the organisation's, {org}", key.name()),
            );
        }
        check_proof(org, &key, request)?;
        // One spelling: the text may have been given in another form of base64.
        let text = key.to_string();
        self.append_key(caller, org, true, |found| {
            match found.keys.iter().find(|known| known.key == text) {
                Some(known) if known.valid => {
                    refuse(Code::AlreadyExists, format!("{org} has this key already"))
                }
                Some(_) => refuse(
                    Code::AlreadyExists,
                    "the key was revoked; a revoked key never comes back, so make a new one",
                ),
                None if found.keys.len() >= KEYS_MAX => refuse(
                    Code::TooLarge,
                    format!("an organisation registers at most {KEYS_MAX} keys in its life"),
                ),
                None => Ok(text.clone()),
            }
        })
        .await
    }

    /// Revokes the key whose hash, eight hexadecimal digits, stands in its text.
    pub(crate) async fn revoke_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        hash: &str,
    ) -> Result<StatementResponse, Error> {
        self.append_key(caller, org, false, |found| {
            let known = found.keys.iter().find(|known| known.key.split('+').nth(1) == Some(hash));
            match known {
                None => refuse(Code::NotFound, format!("{org} has no key {hash}")),
                Some(known) if !known.valid => {
                    refuse(Code::AlreadyExists, format!("the key {hash} is revoked already"))
                }
                Some(known) => Ok(known.key.clone()),
            }
        })
        .await
    }

    async fn append_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        valid: bool,
        choose: impl Fn(&Org) -> Result<String, Error>,
    ) -> Result<StatementResponse, Error> {
        for _ in 0..KEY_TRIES {
            let found = self.authorise_manage(caller, org).await?;
            let Link { sequence, previous } = found.next;
            let key = choose(&found)?;
            let statement =
                Statement::Key(Key { org: org.clone(), sequence, previous, key, valid });
            let signed = statement.sign(&self.0.registry_key)?;
            match self.append(&signed).await {
                Ok(answer) => {
                    tracing::info!(org = %org, user = %caller.user, valid, epoch = answer.epoch, "changed a publisher key");
                    return Ok(answer);
                }
                // Another key statement of the organisation came first.
                Err(Error::Refused(refusal)) if refusal.code == Code::ChainConflict => {}
                Err(error) => return Err(error),
            }
        }
        refuse(Code::Unavailable, "the organisation's keys change too often just now; try again")
    }
}
