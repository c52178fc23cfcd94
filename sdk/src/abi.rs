//! The native ABI, version 1: what crosses the border between a host and a
//! plugin library.
//!
//! `include/modunest.h` says the same in C, and a test compares the two.
//!
//! # Rules
//!
//! - **Entry.** A plugin library exports one symbol, [`ENTRY_SYMBOL`], of type
//!   [`EntryPoint`]. It answers the same table every time; the table lives as
//!   long as the library is mapped.
//! - **Append-only.** A table begins with its `size` in bytes and its
//!   `abi_version`, a message with its `size`. Fields are only ever added at
//!   the end, and a reader uses a field only if `size` covers it. What exists
//!   in this file is the part that every version-1 party has.
//! - **Bytes.** [`Bytes`] is borrowed for the call it is passed to and never
//!   kept. [`Buffer`] is owned by its receiver, who gives it back by calling its
//!   `free` once, from any thread and at any time, be it behind `destroy`: an
//!   answer is handed from plugin to plugin without a copy.
//! - **Status.** A function that can fail answers a [`crate::Status`] code: zero is
//!   success, and the out buffer then holds the answer. Otherwise the out
//!   buffer holds a UTF-8 text for people, possibly empty. An unknown code
//!   counts as `Failed`. The caller hands in an empty buffer.
//! - **Unwinding.** No panic and no exception crosses the border, in either
//!   direction.
//! - **Threads.** Every function may be called from several threads at once,
//!   except `create` and `destroy`, which are the first and the last call of an
//!   instance, alone.
//! - **Life of the host table.** A [`HostTable`] and its context stay valid
//!   from `create` until the process ends. A host that has stopped a plugin
//!   answers its late calls with `Unavailable`; it does not free the table.

use std::ffi::c_void;

/// The ABI version of this crate. A host accepts it and the one before.
pub const ABI_VERSION: u32 = 1;

/// The one symbol a plugin library exports, with the NUL that `dlsym` wants.
pub const ENTRY_SYMBOL: &[u8] = b"modunest_plugin_v1\0";

/// Most bytes of one payload or answer: a photo, a page, a document. Larger
/// things travel by reference. 16 MiB keeps 64 calls in flight below 1 GiB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes of an error text that crosses the border; longer ones are cut.
pub const MAX_ERROR_TEXT_BYTES: usize = 4 * 1024;

/// The type of the symbol [`ENTRY_SYMBOL`]. Null means that the library cannot
/// work here at all.
pub type EntryPoint = unsafe extern "C" fn() -> *const PluginTable;

/// Bytes that someone else owns, valid for the call they are passed to.
///
/// `ptr` may be null if `len` is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

impl Bytes {
    /// No bytes.
    pub const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// Borrows a slice. The result must not outlive it; nothing checks this.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    ///
    /// `ptr` and `len` describe memory that stays readable and unchanged for
    /// `'a`, or `ptr` is null.
    #[must_use]
    pub const unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: not null, and the caller promises the rest.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// Bytes handed over to the receiver, who calls `free` once when done.
///
/// An empty buffer has a null `ptr` and no `free`.
#[repr(C)]
#[derive(Debug)]
pub struct Buffer {
    /// First byte, or null.
    pub ptr: *mut u8,
    /// Number of bytes that mean something.
    pub len: usize,
    /// What the maker wants to hear again when it frees; opaque to the receiver.
    pub capacity: usize,
    /// Gives the memory back to its maker.
    pub free: Option<FreeFn>,
}

/// Frees the memory of a [`Buffer`]: its `ptr`, `len` and `capacity`.
pub type FreeFn = unsafe extern "C" fn(ptr: *mut u8, len: usize, capacity: usize);

impl Buffer {
    /// The buffer that a caller hands in to be filled.
    pub const EMPTY: Self = Self { ptr: std::ptr::null_mut(), len: 0, capacity: 0, free: None };

    /// Hands over a vector of this library.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        if bytes.capacity() == 0 {
            return Self::EMPTY;
        }
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        Self {
            ptr: bytes.as_mut_ptr(),
            len: bytes.len(),
            capacity: bytes.capacity(),
            free: Some(free_vec),
        }
    }

    /// Takes ownership, so that the memory is given back exactly once.
    ///
    /// # Safety
    ///
    /// The buffer was filled by the rules of this module, its memory is given
    /// to nobody else, and the library that made it stays mapped while the
    /// result lives.
    #[must_use]
    pub const unsafe fn into_owned(self) -> OwnedBuffer {
        OwnedBuffer(self)
    }
}

/// Frees what [`Buffer::from_vec`] made.
///
/// # Safety
///
/// The three values come from one buffer made by `from_vec` in this library,
/// and are passed once.
unsafe extern "C" fn free_vec(ptr: *mut u8, len: usize, capacity: usize) {
    if !ptr.is_null() {
        // SAFETY: the caller passes back what a `Vec<u8>` was taken apart into.
        drop(unsafe { Vec::from_raw_parts(ptr, len, capacity) });
    }
}

