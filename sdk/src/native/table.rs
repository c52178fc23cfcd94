//! The table of a plugin type, and the functions in it.

use std::ffi::c_void;

use super::call_context::{self, CallContext};
use super::host_handle::HostHandle;
use super::panics;
use crate::abi::{
    self, ABI_VERSION, Buffer, Bytes, HostTable, MAX_MESSAGE_BYTES, PluginTable, RequestKind,
    size_of_table,
};
use crate::error::cut_text;
use crate::stream::{Piece, StreamRequest};
use crate::{Error, GuardRequest, Hook, Host, HttpRequest, Plugin, Request, Status};

/// The ABI table of a plugin type.
#[must_use]
pub const fn table<P: Plugin>() -> &'static PluginTable {
    const {
        &PluginTable {
            size: size_of_table::<PluginTable>(),
            abi_version: ABI_VERSION,
            create: Some(create::<P>),
            destroy: Some(destroy::<P>),
            call: Some(call::<P>),
            health: Some(health::<P>),
            snapshot: Some(snapshot::<P>),
            restore: Some(restore::<P>),
            stop: Some(stop::<P>),
        }
    }
}

/// # Safety
///
/// `host` as for [`HostHandle::new`]; `config` valid for the call; `out` and
/// `error` null or writable.
unsafe extern "C" fn create<P: Plugin>(
    host: *const HostTable,
    config: Bytes,
    out: *mut *mut c_void,
    error: *mut Buffer,
) -> i32 {
    let outcome = panics::guard(|| {
        if out.is_null() {
            return Err(Error::InvalidInput("nowhere to put the instance".to_owned()));
        }
        // SAFETY: promised by the caller.
        let handle = unsafe { HostHandle::new(host) }?;
        panics::install(handle);
        // SAFETY: promised by the caller.
        let config = unsafe { borrow(config) }?;
        let instance = Box::new(P::create(Host::from_handle(handle), config)?);
        // SAFETY: not null, and promised writable.
        unsafe { out.write(Box::into_raw(instance).cast()) };
        Ok(Vec::new())
    });
    // SAFETY: `error` is promised to be null or writable.
    unsafe { answer(outcome, error) }
}

/// # Safety
///
/// `instance` is null or comes from `create` of the same table; this is its last use.
unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    if instance.is_null() {
        return;
    }
    let dropped = panics::guard(|| {
        // SAFETY: made by `create::<P>`, and given up here.
        drop(unsafe { Box::from_raw(instance.cast::<P>()) });
        Ok(())
    });
    if let Err(error) = dropped {
        panics::log_unreported(&format!("destroying the instance: {error}"));
    }
}

/// # Safety
///
/// `instance` comes from `create` of the same table and is not destroyed;
/// `request` is null or valid with all it borrows; `out` is null or writable.
unsafe extern "C" fn call<P: Plugin>(
    instance: *mut c_void,
    request: *const abi::Request,
    out: *mut Buffer,
) -> i32 {
    let outcome = panics::guard(|| {
        // SAFETY: promised by the caller.
        let (plugin, request) = unsafe { (plugin::<P>(instance)?, read_request(request)?) };
        // SAFETY: promised by the caller.
        let (target, payload, trace, caller) = unsafe {
            (
                text(request.target, "target")?,
                borrow(request.payload)?,
                text(request.trace, "trace")?,
                text(request.caller, "caller")?,
            )
        };
        let context = CallContext::new(trace.as_bytes(), request.deadline_ms);
        let kind = request.kind;
        let request = Request {
            target,
            payload,
            caller: (!caller.is_empty()).then_some(caller),
            trace: (!trace.is_empty()).then_some(trace),
            deadline_ms: (request.deadline_ms > 0).then_some(request.deadline_ms),
        };
        call_context::within(context, || dispatch(plugin, kind, request))
    });
    // SAFETY: promised by the caller.
    unsafe { answer(outcome, out) }
}

fn dispatch<P: Plugin>(plugin: &P, kind: u32, request: Request<'_>) -> Result<Vec<u8>, Error> {
    let nothing = |()| Vec::new();
    match RequestKind::from_number(kind) {
        Some(RequestKind::Service) => plugin.call(request),
        Some(RequestKind::Http) => {
            let request = HttpRequest::decode(request.payload).map_err(Error::invalid_input)?;
            let response = plugin.http(request)?;
            response
                .encode()
                .map_err(|error| Error::failed(format!("the plugin's own response: {error}")))
        }
        Some(RequestKind::Lifecycle) => match Hook::from_name(request.target) {
            Some(Hook::BeforeLoad) => plugin.before_load().map(nothing),
            Some(Hook::AfterLoad) => plugin.after_load().map(nothing),
            Some(Hook::BeforeUnload) => plugin.before_unload().map(nothing),
            Some(Hook::AfterUnload) => plugin.after_unload().map(nothing),
            Some(Hook::OnError) => {
                plugin.on_error(&String::from_utf8_lossy(request.payload)).map(nothing)
            }
            None => Err(Error::Unsupported(format!("no lifecycle hook `{}`", request.target))),
        },
        Some(RequestKind::Guard) => {
            let asked = GuardRequest::decode(request.target, request.payload);
            plugin.guard(asked.map_err(Error::invalid_input)?).map(|decision| decision.encode())
        }
        Some(RequestKind::Event) => plugin.event(request).map(nothing),
        Some(RequestKind::Stream) => StreamRequest::decode(request.target, request.payload)
            .and_then(|request| plugin.stream(request))
            .map(Piece::encode),
        None => Err(Error::Unsupported(format!("requests of kind {kind} are unknown here"))),
    }
}

