//! The request to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What asks a process to stop: SIGINT (Ctrl-C) and SIGTERM (systemd, Kubernetes).
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Catches them from here on. One that comes before [`StopSignals::received`] is waited for
    /// is kept for it, so whoever says to others that it runs calls this before.
    ///
    /// # Errors
    /// When the operating system does not let this process listen for signals.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_before_it_is_waited_for_is_kept() {
        for asked in [Signal::TERM, Signal::INT] {
            let mut stop = StopSignals::catch().unwrap();
            kill_process(getpid(), asked).unwrap();
            stop.received().await;
        }
    }
}
