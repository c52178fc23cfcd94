//! How fast clients have to be: who sends or takes too little for too long is given up.
//!
//! A connection breaks where its peer does not take what is written. Reads have bounds of their
//! own: the head's in the server, the body's where it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::config::GatewaySettings;

/// What a client has to send, or to take.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// The time in which it has to be so much.
    pub(super) idle: Duration,
    pub(super) least_bytes: usize,
}

impl Pace {
    pub(super) fn of(settings: &GatewaySettings) -> Self {
        Pace { idle: settings.idle_timeout, least_bytes: settings.progress_bytes }
    }
}

/// How a client keeps its pace. Only time in which it is waited for counts: one whose plugin is
/// slow is not slow itself.
pub(super) struct Progress {
    pace: Pace,
    waited: Duration,
    bytes: usize,
}

impl Progress {
    pub(super) fn new(pace: Pace) -> Self {
        Progress { pace, waited: Duration::ZERO, bytes: 0 }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// How long the client may still be waited for.
    pub(super) fn left(&self) -> Duration {
        self.pace.idle.saturating_sub(self.waited)
    }

    /// Notes what a wait brought.
    pub(super) fn note(&mut self, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= self.pace.least_bytes {
            self.begin_anew();
        }
    }

    /// Nothing is wanted of the client now, and its time begins anew with the next wait.
    fn begin_anew(&mut self) {
        (self.waited, self.bytes) = (Duration::ZERO, 0);
    }
}

/// A connection whose peer has to keep up.
pub(super) struct Paced {
    stream: TcpStream,
    progress: Progress,
    /// Since when a write stands still, and until when it may.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Pace) -> Self {
        Paced { stream, progress: Progress::new(pace), stalled: None }
    }

    /// Passes a write's outcome on, or breaks off one that stands still for too long.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            let stalled = self.stalled.take();
            let waited = stalled.map_or(Duration::ZERO, |(since, _)| since.elapsed());
            self.progress.note(waited, *written.as_ref().unwrap_or(&0));
            return Poll::Ready(written);
        }
        let left = self.progress.left();
        let (_, stalled) = self
            .stalled
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too little")))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked once everything is written: the client has kept up.
        self.progress.begin_anew();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_as_slow_as_nothing() {
        let second = Duration::from_secs(1);
        let pace = Pace { idle: 10 * second, least_bytes: 100 };
        let mut progress = Progress::new(pace);
        progress.note(9 * second, 99);
        assert_eq!(progress.left(), second);
        progress.note(second / 2, 1);
        assert_eq!(progress.left(), 10 * second, "it was enough");
        for _ in 0..10 {
            progress.note(second, 9);
        }
        assert_eq!(progress.left(), Duration::ZERO);
    }
}