/// A received [`Buffer`]: readable, and given back to its maker when dropped.
#[derive(Debug)]
pub struct OwnedBuffer(Buffer);

// SAFETY: the receiver is the only owner, the bytes do not change, and by the
// rules above `free` may be called from any thread.
unsafe impl Send for OwnedBuffer {}
// SAFETY: shared access only reads bytes that do not change.
unsafe impl Sync for OwnedBuffer {}

impl std::ops::Deref for OwnedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `into_owned` was promised valid memory for as long as `self` lives.
        unsafe { Bytes { ptr: self.0.ptr, len: self.0.len }.as_slice() }
    }
}

impl OwnedBuffer {
    /// No bytes.
    pub const EMPTY: Self = Self(Buffer::EMPTY);

    /// Where a call may put its answer, which is then owned here. What was there before is given
    /// back.
    ///
    /// # Safety
    ///
    /// Whoever writes there fills the buffer by the rules of this module, before this buffer is
    /// used otherwise, and the library that makes the bytes stays mapped while they are owned.
    #[inline]
    pub unsafe fn receive(&mut self) -> *mut Buffer {
        *self = Self::EMPTY;
        &raw mut self.0
    }

    /// How many bytes its maker says there are, without a look whether there are any at all.
    #[inline]
    #[must_use]
    pub const fn size(&self) -> usize {
        self.0.len
    }

    /// Hands it on to whoever gives it back to its maker instead.
    #[must_use]
    pub const fn into_buffer(self) -> Buffer {
        let buffer = std::mem::ManuallyDrop::new(self);
        // SAFETY: `self` is not dropped, so nobody else gives this buffer back.
        unsafe { (&raw const buffer).cast::<Buffer>().read() }
    }

    /// The bytes in memory of the caller's own: copied, unless they are that already.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0.free {
            Some(free) if std::ptr::fn_addr_eq(free, free_vec as FreeFn) => {
                let Buffer { ptr, len, capacity, .. } = self.into_buffer();
                // SAFETY: who frees it says that a `Vec<u8>` of this library was taken apart
                // into these, and it is not freed now.
                unsafe { Vec::from_raw_parts(ptr, len, capacity) }
            }
            _ => self.to_vec(),
        }
    }
}

impl PartialEq for OwnedBuffer {
    /// Whether the bytes are the same, wherever they are.
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for OwnedBuffer {}

impl From<Vec<u8>> for OwnedBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        OwnedBuffer(Buffer::from_vec(bytes))
    }
}

impl AsRef<[u8]> for OwnedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for OwnedBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(free) = self.0.free.take() {
            // SAFETY: owned, and `take` makes this the only call.
            unsafe { free(self.0.ptr, self.0.len, self.0.capacity) };
        }
    }
}

/// What a [`Request`] asks for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A service that the plugin exports; the target is its name.
    Service = 1,
    /// A request to one of the plugin's routes; the target is the route's path
    /// as the manifest has it, the payload and the answer are of [`crate::http`].
    Http = 2,
    /// A lifecycle hook; the target is its name ([`crate::Hook`]).
    Lifecycle = 3,
    /// An event that the plugin listens to; the target is its name.
    Event = 4,
    /// A guard of the plugin; the target is its name, payload and answer are of
    /// [`crate::guard`].
    Guard = 5,
    /// A stream behind a response of the plugin's; target, payload and answer are of
    /// [`crate::stream`].
    Stream = 6,
}

impl RequestKind {
    /// The kind with this number, if version 1 knows it.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Service),
            2 => Some(Self::Http),
            3 => Some(Self::Lifecycle),
            4 => Some(Self::Event),
            5 => Some(Self::Guard),
            6 => Some(Self::Stream),
            _ => None,
        }
    }
}

/// A call to a plugin instance.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes of this structure.
    pub size: u32,
    /// A [`RequestKind`].
    pub kind: u32,
    /// Which service, route, hook, event or guard: UTF-8.
    pub target: Bytes,
    /// What it is called with; at most [`MAX_MESSAGE_BYTES`].
    pub payload: Bytes,
    /// W3C `traceparent` text, or empty.
    pub trace: Bytes,
    /// `org/name` of the calling plugin, or empty if the host itself calls.
    pub caller: Bytes,
    /// When the caller stops waiting, on the clock of [`HostTable::now_ms`]:
    /// milliseconds since the Unix epoch. Zero: no deadline.
    pub deadline_ms: u64,
}

