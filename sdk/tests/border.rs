//! What crosses the border between a host and a plugin in Rust, and what must not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use modunest_sdk::abi::{self, Buffer, Bytes, HostTable, MAX_ERROR_TEXT_BYTES, MAX_MESSAGE_BYTES};
use modunest_sdk::testing::{RawRequest, TestHost, TestPlugin};
use modunest_sdk::{
    Error, Hook, Host, HttpRequest, HttpResponse, Level, Plugin, Request, Status, export_plugin,
};

/// Does on demand everything that a plugin may do, right and wrong.
struct Probe {
    host: Host,
    count: AtomicU64,
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a second panic, from the payload");
    }
}

impl Plugin for Probe {
    fn create(host: Host, config: &[u8]) -> Result<Self, Error> {
        match config {
            b"" => Ok(Self { host, count: AtomicU64::new(0) }),
            b"panic" => panic!("no instance today"),
            _ => Err(Error::invalid_input("unknown configuration")),
        }
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "count" => Ok((self.count.fetch_add(1, Ordering::SeqCst) + 1).to_string().into_bytes()),
            "describe" => Ok(format!("{request:?}").into_bytes()),
            "panic" => panic!("{}", String::from_utf8_lossy(request.payload)),
            "bomb" => std::panic::panic_any(Bomb),
            "long" => Err(Error::failed("x".repeat(MAX_ERROR_TEXT_BYTES * 2))),
            "huge" => Ok(vec![0; MAX_MESSAGE_BYTES + 1]),
            "ask" => self.host.service("demo/other", "echo", request.payload),
            "flood" => self.host.service("demo/other", "echo", &vec![0; MAX_MESSAGE_BYTES + 1]),
            "now" => Ok(self.host.now_ms().to_string().into_bytes()),
            "assets" => Ok(self.host.assets_dir()?.to_string_lossy().as_bytes().to_vec()),
            "thread" => {
                let joined = std::thread::spawn(|| panic!("in the background")).join();
                assert!(joined.is_err());
                Ok(Vec::new())
            }
            other => Err(Error::not_found(other)),
        }
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        match request.path.as_str() {
            "/probe" => Ok(HttpResponse::new(200, "text/plain", request.body)),
            "/bad" => Ok(HttpResponse::new(200, "text/plain\r\nx: y", "")),
            _ => Err(Error::not_found(&request.path)),
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(self.count.load(Ordering::SeqCst).to_le_bytes().to_vec())
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let count = snapshot.try_into().map_err(Error::invalid_input)?;
        self.count.store(u64::from_le_bytes(count), Ordering::SeqCst);
        Ok(())
    }

    fn on_error(&self, text: &str) -> Result<(), Error> {
        self.host.log(Level::Warn, text);
        Ok(())
    }
}

export_plugin!(Probe);

fn probe(host: &TestHost) -> TestPlugin {
    // SAFETY: the entry of this very program, made by the macro.
    unsafe { TestPlugin::from_table(modunest_plugin_v1(), host, b"") }.unwrap()
}

#[test]
fn calls_carry_all_fields_and_answers() {
    let plugin = probe(&TestHost::new());
    let request = RawRequest {
        kind: 1,
        target: b"describe",
        payload: b"\x01",
        trace: b"00-trace",
        caller: b"demo/gallery",
        deadline_ms: 5,
    };
    assert_eq!(
        String::from_utf8(plugin.call(&request).unwrap()).unwrap(),
        r#"Request { target: "describe", payload: [1], caller: Some("demo/gallery"), trace: Some("00-trace"), deadline_ms: Some(5) }"#
    );
    assert_eq!(
        String::from_utf8(plugin.service("describe", b"").unwrap()).unwrap(),
        r#"Request { target: "describe", payload: [], caller: None, trace: None, deadline_ms: None }"#
    );
    assert_eq!(plugin.service("nothing", b""), Err(Error::NotFound("nothing".into())));
}

