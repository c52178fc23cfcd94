//! A scripted host, for a plugin's own tests.
//!
//! Both directions go through the real tables and the real glue, so a test sees
//! what a host would see: statuses, cut texts, caught panics.
//!
//! ```
//! # use modunest_sdk::{Error, Host, Plugin, Request};
//! # struct Shout;
//! # impl Plugin for Shout {
//! #     fn create(_: Host, _: &[u8]) -> Result<Self, Error> { Ok(Self) }
//! #     fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
//! #         Ok(request.payload.to_ascii_uppercase())
//! #     }
//! # }
//! use modunest_sdk::testing::{TestHost, TestPlugin};
//!
//! let plugin = TestPlugin::new::<Shout>(&TestHost::new(), b"")?;
//! assert_eq!(plugin.service("shout", b"hello")?, b"HELLO");
//! # Ok::<(), Error>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{
    self, ABI_VERSION, Buffer, Bytes, HostTable, PluginTable, RequestKind, ServiceCall,
    size_of_table,
};
use crate::native::outcome;
use crate::{Decision, Error, GuardRequest, Hook, HttpRequest, HttpResponse, Level, Plugin};

/// What a scripted service does with a call.
type Service = dyn Fn(&ServiceRequest) -> Result<Vec<u8>, Error> + Send + Sync;

/// What a scripted operation does with a request.
type Operation = dyn Fn(&[u8]) -> Result<Vec<u8>, Error> + Send + Sync;

/// A plugin's call to a scripted service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    /// What the service is called with.
    pub payload: Vec<u8>,
    /// The `traceparent` that came with it, or empty.
    pub trace: String,
    /// The deadline that came with it, or zero.
    pub deadline_ms: u64,
}

#[derive(Default)]
struct State {
    services: Mutex<BTreeMap<(String, String), &'static Service>>,
    operations: Mutex<BTreeMap<u32, &'static Operation>>,
    logs: Mutex<Vec<(Level, String)>>,
    assets_dir: Mutex<&'static str>,
    now_ms: Mutex<u64>,
}

/// A host whose services, folder and clock a test decides.
///
/// It lives until the process ends, as the ABI wants of every host.
#[derive(Clone, Copy)]
pub struct TestHost {
    table: &'static HostTable,
    state: &'static State,
}

// SAFETY: the table's functions lock the state they touch, and its context points
// to that state, which is `Sync`.
unsafe impl Send for TestHost {}
// SAFETY: as above.
unsafe impl Sync for TestHost {}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHost {
    /// A host without services and assets, whose clock stands at zero.
    #[must_use]
    pub fn new() -> Self {
        let state: &'static State = Box::leak(Box::default());
        let table = Box::leak(Box::new(HostTable {
            size: size_of_table::<HostTable>(),
            abi_version: ABI_VERSION,
            context: (&raw const *state).cast_mut().cast(),
            log: Some(log),
            call_service: Some(call_service),
            now_ms: Some(now_ms),
            assets_dir: Some(assets_dir),
            operate: Some(operate),
        }));
        Self { table, state }
    }

    /// Answers calls to this service of this plugin (`org/name`). Calls to any
    /// other are denied.
    #[must_use]
    pub fn with_service(
        self,
        plugin: &str,
        service: &str,
        serve: impl Fn(&ServiceRequest) -> Result<Vec<u8>, Error> + Send + Sync + 'static,
    ) -> Self {
        let key = (plugin.to_owned(), service.to_owned());
        lock(&self.state.services).insert(key, Box::leak(Box::new(serve)));
        self
    }

    /// Answers this operation ([`crate::operation`]). Any other is denied.
    #[must_use]
    pub fn with_operation(
        self,
        operation: u32,
        serve: impl Fn(&[u8]) -> Result<Vec<u8>, Error> + Send + Sync + 'static,
    ) -> Self {
        lock(&self.state.operations).insert(operation, Box::leak(Box::new(serve)));
        self
    }

    /// Offers this folder as the unpacked package.
    #[must_use]
    pub fn with_assets_dir(self, folder: &Path) -> Self {
        *lock(&self.state.assets_dir) = String::leak(folder.to_string_lossy().into_owned());
        self
    }

    /// Sets the clock.
    pub fn set_now_ms(&self, now_ms: u64) {
        *lock(&self.state.now_ms) = now_ms;
    }

    /// What the plugin has logged so far.
    #[must_use]
    pub fn logs(&self) -> Vec<(Level, String)> {
        lock(&self.state.logs).clone()
    }

