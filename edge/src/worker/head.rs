//! The head: the one object that changes, and so the one that is asked for every time.
//!
//! Each request asks for itself, with a condition: in this runtime a request cannot wait for
//! what another began, because that other may be cut off with its client.

use std::cell::RefCell;
use std::rc::Rc;

use modunest_core::keys::ObjectKey;

use super::cache::Small;
use super::call::Call;
use super::origin::{KnownAt, OriginError, Origins, Reached};
use crate::plan::{Asked, EntityTag, Facts};

/// The last head seen, which makes the next question cheap.
pub struct CurrentHead(RefCell<Option<(KnownAt, Rc<Small>)>>);

impl CurrentHead {
    /// None seen yet.
    pub fn new() -> CurrentHead {
        CurrentHead(RefCell::new(None))
    }

    /// The head as it is now; `None` before the first publish.
    pub async fn now(
        &self,
        origins: &Origins,
        call: &Call,
    ) -> Result<Option<Rc<Small>>, OriginError> {
        let known = self.0.borrow().clone();
        let tag = known.as_ref().map(|(at, _)| at);
        match origins.read(&ObjectKey::Head, Asked::IfChanged, tag, call).await? {
            Reached::Unchanged => Ok(known.map(|(_, head)| head)),
            Reached::Missing => {
                self.0.replace(None);
                Ok(None)
            }
            Reached::Small { bytes, known, digest } => {
                let size_bytes = u64::from(bytes.length());
                let facts = Facts::object(&ObjectKey::Head, size_bytes, EntityTag::new(digest));
                let head = Small::new(bytes, facts);
                self.0.replace(Some((known, Rc::clone(&head))));
                Ok(Some(head))
            }
            Reached::Large { size_bytes, .. } => {
                Err(OriginError::Length { expected_bytes: 0, found_bytes: size_bytes })
            }
        }
    }
}
