//! Who answers what a component asks for.

use std::sync::{Arc, Weak};

use modunest_sdk::Error;

use crate::host::Cell;
use crate::host::ask::ServiceAsk;

/// What a plugin asks for, and who answers.
pub(crate) trait HostSide: Send + Sync {
    /// Takes a line for the log.
    fn log(&self, level: u32, message: &[u8]);

    /// Calls a service of another plugin.
    ///
    /// # Errors
    /// What the service answered, or why it was not called.
    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<Vec<u8>, Error>;

    /// An operation, by its number.
    ///
    /// # Errors
    /// What the operation answers.
    fn operate(&self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error>;
}

/// A plugin in the agent's process. One that was stopped finds its cell gone.
pub(crate) struct OwnProcess(Weak<Cell>);

impl OwnProcess {
    pub(crate) fn of(cell: &Arc<Cell>) -> Self {
        OwnProcess(Arc::downgrade(cell))
    }

    fn living(&self) -> Result<Arc<Cell>, Error> {
        let gone = || Error::Unavailable("the plugin was stopped and may call nobody".to_owned());
        self.0.upgrade().ok_or_else(gone)
    }
}

impl HostSide for OwnProcess {
    fn log(&self, level: u32, message: &[u8]) {
        if let Ok(cell) = self.living() {
            cell.log(level, message);
        }
    }

    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<Vec<u8>, Error> {
        self.living()?.call_service(ask)
    }

    fn operate(&self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error> {
        self.living()?.operate(operation, request)
    }
}
