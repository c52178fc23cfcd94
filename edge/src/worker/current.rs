//! The objects that change, and so are asked for every time.
//!
//! Each request asks for itself, with a condition: in this runtime a request cannot wait for
//! what another began, because that other may be cut off with its client.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::Uint8Array;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;

use super::cache::Small;
use super::call::Call;
use super::origin::{KnownAt, OriginError, Origins, Reached};
use crate::plan::{Asked, EntityTag, Facts};

/// What was seen last of an object, which makes the next question cheap.
pub struct Current {
    key: ObjectKey,
    seen: RefCell<Option<(KnownAt, Rc<Small>)>>,
}

impl Current {
    /// None seen yet.
    pub fn new(key: ObjectKey) -> Current {
        Current { key, seen: RefCell::new(None) }
    }

    /// The object as it is now; `None` before there is one.
    pub async fn now(
        &self,
        origins: &Origins,
        call: &Call,
    ) -> Result<Option<Rc<Small>>, OriginError> {
        let known = self.seen.borrow().clone();
        let tag = known.as_ref().map(|(at, _)| at);
        match origins.read(&self.key, Asked::IfChanged, tag, call).await? {
            Reached::Unchanged => Ok(known.map(|(_, seen)| seen)),
            Reached::Missing => {
                self.seen.replace(None);
                Ok(None)
            }
            Reached::Small { bytes, known, digest } => {
                let small = unproved(&self.key, bytes, digest);
                self.seen.replace(Some((known, Rc::clone(&small))));
                Ok(Some(small))
            }
            Reached::Large { size_bytes, .. } => {
                Err(OriginError::Length { expected_bytes: 0, found_bytes: size_bytes })
            }
        }
    }
}

/// An object whose name does not say what it contains.
pub fn unproved(key: &ObjectKey, bytes: Uint8Array, digest: Digest) -> Rc<Small> {
    let facts = Facts::object(key, u64::from(bytes.length()), EntityTag::new(digest));
    Small::new(&bytes, facts)
}
