//! Another plugin host: extism, by its C interface, as whoever embeds it uses it.
//!
//! Its library comes from PyPI as its makers built it, so nothing of it is compiled here, and
//! this workspace has one wasmtime. Installed on first use.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::plugins::{built, numbered};
use super::{Measured, measure};
use crate::error::Error;
use crate::folders;

/// The package, and its version.
const PACKAGE: &str = "extism-sys";
const VERSION: &str = "1.41.0";
/// The child's name.
pub const CHILD: &str = "components-extism";
/// What a reader must know.
pub const NOTE: &str = "extism: its C library as published, its compiled cache warm; its echo is \
    made with its own kit, as ours is with ours, by the same compiler with the same settings";

/// Names the echo as compiled for it (`bench/peers/extism-echo`).
const ECHO_VARIABLE: &str = "MODUNEST_EXTISM_ECHO";

/// The function of the plugin.
const FUNCTION: &CStr = c"echo";

type New = unsafe extern "C" fn(
    *const u8,
    u64,
    *const *const c_void,
    u64,
    bool,
    *mut *mut c_char,
) -> *mut c_void;
type Call = unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, u64) -> i32;
type Length = unsafe extern "C" fn(*mut c_void) -> u64;
type Data = unsafe extern "C" fn(*mut c_void) -> *const u8;
type Text = unsafe extern "C" fn(*mut c_void) -> *const c_char;

/// The functions of its C interface that are used here.
struct Extism {
    new: New,
    call: Call,
    length: Length,
    data: Data,
    error: Text,
}

/// One of its plugins. Never freed: the process ends with the measurement.
struct Plugin(*mut c_void);

/// Its library, installed if it is not there.
pub fn library() -> Result<PathBuf, Error> {
    let folder = folders::cache()?.join(format!("{PACKAGE}-{VERSION}"));
    if !folder.is_dir() {
        eprintln!("installing {PACKAGE} {VERSION} into {}, once", folder.display());
        let aside = folder.with_extension("new");
        let python = folders::program("python3", "install Debian's python3-pip")?;
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        command.arg("--upgrade").arg("--target").arg(&aside).arg(format!("{PACKAGE}=={VERSION}"));
        let output = command.output();
        let output = output.map_err(|source| Error::Io { what: "pip".to_owned(), source })?;
        if !output.status.success() {
            let said = format!(": {}", String::from_utf8_lossy(&output.stderr));
            return Err(Error::Failed { program: "pip".to_owned(), status: output.status, said });
        }
        std::fs::rename(&aside, &folder).map_err(Error::io(&folder))?;
    }
    let package = folder.join("extism_sys");
    let files = std::fs::read_dir(&package).map_err(Error::io(&package))?;
    let mut libraries = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "so"));
    libraries.next().ok_or_else(|| Error::Wrong {
        what: "extism's package",
        why: format!("there is no library in {}", package.display()),
    })
}

/// The plugin, as `cargo xtask bench` has compiled it.
pub fn echo() -> Result<Vec<u8>, Error> {
    built(ECHO_VARIABLE)
}

/// Loads, calls each once, and then the first again and again.
pub fn run(library: &Path, count: usize) -> Result<Measured, Error> {
    let extism = Extism::open(library)?;
    let echo = echo()?;
    measure(
        count,
        || {
            let load = |number| {
                let plugin = extism.load(&numbered(&echo, number))?;
                extism.call(&plugin, b"x")?;
                Ok(plugin)
            };
            (0..count).map(load).collect::<Result<Vec<_>, Error>>()
        },
        |plugins, payload| {
            let missing = || Error::Wrong { what: "a plugin of extism", why: "it is gone".into() };
            extism.call(plugins.first().ok_or_else(missing)?, payload)
        },
    )
}

impl Extism {
    fn open(library: &Path) -> Result<Self, Error> {
        // SAFETY: the published library of a plugin host; its constructors are Rust's.
        let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(Error::wrong("extism's library"))?;
        let wrong = Error::wrong::<libloading::Error>;
        // SAFETY: its header gives these symbols these types, and it is never closed.
        let extism = unsafe {
            Extism {
                new: *library.get(b"extism_plugin_new\0").map_err(wrong("extism's library"))?,
                call: *library.get(b"extism_plugin_call\0").map_err(wrong("extism's library"))?,
                length: *library
                    .get(b"extism_plugin_output_length\0")
                    .map_err(wrong("extism's library"))?,
                data: *library
                    .get(b"extism_plugin_output_data\0")
                    .map_err(wrong("extism's library"))?,
                error: *library.get(b"extism_plugin_error\0").map_err(wrong("extism's library"))?,
            }
        };
        std::mem::forget(library);
        Ok(extism)
    }

    fn load(&self, module: &[u8]) -> Result<Plugin, Error> {
        let mut error = std::ptr::null_mut();
        // SAFETY: the module and the place for the error live through the call.
        let plugin = unsafe {
            (self.new)(
                module.as_ptr(),
                module.len() as u64,
                std::ptr::null(),
                0,
                false,
                &raw mut error,
            )
        };
        if plugin.is_null() {
            // SAFETY: null, or a text that nobody frees.
            let why = unsafe { text(error) };
            return Err(Error::Wrong { what: "a plugin of extism", why });
        }
        Ok(Plugin(plugin))
    }

    fn call(&self, plugin: &Plugin, payload: &[u8]) -> Result<Vec<u8>, Error> {
        // SAFETY: a living plugin, and a name and a payload that live through the call.
        let code = unsafe {
            (self.call)(plugin.0, FUNCTION.as_ptr(), payload.as_ptr(), payload.len() as u64)
        };
        if code != 0 {
            // SAFETY: null, or a text that lives until the next call.
            let why = unsafe { text((self.error)(plugin.0)) };
            return Err(Error::Wrong { what: "a call of extism", why });
        }
        // SAFETY: the output stays as it is until the next call.
        let output = unsafe {
            let length = usize::try_from((self.length)(plugin.0)).unwrap_or(0);
            std::slice::from_raw_parts((self.data)(plugin.0), length)
        };
        Ok(output.to_vec())
    }
}

/// # Safety
///
/// Null, or a text that lives through this call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return "it does not say why".to_owned();
    }
    // SAFETY: not null, and promised to live.
    let text: CString = unsafe { CStr::from_ptr(pointer) }.to_owned();
    text.to_string_lossy().into_owned()
}
