//! What a plugin may ask of its host beyond logs and services: operations by number, so that
//! every tier carries them alike and the native table does not grow with each.
//!
//! A number never changes its meaning. A host that does not know one answers
//! [`crate::Error::Unsupported`]; one that the operator did not grant,
//! [`crate::Error::Denied`].
