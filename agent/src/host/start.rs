//! Makes a plugin's instance, in the tier that it runs in.

use std::sync::Arc;

use modunest_core::archive::FileRecord;
use modunest_core::scan::COMPONENT_NAME;

use super::component::Ready;
use super::instance::Loaded;
use super::native::{self, LoadError, NativeInstance};
use super::native_host;
use super::process::Runners;
use super::side::OwnProcess;
use super::{Cell, Tier};
use crate::store::LIBRARY_NAME;

/// What a plugin is made of.
pub(super) enum Code {
    /// A library in its folder, and what that must be; `None` where there is none.
    Library(Option<FileRecord>),
    /// A component, compiled.
    Component(Box<Ready>),
}

/// Where a plugin runs, with what it takes to run it there.
pub(super) struct Place {
    pub(super) tier: Tier,
    pub(super) runners: Arc<Runners>,
    pub(super) code: Code,
}

/// Makes an instance. Runs the plugin's own code, so in the agent's process it may hang. `piece`
/// is a buffer that one call leaves to the next.
pub(super) fn start(
    cell: &Arc<Cell>,
    place: Place,
    piece: &mut Vec<u8>,
) -> Result<Loaded, LoadError> {
    let library = match place.code {
        Code::Library(library) => library,
        Code::Component(component) => {
            return component.start(cell, &place.runners).map(Loaded::Other);
        }
    };
    let record = &library.ok_or(LoadError::NoLibrary(LIBRARY_NAME))?;
    let config = cell.config()?;
    let made = match place.tier {
        Tier::InProcess => {
            let path = cell.folder().join(LIBRARY_NAME);
            let table = native::open(&native::sealed_copy(&path, record, piece)?)?;
            let host = native_host::table(Box::new(OwnProcess::of(cell)), table.abi_version);
            NativeInstance::start(table, host, &config).map(Loaded::Library)
        }
        Tier::Process => {
            let made = place.runners.load_native(cell, record, &config, piece);
            made.map(|made| Loaded::Other(Box::new(made)))
        }
        // It has a component to be started from, not a library.
        Tier::Component | Tier::ComponentProcess => Err(LoadError::NoLibrary(COMPONENT_NAME)),
    };
    made.map_err(|error| error.scrubbed(&config))
}
