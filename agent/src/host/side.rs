//! Who answers what a plugin asks for, whatever tier it runs in.

use std::sync::{Arc, Weak};

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::ask::{OwnedAsk, ServiceAsk};
use super::cell::Cell;
use super::drive::Serving;

/// What a plugin asks for, and who answers: its cell where it runs in the agent's process,
/// and the lanes to the agent where it runs in a runner.
pub(crate) trait HostSide: Send + Sync {
    /// The folder with the plugin's files.
    fn assets(&self) -> &str;

    /// Takes a line for the log.
    fn log(&self, level: u32, message: &[u8]);

    /// Notes that the plugin trapped, and why, and that it is made anew.
    fn remade(&self, reason: &str);

    /// Calls a service of another plugin.
    ///
    /// # Errors
    /// What the service answered, or why it was not called.
    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<OwnedBuffer, Error>;

    /// An operation, by its number.
    ///
    /// # Errors
    /// What the operation answers.
    fn operate(&self, operation: u32, request: &[u8]) -> Result<OwnedBuffer, Error>;

    /// [`HostSide::call_service`] as a future. Where nothing else is said, it blocks.
    ///
    /// # Errors
    /// As for it.
    fn serve_service(&self, ask: OwnedAsk) -> Serving<'_, Result<OwnedBuffer, Error>> {
        Box::pin(async move { self.call_service(ask.ask()) })
    }

    /// [`HostSide::operate`] as a future. Where nothing else is said, it blocks.
    ///
    /// # Errors
    /// As for it.
    fn serve_operation(
        &self,
        operation: u32,
        request: Vec<u8>,
    ) -> Serving<'_, Result<OwnedBuffer, Error>> {
        Box::pin(async move { self.operate(operation, &request) })
    }
}

/// A plugin in the agent's process. A plugin that was stopped finds its cell gone.
pub(super) struct OwnProcess {
    plugin: String,
    assets: String,
    cell: Weak<Cell>,
}

impl OwnProcess {
    pub(super) fn of(cell: &Arc<Cell>) -> Self {
        OwnProcess {
            plugin: cell.name().to_string(),
            assets: cell.assets().to_owned(),
            cell: Arc::downgrade(cell),
        }
    }

    /// The plugin's cell, while it may still ask.
    fn living(&self) -> Result<Arc<Cell>, Error> {
        self.cell.upgrade().ok_or_else(|| {
            Error::Unavailable(format!("{} was stopped and may call nobody", self.plugin))
        })
    }
}

impl HostSide for OwnProcess {
    fn assets(&self) -> &str {
        &self.assets
    }

    fn log(&self, level: u32, message: &[u8]) {
        match self.cell.upgrade() {
            Some(cell) => cell.log(level, message),
            None => tracing::debug!(plugin = self.plugin, "a line of a plugin that is gone"),
        }
    }

    fn remade(&self, reason: &str) {
        // One that is gone is not counted any more.
        if let Some(cell) = self.cell.upgrade() {
            cell.remade(reason);
        }
    }

    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<OwnedBuffer, Error> {
        self.living()?.call_service(ask)
    }

    fn operate(&self, operation: u32, request: &[u8]) -> Result<OwnedBuffer, Error> {
        self.living()?.operate(operation, request)
    }

    fn serve_service(&self, ask: OwnedAsk) -> Serving<'_, Result<OwnedBuffer, Error>> {
        Box::pin(async move { self.living()?.serve_service(ask).await })
    }

    fn serve_operation(
        &self,
        operation: u32,
        request: Vec<u8>,
    ) -> Serving<'_, Result<OwnedBuffer, Error>> {
        Box::pin(async move { self.living()?.serve_operation(operation, request).await })
    }
}
