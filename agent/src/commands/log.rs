//! The log of the daemon, on standard error. Nobody who logs waits for whoever reads it, above all
//! not the thread that watches plugins' processes: what cannot be written at once waits in a bounded
//! queue for a thread of its own, and what finds no room there is lost and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What may wait: some thousand lines.
const QUEUE_MAX_BYTES: usize = 1024 * 1024;
/// What a pipe takes without blocking once it takes anything (pipe(7)); sockets take more.
const PIECE_MAX_BYTES: usize = 4096;
/// How long the end of the process waits for whoever reads.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Where lines are written.
#[derive(Debug)]
pub(super) struct Log {
    out: OwnedFd,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What could not be written at once. The first stays here until all of it is written, so that
/// lines keep their order.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Arc<[u8]>>,
    bytes: usize,
    lost: u64,
}

/// Writes each line with one call.
#[derive(Debug)]
pub(super) struct Writer(Arc<Log>);

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// A log on this process' standard error.
    ///
    /// # Errors
    /// It is closed, or no thread can be started.
    pub(super) fn on_standard_error() -> io::Result<Arc<Self>> {
        Log::on(io::stderr().as_fd().try_clone_to_owned()?)
    }

    fn on(out: OwnedFd) -> io::Result<Arc<Self>> {
        let log = Arc::new(Log { out, queue: Mutex::default(), changed: Condvar::new() });
        let own = log.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || own.write_queued())?;
        Ok(log)
    }

    /// Takes one line.
    pub(super) fn writer(self: &Arc<Self>) -> Writer {
        Writer(self.clone())
    }

    /// Waits until all is written, for a second at most.
    pub(super) fn settle(&self) {
        let waits = |queue: &mut Queue| !queue.pieces.is_empty();
        // What is still there is lost.
        drop(self.changed.wait_timeout_while(self.queue(), LAST_TIMEOUT, waits));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &[u8]) {
        let mut queue = self.queue();
        let written = if queue.pieces.is_empty() { self.write_at_once(line) } else { 0 };
        let rest = &line[written..];
        if rest.is_empty() {
            return;
        }
        // Of a line that has begun, the rest follows.
        if written == 0 && queue.bytes + rest.len() > QUEUE_MAX_BYTES {
            queue.lost += 1;
            return;
        }
        queue.bytes += rest.len();
        queue.pieces.push_back(rest.into());
        drop(queue);
        self.changed.notify_all();
    }

    /// Writes as much as does not block; answers how much that was.
    fn write_at_once(&self, line: &[u8]) -> usize {
        let mut written = 0;
        while written < line.len() && self.is_ready(Some(&Timespec::default())) {
            let end = line.len().min(written + PIECE_MAX_BYTES);
            match rustix::io::write(&self.out, &line[written..end]) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody will ever read it.
                Err(_) => return line.len(),
            }
        }
        written
    }

    fn is_ready(&self, timeout: Option<&Timespec>) -> bool {
        let mut out = [PollFd::new(&self.out, PollFlags::OUT)];
        poll(&mut out, timeout).is_ok_and(|ready| ready > 0)
    }

    fn write_queued(&self) {
        loop {
            let queue = self.queue();
            let queue = self.changed.wait_while(queue, |queue| queue.pieces.is_empty());
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let Some(piece) = queue.pieces.front().cloned() else { continue };
            drop(queue);
            self.write_whole(&piece);
            queue = self.queue();
            queue.pieces.pop_front();
            queue.bytes -= piece.len();
            if !queue.pieces.is_empty() {
                continue;
            }
            let lost = std::mem::take(&mut queue.lost);
            drop(queue);
            self.changed.notify_all();
            if lost > 0 {
                tracing::warn!(lost, "lines of this log were lost, because nobody read them");
            }
        }
    }

    /// Writes all of it, whenever whoever reads takes it.
    fn write_whole(&self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            match rustix::io::write(&self.out, rest) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(self.is_ready(None)),
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read as _, Write as _};

    use super::*;

    /// How much waits, and how many lines were lost of which nothing was said yet.
    fn waiting(log: &Log) -> (usize, u64) {
        let queue = log.queue();
        (queue.pieces.len(), queue.lost)
    }

    #[test]
    fn who_logs_waits_for_no_reader_and_what_has_room_arrives_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::on(writer.into()).unwrap();
        // Several times what a pipe and the queue hold, and each line more than one piece.
        let lines: Vec<String> = (0..600).map(|n| format!("{n} {}\n", "x".repeat(9_000))).collect();
        for line in &lines {
            log.writer().write_all(line.as_bytes()).unwrap();
        }
        let (kept, lost) = waiting(&log);
        assert!(kept > 100 && lost > 100, "{kept} kept, {lost} lost");
        let expected = lines[..lines.len() - lost as usize].concat();
        let mut read = vec![0; expected.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == expected.as_bytes());
        log.settle();
        assert_eq!(waiting(&log).0, 0);
        assert_eq!(log.queue().bytes, 0);
        // It is written at once again.
        log.writer().write_all(b"and on").unwrap();
        let mut read = [0; 6];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"and on");
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing_up() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Log::on(writer.into()).unwrap();
        drop(reader);
        for _ in 0..100 {
            log.writer().write_all(&[b'x'; 10_000]).unwrap();
        }
        assert_eq!(log.queue().bytes, 0);
    }
}
