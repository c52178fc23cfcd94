//! A native library, opened from a sealed memory file whose content was proven there: in the
//! agent's own process, or in a runner.
//!
//! A library is never unmapped: it may have registered destructors, handed out pointers or
//! started threads.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use modunest_core::archive::FileRecord;
use modunest_core::digest::{Digest, Hasher};
use modunest_core::relation::LibcFloor;
use modunest_sdk::abi::{
    Buffer, Bytes, ENTRY_SYMBOL, EntryPoint, HostTable, MAX_MESSAGE_BYTES, OwnedBuffer,
    PluginTable, Request, size_of_table,
};
use modunest_sdk::{Error, Status};
use rustix::fs::{MemfdFlags, SealFlags};

use super::{Call, Instance, abi};
use crate::secrets::{OpenConfig, SecretError};

/// The function of a plugin's table that serves calls.
type CallFn = unsafe extern "C" fn(*mut c_void, *const Request, *mut Buffer) -> i32;

/// Why a library could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read or copied.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The archive has no library.
    #[error("the archive has no {0}")]
    NoLibrary(&'static str),
    /// The file is not the one on the proven list.
    #[error("{} was changed since it was proven: it hashes to {found}, not {expected}", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// By the list.
        expected: Digest,
        /// What there is.
        found: Digest,
    },
    /// The dynamic linker refused it.
    #[error("the library cannot be opened: {0}")]
    Open(String),
    /// The entry answers no table that this host can use.
    #[error("the library's plugin table cannot be used: {0}")]
    Table(String),
    /// It is no component that can be compiled here.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// It asks for what this host does not have.
    #[error("the component does not fit this host: {0}")]
    Link(String),
    /// No component runs here.
    #[error("this machine runs no components: {0}")]
    Engine(String),
    /// Its runner could not use the library, for one of the reasons above.
    #[error("{0}")]
    Refused(String),
    /// The plugin's own start failed.
    #[error("its start {0}")]
    Start(Error),
    /// It takes too long.
    #[error("it did not load within {0} ms")]
    Late(u128),
    /// The process that it was to run in did not come up, or ended.
    #[error("its process {0}")]
    Process(String),
    /// A secret of its configuration cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl LoadError {
    /// Without the secrets that a plugin may have put into its text.
    pub(super) fn scrubbed(self, config: &OpenConfig) -> Self {
        match self {
            LoadError::Start(error) => {
                let text = config.scrub(error.text());
                let status = error.status().code();
                LoadError::Start(Error::from_status(status, &text).unwrap_or(error))
            }
            LoadError::Refused(text) => LoadError::Refused(config.scrub(&text)),
            LoadError::Process(text) => LoadError::Process(config.scrub(&text)),
            other => other,
        }
    }
}

