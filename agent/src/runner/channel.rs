//! One way between agent and runner: a socket for messages and a memory for large bodies. Each
//! side waits for the other in turn, so one memory does for both directions.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use modunest_sdk::abi::MAX_MESSAGE_BYTES;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::wire::{Body, INLINE_MAX_BYTES, MESSAGE_MAX_BYTES, Malformed, Message};

/// How long a receiver with a deadline waits before it looks at the clock: most answers come
/// long before, and need one system call.
const QUICK: Duration = Duration::from_millis(20);

/// Bodies above this are taken out of memory again once they were read.
const KEPT_MAX_BYTES: usize = 1024 * 1024;

/// Bodies up to this are copied behind their head before they are sent: cheaper than the
/// kernel's walk over two parts.
const JOINED_MAX_BYTES: usize = 4 * 1024;

/// The system's number of "message too long".
const TOO_LONG: i32 = libc::EMSGSIZE;

/// Most descriptors of one message.
pub const DESCRIPTORS_MAX: usize = 3;

/// Why nothing could be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other side is gone.
    #[error("the other side hung up")]
    Closed,
    /// The deadline passed.
    #[error("the deadline passed")]
    Late,
    /// The other side leaves unread what it was sent.
    #[error("messages are left unread")]
    Unread,
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Broken::Closed,
            Errno::AGAIN => Broken::Unread,
            other => Broken::Io(other.into()),
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    memory: OwnedFd,
    /// Whether sending may wait for the other side.
    waits: bool,
}

/// A buffer that one message fits into.
pub fn buffer() -> Vec<u8> {
    vec![0; MESSAGE_MAX_BYTES]
}

/// A new channel: this end, and what the other is made of.
///
/// # Errors
/// When the system has no more descriptors.
pub fn pair() -> io::Result<(Channel, [OwnedFd; 2])> {
    let (socket, other) = sockets()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(QUICK))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("modunest-lane", flags)?;
    rustix::fs::ftruncate(&memory, MAX_MESSAGE_BYTES as u64)?;
    // Whoever reads it can rely on its length.
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    let second = rustix::io::fcntl_dupfd_cloexec(&memory, 3)?;
    Ok((Channel { socket, memory, waits: false }, [other, second]))
}

/// Two connected sockets that keep messages apart.
///
/// # Errors
/// When the system has no more descriptors.
pub fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(pair)
}

