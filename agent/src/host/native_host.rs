//! What the host offers to a native plugin: the table, and the functions in it.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use modunest_sdk::abi::{
    Buffer, Bytes, HostTable, MAX_MESSAGE_BYTES, OwnedBuffer, ServiceCall, size_of_table,
};
use modunest_sdk::{Error, Status};

use super::ask::ServiceAsk;
use super::side::HostSide;

/// Who answers, behind a pointer as wide as C's.
struct Context(Box<dyn HostSide>);

/// Makes the table of one instance. It is never freed, and nor is who answers, by the ABI's
/// rules: both stay until the process ends. `abi_version` is the plugin's, which it is spoken to in.
pub(crate) fn table(side: Box<dyn HostSide>, abi_version: u32) -> &'static HostTable {
    let context: &'static Context = Box::leak(Box::new(Context(side)));
    Box::leak(Box::new(HostTable {
        size: size_of_table::<HostTable>(),
        abi_version,
        context: std::ptr::from_ref(context).cast_mut().cast(),
        log: Some(log),
        call_service: Some(call_service),
        now_ms: Some(now_ms),
        assets_dir: Some(assets_dir),
        operate: Some(operate),
    }))
}

/// # Safety
///
/// `context` is that of a table made by [`table`].
unsafe fn context<'a>(context: *mut c_void) -> &'a dyn HostSide {
    // SAFETY: leaked by `table`, so it lives for ever, and it is never changed.
    unsafe { &*(*context.cast_const().cast::<Context>()).0 }
}

/// # Safety
///
/// By the ABI: the table's context, and bytes that live through the call.
unsafe extern "C" fn log(raw: *mut c_void, level: u32, message: Bytes) {
    drop(catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: promised by the caller.
        let (context, bytes) = unsafe { (context(raw), message.as_slice()) };
        context.log(level, bytes);
    })));
}

/// # Safety
///
/// By the ABI: the table's context, a call that begins with its size and lives through this
/// one, and an empty buffer.
unsafe extern "C" fn call_service(
    raw: *mut c_void,
    call: *const ServiceCall,
    out: *mut Buffer,
) -> i32 {
    // SAFETY: promised by the caller.
    let served = catch_unwind(AssertUnwindSafe(|| unsafe { serve(context(raw), call) }));
    let answer = served.unwrap_or_else(|_| Err(Error::Failed("the host panicked".to_owned())));
    // SAFETY: `out` is null or writable by the ABI's rules; what was there is empty.
    unsafe { hand_over(answer, out) }
}

/// # Safety
///
/// `out` is null or writable.
unsafe fn hand_over(answer: Result<OwnedBuffer, Error>, out: *mut Buffer) -> i32 {
    let (status, bytes) = match answer {
        Ok(bytes) => (Status::Ok, bytes),
        Err(error) => (error.status(), error.text().as_bytes().to_vec().into()),
    };
    if !out.is_null() {
        // SAFETY: not null, and promised writable.
        unsafe { out.write(bytes.into_buffer()) };
    }
    status.code()
}

/// # Safety
///
/// By the ABI: the table's context, a request that lives through the call, an empty buffer.
unsafe extern "C" fn operate(
    raw: *mut c_void,
    operation: u32,
    request: Bytes,
    out: *mut Buffer,
) -> i32 {
    let served = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: promised by the caller.
        let context = unsafe { context(raw) };
        check_size(request)?;
        // SAFETY: promised by the caller.
        context.operate(operation, unsafe { request.as_slice() })
    }));
    let answer = served.unwrap_or_else(|_| Err(Error::Failed("the host panicked".to_owned())));
    // SAFETY: promised by the caller.
    unsafe { hand_over(answer, out) }
}

fn check_size(payload: Bytes) -> Result<(), Error> {
    if payload.len > MAX_MESSAGE_BYTES {
        return Err(Error::InvalidInput(format!(
            "a payload of {} bytes is above the limit of {MAX_MESSAGE_BYTES}",
            payload.len
        )));
    }
    Ok(())
}

/// # Safety
///
/// As for [`call_service`].
unsafe fn serve(context: &dyn HostSide, call: *const ServiceCall) -> Result<OwnedBuffer, Error> {
    if call.is_null() {
        return Err(Error::InvalidInput("no call was passed".to_owned()));
    }
    // SAFETY: not null; every version begins with its size.
    let size = unsafe { (&raw const (*call).size).read() };
    if size < size_of_table::<ServiceCall>() {
        return Err(Error::Unsupported(format!("a call of {size} bytes is too short")));
    }
    // SAFETY: covers all fields, and lives through this call.
    let call = unsafe { &*call };
    check_size(call.payload)?;
    // SAFETY: all of these live through this call, by the ABI's rules.
    let (plugin, service, payload, trace) = unsafe {
        (
            text(call.plugin, "plugin")?,
            text(call.service, "service")?,
            call.payload.as_slice(),
            text(call.trace, "trace")?,
        )
    };
    context.call_service(ServiceAsk {
        plugin,
        service,
        payload,
        trace,
        deadline_ms: call.deadline_ms,
    })
}

/// # Safety
///
/// `bytes` is valid for `'a`.
unsafe fn text<'a>(bytes: Bytes, what: &str) -> Result<&'a str, Error> {
    /// Names and traces are far below this.
    const TEXT_MAX_BYTES: usize = 256;
    if bytes.len > TEXT_MAX_BYTES {
        return Err(Error::InvalidInput(format!("the call's {what} is too long")));
    }
    // SAFETY: promised by the caller.
    std::str::from_utf8(unsafe { bytes.as_slice() })
        .map_err(|_| Error::InvalidInput(format!("the call's {what} is not UTF-8")))
}

unsafe extern "C" fn now_ms(_: *mut c_void) -> u64 {
    modunest_runtime::clock::now().as_millis()
}

/// # Safety
///
/// By the ABI: the table's context.
unsafe extern "C" fn assets_dir(raw: *mut c_void) -> Bytes {
    // SAFETY: promised by the caller; the text lives as long as the table.
    Bytes::new(unsafe { context(raw) }.assets().as_bytes())
}
