//! What a plugin may ask of its host beyond logs and services: operations by number, so that
//! every tier carries them alike and the native table does not grow with each.
//!
//! A number never changes its meaning. A host that does not know one answers
//! [`crate::Error::Unsupported`]; one that the operator did not grant,
//! [`crate::Error::Denied`].

/// The end user behind the call that this thread serves. The request is empty; the answer is
/// the identity as JSON ([`crate::Identity`]), or empty where there is none.
pub const IDENTITY: u32 = 200;

/// The next bytes of an upload. The request is its number and the most bytes that are wanted
/// (a little-endian `u64`, then a `u32`); the answer is from one byte to so many, and empty at
/// the end. It waits for the client until the call's deadline.
pub const UPLOAD_READ: u32 = 201;

/// A stream has something again. The request is its number, a little-endian `u64`.
pub const STREAM_WAKE: u32 = 202;
