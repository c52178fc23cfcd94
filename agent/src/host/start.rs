//! Makes a plugin's instance, in the tier that it runs in.

use std::sync::Arc;

use modunest_core::archive::FileRecord;

use super::native::{self, LoadError, NativeInstance};
use super::{Cell, Instance, native_host};
use crate::store::LIBRARY_NAME;

/// Opens what `library` says and makes an instance of it. Runs the plugin's own code, so it may
/// hang. `piece` is a buffer that one call leaves to the next.
pub(super) fn start(
    cell: &Arc<Cell>,
    library: Option<&FileRecord>,
    piece: &mut Vec<u8>,
) -> Result<Box<dyn Instance>, LoadError> {
    let record = library.ok_or(LoadError::NoLibrary(LIBRARY_NAME))?;
    let table = native::open(&cell.folder().join(LIBRARY_NAME), record, piece)?;
    let config = cell.config()?;
    let instance = NativeInstance::start(table, native_host::table(cell), &config)
        .map_err(|error| error.scrubbed(&config))?;
    Ok(Box::new(instance))
}