    /// The table, for a test that calls a plugin's functions itself.
    #[must_use]
    pub const fn table(&self) -> *const HostTable {
        self.table
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// # Safety
///
/// `context` is of a [`TestHost`], which never ends.
unsafe fn state(context: *mut c_void) -> &'static State {
    // SAFETY: promised by the caller.
    unsafe { &*context.cast_const().cast::<State>() }
}

/// # Safety
///
/// `context` as for [`state`]; `bytes` valid for the call.
unsafe fn text(bytes: Bytes) -> String {
    // SAFETY: promised by the caller.
    String::from_utf8_lossy(unsafe { bytes.as_slice() }).into_owned()
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, message: Bytes) {
    // SAFETY: called through the table, by the ABI's rules.
    let (state, message) = unsafe { (state(context), text(message)) };
    lock(&state.logs).push((Level::from_number(level), message));
}

unsafe extern "C" fn call_service(
    context: *mut c_void,
    call: *const ServiceCall,
    out: *mut Buffer,
) -> i32 {
    // SAFETY: called through the table, by the ABI's rules.
    let (state, key, request) = unsafe {
        let call = &*call;
        let request = ServiceRequest {
            payload: call.payload.as_slice().to_vec(),
            trace: text(call.trace),
            deadline_ms: call.deadline_ms,
        };
        (state(context), (text(call.plugin), text(call.service)), request)
    };
    // Copied out, so that a service may call another without a deadlock.
    let service = lock(&state.services).get(&key).copied();
    let answer = match service {
        Some(serve) => serve(&request),
        None => Err(Error::Denied(format!("{} of {} is not imported", key.1, key.0))),
    };
    // SAFETY: called through the table, by the ABI's rules.
    unsafe { hand_over(answer, out) }
}

/// # Safety
///
/// `out` is writable.
unsafe fn hand_over(answer: Result<Vec<u8>, Error>, out: *mut Buffer) -> i32 {
    let (code, bytes) = match answer {
        Ok(bytes) => (0, bytes),
        Err(error) => (error.status().code(), error.text().as_bytes().to_vec()),
    };
    // SAFETY: promised by the caller.
    unsafe { out.write(Buffer::from_vec(bytes)) };
    code
}

unsafe extern "C" fn operate(
    context: *mut c_void,
    operation: u32,
    request: Bytes,
    out: *mut Buffer,
) -> i32 {
    // SAFETY: called through the table, by the ABI's rules.
    let (state, request) = unsafe { (state(context), request.as_slice()) };
    let serve = lock(&state.operations).get(&operation).copied();
    let answer = match serve {
        Some(serve) => serve(request),
        None => Err(Error::Denied(format!("operation {operation} is not granted"))),
    };
    // SAFETY: called through the table, by the ABI's rules.
    unsafe { hand_over(answer, out) }
}

unsafe extern "C" fn now_ms(context: *mut c_void) -> u64 {
    // SAFETY: called through the table, by the ABI's rules.
    *lock(unsafe { &state(context).now_ms })
}

unsafe extern "C" fn assets_dir(context: *mut c_void) -> Bytes {
    // SAFETY: called through the table, by the ABI's rules.
    Bytes::new(lock(unsafe { &state(context).assets_dir }).as_bytes())
}

/// An instance of a plugin, driven through its table as a host does it.
pub struct TestPlugin {
    table: &'static PluginTable,
    instance: *mut c_void,
}

// SAFETY: by the ABI's rules an instance may be called from several threads at
// once, and destroyed on any.
unsafe impl Send for TestPlugin {}
// SAFETY: as above.
unsafe impl Sync for TestPlugin {}

impl TestPlugin {
    /// Makes an instance of a plugin type.
    ///
    /// # Errors
    ///
    /// What `create` answered.
    pub fn new<P: Plugin>(host: &TestHost, config: &[u8]) -> Result<Self, Error> {
        // SAFETY: the glue's own table obeys the rules.
        unsafe { Self::from_table(crate::native::table::<P>(), host, config) }
    }

    /// Makes an instance from a table, as a library's entry answers it.
    ///
    /// # Safety
    ///
    /// The table obeys the rules of [`crate::abi`], and its library stays mapped.
    ///
    /// # Errors
    ///
    /// What `create` answered, or [`Error::Unsupported`] for a table that is null,
    /// too short, of another version, or without a function.
    pub unsafe fn from_table(
        table: *const PluginTable,
        host: &TestHost,
        config: &[u8],
    ) -> Result<Self, Error> {
        // SAFETY: not null by the check of `as_ref`; the caller promises the rest.
        let table = unsafe { table.as_ref() }
            .filter(|table| table.size >= size_of_table::<PluginTable>())
            .filter(|table| table.abi_version == ABI_VERSION && table.destroy.is_some())
            .ok_or_else(|| Error::Unsupported("the plugin's table does not fit".to_owned()))?;
        let create = present(table.create)?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: all pointers live through the call; the host table never ends.
        received(|out| unsafe { create(host.table, Bytes::new(config), &raw mut instance, out) })?;
        Ok(Self { table, instance })
    }