/// The C library's version on this machine; `None` where it is not glibc.
pub(crate) fn libc_version() -> Option<LibcFloor> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: answers a NUL-terminated text that lives as long as the process.
        let text = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        let text = text.to_str().ok()?;
        // A third number, where there is one, is a development version's.
        let mut parts = text.split('.');
        format!("{}.{}", parts.next()?, parts.next()?).parse().ok()
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Opens the library in `memory`, which is sealed and proven, and answers its table.
pub(crate) fn open(memory: &OwnedFd) -> Result<&'static PluginTable, LoadError> {
    // The dynamic linker takes a library for open already if its path was opened before, and
    // numbers of closed descriptors come again. So each open gets a path of its own: the
    // bits of a counter, written as "./" and "/". In front, because the linker compares the path
    // with those of all libraries that are open, and because the kernel looks at no process for
    // these.
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let mut number = OPENED.fetch_add(1, Ordering::Relaxed);
    let mut proc_path = String::from("/");
    while number > 0 {
        proc_path.push_str(if number & 1 == 1 { "./" } else { "/" });
        number >>= 1;
    }
    proc_path.push_str(&format!("proc/self/fd/{}", memory.as_raw_fd()));
    // SAFETY: the library's constructors run here. The bytes are those that its publisher
    // signed, and this process is a runner of the plugin's own, or the agent's where the
    // operator has allowed it.
    let library = unsafe { Library::open(Some(&proc_path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| LoadError::Open(linker_text(&error, &proc_path)))?;
    // SAFETY: the ABI gives this symbol this type.
    let entry = unsafe { library.get::<EntryPoint>(ENTRY_SYMBOL) };
    let entry = entry.map_err(|error| LoadError::Open(linker_text(&error, &proc_path)))?;
    // SAFETY: of the type above; takes nothing.
    let table = unsafe { entry() };
    // SAFETY: null, or a table that lives as long as the library, which is never closed.
    let table = unsafe { check(table) };
    // Closing it could unmap code that threads or destructors still need.
    std::mem::forget(library);
    table
}

/// The linker's message, without the path through `/proc`, which means nothing to anybody.
fn linker_text(error: &libloading::Error, proc_path: &str) -> String {
    let text =
        std::error::Error::source(error).map_or_else(|| error.to_string(), |e| e.to_string());
    text.replace(&format!("{proc_path}: "), "")
}

/// Bytes that are copied and hashed at once: two windows fit into a processor's second cache.
const PIECE_BYTES: usize = 256 * 1024;

/// Copies a file into memory, seals it, and hashes what was sealed: whatever happens to the
/// file, what is opened is what was proven. `piece` is a buffer that one call leaves to the
/// next.
///
/// By plain reads and writes: for libraries, which are small, splicing costs more than a copy,
/// and a mapping more than both, since unmapping it interrupts every processor that runs us.
pub(super) fn sealed_copy(
    path: &Path,
    record: &FileRecord,
    piece: &mut Vec<u8>,
) -> Result<OwnedFd, LoadError> {
    let io = |source: std::io::Error| LoadError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let size = usize::try_from(record.size_bytes).map_err(|e| io(std::io::Error::other(e)))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("modunest-plugin", flags).map_err(|e| io(e.into()))?;
    let mut memory = File::from(memory);
    let room = size.clamp(1, PIECE_BYTES);
    if piece.len() < room {
        piece.resize(room, 0);
    }
    let mut left = size;
    while left > 0 {
        let room = left.min(piece.len());
        match file.read(&mut piece[..room]) {
            // Shorter than it was: the hash will tell.
            Ok(0) => break,
            Ok(read) => {
                memory.write_all(&piece[..read]).map_err(io)?;
                left -= read;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(|e| io(e.into()))?;
    let found = hash(&memory, size - left, piece).map_err(io)?;
    if found != record.sha256 {
        return Err(LoadError::Changed { path: path.to_owned(), expected: record.sha256, found });
    }
    Ok(memory.into())
}

fn hash(memory: &File, length: usize, piece: &mut [u8]) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut at = 0;
    while at < length {
        let room = piece.len().min(length - at);
        memory.read_exact_at(&mut piece[..room], at as u64)?;
        hasher.update(&piece[..room]);
        at += room;
    }
    Ok(hasher.finish())
}

/// # Safety
///
/// `table` is null, or begins with its `size` and `abi_version`, covers `size` bytes and
/// never goes away.
unsafe fn check(table: *const PluginTable) -> Result<&'static PluginTable, LoadError> {
    let refuse = |why: String| Err(LoadError::Table(why));
    if table.is_null() {
        return refuse("the plugin says that it cannot work here".to_owned());
    }
    // SAFETY: not null; every version of the table begins with these two.
    let (size, version) =
        unsafe { ((&raw const (*table).size).read(), (&raw const (*table).abi_version).read()) };
    // What is behind the fields that are known here is of a newer one, and is not looked at.
    if !is_spoken(version) || size < size_of_table::<PluginTable>() {
        return refuse(format!(
            "it is of ABI {version} with {size} bytes, this host loads ABI {}",
            spoken()
        ));
    }
    // SAFETY: covers all fields, and is promised to stay.
    let table = unsafe { &*table };
    let complete = table.create.is_some()
        && table.destroy.is_some()
        && table.call.is_some()
        && table.health.is_some()
        && table.snapshot.is_some()
        && table.restore.is_some()
        && table.stop.is_some();
    if complete { Ok(table) } else { refuse("a function is missing".to_owned()) }
}

/// Whether this host loads tables of a version, as it announces ([`abi`]).
fn is_spoken(version: u32) -> bool {
    let (oldest, newest) = abi();
    (oldest..=newest).contains(&version)
}

/// The versions that this host loads, in words.
fn spoken() -> String {
    match abi() {
        (oldest, newest) if oldest == newest => newest.to_string(),
        (oldest, newest) => format!("{oldest} to {newest}"),
    }
}

/// An instance in this process.
pub struct NativeInstance {
    /// The table's function for calls: here, a call need not look at the table.
    call: CallFn,
    table: &'static PluginTable,
    instance: *mut c_void,
}

// SAFETY: by the ABI's rules every function may be called from several threads at once with
// its instance, except `create` and `destroy`, which `start` and `drop` call alone.
unsafe impl Send for NativeInstance {}
// SAFETY: as above.
unsafe impl Sync for NativeInstance {}

impl NativeInstance {
    /// Makes an instance. `host` and its context live until the process ends.
    pub(crate) fn start(
        table: &'static PluginTable,
        host: &'static HostTable,
        config: &[u8],
    ) -> Result<Self, LoadError> {
        let mut instance = std::ptr::null_mut();
        let mut text = Buffer::EMPTY;
        let missing = |name: &str| LoadError::Table(format!("no {name}"));
        let create = table.create.ok_or_else(|| missing("create"))?;
        let call = table.call.ok_or_else(|| missing("call"))?;
        // SAFETY: the table was checked; everything that is passed lives through the call,
        // and the host table for ever.
        let code = unsafe { create(host, Bytes::new(config), &raw mut instance, &raw mut text) };
        // SAFETY: filled by the plugin by the ABI's rules, and nobody else has it.
        let text = unsafe { text.into_owned() };
        modunest_sdk::native::outcome(code, &text).map_err(LoadError::Start)?;
        Ok(NativeInstance { call, table, instance })
    }

    /// Runs a function of the table that fills a buffer.
    fn ask(&self, run: impl FnOnce(*mut Buffer) -> i32) -> Result<OwnedBuffer, Error> {
        let mut answer = OwnedBuffer::EMPTY;
        // SAFETY: filled below, by a library that is never unmapped, by the ABI's rules.
        let code = run(unsafe { answer.receive() });
        judge(code, &answer)?;
        Ok(answer)
    }

    /// Serves a call as [`Instance::call`] does, and leaves the answer where it belongs: to move one
    /// that was just filled, the processor waits until what filled it has reached its cache, longer
    /// than the rest of a call takes. To be compiled into whoever calls: the request is then written
    /// once, from registers. Answers the plugin's code, for [`is_answer`] and [`judge`].
    #[inline(always)]
    pub(super) fn call_into(&self, call: &Call<'_>, answer: &mut OwnedBuffer) -> i32 {
        let request = Request {
            size: size_of_table::<Request>(),
            kind: call.kind as u32,
            target: Bytes::new(call.target.as_bytes()),
            payload: Bytes::new(call.payload),
            trace: Bytes::new(call.trace.as_bytes()),
            caller: Bytes::new(call.caller.as_bytes()),
            deadline_ms: call.deadline_ms,
        };
        // SAFETY: filled below, by a library that is never unmapped, by the ABI's rules.
        let out = unsafe { answer.receive() };
        // SAFETY: the instance is alive, and the request with what it borrows lives through
        // the call.
        unsafe { (self.call)(self.instance, &raw const request, out) }
    }
}

/// Whether a function of a plugin's table has answered by the rules.
#[inline(always)]
pub(super) fn is_answer(code: i32, answer: &OwnedBuffer) -> bool {
    code == Status::Ok.code() && answer.size() <= MAX_MESSAGE_BYTES
}

/// What to make of what a function of a plugin's table has answered.
pub(super) fn judge(code: i32, answer: &[u8]) -> Result<(), Error> {
    modunest_sdk::native::outcome(code, answer)?;
    if answer.len() > MAX_MESSAGE_BYTES {
        return Err(too_long(answer.len()));
    }
    Ok(())
}

#[cold]
fn too_long(bytes: usize) -> Error {
    Error::Failed(format!("an answer of {bytes} bytes is above the limit of {MAX_MESSAGE_BYTES}"))
}

/// A function that [`check`] has found to be there.
#[inline]
fn there<F>(function: Option<F>) -> Result<F, Error> {
    function.ok_or_else(incomplete)
}

#[cold]
fn incomplete() -> Error {
    Error::Unsupported("the plugin's table is incomplete".to_owned())
}

impl Instance for NativeInstance {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        let mut answer = OwnedBuffer::EMPTY;
        let code = self.call_into(&call, &mut answer);
        judge(code, &answer)?;
        Ok(answer)
    }

    fn health(&self) -> Result<(), Error> {
        let function = there(self.table.health)?;
        // SAFETY: the instance is alive.
        self.ask(|out| unsafe { function(self.instance, out) }).map(drop)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let function = there(self.table.snapshot)?;
        // SAFETY: the instance is alive.
        self.ask(|out| unsafe { function(self.instance, out) }).map(OwnedBuffer::into_vec)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        let function = there(self.table.restore)?;
        // SAFETY: the instance is alive, the snapshot lives through the call.
        self.ask(|out| unsafe { function(self.instance, Bytes::new(snapshot), out) }).map(drop)
    }

    fn stop(&self) -> Result<(), Error> {
        let function = there(self.table.stop)?;
        // SAFETY: the instance is alive.
        self.ask(|out| unsafe { function(self.instance, out) }).map(drop)
    }
}

impl Drop for NativeInstance {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: made by `create` of this table; calls borrow `self`, so none runs, and
            // none can follow.
            unsafe { destroy(self.instance) };
        }
    }
}
