//! Publisher keys: statements that the registry signs into an organisation's chain.

use modunest_core::api::{KeyStatus, OrgKey, RegisterKey, RevokeKey, RotateKey, StatementResponse};
use modunest_core::name::OrgName;
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::{Key, KeyChange, Link, Statement};
use modunest_tlog::{Note, VerifyingKey};

use super::Caller;
use crate::Functions;
use crate::error::Error;
use crate::store::orgs::{KEYS_MAX, Org};

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Error> {
    Err(Refusal::new(code, detail).into())
}

/// A key of the organisation, from a request.
fn parse_key(org: &OrgName, text: &str) -> Result<VerifyingKey, Error> {
    let key: VerifyingKey = match text.parse() {
        Ok(key) => key,
        Err(error) => return refuse(Code::InvalidRequest, format!("/key: {error}")),
    };
    if key.name().as_str() != org.as_str() {
        return refuse(
            Code::InvalidRequest,
            format!("/key: its name is {}, and must be the organisation's, {org}", key.name()),
        );
    }
    Ok(key)
}

/// Refuses a proof that is not a note over `text` by every one of `keys`.
fn check_proof(proof: &str, text: &str, keys: &[&VerifyingKey]) -> Result<(), Error> {
    let verified = match Note::parse(proof.as_bytes()) {
        Ok(note) => match note.verify(keys.iter().copied()) {
            Ok(verified) if verified.text != text => {
                return refuse(
                    Code::InvalidSignature,
                    "/proof: it is signed, but over another text",
                );
            }
            Ok(verified) => verified.signers.into_iter().cloned().collect::<Vec<_>>(),
            Err(error) => return refuse(Code::InvalidSignature, format!("/proof: {error}")),
        },
        Err(error) => return refuse(Code::InvalidSignature, format!("/proof: {error}")),
    };
    match keys.iter().find(|key| !verified.contains(key)) {
        Some(missing) => {
            refuse(Code::InvalidSignature, format!("/proof: {missing} has not signed it"))
        }
        None => Ok(()),
    }
}

fn find<'a>(org: &'a Org, hash: &str) -> Result<&'a OrgKey, Error> {
    match org.keys.iter().find(|known| known.hash() == Some(hash)) {
        Some(known) => Ok(known),
        None => refuse(Code::NotFound, format!("{} has no key {hash}", org.org)),
    }
}

/// Refuses a key that the organisation has or had.
fn check_new(org: &Org, key: &str) -> Result<(), Error> {
    match org.keys.iter().find(|known| known.key == key) {
        Some(known) if known.status == KeyStatus::Valid => {
            refuse(Code::AlreadyExists, format!("{} has this key already", org.org))
        }
        Some(_) => refuse(
            Code::AlreadyExists,
            "the key was rotated out or revoked; such a key never comes back, so make a new one",
        ),
        None if org.keys.len() >= KEYS_MAX => refuse(
            Code::TooLarge,
            format!("an organisation registers at most {KEYS_MAX} keys in its life"),
        ),
        None => Ok(()),
    }
}

/// The key that a statement is about, and the one that it replaces.
struct Named {
    key: String,
    replaces: Option<String>,
}

impl Functions {
    pub(crate) async fn register_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        request: &RegisterKey,
    ) -> Result<StatementResponse, Error> {
        self.authorise_manage(caller, org).await?;
        let key = parse_key(org, &request.key)?;
        check_proof(&request.proof, &RegisterKey::proof_text(org, &request.key), &[&key])?;
        self.say_about_key(caller, org, KeyChange::Add, None, |found| {
            // One spelling: the text may have been given in another form of base64.
            let key = key.to_string();
            check_new(found, &key)?;
            Ok(Named { key, replaces: None })
        })
        .await
    }

    /// Puts a key in the place of the one whose hash, eight hexadecimal digits, stands in its
    /// text. Whoever asks holds both.
    pub(crate) async fn rotate_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        hash: &str,
        request: &RotateKey,
    ) -> Result<StatementResponse, Error> {
        self.authorise_manage(caller, org).await?;
        let new = parse_key(org, &request.key)?;
        self.say_about_key(caller, org, KeyChange::Rotate, None, |found| {
            let known = find(found, hash)?;
            if known.status != KeyStatus::Valid {
                return refuse(
                    Code::PreconditionFailed,
                    format!("the key {hash} may not sign any more, so it cannot be rotated; register the new one instead"),
                );
            }
            let old: VerifyingKey = known.key.parse().map_err(|_| Error::Damaged {
                entity: "organisation",
                attribute: "keys".to_owned(),
            })?;
            let text = RotateKey::proof_text(org, &known.key, &request.key);
            check_proof(&request.proof, &text, &[&old, &new])?;
            let key = new.to_string();
            check_new(found, &key)?;
            Ok(Named { key, replaces: Some(known.key.clone()) })
        })
        .await
    }

    /// Revokes the key whose hash stands in its text, also one that was rotated out: it may
    /// have been stolen since.
    pub(crate) async fn revoke_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        hash: &str,
        request: &RevokeKey,
    ) -> Result<StatementResponse, Error> {
        self.say_about_key(caller, org, KeyChange::Revoke, request.reason.as_ref(), |found| {
            let known = find(found, hash)?;
            if known.status == KeyStatus::Revoked {
                return refuse(Code::AlreadyExists, format!("the key {hash} is revoked already"));
            }
            Ok(Named { key: known.key.clone(), replaces: None })
        })
        .await
    }

    async fn say_about_key(
        &self,
        caller: &Caller,
        org: &OrgName,
        change: KeyChange,
        reason: Option<&String>,
        choose: impl Fn(&Org) -> Result<Named, Error>,
    ) -> Result<StatementResponse, Error> {
        let choose = &choose;
        let answer = self
            .say(|| async move {
                let found = self.authorise_manage(caller, org).await?;
                let Named { key, replaces } = choose(&found)?;
                let Link { sequence, previous } = found.next;
                let (org, reason) = (org.clone(), reason.cloned());
                Ok(Statement::Key(Key { org, sequence, previous, key, change, replaces, reason }))
            })
            .await?;
        tracing::info!(
            %org, user = %caller.user, ?change, reason, statement = %answer.statement,
            epoch = answer.epoch, "changed a publisher key"
        );
        Ok(answer)
    }
}