#[test]
fn panics_are_answers_with_message_and_place() {
    let host = TestHost::new();
    let plugin = probe(&host);
    let Err(Error::Panicked(text)) = plugin.service("panic", b"on purpose") else {
        panic!("a panic must be answered as one");
    };
    assert!(text.starts_with("on purpose (at ") && text.contains("border.rs:"), "{text}");
    let Err(Error::Panicked(text)) = plugin.service("bomb", b"") else {
        panic!("a panic must be answered as one");
    };
    assert!(text.starts_with("a panic without a message"), "{text}");
    // SAFETY: the entry of this very program, made by the macro.
    let refused = unsafe { TestPlugin::from_table(modunest_plugin_v1(), &host, b"panic") }.err();
    assert_eq!(refused.as_ref().map(Error::status), Some(Status::Panicked));
    // The instance serves on.
    assert_eq!(plugin.service("count", b"").unwrap(), b"1");
}

#[test]
fn a_panic_in_a_thread_of_the_plugin_is_logged() {
    let host = TestHost::new();
    let plugin = probe(&host);
    plugin.service("thread", b"").unwrap();
    let logs = host.logs();
    assert!(
        logs.iter().any(|(level, text)| *level == Level::Error
            && text.starts_with("a thread of the plugin panicked: in the background (at ")),
        "{logs:?}"
    );
}

#[test]
fn texts_and_answers_are_bounded() {
    let plugin = probe(&TestHost::new());
    let error = plugin.service("long", b"").unwrap_err();
    assert_eq!(error.text().len(), MAX_ERROR_TEXT_BYTES);
    let error = plugin.service("huge", b"").unwrap_err();
    assert!(error.to_string().contains("above the limit"), "{error}");
    let error = plugin.service("count", &vec![0; MAX_MESSAGE_BYTES + 1]).unwrap_err();
    assert_eq!(error.status(), Status::InvalidInput);
    let error = plugin.service("flood", b"").unwrap_err();
    assert_eq!(error.status(), Status::InvalidInput);
}

#[test]
fn services_of_others_get_trace_and_deadline() {
    let host =
        TestHost::new().with_service("demo/other", "echo", |request| match &*request.payload {
            b"fail" => Err(Error::Unavailable("asleep".into())),
            _ => Ok(format!("{}|{}", request.trace, request.deadline_ms).into_bytes()),
        });
    let plugin = probe(&host);
    let mut request = RawRequest { kind: 1, target: b"ask", ..RawRequest::default() };
    assert_eq!(plugin.call(&request).unwrap(), b"|0");
    (request.trace, request.deadline_ms) = (b"00-t", 77);
    assert_eq!(plugin.call(&request).unwrap(), b"00-t|77");
    request.payload = b"fail";
    assert_eq!(plugin.call(&request), Err(Error::Unavailable("asleep".into())));
    let denied = probe(&TestHost::new()).service("ask", b"");
    assert_eq!(denied, Err(Error::Denied("echo of demo/other is not imported".into())));
}

#[test]
fn http_requests_reach_routes_and_bad_ones_do_not() {
    let plugin = probe(&TestHost::new());
    let request = HttpRequest { body: b"hi".to_vec(), ..HttpRequest::get("/probe") };
    assert_eq!(plugin.http(request).unwrap(), HttpResponse::new(200, "text/plain", "hi"));
    assert_eq!(plugin.http(HttpRequest::get("/x")).unwrap_err().http_status(), 404);
    let error = plugin.http(HttpRequest::get("/bad")).unwrap_err();
    assert_eq!(error.status(), Status::Failed, "{error}");
    let raw = RawRequest { kind: 2, target: b"/probe", payload: b"junk", ..RawRequest::default() };
    assert_eq!(plugin.call(&raw).unwrap_err().status(), Status::InvalidInput);
}

#[test]
fn hooks_health_snapshot_and_stop_have_their_defaults() {
    let host = TestHost::new();
    let (old, new) = (probe(&host), probe(&host));
    for hook in Hook::ALL {
        old.lifecycle(hook, "what failed").unwrap();
    }
    assert!(host.logs().contains(&(Level::Warn, "what failed".into())));
    old.health().unwrap();
    old.service("count", b"").unwrap();
    new.restore(&old.snapshot().unwrap()).unwrap();
    assert_eq!(new.service("count", b"").unwrap(), b"2");
    assert_eq!(new.restore(b"x").unwrap_err().status(), Status::InvalidInput);
    assert_eq!(new.event("started", b"").unwrap_err().status(), Status::Unsupported);
    old.stop().unwrap();
}

