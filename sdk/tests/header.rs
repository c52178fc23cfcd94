//! The C header says what the Rust module says, and a plugin in C works.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use modunest_sdk::abi::{
    ABI_VERSION, Buffer, Bytes, ENTRY_SYMBOL, EntryPoint, HostTable, MAX_ERROR_TEXT_BYTES,
    MAX_MESSAGE_BYTES, PluginTable, Request, RequestKind, ServiceCall,
};
use modunest_sdk::testing::{RawRequest, TestHost, TestPlugin};
use modunest_sdk::{Error, Level, Status};

fn compile(source: &str, out: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(root.join("include"))
        .args(arguments)
        .arg("-o")
        .arg(out)
        .arg(root.join("tests/c").join(source))
        .output()
        .expect("a C compiler, which linking Rust needs as well");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

macro_rules! facts {
    ($out:ident, $($c:literal = $rust:ty { $($field:ident),* })*) => {
        $(
            writeln!($out, "size {} {}", $c, size_of::<$rust>()).unwrap();
            $(writeln!(
                $out, "offset {}.{} {}", $c, stringify!($field), std::mem::offset_of!($rust, $field)
            ).unwrap();)*
        )*
    };
}

#[test]
fn the_header_and_the_module_agree() {
    let mut rust = String::new();
    facts!(rust,
        "modunest_bytes" = Bytes { ptr, len }
        "modunest_buffer" = Buffer { ptr, len, capacity, free }
        "modunest_request" = Request { size, kind, target, payload, trace, caller, deadline_ms }
        "modunest_service_call" = ServiceCall { size, flags, plugin, service, payload, trace, deadline_ms }
        "modunest_host_table" = HostTable { size, abi_version, context, log, call_service, now_ms, assets_dir, operate }
        "modunest_plugin_table" = PluginTable {
            size, abi_version, create, destroy, call, health, snapshot, restore, stop
        }
    );
    let values: [(&str, i64); 23] = [
        ("MODUNEST_ABI_VERSION", ABI_VERSION.into()),
        ("MODUNEST_MAX_MESSAGE_BYTES", MAX_MESSAGE_BYTES.try_into().unwrap()),
        ("MODUNEST_MAX_ERROR_TEXT_BYTES", MAX_ERROR_TEXT_BYTES.try_into().unwrap()),
        ("MODUNEST_OK", Status::Ok.code().into()),
        ("MODUNEST_FAILED", Status::Failed.code().into()),
        ("MODUNEST_PANICKED", Status::Panicked.code().into()),
        ("MODUNEST_UNSUPPORTED", Status::Unsupported.code().into()),
        ("MODUNEST_INVALID_INPUT", Status::InvalidInput.code().into()),
        ("MODUNEST_NOT_FOUND", Status::NotFound.code().into()),
        ("MODUNEST_UNAVAILABLE", Status::Unavailable.code().into()),
        ("MODUNEST_DEADLINE_EXCEEDED", Status::DeadlineExceeded.code().into()),
        ("MODUNEST_DENIED", Status::Denied.code().into()),
        ("MODUNEST_SERVICE", RequestKind::Service as i64),
        ("MODUNEST_HTTP", RequestKind::Http as i64),
        ("MODUNEST_LIFECYCLE", RequestKind::Lifecycle as i64),
        ("MODUNEST_EVENT", RequestKind::Event as i64),
        ("MODUNEST_GUARD", RequestKind::Guard as i64),
        ("MODUNEST_STREAM", RequestKind::Stream as i64),
        ("MODUNEST_LEVEL_ERROR", Level::Error as i64),
        ("MODUNEST_LEVEL_WARN", Level::Warn as i64),
        ("MODUNEST_LEVEL_INFO", Level::Info as i64),
        ("MODUNEST_LEVEL_DEBUG", Level::Debug as i64),
        ("MODUNEST_LEVEL_TRACE", Level::Trace as i64),
    ];
    for (name, value) in values {
        writeln!(rust, "value {name} {value}").unwrap();
    }

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("layout");
    compile("layout.c", &program, &[]);
    let output = Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), rust);
}

#[test]
fn a_plugin_in_c_is_a_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let library: PathBuf = folder.path().join("echo.so");
    compile("echo.c", &library, &["-shared", "-fPIC"]);
    let host = TestHost::new().with_service("demo/other", "echo", |request| {
        Ok(format!("{}|{}|{}", request.payload.len(), request.trace, request.deadline_ms).into())
    });

    // SAFETY: the library is the one compiled above; it has no constructors, obeys
    // the ABI, and is never unmapped.
    let table = unsafe {
        let library = libloading::Library::new(&library).unwrap();
        let entry = *library.get::<EntryPoint>(ENTRY_SYMBOL).unwrap();
        std::mem::forget(library);
        entry()
    };
    // SAFETY: as above.
    let plugin = unsafe { TestPlugin::from_table(table, &host, b"") }.unwrap();
    assert_eq!(host.logs(), [(Level::Info, "hello from C".to_owned())]);
    assert_eq!(plugin.service("echo", b"abc").unwrap(), b"abc");
    assert_eq!(plugin.service("echo", b"").unwrap(), b"");
    let ask = RawRequest {
        kind: RequestKind::Service as u32,
        target: b"ask",
        payload: b"abc",
        trace: b"00-x",
        deadline_ms: 9,
        ..RawRequest::default()
    };
    assert_eq!(plugin.call(&ask).unwrap(), b"3|00-x|9");
    assert_eq!(plugin.service("x", b""), Err(Error::NotFound("no such service".into())));
    plugin.health().unwrap();
    // SAFETY: as above.
    let refused = unsafe { TestPlugin::from_table(table, &host, b"x") }.err();
    assert_eq!(refused, Some(Error::InvalidInput("no configuration wanted".into())));
}
