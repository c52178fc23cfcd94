//! The two files that change, read as a host reads them.

use modunest_agent::registry::{Authority, Checkpointed, Error, check_head_age};
use modunest_core::index::Head;
use modunest_core::time::Timestamp;

/// Whether both are as new as the trust policy asks.
///
/// # Errors
/// Which is not.
pub fn check_age(
    authority: &Authority,
    checkpoint: &Checkpointed,
    head: &Head,
    now: Timestamp,
) -> Result<(), Error> {
    check_head_age(head, authority, now)?;
    checkpoint.check_age(authority, now)
}
