//! The registry's own keys, and everything that is signed with them.

use modunest_core::index::Head;
use modunest_core::statement::{SignedStatement, Statement};
use modunest_tlog::{Checkpoint, SignedCheckpoint, SigningKey, VerifyingKey};

use crate::error::Error;

/// The registry's keys. All of them are named like its origin.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs the log's checkpoints.
    pub log: SigningKey,
    /// Signs the index's heads.
    pub head: SigningKey,
    /// Signs what the registry itself says: keys of organisations, verdicts, quarantines and
    /// trust levels.
    pub statement: SigningKey,
}

impl Keys {
    /// The public halves: of the log, of heads and of statements.
    pub fn verifying(&self) -> [VerifyingKey; 3] {
        [&self.log, &self.head, &self.statement].map(SigningKey::verifying_key)
    }

    pub(crate) async fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<SignedCheckpoint, Error> {
        Ok(checkpoint.sign(&self.log)?)
    }

    pub(crate) async fn sign_head(&self, head: &Head) -> Result<Vec<u8>, Error> {
        Ok(head.sign(&self.head)?)
    }

    pub(crate) fn sign_statement(&self, statement: &Statement) -> Result<SignedStatement, Error> {
        Ok(statement.sign(&self.statement)?)
    }
}
