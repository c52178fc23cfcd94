//! What plugins ask of their host, whatever tier they run in: the tiers carry it, and answer
//! nothing themselves.

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;
use modunest_sdk::links::{CALL_SERVICE, OPEN_SERVICE, PUBLISH};

use super::operations::Deadline;
use super::{Cell, frame};

/// Longest log message that is kept, in bytes.
pub(crate) const LOG_MAX_BYTES: usize = 16 * 1024;

/// A call from a plugin to a service of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceAsk<'a> {
    /// `org/name` of the plugin that exports it.
    pub(crate) plugin: &'a str,
    /// The service.
    pub(crate) service: &'a str,
    /// What it is called with.
    pub(crate) payload: &'a [u8],
    /// W3C `traceparent` of the call being served, or empty.
    pub(crate) trace: &'a str,
    /// When the caller stops waiting, in Unix milliseconds; zero for never.
    pub(crate) deadline_ms: u64,
}

impl Cell {
    /// Writes a line of the plugin's to the host's log, at a level of [`modunest_sdk::Level`].
    pub(super) fn log(&self, level: u32, message: &[u8]) {
        let cut = message.get(..LOG_MAX_BYTES).unwrap_or(message);
        let message = String::from_utf8_lossy(cut);
        let plugin = self.name().as_str();
        match level {
            1 => tracing::error!(plugin, "{message}"),
            2 => tracing::warn!(plugin, "{message}"),
            4 => tracing::debug!(plugin, "{message}"),
            5 => tracing::trace!(plugin, "{message}"),
            _ => tracing::info!(plugin, "{message}"),
        }
    }

    /// An operation of [`modunest_sdk::operation`], on behalf of the plugin. Blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the number is unknown, [`Error::Denied`] where the operator
    /// did not grant it, else what the operation answers.
    pub(super) fn operate(&self, operation: u32, request: &[u8]) -> Result<OwnedBuffer, Error> {
        let answer = match operation {
            CALL_SERVICE => return self.call_handle(request),
            OPEN_SERVICE => self.open_service(request),
            PUBLISH => self.publish(request),
            200..=299 => self.streams().operate(operation, request),
            _ => {
                let deadline = Deadline::at(frame::deadline_ms());
                let answer = self.operations().serve(operation, request, deadline);
                if let Err(Error::Denied(reason)) = &answer {
                    self.meter().deny();
                    self.operations().log_denial(operation, reason);
                }
                answer
            }
        };
        answer.map(OwnedBuffer::from)
    }
}
