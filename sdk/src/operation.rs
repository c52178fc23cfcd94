//! What a plugin may ask of its host beyond logs and services: operations by number, so that
//! every tier carries them alike and the native table does not grow with each.
//!
//! A number never changes its meaning. A host that does not know one answers
//! [`crate::Error::Unsupported`]; one that the operator did not grant,
//! [`crate::Error::Denied`]; one that is above a quota or cannot be carried out now,
//! [`crate::Error::Unavailable`]. Plugins in Rust use the methods that the submodules add to
//! [`crate::Host`]; this page is for those that write the bytes themselves.
//!
//! # Numbers
//!
//! | Numbers | What | Capability |
//! |---|---|---|
//! | 1 to 5 | key-value stores ([`store`]) | `kv:NAME` |
//! | 20 to 25 | files ([`files`]) | `files:…` |
//! | 40 | requests out over HTTP ([`outbound`]) | `http:HOST` |
//! | 60 to 63 | clocks, random numbers, environment ([`environment`]) | `clock:…`, `random:secure`, `env:NAME` |
//! | 100 to 199 | between plugins | |
//! | 200 to 299 | bodies and streams of requests | |
//!
//! # Form
//!
//! A request and an answer are their fields, one behind the other, without names:
//!
//! ```text
//! u8, u32, u64    little-endian
//! flag            u8: 0 or 1
//! bytes, text     u32 with the length, then so many bytes; a text is UTF-8
//! option          flag; the value follows a 1
//! list            u32 with the count, then so many values
//! ```
//!
//! Decoders refuse lengths above their limits, anything left over, and any other byte for a
//! flag. The submodules' types stand in the order of their fields.

pub mod environment;
pub mod files;
pub mod form;
pub mod outbound;
pub mod store;

/// Reads a key. [`store::Get`] to [`store::Entry`].
pub const STORE_GET: u32 = 1;
/// Writes a key. [`store::Put`]; the answer is empty.
pub const STORE_PUT: u32 = 2;
/// Removes a key. [`store::Get`] to a flag: whether it was there.
pub const STORE_DELETE: u32 = 3;
/// Lists keys by prefix. [`store::List`] to [`store::Page`].
pub const STORE_LIST: u32 = 4;
/// Writes a key if it has an expected value. [`store::Swap`] to [`store::Swapped`].
pub const STORE_SWAP: u32 = 5;

/// Reads a piece of a file. [`files::Read`] to bytes, without a length before them.
pub const FILE_READ: u32 = 20;
/// Writes a file. [`files::Write`]; the answer is empty.
pub const FILE_WRITE: u32 = 21;
/// Lists a folder. [`files::Named`] to [`files::Listing`].
pub const FILE_LIST: u32 = 22;
/// Removes a file or an empty folder. [`files::Named`]; the answer is empty.
pub const FILE_DELETE: u32 = 23;
/// Tells about a file. [`files::Named`] to [`files::FileInfo`].
pub const FILE_INFO: u32 = 24;
/// The private folder's path on the host, as text without a length before it, for native
/// plugins. The request is empty.
pub const FILE_PRIVATE_FOLDER: u32 = 25;

/// Sends a request. [`outbound::Send`] to [`outbound::Received`].
pub const HTTP_SEND: u32 = 40;

/// Time of day: the request is empty, the answer a u64 with the milliseconds since 1970.
pub const CLOCK_WALL: u32 = 60;
/// Time that passed since some moment before the plugin was loaded: the request is empty, the
/// answer a u64 with nanoseconds.
pub const CLOCK_MONOTONIC: u32 = 61;
/// Random bytes: the request is a u32 with their number, the answer the bytes.
pub const RANDOM: u32 = 62;
/// An environment variable of the host. [`environment::Variable`] to
/// [`environment::VariableValue`].
pub const ENVIRONMENT: u32 = 63;

/// The end user behind the call that this thread serves. The request is empty; the answer is
/// the identity as JSON ([`crate::Identity`]), or empty where there is none.
pub const IDENTITY: u32 = 200;

/// The next bytes of an upload. The request is its number and the most bytes that are wanted
/// (a little-endian `u64`, then a `u32`); the answer is from one byte to so many, and empty at
/// the end. It waits for the client until the call's deadline.
pub const UPLOAD_READ: u32 = 201;

/// A stream has something again. The request is its number, a little-endian `u64`.
pub const STREAM_WAKE: u32 = 202;

/// What holds for any bytes; the fuzz target and the corpus test call this. Answers whether
/// any decoder accepts them.
///
/// # Panics
/// When what a decoder accepts is not what its encoder writes: that is a bug.
#[doc(hidden)]
pub fn check_decoders(bytes: &[u8]) -> bool {
    use form::same;
    // Not `any`, which would stop at the first that accepts.
    [
        same::<store::Get<'_>>(bytes),
        same::<store::Entry>(bytes),
        same::<store::Put<'_>>(bytes),
        same::<store::List<'_>>(bytes),
        same::<store::Page>(bytes),
        same::<store::Swap<'_>>(bytes),
        same::<store::Swapped>(bytes),
        same::<files::Read<'_>>(bytes),
        same::<files::Write<'_>>(bytes),
        same::<files::Named<'_>>(bytes),
        same::<files::Listing>(bytes),
        same::<files::FileInfo>(bytes),
        same::<outbound::Send<'_>>(bytes),
        same::<outbound::Received>(bytes),
        same::<environment::Variable<'_>>(bytes),
        same::<environment::VariableValue>(bytes),
    ]
    .into_iter()
    .fold(false, |any, one| any | one)
}
