//! The two files that change, believed by the trust configuration's keys.

use std::time::Duration;

use modunest_agent::registry::Authority;
use modunest_core::index::{Head, IndexError};
use modunest_core::time::Timestamp;
use modunest_tlog::{QuorumError, SignedCheckpoint, VerifyingKey};

use crate::output::ago;

/// How far a registry's or a witness's clock may run ahead of this one's.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A checkpoint that the log's key signed and enough witnesses cosigned.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// The checkpoint.
    pub signed: SignedCheckpoint,
    /// Who cosigned it, by name in the policy, and when, in seconds since the epoch.
    pub cosigned: Vec<(String, u64)>,
}

/// Proves a checkpoint. Its age is for [`check_age`] to judge.
///
/// # Errors
/// When it is not the log's, or too few witnesses cosigned it.
pub fn checkpoint(bytes: &[u8], authority: &Authority) -> Result<Checkpointed, QuorumError> {
    let signed = SignedCheckpoint::verify(bytes, &authority.origin, &authority.log_keys)?;
    let cosigned = authority.witnesses.check(&signed)?;
    let cosigned = cosigned.into_iter().map(|(w, time)| (w.name.clone(), time)).collect();
    Ok(Checkpointed { signed, cosigned })
}

/// Proves a head. A key that was retired is believed below the log size of its end only.
///
/// # Errors
/// [`IndexError::Head`].
pub fn head(bytes: &[u8], authority: &Authority) -> Result<Head, IndexError> {
    let size = Head::read_unproven(bytes)?.log.size;
    let keys: Vec<VerifyingKey> = authority.head_keys.at(size).cloned().collect();
    Head::verify(bytes, &authority.origin, &keys)
}

/// Whether both are as new as the trust policy asks.
///
/// # Errors
/// Which is not, in words.
pub fn check_age(
    authority: &Authority,
    checkpoint: &Checkpointed,
    head: &Head,
    now: Timestamp,
) -> Result<(), String> {
    head.check_fresh(now, CLOCK_SKEW).map_err(|error| error.to_string())?;
    let policy = &authority.policy;
    let age = now.since(head.issued_at);
    if age > policy.head_max_age {
        return Err(format!(
            "the head was signed {}, and the trust policy allows {}",
            ago(age),
            whole(policy.head_max_age)
        ));
    }
    // Without a witness nobody says when a checkpoint was made.
    let Some(newest) = checkpoint.cosigned.iter().map(|(_, time_secs)| *time_secs).max() else {
        return Ok(());
    };
    let newest = Timestamp::from_millis(newest.saturating_mul(1000));
    if newest > now.plus(CLOCK_SKEW) {
        return Err(format!(
            "the checkpoint was cosigned at {newest}, in the future of this clock ({now}); set \
             the clock"
        ));
    }
    let age = now.since(newest);
    if age > policy.checkpoint_max_age {
        return Err(format!(
            "the checkpoint was last cosigned {}, and the trust policy allows {}",
            ago(age),
            whole(policy.checkpoint_max_age)
        ));
    }
    Ok(())
}

fn whole(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}
