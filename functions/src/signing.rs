//! The registry's own keys, and everything that is signed with them.

use modunest_core::index::Head;
use modunest_core::statement::{SignedStatement, Statement};
use modunest_tlog::{
    Checkpoint, KeyName, SignedCheckpoint, SigningKey, VerifyingKey, signed_elsewhere,
};

use crate::error::Error;
use crate::kms::KmsKey;

/// The registry's keys. All of them are named like its origin.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs the log's checkpoints.
    pub log: Signer,
    /// Signs the index's heads.
    pub head: Signer,
    /// Signs what the registry itself says: keys of organisations, verdicts, quarantines and
    /// trust levels.
    pub statement: SigningKey,
}

/// A key that signs in this process, or in AWS KMS.
#[derive(Clone, Debug)]
pub enum Signer {
    /// The key itself.
    Here(SigningKey),
    /// A key that never leaves AWS KMS.
    Kms(KmsKey),
}

impl From<SigningKey> for Signer {
    fn from(key: SigningKey) -> Self {
        Signer::Here(key)
    }
}

impl Signer {
    /// The key's name.
    pub fn name(&self) -> &KeyName {
        match self {
            Signer::Here(key) => key.name(),
            Signer::Kms(key) => key.public().name(),
        }
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        match self {
            Signer::Here(key) => key.verifying_key(),
            Signer::Kms(key) => key.public().clone(),
        }
    }
}

impl Keys {
    /// The public halves: of the log, of heads and of statements.
    pub fn verifying(&self) -> [VerifyingKey; 3] {
        [self.log.verifying_key(), self.head.verifying_key(), self.statement.verifying_key()]
    }

    pub(crate) async fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<SignedCheckpoint, Error> {
        match &self.log {
            Signer::Here(key) => Ok(checkpoint.sign(key)?),
            Signer::Kms(key) => {
                let bytes = signed_in_kms(&checkpoint.to_string(), key).await?;
                let keys = [key.public().clone()];
                Ok(SignedCheckpoint::verify(&bytes, &checkpoint.origin, &keys)?)
            }
        }
    }

    pub(crate) async fn sign_head(&self, head: &Head) -> Result<Vec<u8>, Error> {
        match &self.head {
            Signer::Here(key) => Ok(head.sign(key)?),
            Signer::Kms(key) => signed_in_kms(&head.text()?, key).await,
        }
    }

    pub(crate) fn sign_statement(&self, statement: &Statement) -> Result<SignedStatement, Error> {
        Ok(statement.sign(&self.statement)?)
    }
}

/// A note that KMS signed, and that is checked here: readers would refuse another.
async fn signed_in_kms(text: &str, key: &KmsKey) -> Result<Vec<u8>, Error> {
    let signature = key.sign(text.as_bytes()).await?;
    signed_elsewhere(text, key.public(), &signature).map_err(|_| {
        Error::Broken("a signature by KMS is not of the key whose public half it gave")
    })
}
