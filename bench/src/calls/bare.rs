//! What there is below us: the plugin's function by its pointer, and a socket between two
//! processes.

use std::ffi::c_void;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use modunest_sdk::abi::{Buffer, Bytes, ENTRY_SYMBOL, EntryPoint, Request, RequestKind};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{CALLS, Measured, PAYLOADS, echo_library};
use crate::error::Error;
use crate::process;

type Call = unsafe extern "C" fn(*mut c_void, *const Request, *mut Buffer) -> i32;
type Echo = unsafe extern "C" fn(*const u8, usize, *mut Buffer) -> i32;

/// The plugin, as a library that this program has opened by itself.
pub struct Pointers {
    call: Call,
    echo: Echo,
    /// What both belong to.
    _library: Library,
}

impl Pointers {
    pub fn open(work: &Path) -> Result<Self, Error> {
        let path = echo_library(work)?;
        // SAFETY: a library that this program compiled; its constructors do nothing.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(Error::wrong("a library"))?;
        // SAFETY: the ABI gives this symbol this type.
        let entry = unsafe { library.get::<EntryPoint>(ENTRY_SYMBOL) };
        let entry = *entry.map_err(Error::wrong("a library"))?;
        // SAFETY: the source that it was compiled from gives this symbol this type.
        let echo = unsafe { library.get::<Echo>(b"bench_echo\0") };
        let echo = *echo.map_err(Error::wrong("a library"))?;
        // SAFETY: answers the table of this library, which lives as long.
        let table = unsafe { entry().as_ref() };
        let missing =
            || Error::Wrong { what: "a library", why: "its table has no call".to_owned() };
        let call = table.and_then(|table| table.call).ok_or_else(missing)?;
        Ok(Pointers { call, echo, _library: library })
    }

    /// Calls the function by which any host calls the plugin. The answer is read where the plugin
    /// made it, and given back to it.
    #[inline(always)]
    pub fn table(&self, request: &Request) -> Result<usize, Error> {
        let mut out = Buffer::EMPTY;
        let call = std::hint::black_box(self.call);
        // SAFETY: the plugin looks at no instance; the request and the buffer live through the call.
        let code = unsafe { call(std::ptr::null_mut(), request, &raw mut out) };
        read(code, out, |answer| std::hint::black_box(answer).len())
    }

    /// Calls the plugin's own function, without the one by which hosts call it.
    #[inline(always)]
    pub fn work(&self, payload: &[u8]) -> Result<usize, Error> {
        self.echo(payload, |answer| std::hint::black_box(answer).len())
    }

    /// The same, with the answer taken over into memory of ours, as whoever keeps it has to.
    #[inline(always)]
    pub fn copied(&self, payload: &[u8]) -> Result<usize, Error> {
        self.echo(payload, |answer| std::hint::black_box(answer.to_vec()).len())
    }

    #[inline(always)]
    fn echo(&self, payload: &[u8], length: impl FnOnce(&[u8]) -> usize) -> Result<usize, Error> {
        let mut out = Buffer::EMPTY;
        let echo = std::hint::black_box(self.echo);
        // SAFETY: the payload and the buffer live through the call.
        let code = unsafe { echo(payload.as_ptr(), payload.len(), &raw mut out) };
        read(code, out, length)
    }
}

#[inline(always)]
fn read(code: i32, out: Buffer, length: impl FnOnce(&[u8]) -> usize) -> Result<usize, Error> {
    // SAFETY: filled by the library by the ABI's rules, and nobody else has it.
    let answer = unsafe { out.into_owned() };
    if code != 0 {
        return Err(Error::Wrong { what: "the bare function", why: format!("code {code}") });
    }
    Ok(length(&answer))
}

/// A request for the plugin's `echo`, as a host makes it.
pub fn request(payload: &[u8]) -> Request {
    Request {
        size: size_of::<Request>() as u32,
        kind: RequestKind::Service as u32,
        target: Bytes::new(b"echo"),
        payload: Bytes::new(payload),
        trace: Bytes::EMPTY,
        caller: Bytes::EMPTY,
        deadline_ms: 0,
    }
}

/// Sends to a process that sends back, over a socket that keeps messages apart. With `far`,
/// that process is put on this processor.
pub fn socket(far: Option<usize>) -> Result<Measured, Error> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let (near, other) = pair.map_err(io)?;
    let mut command = process::own(&["calls-socket-echo"], far)?;
    let child = command.stdin(Stdio::from(other)).stdout(Stdio::null()).spawn();
    let mut child = child.map_err(|source| Error::Io { what: "the echo".to_owned(), source })?;
    // It keeps the other end of the socket while it lives.
    drop(command);
    let mut measured = Measured::default();
    for (size, calls) in PAYLOADS.into_iter().zip(CALLS) {
        let payload = vec![b'x'; size];
        let mut back = vec![0; size + 1];
        for count in [calls / 20, calls] {
            let begun = Instant::now();
            for _ in 0..count {
                send(&near, &payload)?;
                if receive(&near, &mut back)? != size {
                    let why = "another length".to_owned();
                    return Err(Error::Wrong { what: "the bare socket", why });
                }
            }
            let took = begun.elapsed().as_nanos() as f64 / f64::from(count);
            if count == calls {
                measured.call_ns.push(took);
            }
        }
    }
    drop(near);
    let status =
        child.wait().map_err(|source| Error::Io { what: "the echo".to_owned(), source })?;
    if !status.success() {
        let (program, said) = ("the echo".to_owned(), String::new());
        return Err(Error::Failed { program, status, said });
    }
    Ok(measured)
}

/// Sends back what comes over standard input, until it closes.
pub fn socket_echo() -> Result<(), Error> {
    let socket = rustix::stdio::stdin();
    let mut buffer = vec![0; PAYLOADS.into_iter().max().unwrap_or(0) + 1];
    loop {
        match receive(socket, &mut buffer)? {
            0 => return Ok(()),
            length => send(socket, &buffer[..length])?,
        }
    }
}

fn send(socket: impl std::os::fd::AsFd, bytes: &[u8]) -> Result<(), Error> {
    loop {
        match rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io(errno)),
        }
    }
}

fn receive(socket: impl std::os::fd::AsFd, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match rustix::net::recv(&socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io(errno)),
        }
    }
}

fn io(errno: Errno) -> Error {
    Error::Io { what: "a socket".to_owned(), source: errno.into() }
}
