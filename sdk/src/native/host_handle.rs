//! Calls from the plugin to its host.

use std::path::PathBuf;

use super::{assets, call_context, outcome};
use crate::abi::{
    ABI_VERSION, Buffer, Bytes, HostTable, MAX_MESSAGE_BYTES, ServiceCall, size_of_table,
};
use crate::{Error, Level};

/// A host table, known to be of a version that this library can use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostHandle {
    table: &'static HostTable,
}

// SAFETY: by the ABI's rules every function of a host table may be called from
// several threads at once with its context, and the table never changes.
unsafe impl Send for HostHandle {}
// SAFETY: as above.
unsafe impl Sync for HostHandle {}

impl HostHandle {
    /// Checks a table that a host has passed to `create`.
    ///
    /// # Safety
    ///
    /// `table` is null, or points to a table that begins with its `size` and
    /// `abi_version`, covers `size` bytes, and obeys the rules of [`crate::abi`];
    /// in particular it stays valid until the process ends.
    pub(super) unsafe fn new(table: *const HostTable) -> Result<Self, Error> {
        if table.is_null() {
            return Err(Error::InvalidInput("the host passed no table".to_owned()));
        }
        // SAFETY: not null; only the two leading fields are read, which all versions have.
        let (size, abi_version) = unsafe {
            ((&raw const (*table).size).read(), (&raw const (*table).abi_version).read())
        };
        if abi_version != ABI_VERSION || size < size_of_table::<HostTable>() {
            return Err(Error::Unsupported(format!(
                "the host speaks ABI {abi_version} with a table of {size} bytes; this plugin needs ABI {ABI_VERSION} with at least {} bytes",
                size_of_table::<HostTable>(),
            )));
        }
        // SAFETY: not null, covers all our fields, and lives until the process ends.
        Ok(Self { table: unsafe { &*table } })
    }

    pub(crate) fn log(self, level: Level, message: &str) {
        if let Some(log) = self.table.log {
            // SAFETY: the context belongs to the table; the message lives through the call.
            unsafe { log(self.table.context, level as u32, Bytes::new(message.as_bytes())) };
        }
    }

    pub(crate) fn service(
        self,
        plugin: &str,
        service: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let Some(call_service) = self.table.call_service else {
            return Err(Error::Unsupported("this host offers no services".to_owned()));
        };
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(Error::InvalidInput(format!(
                "a payload of {} bytes for {plugin} is above the limit of {MAX_MESSAGE_BYTES}",
                payload.len()
            )));
        }
        let context = call_context::current();
        let call = ServiceCall {
            size: size_of_table::<ServiceCall>(),
            flags: 0,
            plugin: Bytes::new(plugin.as_bytes()),
            service: Bytes::new(service.as_bytes()),
            payload: Bytes::new(payload),
            trace: Bytes::new(context.trace()),
            deadline_ms: context.deadline_ms,
        };
        let mut out = Buffer::EMPTY;
        // SAFETY: the context belongs to the table; `call`, what it borrows, and
        // `out` live through the call.
        let code = unsafe { call_service(self.table.context, &raw const call, &raw mut out) };
        // SAFETY: the host has filled `out` by the ABI's rules, and nobody else has it.
        let answer = unsafe { out.into_owned() };
        outcome(code, &answer).map(|()| answer.to_vec())
    }

    /// Asks for an operation of [`crate::operation`].
    pub(crate) fn operate(self, operation: u32, request: &[u8]) -> Result<Vec<u8>, Error> {
        let Some(operate) = self.table.operate else {
            return Err(Error::Unsupported("this host offers no operations".to_owned()));
        };
        if request.len() > MAX_MESSAGE_BYTES {
            return Err(Error::InvalidInput(format!(
                "a request of {} bytes is above the limit of {MAX_MESSAGE_BYTES}",
                request.len()
            )));
        }
        let mut out = Buffer::EMPTY;
        // SAFETY: the context belongs to the table; request and `out` live through the call.
        let code =
            unsafe { operate(self.table.context, operation, Bytes::new(request), &raw mut out) };
        // SAFETY: the host has filled `out` by the ABI's rules, and nobody else has it.
        let answer = unsafe { out.into_owned() };
        outcome(code, &answer).map(|()| answer.to_vec())
    }

    pub(crate) fn now_ms(self) -> u64 {
        // SAFETY: the context belongs to the table.
        self.table.now_ms.map_or(0, |now_ms| unsafe { now_ms(self.table.context) })
    }

    pub(crate) fn assets_dir(self) -> Result<PathBuf, Error> {
        let Some(assets_dir) = self.table.assets_dir else {
            return Err(Error::Unsupported("this host offers no folder of assets".to_owned()));
        };
        // SAFETY: the context belongs to the table, and the bytes live as long as it.
        let path = unsafe { assets_dir(self.table.context).as_slice() };
        match std::str::from_utf8(path) {
            Ok("") => Err(Error::Unsupported("this host offers no folder of assets".to_owned())),
            Ok(path) => Ok(PathBuf::from(path)),
            Err(_) => Err(Error::Failed("the path of the assets is not UTF-8".to_owned())),
        }
    }

    /// See [`crate::Host::assets`].
    pub(crate) fn assets(self) -> Result<Vec<String>, Error> {
        assets::list(&self.assets_dir()?)
    }

    /// See [`crate::Host::asset`].
    pub(crate) fn asset(self, name: &str) -> Result<Vec<u8>, Error> {
        assets::read(&self.assets_dir()?, name)
    }
}
