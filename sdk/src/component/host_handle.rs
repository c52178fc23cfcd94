//! Calls from the plugin to its host.

use std::path::PathBuf;

use super::bindings::modunest::plugin::host::{self, Failure};
use crate::{Error, Level};

/// The host of this component: there is one, and it is imported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostHandle;

impl HostHandle {
    pub(crate) fn log(self, level: Level, message: &str) {
        host::log(level as u32, message);
    }

    pub(crate) fn service(
        self,
        plugin: &str,
        service: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, Error> {
        host::call_service(plugin, service, payload).map_err(error)
    }

    /// Asks for an operation of [`crate::operation`].
    pub(crate) fn operate(self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error> {
        host::operate(operation, request).map_err(error)
    }

    pub(crate) fn now_ms(self) -> u64 {
        host::now_ms()
    }

    pub(crate) fn assets_dir(self) -> Result<PathBuf, Error> {
        Err(Error::Unsupported(
            "a component sees no folders; Host::asset reads a file of the archive".to_owned(),
        ))
    }

    pub(crate) fn assets(self) -> Result<Vec<String>, Error> {
        host::list_assets().map_err(error)
    }

    pub(crate) fn asset(self, name: &str) -> Result<Vec<u8>, Error> {
        host::read_asset(name).map_err(error)
    }
}

fn error(failure: Failure) -> Error {
    Error::from_status(failure.status, &failure.text)
        .unwrap_or_else(|| Error::Failed("the host failed without a status".to_owned()))
}
