//! Cosignatures: the word of others that the log only grew.
//!
//! Before a checkpoint is published, the witnesses of a policy are asked to cosign it
//! (<https://c2sp.org/tlog-witness>), all at the same time. Each remembers which size it
//! cosigned last and wants a proof from there; which one that is, it says itself. No
//! cosignature is taken that does not verify.

mod ask;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use modunest_tlog::{Policy, QuorumError, SignedCheckpoint, TreeHash, Witness};
use reqwest::Client;
use tokio::time::{sleep, timeout};

pub use ask::AskError;

/// How long a witness may take in all: two round trips around the earth, a write that is
/// synced to disk, and room. Whoever publishes waits for it only while the quorum does.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the others are waited for once the quorum is met: about a round trip more, and
/// little beside the second or two that a publish may take.
const GRACE: Duration = Duration::from_millis(150);

/// Why a checkpoint was not cosigned by enough witnesses.
#[derive(Debug, thiserror::Error)]
#[error("{missing}; {}. Start or repair these witnesses, or change the policy", list(.failed))]
pub struct Error {
    /// What the policy still asks for.
    pub missing: QuorumError,
    /// The witnesses of the policy that did not cosign, by name, and why.
    pub failed: Vec<(String, AskError)>,
}

fn list(failed: &[(String, AskError)]) -> String {
    let each: Vec<String> = failed.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    each.join("; ")
}

/// Collects cosignatures by one policy.
#[derive(Debug)]
pub struct Collector {
    policy: Policy,
    client: Client,
    /// The size that each witness cosigned last, by its name, as far as this process knows.
    /// A wrong one costs a round trip.
    known: Mutex<BTreeMap<String, u64>>,
}

impl Collector {
    /// Knows nothing of the witnesses yet. `client` must not follow redirects.
    pub fn new(policy: Policy, client: Client) -> Self {
        Collector { policy, client, known: Mutex::default() }
    }

    /// Whose cosignatures are collected.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks every witness to cosign `checkpoint`, which carries no cosignature yet, and adds
    /// what they answer. `proofs` makes the consistency proof from a smaller size, which is
    /// not zero, to the checkpoint's; it may be asked for several.
    ///
    /// # Errors
    /// [`Error`], when all have answered or had their time and the policy is not met.
    pub async fn collect<P, F, E>(
        &self,
        mut checkpoint: SignedCheckpoint,
        proofs: P,
    ) -> Result<SignedCheckpoint, Error>
    where
        P: Fn(u64) -> F,
        F: Future<Output = Result<Vec<TreeHash>, E>>,
        E: std::fmt::Display,
    {
        let bare = checkpoint.clone();
        let (bare, proofs) = (&bare, &proofs);
        let mut asked: FuturesUnordered<_> = self
            .policy
            .witnesses()
            .iter()
            .map(|witness| async move {
                let answer = timeout(WITNESS_TIMEOUT, self.ask(witness, bare, proofs)).await;
                (witness, answer.unwrap_or(Err(AskError::Late(WITNESS_TIMEOUT))))
            })
            .collect();
        let mut failed = Vec::new();
        let mut outcome = self.policy.check(&checkpoint).map(drop);
        let mut grace = std::pin::pin!(None);
        loop {
            if outcome.is_ok() && grace.is_none() {
                grace.set(Some(sleep(GRACE)));
            }
            let over = async {
                match grace.as_mut().as_pin_mut() {
                    Some(grace) => grace.await,
                    None => std::future::pending().await,
                }
            };
            let (witness, answer) = tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(answer) => answer,
                    None => break,
                },
                () = over => break,
            };
            match answer {
                Ok(cosignature) => {
                    checkpoint.push(&witness.key, &cosignature);
                    outcome = self.policy.check(&checkpoint).map(drop);
                }
                Err(error) => {
                    tracing::warn!(witness = witness.name, %error, "not cosigned");
                    failed.push((witness.name.clone(), error));
                }
            }
        }
        match outcome {
            Ok(()) => Ok(checkpoint),
            Err(missing) => Err(Error { missing, failed }),
        }
    }

    fn known(&self, witness: &Witness) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&witness.name).copied().unwrap_or(0)
    }

    fn learn(&self, witness: &Witness, size: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(witness.name.clone(), size);
    }
}
