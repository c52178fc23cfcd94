//! Check 4: the head.

use std::time::Duration;

use modunest_core::index::Head;
use modunest_core::time::Timestamp;

use super::state::Kept;
use super::{Authority, Error};

/// How far a registry's clock may run ahead of this one's.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A head that a head key signed which is believed for its log size.
pub(super) fn proven(bytes: &[u8], authority: &Authority) -> Result<Head, Error> {
    Head::verify_at_its_size(bytes, &authority.origin, &authority.head_keys).map_err(Error::Head)
}

/// Whether a head may be believed now, after `kept`.
pub(super) fn check(
    head: &Head,
    authority: &Authority,
    kept: Option<&Kept>,
    now: Timestamp,
) -> Result<(), Error> {
    check_age(head, authority, now)?;
    if let Some(kept) = kept {
        head.check_newer(&kept.head).map_err(Error::Rollback)?;
        if head.log.size < kept.head.log.size {
            return Err(Error::HeadLog {
                size: head.log.size,
                rule: format!("the head before it was over {}", kept.head.log.size),
            });
        }
    }
    Ok(())
}

/// Whether a head is young enough.
pub(super) fn check_age(head: &Head, authority: &Authority, now: Timestamp) -> Result<(), Error> {
    head.check_fresh(now, CLOCK_SKEW).map_err(Error::Stale)?;
    let (age, most) = (now.since(head.issued_at), authority.policy.head_max_age);
    if age > most {
        return Err(Error::HeadAge { age, most });
    }
    Ok(())
}
