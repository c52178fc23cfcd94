//! One thread of the agent watches every runner: its end, its output, what its own threads
//! ask, and the lanes that callers gave up. It never waits for a plugin.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;

/// Events that are taken at once.
const EVENTS_MAX: usize = 64;

/// What is done when a descriptor is ready; answers whether it is still watched.
type Ready = Box<dyn FnMut() -> bool + Send>;
/// What is done at a time.
type Due = Box<dyn FnOnce() + Send>;

/// The thread, as others see it.
pub(super) struct Reactor {
    epoll: OwnedFd,
    waker: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// A source that is being served is taken out meanwhile.
    sources: HashMap<u64, (Arc<dyn AsFd + Send + Sync>, Option<Ready>)>,
    timers: BTreeMap<(Instant, u64), Due>,
}

/// The waker's own number.
const WAKER: u64 = 0;

/// The reactor of this process.
pub(super) fn reactor() -> io::Result<&'static Reactor> {
    static ONCE: OnceLock<Result<&'static Reactor, Errno>> = OnceLock::new();
    let made = ONCE.get_or_init(|| {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &waker, epoll::EventData::new_u64(WAKER), epoll::EventFlags::IN)?;
        let state = Mutex::new(State { next: WAKER + 1, ..State::default() });
        let reactor: &'static Reactor = Box::leak(Box::new(Reactor { epoll, waker, state }));
        std::thread::Builder::new()
            .name("runners".to_owned())
            .spawn(|| reactor.run())
            .map_err(|error| error.raw_os_error().map_or(Errno::NOMEM, Errno::from_raw_os_error))?;
        Ok(reactor)
    });
    made.map_err(io::Error::from)
}

impl Reactor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `ready` whenever the descriptor can be read or was hung up, until it answers
    /// false.
    pub(super) fn watch(
        &self,
        source: Arc<dyn AsFd + Send + Sync>,
        ready: Ready,
    ) -> io::Result<()> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let data = epoll::EventData::new_u64(number);
        epoll::add(&self.epoll, (*source).as_fd(), data, epoll::EventFlags::IN)?;
        state.sources.insert(number, (source, Some(ready)));
        Ok(())
    }

    /// Calls `due` at a time, or soon after.
    pub(super) fn at(&self, time: Instant, due: Due) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let is_first = state.timers.first_key_value().is_none_or(|(first, _)| first.0 > time);
        state.timers.insert((time, number), due);
        drop(state);
        if is_first {
            // Full only when it is awake already.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let first = self.state().timers.first_key_value().map(|(key, _)| key.0);
            let left = first.map(|at| at.saturating_duration_since(Instant::now()));
            // Durations that are no timespec are too long to wait for.
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            events.clear();
            let waited = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            );
            match waited {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    // Nothing that it is given can cause this; without it no crash is seen.
                    tracing::error!(%error, "the thread that watches plugins' processes ended");
                    return;
                }
            }
            for event in &events {
                self.serve(event.data.u64());
            }
            self.run_timers();
        }
    }

    fn serve(&self, number: u64) {
        if number == WAKER {
            let mut count = [0; 8];
            // Empty only when it was read already.
            let _ = rustix::io::read(&self.waker, &mut count);
            return;
        }
        let taken = self.state().sources.get_mut(&number).and_then(|(_, ready)| ready.take());
        let Some(mut ready) = taken else { return };
        let goes_on = ready();
        let mut state = self.state();
        if goes_on {
            if let Some((_, place)) = state.sources.get_mut(&number) {
                *place = Some(ready);
            }
            return;
        }
        let gone = state.sources.remove(&number);
        drop(state);
        if let Some((source, _)) = gone {
            self.forget((*source).as_fd());
        }
    }

    fn forget(&self, source: BorrowedFd<'_>) {
        if let Err(error) = epoll::delete(&self.epoll, source) {
            tracing::error!(%error, "a descriptor of a plugin's process is still watched");
        }
    }

    fn run_timers(&self) {
        let now = Instant::now();
        loop {
            let mut state = self.state();
            let Some(entry) = state.timers.first_entry() else { return };
            if entry.key().0 > now {
                return;
            }
            let due = entry.remove();
            drop(state);
            due();
        }
    }
}
