//! What plugins ask of their host, whatever tier they run in: the tiers carry it, and answer
//! nothing themselves.

use std::sync::Arc;

use modunest_sdk::abi::OwnedBuffer;
use modunest_sdk::links::{CALL_SERVICE, OPEN_SERVICE, PUBLISH};
use modunest_sdk::{Error, operation as op};

use super::operations::Deadline;
use super::{Cell, drive, frame};

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

/// The same, on its own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedAsk {
    pub(crate) plugin: String,
    pub(crate) service: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) trace: Option<Arc<str>>,
    pub(crate) deadline_ms: u64,
}

impl OwnedAsk {
    /// As it is asked.
    pub(crate) fn ask(&self) -> ServiceAsk<'_> {
        ServiceAsk {
            plugin: &self.plugin,
            service: &self.service,
            payload: &self.payload,
            trace: self.trace.as_deref().unwrap_or_default(),
            deadline_ms: self.deadline_ms,
        }
    }
}

impl Cell {
    /// Writes a line of the plugin's to the host's log, at a level of [`modunest_sdk::Level`].
    /// Lines above its quota are dropped; those that nobody wants to read count for nothing.
    pub(super) fn log(&self, level: u32, message: &[u8]) {
        let is_wanted = match level {
            1 => tracing::enabled!(tracing::Level::ERROR),
            2 => tracing::enabled!(tracing::Level::WARN),
            4 => tracing::enabled!(tracing::Level::DEBUG),
            5 => tracing::enabled!(tracing::Level::TRACE),
            _ => tracing::enabled!(tracing::Level::INFO),
        };
        if !is_wanted {
            return;
        }
        if !self.operations().may_log() {
            return self.meter().drop_line();
        }
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
                self.note_denial(operation, &answer);
                answer
            }
        };
        answer.map(OwnedBuffer::from)
    }

    /// The same as a future, which holds no thread while it waits.
    ///
    /// # Errors
    /// As [`Cell::operate`].
    pub(super) async fn serve_operation(
        self: Arc<Self>,
        operation: u32,
        request: Vec<u8>,
    ) -> Result<OwnedBuffer, Error> {
        let answer = match operation {
            CALL_SERVICE => return self.serve_handle(&request).await,
            op::UPLOAD_READ => frame::while_awaited(self.streams().read(&request)).await,
            op::HTTP_SEND => {
                let deadline = Deadline::at(frame::deadline_ms());
                let sent = self.operations().send(&request, deadline);
                let answer = frame::while_awaited(sent).await;
                self.note_denial(operation, &answer);
                answer
            }
            // Looked up in memory, or asked of the kernel: sooner done than a thread is woken.
            OPEN_SERVICE
            | op::IDENTITY
            | op::STREAM_WAKE
            | op::CLOCK_WALL
            | op::CLOCK_MONOTONIC
            | op::RANDOM => return self.operate(operation, &request),
            // Files and databases block, and so may what the program around this host does.
            _ => {
                let served = drive::away(move || self.operate(operation, &request));
                return frame::while_awaited(served).await?;
            }
        };
        answer.map(OwnedBuffer::from)
    }

    /// Counts a denial, and logs the first of its kind.
    fn note_denial(&self, operation: u32, answer: &Result<Vec<u8>, Error>) {
        if let Err(Error::Denied(reason)) = answer {
            self.meter().deny();
            self.operations().log_denial(operation, reason);
        }
    }
}
