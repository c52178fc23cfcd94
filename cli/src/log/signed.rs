//! The two files that change, believed by the trust configuration's keys.

use std::time::Duration;

use modunest_agent::registry::Authority;
use modunest_core::index::{Head, IndexError};
use modunest_core::time::Timestamp;
use modunest_tlog::{QuorumError, SignedCheckpoint};

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
    Head::verify_at_its_size(bytes, &authority.origin, &authority.head_keys)
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

#[cfg(test)]
mod tests {
    use modunest_core::digest::Digest;
    use modunest_core::index::LogHead;
    use modunest_tlog::{Checkpoint, SigningKey, TreeHash};

    use super::*;

    /// In seconds: the registry's day is the longest that a head or a cosignature may be old.
    const DAY: u64 = 24 * 60 * 60;

    fn judged(issued_secs: u64, cosigned_secs: Option<u64>, now_secs: u64) -> Result<(), String> {
        let key = SigningKey::from_seed("registry.example".parse().unwrap(), &[1; 32]);
        let mut authority = Authority::pinned("registry.example", &[key.verifying_key()]);
        authority.policy.head_max_age = Duration::from_secs(DAY);
        authority.policy.checkpoint_max_age = Duration::from_secs(DAY);
        let at = |secs: u64| Timestamp::from_millis(secs * 1000);
        let origin = || "registry.example".to_owned();
        let checkpoint = Checkpoint { origin: origin(), size: 0, root: TreeHash::empty() };
        let checkpoint = Checkpointed {
            signed: checkpoint.sign(&key).unwrap(),
            cosigned: cosigned_secs.map(|secs| ("w".to_owned(), secs)).into_iter().collect(),
        };
        let head = Head {
            origin: origin(),
            epoch: 1,
            log: LogHead { size: 0, root: Digest::ZERO },
            index: Digest::ZERO,
            revocations: None,
            issued_at: at(issued_secs),
            expires_at: at(issued_secs + 2 * DAY),
        };
        check_age(&authority, &checkpoint, &head, at(now_secs))
    }

    #[test]
    fn what_is_too_old_or_of_the_future_is_said() {
        let start = 10 * DAY;
        assert_eq!(judged(start, Some(start), start + DAY), Ok(()));
        assert_eq!(judged(start, None, start + DAY), Ok(()));
        let said: Vec<String> = [
            judged(start, None, start + DAY + 1),
            judged(start, None, start + 2 * DAY),
            judged(start, None, start - 600),
            judged(start, Some(start - DAY), start + 1),
            judged(start, Some(start + 601), start),
        ]
        .into_iter()
        .map(|judged| judged.unwrap_err())
        .collect();
        for (said, why) in said.iter().zip([
            "the head was signed 24 hours ago, and the trust policy allows 86400 s",
            "it expired at",
            "in the future of this clock",
            "the checkpoint was last cosigned 24 hours ago, and the trust policy allows 86400 s",
            "the checkpoint was cosigned at",
        ]) {
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}
