//! What a component may ask for: the world's imports, answered by the plugin's [`HostSide`] as
//! in every other tier, and its own files.

use std::path::PathBuf;
use std::sync::Arc;

use modunest_core::archive::FileList;
use modunest_core::digest::Digest;
use modunest_sdk::Error;
use modunest_sdk::abi::{MAX_ERROR_TEXT_BYTES, MAX_MESSAGE_BYTES, OwnedBuffer};
use serde::{Deserialize, Serialize};

use super::bindings::modunest::plugin::{host, types};
use super::deadline::Deadline;
use super::limits::Limits;
use crate::files;
use crate::host::ask::OwnedAsk;
use crate::host::side::HostSide;
use crate::host::{drive, frame};

/// Names and texts of a call are far below this.
const TEXT_MAX_BYTES: usize = 256;

type Answer = Result<Vec<u8>, Error>;

/// What a store carries.
pub(super) struct State {
    pub(super) side: Arc<dyn HostSide>,
    pub(super) assets: Arc<Assets>,
    pub(super) limits: Limits,
    /// When the call that runs must have ended.
    pub(super) deadline: Deadline,
    /// What it said before it trapped.
    pub(super) last_words: Option<String>,
}

/// The files of a plugin's archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assets {
    /// Where they are unpacked.
    pub(crate) folder: PathBuf,
    /// What each must be.
    pub(crate) files: FileList,
}

impl Assets {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.files.files().iter().map(|file| file.name.clone()).collect();
        names.sort();
        names
    }

    /// Reads a file, which must be what the list says.
    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let record = self
            .files
            .files()
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| Error::NotFound(format!("the archive has no {name}")))?;
        if record.size_bytes > MAX_MESSAGE_BYTES as u64 {
            return Err(Error::Failed(format!(
                "{name} has more than the {MAX_MESSAGE_BYTES} bytes that are read at once"
            )));
        }
        let bytes = files::read_limited(&self.folder.join(name), MAX_MESSAGE_BYTES)
            .map_err(|error| Error::Failed(format!("{name}: {error}")))?;
        bytes
            .filter(|bytes| Digest::of(bytes) == record.sha256)
            .ok_or_else(|| Error::Failed(format!("{name} was changed since it was proven")))
    }
}

fn failure(error: &Error) -> types::Failure {
    let text = error.text();
    let text = &text[..text.floor_char_boundary(MAX_ERROR_TEXT_BYTES)];
    types::Failure { status: error.status().code(), text: text.to_owned() }
}

fn check_size(what: &str, bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes > limit {
        return Err(Error::InvalidInput(format!(
            "a {what} of {bytes} bytes is above the limit of {limit}"
        )));
    }
    Ok(())
}

impl State {
    async fn service(&self, plugin: String, service: String, payload: Vec<u8>) -> Answer {
        check_size("plugin's name", plugin.len(), TEXT_MAX_BYTES)?;
        check_size("service's name", service.len(), TEXT_MAX_BYTES)?;
        check_size("payload", payload.len(), MAX_MESSAGE_BYTES)?;
        // A component has no threads of its own: what it asks is part of the call it serves.
        let (trace, deadline_ms) = (frame::trace(), frame::deadline_ms());
        let ask = OwnedAsk { plugin, service, payload, trace, deadline_ms };
        self.side.serve_service(ask).await.map(OwnedBuffer::into_vec)
    }

    async fn operation(&self, operation: u32, request: Vec<u8>) -> Answer {
        check_size("request", request.len(), MAX_MESSAGE_BYTES)?;
        self.side.serve_operation(operation, request).await.map(OwnedBuffer::into_vec)
    }

    async fn asset(&self, name: String) -> Answer {
        let assets = self.assets.clone();
        drive::away(move || assets.read(&name)).await?
    }
}

impl types::Host for State {}

impl host::Host for State {
    fn log(&mut self, level: u32, message: String) {
        self.side.log(level, message.as_bytes());
    }

    async fn call_service(
        &mut self,
        plugin: String,
        service: String,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, types::Failure> {
        self.service(plugin, service, payload).await.map_err(|error| failure(&error))
    }

    async fn operate(
        &mut self,
        operation: u32,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, types::Failure> {
        self.operation(operation, request).await.map_err(|error| failure(&error))
    }

    fn now_ms(&mut self) -> u64 {
        modunest_runtime::clock::now().as_millis()
    }

    fn list_assets(&mut self) -> Result<Vec<String>, types::Failure> {
        Ok(self.assets.names())
    }

    async fn read_asset(&mut self, name: String) -> Result<Vec<u8>, types::Failure> {
        self.asset(name).await.map_err(|error| failure(&error))
    }

    fn panicked(&mut self, message: String) {
        let end = message.floor_char_boundary(MAX_ERROR_TEXT_BYTES);
        self.last_words = Some(message[..end].to_owned());
    }
}
