//! Check 4: the head.

use modunest_core::index::Head;
use modunest_core::time::Timestamp;

use super::shown::check_head_age;
use super::state::Kept;
use super::{Authority, Error};

/// Whether a head may be believed now, after `kept`.
pub(super) fn check(
    head: &Head,
    authority: &Authority,
    kept: Option<&Kept>,
    now: Timestamp,
) -> Result<(), Error> {
    check_head_age(head, authority, now)?;
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
