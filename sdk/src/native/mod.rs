//! The glue between [`Plugin`](crate::Plugin) and the native ABI.
//!
//! Everything `unsafe` of a plugin is here; [`export_plugin!`](crate::export_plugin)
//! is all that an author sees of it.

mod assets;
mod call_context;
mod host_handle;
mod panics;
mod table;

pub(crate) use host_handle::HostHandle;
pub use table::table;

use crate::Error;
use crate::error::{Status, cut_text};

/// What a status code and its out buffer mean: success, or an error with a text
/// of bounded length.
///
/// # Errors
///
/// The error that `code` stands for, if it is not zero.
#[inline]
pub fn outcome(code: i32, out: &[u8]) -> Result<(), Error> {
    if code == Status::Ok.code() { Ok(()) } else { failure(code, out) }
}

#[cold]
fn failure(code: i32, out: &[u8]) -> Result<(), Error> {
    // Cut before decoding, so that a huge text costs nothing; one byte more than
    // the limit cannot matter, since what is left is cut again.
    let head = out.get(..=crate::abi::MAX_ERROR_TEXT_BYTES).unwrap_or(out);
    let text = String::from_utf8_lossy(head);
    Error::from_status(code, cut_text(&text)).map_or(Ok(()), Err)
}