/// A call from a plugin to a service of another.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ServiceCall {
    /// Bytes of this structure.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// `org/name` of the plugin that exports the service: UTF-8.
    pub plugin: Bytes,
    /// The service's name: UTF-8.
    pub service: Bytes,
    /// What it is called with; at most [`MAX_MESSAGE_BYTES`].
    pub payload: Bytes,
    /// W3C `traceparent` of the call being served, or empty.
    pub trace: Bytes,
    /// Deadline of the call being served, as in [`Request::deadline_ms`].
    pub deadline_ms: u64,
}

/// What a plugin offers to its host. A null function makes the plugin unusable.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginTable {
    /// Bytes of this structure.
    pub size: u32,
    /// [`ABI_VERSION`] that the plugin was built with.
    pub abi_version: u32,
    /// Makes an instance from the operator's configuration (bytes in the form
    /// that the plugin documents, empty if there is none) and stores it in
    /// `out`. On failure `out` is untouched and `error` holds the text.
    pub create: Option<
        unsafe extern "C" fn(
            host: *const HostTable,
            config: Bytes,
            out: *mut *mut c_void,
            error: *mut Buffer,
        ) -> i32,
    >,
    /// Frees an instance. No call may be running or follow.
    pub destroy: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// Serves one request.
    pub call: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            request: *const Request,
            out: *mut Buffer,
        ) -> i32,
    >,
    /// Says whether the instance can do its work; the text says why not.
    pub health: Option<unsafe extern "C" fn(instance: *mut c_void, out: *mut Buffer) -> i32>,
    /// Writes down the state that a successor needs, after calls have drained.
    pub snapshot: Option<unsafe extern "C" fn(instance: *mut c_void, out: *mut Buffer) -> i32>,
    /// Takes over a predecessor's snapshot, before the first call.
    pub restore: Option<
        unsafe extern "C" fn(instance: *mut c_void, snapshot: Bytes, error: *mut Buffer) -> i32,
    >,
    /// Ends background work. Afterwards only `destroy` follows.
    pub stop: Option<unsafe extern "C" fn(instance: *mut c_void, error: *mut Buffer) -> i32>,
}

/// What a host offers to a plugin. A null function means: not offered.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostTable {
    /// Bytes of this structure.
    pub size: u32,
    /// [`ABI_VERSION`] that the host speaks to this plugin.
    pub abi_version: u32,
    /// Handed back in every call.
    pub context: *mut c_void,
    /// Logs a UTF-8 message at a [`crate::Level`]. Unknown levels count as info.
    pub log: Option<unsafe extern "C" fn(context: *mut c_void, level: u32, message: Bytes)>,
    /// Calls a service of another plugin that the manifest imports.
    pub call_service: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            call: *const ServiceCall,
            out: *mut Buffer,
        ) -> i32,
    >,
    /// Milliseconds since the Unix epoch, on the host's clock.
    pub now_ms: Option<unsafe extern "C" fn(context: *mut c_void) -> u64>,
    /// UTF-8 path of the read-only folder into which this plugin's archive was
    /// unpacked (the folder that holds `plugin.toml` and what `[build] include`
    /// names). The bytes live as long as the table.
    pub assets_dir: Option<unsafe extern "C" fn(context: *mut c_void) -> Bytes>,
    /// Asks for an operation of the host beyond those above, by its number
    /// ([`crate::operation`] lists them with the forms of request and answer). An
    /// unknown number, and one that the operator did not grant, answer an error.
    pub operate: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            operation: u32,
            request: Bytes,
            out: *mut Buffer,
        ) -> i32,
    >,
}

/// The number of bytes of `T`, as its `size` field carries it.
#[must_use]
pub const fn size_of_table<T>() -> u32 {
    // Every structure here is below 200 bytes.
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_carries_a_vector_and_frees_it() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"hello");
        let buffer = Buffer::from_vec(bytes);
        assert_eq!((buffer.len, buffer.capacity >= 64), (5, true));
        // SAFETY: made one line above, and given to nobody else.
        let owned = unsafe { buffer.into_owned() };
        assert_eq!(&*owned, b"hello");
    }

    #[test]
    fn empty_buffers_and_bytes_need_no_memory() {
        let buffer = Buffer::from_vec(Vec::new());
        assert!(buffer.ptr.is_null() && buffer.free.is_none());
        // SAFETY: an empty buffer owns nothing.
        assert!(unsafe { buffer.into_owned() }.is_empty());
        // SAFETY: null with length zero is allowed.
        assert!(unsafe { Bytes::EMPTY.as_slice() }.is_empty());
    }

    #[test]
    fn an_emptied_vector_still_gives_back_its_memory() {
        let buffer = Buffer::from_vec(Vec::with_capacity(16));
        assert!(buffer.free.is_some());
        // SAFETY: made one line above, and given to nobody else.
        assert!(unsafe { buffer.into_owned() }.is_empty());
    }
}