    /// Calls a service, as the host itself.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn service(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.call(&request(RequestKind::Service, name, payload))
    }

    /// Sends a request to the plugin's routes.
    ///
    /// # Errors
    ///
    /// What the plugin answered, or why request or response is malformed.
    pub fn http(&self, http: HttpRequest) -> Result<HttpResponse, Error> {
        let path = http.path.clone();
        let payload = http.encode().map_err(Error::invalid_input)?;
        let answer = self.call(&request(RequestKind::Http, &path, &payload))?;
        HttpResponse::decode(&answer).map_err(Error::failed)
    }

    /// Asks a guard.
    ///
    /// # Errors
    ///
    /// What the plugin answered, or why request or answer is malformed.
    pub fn guard(&self, name: &str, asked: &GuardRequest) -> Result<Decision, Error> {
        let payload = asked.encode().map_err(Error::invalid_input)?;
        Decision::decode(&self.call(&request(RequestKind::Guard, name, &payload))?)
    }

    /// Sends an event.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn event(&self, name: &str, payload: &[u8]) -> Result<(), Error> {
        self.call(&request(RequestKind::Event, name, payload)).map(drop)
    }

    /// Runs a lifecycle hook; `text` is what [`Hook::OnError`] is told.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn lifecycle(&self, hook: Hook, text: &str) -> Result<(), Error> {
        self.call(&request(RequestKind::Lifecycle, hook.name(), text.as_bytes())).map(drop)
    }

    /// Sends any request, for a test of what a plain one does not carry. What it
    /// borrows must be valid.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn call(&self, request: &RawRequest<'_>) -> Result<Vec<u8>, Error> {
        let call = present(self.table.call)?;
        let request = abi::Request {
            size: size_of_table::<abi::Request>(),
            kind: request.kind,
            target: Bytes::new(request.target),
            payload: Bytes::new(request.payload),
            trace: Bytes::new(request.trace),
            caller: Bytes::new(request.caller),
            deadline_ms: request.deadline_ms,
        };
        // SAFETY: the instance lives until `self` is dropped; the request through the call.
        received(|out| unsafe { call(self.instance, &raw const request, out) })
    }

    /// Asks for the instance's health.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn health(&self) -> Result<(), Error> {
        let health = present(self.table.health)?;
        // SAFETY: the instance lives until `self` is dropped.
        received(|out| unsafe { health(self.instance, out) }).map(drop)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let snapshot = present(self.table.snapshot)?;
        // SAFETY: the instance lives until `self` is dropped.
        received(|out| unsafe { snapshot(self.instance, out) })
    }

    /// Restores a snapshot.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let restore = present(self.table.restore)?;
        // SAFETY: the instance lives until `self` is dropped; the bytes through the call.
        received(|out| unsafe { restore(self.instance, Bytes::new(snapshot), out) }).map(drop)
    }

    /// Stops the instance.
    ///
    /// # Errors
    ///
    /// What the plugin answered.
    pub fn stop(&self) -> Result<(), Error> {
        let stop = present(self.table.stop)?;
        // SAFETY: the instance lives until `self` is dropped.
        received(|out| unsafe { stop(self.instance, out) }).map(drop)
    }
}

impl Drop for TestPlugin {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: made by `create` of this table; `&mut self` is the last use.
            unsafe { destroy(self.instance) };
        }
    }
}

/// A request as it crosses the border, every field free to be wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRequest<'a> {
    /// A [`RequestKind`] or not.
    pub kind: u32,
    /// Target bytes.
    pub target: &'a [u8],
    /// Payload bytes.
    pub payload: &'a [u8],
    /// Trace bytes.
    pub trace: &'a [u8],
    /// Caller bytes.
    pub caller: &'a [u8],
    /// Deadline, or zero.
    pub deadline_ms: u64,
}

fn request<'a>(kind: RequestKind, target: &'a str, payload: &'a [u8]) -> RawRequest<'a> {
    RawRequest { kind: kind as u32, target: target.as_bytes(), payload, ..RawRequest::default() }
}

fn present<F>(function: Option<F>) -> Result<F, Error> {
    function.ok_or_else(|| Error::Unsupported("the plugin's table lacks a function".to_owned()))
}

/// Runs a table function with an empty out buffer, and reads what it left there.
fn received(run: impl FnOnce(*mut Buffer) -> i32) -> Result<Vec<u8>, Error> {
    let mut out = Buffer::EMPTY;
    let code = run(&raw mut out);
    // SAFETY: filled by the ABI's rules, and nobody else has it.
    let answer = unsafe { out.into_owned() };
    outcome(code, &answer).map(|()| answer.to_vec())
}
