//! The host as a plugin sees it.

use std::path::PathBuf;

#[cfg(target_arch = "wasm32")]
use crate::component::HostHandle;
#[cfg(not(target_arch = "wasm32"))]
use crate::native::HostHandle;
use crate::stream::{PIECE_BYTES, Upload, encode_read};
use crate::{Error, Identity, operation};

/// How much a log line matters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something failed that someone should look at.
    Error = 1,
    /// Something is odd but was dealt with.
    Warn = 2,
    /// What an operator wants to see.
    Info = 3,
    /// What a developer wants to see.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Level {
    /// The level with this number; unknown ones count as [`Level::Info`].
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Error,
            2 => Self::Warn,
            4 => Self::Debug,
            5 => Self::Trace,
            _ => Self::Info,
        }
    }
}

/// What the host does for a plugin. Copies are free and may go to any thread.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    handle: HostHandle,
}

impl Host {
    pub(crate) const fn from_handle(handle: HostHandle) -> Self {
        Self { handle }
    }

    /// Writes a line to the host's log, under the plugin's name.
    pub fn log(&self, level: Level, message: &str) {
        self.handle.log(level, message);
    }

    /// Calls the service `service` of the plugin `plugin` (`org/name`), which the
    /// manifest must import. Trace and deadline of the call being served on this
    /// thread go with it.
    ///
    /// # Errors
    ///
    /// What the service answered; [`Error::Denied`] if it is not imported,
    /// [`Error::Unavailable`] if its plugin is not loaded now, and
    /// [`Error::InvalidInput`] above [`crate::abi::MAX_MESSAGE_BYTES`].
    pub fn service(&self, plugin: &str, service: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.handle.service(plugin, service, payload)
    }

    /// Asks for an operation by its number. The methods that [`crate::operation`] adds to this
    /// type say the same in types of their own.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the host does not know the operation, [`Error::Denied`] if the
    /// operator did not grant it, and what the operation itself answers.
    pub fn operate(&self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error> {
        self.handle.operate(operation, request)
    }

    /// Milliseconds since the Unix epoch, on the host's clock; zero if the host
    /// has none.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.handle.now_ms()
    }

    /// The read-only folder into which this plugin's archive was unpacked: it
    /// holds `plugin.toml` and the folders named by `[build] include`, so a folder
    /// `assets` is at `assets_dir()?.join("assets")`.
    ///
    /// Only native plugins have a folder: a component sees no files. What works in every tier
    /// is [`Host::asset`] and [`Host::assets`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the host offers no folder.
    pub fn assets_dir(&self) -> Result<PathBuf, Error> {
        self.handle.assets_dir()
    }

    /// The names of the files in this plugin's archive, sorted, such as `assets/logo.png`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the host offers no files.
    pub fn assets(&self) -> Result<Vec<String>, Error> {
        self.handle.assets()
    }

    /// A file of this plugin's archive, whole, by its name there. In every tier.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such file, [`Error::InvalidInput`] for a name that
    /// leaves the archive, and [`Error::Failed`] above [`crate::abi::MAX_MESSAGE_BYTES`].
    pub fn asset(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.handle.asset(name)
    }

    /// The end user behind the call that this thread serves, in the host's word: of a request,
    /// and of every service call that follows from it. `None` for an anonymous request, an
    /// event, and on a thread of the plugin's own.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the host knows no users.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        Identity::decode(&self.operate(operation::IDENTITY, &[])?)
    }

    /// The next bytes of an upload, [`PIECE_BYTES`] at most; empty at its end. Waits for the
    /// client until the deadline of the call being served.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the upload is not (or no more) this plugin's,
    /// [`Error::InvalidInput`] if it broke off or is too long, and [`Error::DeadlineExceeded`].
    pub fn read_upload(&self, upload: &Upload) -> Result<Vec<u8>, Error> {
        self.operate(operation::UPLOAD_READ, &encode_read(upload.id, PIECE_BYTES as u32))
    }

    /// Tells the host that a stream which answered [`crate::stream::Piece::Wait`] has something
    /// again. From any thread; for a stream that is gone it does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the host has no streams.
    pub fn wake(&self, stream: u64) -> Result<(), Error> {
        self.operate(operation::STREAM_WAKE, &stream.to_le_bytes()).map(drop)
    }
}
