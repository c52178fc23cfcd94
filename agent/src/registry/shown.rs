//! The two files that change, as anybody reads them: believed by an authority's keys, and no
//! longer than its policy says. A host, a monitor and `modunest verify` share this reading.

use std::time::Duration;

use modunest_core::index::Head;
use modunest_core::time::Timestamp;
use modunest_tlog::SignedCheckpoint;

use super::{Authority, Error};

/// How far a registry's or a witness's clock may run ahead of this one's.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A checkpoint that the log's key signed and enough witnesses cosigned.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// The checkpoint.
    pub signed: SignedCheckpoint,
    /// Who cosigned it, by name in the policy, and when, in seconds since the epoch.
    pub cosigned: Vec<(String, u64)>,
}

impl Checkpointed {
    /// Proves a checkpoint. Its age is for [`Checkpointed::check_age`] to judge.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when it is not the log's, [`Error::Cosignatures`] when too few
    /// witnesses cosigned it.
    pub fn read(bytes: &[u8], authority: &Authority) -> Result<Self, Error> {
        let signed = SignedCheckpoint::verify(bytes, &authority.origin, &authority.log_keys)?;
        Checkpointed::of(signed, authority)
    }

    /// A checkpoint that was proven to be the log's before.
    ///
    /// # Errors
    /// [`Error::Cosignatures`].
    pub(super) fn of(signed: SignedCheckpoint, authority: &Authority) -> Result<Self, Error> {
        let cosigned = authority.witnesses.check(&signed)?;
        let cosigned = cosigned.into_iter().map(|(w, time_s)| (w.name.clone(), time_s)).collect();
        Ok(Checkpointed { signed, cosigned })
    }

    /// Whether it was cosigned lately. Where no witness is asked for, the head's age is what
    /// counts: it names the log that it was made of.
    ///
    /// # Errors
    /// [`Error::CheckpointAge`] and [`Error::CheckpointAhead`].
    pub fn check_age(&self, authority: &Authority, now: Timestamp) -> Result<(), Error> {
        if !authority.witnesses.asks_for_witnesses() {
            return Ok(());
        }
        let newest = self.cosigned.iter().map(|(_, time_s)| *time_s).max().unwrap_or(0);
        let newest = Timestamp::from_millis(newest.saturating_mul(1000));
        if newest > now.plus(CLOCK_SKEW) {
            return Err(Error::CheckpointAhead { cosigned: newest, now });
        }
        let (age, most) = (now.since(newest), authority.policy.checkpoint_max_age);
        if age > most {
            return Err(Error::CheckpointAge { age, most });
        }
        Ok(())
    }
}

/// Proves a head. A key that was retired is believed below the log size of its end only.
///
/// # Errors
/// [`Error::Head`].
pub fn read_head(bytes: &[u8], authority: &Authority) -> Result<Head, Error> {
    Head::verify_at_its_size(bytes, &authority.origin, &authority.head_keys).map_err(Error::Head)
}

/// Whether a head is young enough.
///
/// # Errors
/// [`Error::Stale`] and [`Error::HeadAge`].
pub fn check_head_age(head: &Head, authority: &Authority, now: Timestamp) -> Result<(), Error> {
    head.check_fresh(now, CLOCK_SKEW).map_err(Error::Stale)?;
    let (age, most) = (now.since(head.issued_at), authority.policy.head_max_age);
    if age > most {
        return Err(Error::HeadAge { age, most });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use modunest_core::digest::Digest;
    use modunest_core::index::LogHead;
    use modunest_tlog::{Checkpoint, Policy, SigningKey, TreeHash, WitnessSigningKey};

    use super::*;

    /// In seconds: the registry's day is the longest that a head or a cosignature may be old.
    const DAY: u64 = 24 * 60 * 60;

    fn judged(issued_secs: u64, cosigned_secs: Option<u64>, now_secs: u64) -> Result<(), Error> {
        let key = SigningKey::from_seed("registry.example".parse().unwrap(), &[1; 32]);
        let mut authority = Authority::pinned("registry.example", &[key.verifying_key()]);
        authority.policy.head_max_age = Duration::from_secs(DAY);
        authority.policy.checkpoint_max_age = Duration::from_secs(DAY);
        if cosigned_secs.is_some() {
            let witness = WitnessSigningKey::from_seed("w".parse().unwrap(), &[2; 32]);
            let policy = format!("witness w {}\nquorum w\n", witness.witness_key());
            authority.witnesses = Policy::parse(policy.as_bytes()).unwrap();
        }
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
        check_head_age(&head, &authority, at(now_secs))?;
        checkpoint.check_age(&authority, at(now_secs))
    }

    #[test]
    fn what_is_too_old_or_of_the_future_is_said() {
        let start = 10 * DAY;
        assert!(judged(start, Some(start), start + DAY).is_ok());
        assert!(judged(start, None, start + DAY).is_ok());
        for (judged, why) in [
            (judged(start, None, start + DAY + 1), "the head was signed 86401 s ago"),
            (judged(start, None, start + 2 * DAY), "it expired at"),
            (judged(start, None, start - 600), "in the future of this clock"),
            (
                judged(start, Some(start - DAY), start + 1),
                "the checkpoint was cosigned 86401 s ago",
            ),
            (judged(start, Some(start + 601), start), "the future of this clock"),
        ] {
            let said = judged.unwrap_err().to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}