/// Sends one message with descriptors, over a socket without memory.
///
/// # Errors
/// When the other side is gone or reads nothing.
pub fn send_descriptors(
    socket: BorrowedFd<'_>,
    message: &Message<'_>,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Broken> {
    let mut head = Vec::new();
    message.write_head(&mut head)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let body = match message.body {
        Body::Inline(bytes) => bytes,
        Body::Shared(_) => &[],
    };
    let parts = [IoSlice::new(&head), IoSlice::new(body)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(socket, &parts, &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one message with its descriptors into `buffer`; answers its length.
///
/// # Errors
/// When the other side is gone or sent no message.
pub fn receive_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Broken> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, flags) {
            Ok(received) if received.bytes == 0 => return Err(Broken::Closed),
            Ok(received) => {
                if received.flags.contains(ReturnFlags::TRUNC) {
                    return Err(Malformed::Long(received.bytes).into());
                }
                let rights = control.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                    _ => None,
                });
                return Ok((received.bytes, rights.flatten().collect()));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Channel {
    /// The runner's end, of what it was sent.
    pub fn of(socket: OwnedFd, memory: OwnedFd) -> Self {
        Channel { socket, memory, waits: true }
    }

    /// Sends one message. A large body goes through the memory.
    ///
    /// # Errors
    /// When the other side is gone or, for the agent, leaves messages unread.
    pub fn send(&self, message: &Message<'_>, scratch: &mut Vec<u8>) -> Result<(), Broken> {
        self.send_as(message, scratch, false)
    }

    fn send_as(
        &self,
        message: &Message<'_>,
        scratch: &mut Vec<u8>,
        is_secret: bool,
    ) -> Result<(), Broken> {
        if let Body::Inline(bytes) = message.body
            && bytes.len() <= INLINE_MAX_BYTES
        {
            message.write_head(scratch)?;
            match self.send_whole(scratch, bytes, is_secret) {
                // The operator lets sockets hold less.
                Err(Broken::Io(error)) if error.raw_os_error() == Some(TOO_LONG) => {}
                sent => return sent,
            }
        }
        let length = match message.body {
            Body::Inline(bytes) if bytes.len() > MAX_MESSAGE_BYTES => {
                return Err(Malformed::Body(bytes.len()).into());
            }
            Body::Inline(bytes) => {
                self.write_memory(bytes)?;
                bytes.len()
            }
            Body::Shared(length) => length,
        };
        Message { body: Body::Shared(length), ..*message }.write_head(scratch)?;
        self.send_whole(scratch, &[], is_secret)
    }

    /// As [`Channel::send`], for a body that holds secrets: this end keeps no copy of it, but for
    /// the memory, which [`Channel::forget`] empties.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_secret(&self, message: &Message<'_>, scratch: &mut Vec<u8>) -> Result<(), Broken> {
        self.send_as(message, scratch, true)
    }

    /// Takes what lies in the memory out of it. Nothing may be on its way through it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget(&self) -> Result<(), Broken> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.memory, flags, 0, MAX_MESSAGE_BYTES as u64)?)
    }

    /// Sends a head and the body behind it; a secret one is not copied.
    fn send_whole(&self, head: &mut Vec<u8>, body: &[u8], is_secret: bool) -> Result<(), Broken> {
        let mut flags = SendFlags::NOSIGNAL;
        if !self.waits {
            flags |= SendFlags::DONTWAIT;
        }
        let is_small = body.len() <= JOINED_MAX_BYTES && (!is_secret || body.is_empty());
        if is_small {
            head.extend_from_slice(body);
        }
        loop {
            let sent = if is_small {
                rustix::net::send(&self.socket, head, flags)
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                let mut nothing = SendAncillaryBuffer::default();
                rustix::net::sendmsg(&self.socket, &parts, &mut nothing, flags)
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives one message into `buffer`, which is as long as [`buffer`] makes it.
    ///
    /// # Errors
    /// When it does not come, or is none.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        until: Option<Instant>,
    ) -> Result<Message<'b>, Broken> {
        let mut is_ready = until.is_none();
        let length = loop {
            if let (Some(until), false) = (until, is_ready) {
                let left = until.saturating_duration_since(Instant::now());
                if left < QUICK {
                    self.wait(left)?;
                }
            }
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, 0)) => return Err(Broken::Closed),
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let Some(until) = until else { continue };
                    self.wait(until.saturating_duration_since(Instant::now()))?;
                    is_ready = true;
                }
                Err(errno) => return Err(errno.into()),
            }
        };
        match buffer.get(..length) {
            Some(bytes) => Ok(Message::parse(bytes)?),
            None => Err(Malformed::Long(length).into()),
        }
    }

    /// Waits until there is something to receive.
    fn wait(&self, left: Duration) -> Result<(), Broken> {
        let until = Instant::now() + left;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut sockets, Some(&timeout)) {
                Ok(0) => return Err(Broken::Late),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A message's body. One in memory is copied out, so that the other side cannot change
    /// it while it is read.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn body<'b>(&self, body: Body<'b>) -> Result<Cow<'b, [u8]>, Broken> {
        match body {
            Body::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
            Body::Shared(length) => {
                let mut bytes = Vec::with_capacity(length);
                while bytes.len() < length {
                    let at = bytes.len() as u64;
                    bytes.reserve_exact(length - bytes.len());
                    match rustix::io::pread(&self.memory, spare_capacity(&mut bytes), at) {
                        Ok(0) => return Err(Malformed::Body(length).into()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                // An allocator may give more room than was asked for.
                bytes.truncate(length);
                if length > KEPT_MAX_BYTES {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(&self.memory, flags, 0, length as u64)?;
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn write_memory(&self, bytes: &[u8]) -> Result<(), Broken> {
        let mut at = 0;
        while at < bytes.len() {
            match rustix::io::pwrite(&self.memory, &bytes[at..], at as u64) {
                Ok(written) => at += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::wire::Kind;
    use super::*;

    #[test]
    fn of_a_secret_body_nothing_stays_on_this_side() {
        let (ours, [socket, memory]) = pair().unwrap();
        let theirs = Channel::of(socket, memory);
        let (mut scratch, mut received) = (Vec::new(), buffer());
        for length in [8, JOINED_MAX_BYTES + 1, INLINE_MAX_BYTES + 1] {
            let secret = vec![b's'; length];
            let message = Message::new(Kind::Load, 1, Body::Inline(&secret));
            ours.send_secret(&message, &mut scratch).unwrap();
            let came = theirs.receive(&mut received, None).unwrap();
            assert_eq!(theirs.body(came.body).unwrap(), secret);
            assert!(!scratch.contains(&b's'), "{length}");
            ours.forget().unwrap();
            let left = theirs.body(Body::Shared(length)).unwrap();
            assert!(left.iter().all(|byte| *byte == 0), "{length}");
        }
        // What is none is copied behind its head, which is cheaper.
        let message = Message::new(Kind::Call, 1, Body::Inline(b"ssssssss"));
        ours.send(&message, &mut scratch).unwrap();
        assert!(scratch.ends_with(b"ssssssss"));
    }
}
