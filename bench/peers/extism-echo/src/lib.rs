//! Answers what it is given.

use extism_pdk::{FnResult, plugin_fn};

/// The same bytes.
#[plugin_fn]
pub fn echo(input: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(input)
}