#[test]
fn unknown_and_malformed_requests_are_refused() {
    let plugin = probe(&TestHost::new());
    let status = |request: RawRequest<'_>| plugin.call(&request).unwrap_err().status();
    let plain = RawRequest { kind: 1, target: b"count", ..RawRequest::default() };
    assert_eq!(status(RawRequest { kind: 9, ..plain }), Status::Unsupported);
    assert_eq!(status(RawRequest { kind: 3, ..plain }), Status::Unsupported);
    assert_eq!(status(RawRequest { target: b"\xff", ..plain }), Status::InvalidInput);
    assert_eq!(status(RawRequest { caller: b"\xff", ..plain }), Status::InvalidInput);
    assert_eq!(status(RawRequest { trace: b"\xff", ..plain }), Status::InvalidInput);
}

#[test]
fn clock_and_folder_come_from_the_host() {
    let host = TestHost::new();
    let plugin = probe(&host);
    host.set_now_ms(42);
    assert_eq!(plugin.service("now", b"").unwrap(), b"42");
    assert_eq!(plugin.service("assets", b"").unwrap_err().status(), Status::Unsupported);
    let _ = host.with_assets_dir("/packages/x".as_ref());
    assert_eq!(plugin.service("assets", b"").unwrap(), b"/packages/x");
}

#[test]
fn many_threads_call_at_once() {
    let plugin = probe(&TestHost::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    plugin.service("count", b"").unwrap();
                    std::thread::sleep(Duration::ZERO);
                }
            });
        }
    });
    assert_eq!(plugin.service("count", b"").unwrap(), b"801");
}

/// Calls `create` with a host table as given.
fn create_with(table: *const HostTable) -> (i32, String) {
    // SAFETY: the entry of this very program, made by the macro.
    let create = unsafe { (*modunest_plugin_v1()).create }.unwrap();
    let (mut out, mut error): (*mut c_void, _) = (std::ptr::null_mut(), Buffer::EMPTY);
    // SAFETY: all pointers are valid or null, which `create` allows.
    let code = unsafe { create(table, Bytes::EMPTY, &raw mut out, &raw mut error) };
    // SAFETY: filled by `create`.
    let error = unsafe { error.into_owned() };
    (code, String::from_utf8(error.to_vec()).unwrap())
}

#[test]
fn hosts_that_do_not_fit_are_refused_with_the_reason() {
    let (code, text) = create_with(std::ptr::null());
    assert_eq!((code, text.as_str()), (4, "the host passed no table"));
    // SAFETY: the table of a test host lives for ever.
    let good = unsafe { *TestHost::new().table() };
    let newer = HostTable { abi_version: 2, ..good };
    let (code, text) = create_with(&raw const newer);
    assert_eq!(code, Status::Unsupported.code());
    assert!(text.starts_with("the host speaks ABI 2"), "{text}");
    let short = HostTable { size: 16, ..good };
    assert_eq!(create_with(&raw const short).0, Status::Unsupported.code());
}

#[test]
fn null_pointers_are_refused_not_followed() {
    // SAFETY: the entry of this very program, made by the macro.
    let table = unsafe { &*modunest_plugin_v1() };
    let instance = std::ptr::null_mut();
    // SAFETY: the glue allows null here, which is what is tested.
    unsafe {
        let mut out = Buffer::EMPTY;
        let code = table.call.unwrap()(instance, std::ptr::null::<abi::Request>(), &raw mut out);
        assert_eq!(code, Status::InvalidInput.code());
        drop(out.into_owned());
        assert_eq!(
            table.health.unwrap()(instance, std::ptr::null_mut()),
            Status::InvalidInput.code()
        );
        table.destroy.unwrap()(instance);
    }
}