/// # Safety
///
/// As for [`call`].
unsafe extern "C" fn health<P: Plugin>(instance: *mut c_void, out: *mut Buffer) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { serve::<P>(instance, out, |plugin| plugin.health().map(|()| Vec::new())) }
}

/// # Safety
///
/// As for [`call`].
unsafe extern "C" fn snapshot<P: Plugin>(instance: *mut c_void, out: *mut Buffer) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { serve::<P>(instance, out, Plugin::snapshot) }
}

/// # Safety
///
/// As for [`call`]; `snapshot` valid for the call.
unsafe extern "C" fn restore<P: Plugin>(
    instance: *mut c_void,
    snapshot: Bytes,
    error: *mut Buffer,
) -> i32 {
    // SAFETY: promised by the caller.
    unsafe {
        serve::<P>(instance, error, |plugin| plugin.restore(borrow(snapshot)?).map(|()| Vec::new()))
    }
}

/// # Safety
///
/// As for [`call`].
unsafe extern "C" fn stop<P: Plugin>(instance: *mut c_void, error: *mut Buffer) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { serve::<P>(instance, error, |plugin| plugin.stop().map(|()| Vec::new())) }
}

/// # Safety
///
/// As for [`call`].
unsafe fn serve<P: Plugin>(
    instance: *mut c_void,
    out: *mut Buffer,
    run: impl FnOnce(&P) -> Result<Vec<u8>, Error>,
) -> i32 {
    // SAFETY: promised by the caller.
    let outcome = panics::guard(|| run(unsafe { plugin::<P>(instance) }?));
    // SAFETY: promised by the caller.
    unsafe { answer(outcome, out) }
}

/// # Safety
///
/// `instance` is null or comes from `create::<P>` and outlives `'a`.
unsafe fn plugin<'a, P: Plugin>(instance: *mut c_void) -> Result<&'a P, Error> {
    // SAFETY: null is handled; else promised by the caller.
    unsafe { instance.cast_const().cast::<P>().as_ref() }
        .ok_or_else(|| Error::InvalidInput("the host passed no instance".to_owned()))
}

/// # Safety
///
/// `request` is null, or begins with its `size` and covers that many bytes for `'a`.
unsafe fn read_request<'a>(request: *const abi::Request) -> Result<&'a abi::Request, Error> {
    if request.is_null() {
        return Err(Error::InvalidInput("the host passed no request".to_owned()));
    }
    // SAFETY: not null; every version has this field.
    let size = unsafe { (&raw const (*request).size).read() };
    if size < size_of_table::<abi::Request>() {
        return Err(Error::Unsupported(format!("a request of {size} bytes is too short")));
    }
    // SAFETY: covers all the fields we know.
    Ok(unsafe { &*request })
}

/// # Safety
///
/// `bytes` is valid for `'a`.
unsafe fn borrow<'a>(bytes: Bytes) -> Result<&'a [u8], Error> {
    if bytes.len > MAX_MESSAGE_BYTES {
        return Err(Error::InvalidInput(format!(
            "{} bytes are above the limit of {MAX_MESSAGE_BYTES}",
            bytes.len
        )));
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { bytes.as_slice() })
}

/// # Safety
///
/// `bytes` is valid for `'a`.
unsafe fn text<'a>(bytes: Bytes, what: &str) -> Result<&'a str, Error> {
    // SAFETY: promised by the caller.
    std::str::from_utf8(unsafe { borrow(bytes)? })
        .map_err(|_| Error::InvalidInput(format!("the request's {what} is not UTF-8")))
}

/// Writes an outcome into the out buffer and answers its code.
///
/// # Safety
///
/// `out` is null or writable.
unsafe fn answer(outcome: Result<Vec<u8>, Error>, out: *mut Buffer) -> i32 {
    let (status, bytes) = match outcome {
        Ok(bytes) if bytes.len() > MAX_MESSAGE_BYTES => (
            Status::Failed,
            format!("an answer of {} bytes is above the limit of {MAX_MESSAGE_BYTES}", bytes.len())
                .into_bytes(),
        ),
        Ok(bytes) => (Status::Ok, bytes),
        Err(error) => (error.status(), cut_text(error.text()).as_bytes().to_vec()),
    };
    if !out.is_null() {
        // SAFETY: not null, and promised writable. What was there is empty by the rules.
        unsafe { out.write(Buffer::from_vec(bytes)) };
    }
    status.code()
}
