//! One process of a runner, from its start to its end: its lanes, its output, its death.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use modunest_sdk::Error;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::super::{Cell, Unserved, vitals};
use super::bounds::{self, Bounds};
use super::cgroup::Group;
use super::death::{Crash, LastWords, describe};
use super::lane::{self, Lane, Outcome};
use super::reactor::reactor;
use super::spawn::{Spawned, spawn};
use super::supervisor::Runner;
use crate::config::ProcessSettings;
use crate::runner::channel::{self, Broken, Channel};
use crate::runner::setup::{self, Setup};
use crate::runner::wire::{Body, Kind, Message};
use crate::sandbox::{Enforced, SandboxPolicy};

/// How long the death of a process whose lane broke is waited for, before it is taken for a
/// living one that hung up.
const DEATH_TIMEOUT: Duration = Duration::from_millis(500);

/// A running process.
pub(super) struct Child {
    pub(super) pid: u32,
    /// What its sandbox enforces.
    pub(super) enforced: Enforced,
    process: Arc<OwnedFd>,
    control: OwnedFd,
    lanes: Mutex<Lanes>,
    lane_free: Condvar,
    lanes_max: usize,
    grace: Duration,
    fate: Mutex<Fate>,
    died: Condvar,
    words: Mutex<LastWords>,
    group: Option<Group>,
    runner: Weak<Runner>,
}

#[derive(Default)]
struct Lanes {
    idle: Vec<Lane>,
    made: usize,
    /// Who waits for one: only then is telling worth a system call.
    waiting: usize,
}

#[derive(Default)]
struct Fate {
    /// Why the agent ended it; the first reason stays.
    killed_for: Option<String>,
    end: Option<Crash>,
}

impl Child {
    /// Starts a process behind a sandbox. Blocks until the sandbox is in force.
    pub(super) fn start(
        runner: &Arc<Runner>,
        name: &str,
        policy: &SandboxPolicy,
        settings: &ProcessSettings,
        until: Instant,
    ) -> Result<Arc<Child>, String> {
        let cannot = |error: io::Error| format!("cannot be started: {error}");
        let (background, [socket, memory]) = channel::pair().map_err(cannot)?;
        let setup = Setup {
            agent: std::process::id(),
            policy: policy.clone(),
            must_enforce: !settings.allow_unenforced,
        };
        let file = setup::write(&setup).map_err(cannot)?;
        let Spawned { pid, process, control, output } =
            spawn(settings.runner.as_deref(), name).map_err(cannot)?;
        let joined = settings.cgroup.as_ref().map(|folder| {
            // Before it is told anything, so all that it does is counted.
            Group::join(folder, name, pid, settings)
        });
        let group = joined.transpose().inspect_err(|_| reap(&process))?;
        let message = Message::new(Kind::Setup, 0, Body::Inline(&[]));
        let descriptors = [file.as_fd(), socket.as_fd(), memory.as_fd()];
        let sent = channel::send_descriptors(control.as_fd(), &message, &descriptors);
        drop((socket, memory));
        let mut child = Child {
            pid,
            enforced: Enforced::default(),
            process: Arc::new(process),
            control,
            lanes: Mutex::default(),
            lane_free: Condvar::new(),
            lanes_max: settings.calls_max,
            grace: settings.grace,
            fate: Mutex::default(),
            died: Condvar::new(),
            words: Mutex::default(),
            group,
            runner: Arc::downgrade(runner),
        };
        let ready = sent.and_then(|()| child.await_ready(until));
        if let Ok(enforced) = &ready {
            child.enforced = *enforced;
            if let Some(missing) = enforced.missing() {
                tracing::warn!(
                    runner = name,
                    pid,
                    missing,
                    "a plugin's process is not confined as it should be"
                );
            }
        }
        let child = Arc::new(child);
        child.watch(output, background).inspect_err(|_| reap(&child.process)).map_err(cannot)?;
        if child.group.is_none() {
            child.look_later(Bounds::of(settings));
        }
        match ready {
            Ok(_) => Ok(child),
            Err(broken) => {
                if let Broken::Late = broken {
                    child.kill("it did not become ready in time");
                }
                Err(child.end().text())
            }
        }
    }

    fn await_ready(&self, until: Instant) -> Result<Enforced, Broken> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut sockets = [rustix::event::PollFd::new(&self.control, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut sockets, Some(&timeout)).map_err(io::Error::from)? == 0 {
            return Err(Broken::Late);
        }
        let mut buffer = channel::buffer();
        let (length, _) = channel::receive_descriptors(self.control.as_fd(), &mut buffer)?;
        let message = Message::parse(&buffer[..length])?;
        match (message.kind, message.body) {
            (Kind::Ready, Body::Inline(body)) => {
                Ok(serde_json::from_slice(body).map_err(io::Error::other)?)
            }
            _ => Err(Broken::Closed),
        }
    }

    /// Lets the reactor watch its end, its output, and what its plugins' threads ask.
    fn watch(self: &Arc<Self>, output: OwnedFd, background: Channel) -> io::Result<()> {
        let reactor = reactor()?;
        let output = Arc::new(output);
        let (child, source) = (self.clone(), output.clone());
        reactor.watch(output.clone(), Box::new(move || child.read_output(&source)))?;
        let (child, background) = (Arc::downgrade(self), Arc::new(background));
        let source = background.clone();
        reactor.watch(
            background,
            Box::new(move || child.upgrade().is_some_and(|child| child.serve_background(&source))),
        )?;
        let child = self.clone();
        reactor.watch(
            self.process.clone(),
            Box::new(move || {
                child.read_output(&output);
                child.bury();
                false
            }),
        )
    }

    /// Ends it where it holds more than it may at the next look, and looks again otherwise.
    fn look_later(self: &Arc<Self>, bounds: Bounds) {
        let Ok(reactor) = reactor() else { return self.kill("nobody watches what it holds") };
        let child = Arc::downgrade(self);
        reactor.at(
            Instant::now() + bounds::EVERY,
            Box::new(move || {
                // The thread that runs this is the one that buries it, so its number is still its own.
                let Some(child) = child.upgrade().filter(|child| !child.has_ended()) else {
                    return;
                };
                let held = vitals::held_by(child.pid);
                let lanes = lock(&child.lanes).made as u64;
                match held.and_then(|held| bounds.broken_by(held, lanes)) {
                    Some(reason) => child.kill(&reason),
                    None => child.look_later(bounds),
                }
            }),
        );
    }

    /// Whether a control group bounds it.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Ends it, for a reason.
    pub(super) fn kill(&self, reason: &str) {
        lock(&self.fate).killed_for.get_or_insert_with(|| reason.to_owned());
        match rustix::process::pidfd_send_signal(&*self.process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = self.pid, %error, "cannot end a plugin's process"),
        }
    }

    fn read_output(&self, output: &OwnedFd) -> bool {
        let mut piece = [0; 4096];
        // So much at once, so that one that writes without end does not hold the others up.
        for _ in 0..16 {
            match rustix::io::read(output, &mut piece) {
                Ok(0) => return false,
                Ok(read) => lock(&self.words).take_in(&piece[..read]),
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// Notes how it ended, and tells who waits.
    fn bury(&self) {
        let options = WaitIdOptions::EXITED;
        let status = rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), options);
        let by_group = self.group.as_ref().and_then(Group::ended_for);
        let mut fate = lock(&self.fate);
        let reason = describe(
            status.ok().flatten().as_ref(),
            fate.killed_for.as_deref(),
            by_group.as_deref(),
        );
        let crash = Crash {
            at: modunest_runtime::clock::now(),
            reason,
            last_words: lock(&self.words).text(),
        };
        fate.end = Some(crash.clone());
        drop(fate);
        self.died.notify_all();
        {
            // Their other ends are gone.
            let mut lanes = lock(&self.lanes);
            lanes.idle.clear();
        }
        self.lane_free.notify_all();
        if let Some(group) = &self.group {
            group.leave();
        }
        if let Some(runner) = self.runner.upgrade() {
            runner.died(self, crash);
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.fate).end.is_some()
    }

    /// How it ended. One that lives on although it seems dead is ended.
    pub(super) fn end(&self) -> Crash {
        let wait = |timeout| {
            let fate = lock(&self.fate);
            let waited = self.died.wait_timeout_while(fate, timeout, |fate| fate.end.is_none());
            waited.unwrap_or_else(PoisonError::into_inner).0.end.clone()
        };
        if let Some(end) = wait(DEATH_TIMEOUT) {
            return end;
        }
        self.kill("it hung up on the agent");
        wait(Duration::from_secs(5)).unwrap_or_else(|| Crash {
            at: modunest_runtime::clock::now(),
            reason: "does not end".to_owned(),
            last_words: String::new(),
        })
    }

    /// Sends the sealed file that the next load of a plugin is about.
    pub(super) fn send_file(&self, plugin: u32, file: &OwnedFd) -> Result<(), Broken> {
        let message = Message::new(Kind::File, plugin, Body::Inline(&[]));
        channel::send_descriptors(self.control.as_fd(), &message, &[file.as_fd()])
    }

    /// Sends a request on a lane of its own and waits for what it comes to. Past its time, the
    /// lane is left to the runner, and the runner ends if it does not give it back.
    pub(super) fn request(
        self: &Arc<Self>,
        request: &Message<'_>,
        cell: &Arc<Cell>,
        until: Instant,
    ) -> Result<Outcome, Unserved> {
        let mut lane = self.take_lane(until).map_err(Unserved::Refused)?;
        let broken = match lane.request(request, cell, until) {
            Ok(outcome) => {
                self.give_back(lane);
                return Ok(outcome);
            }
            Err(broken) => broken,
        };
        Err(Unserved::Failed(match broken {
            Broken::Late => {
                let what = match request.texts[0] {
                    "" => format!("{:?} of {}", request.kind, cell.name()),
                    target => format!("{target} of {}", cell.name()),
                };
                self.abandon(lane, &what, cell);
                Error::DeadlineExceeded(format!("{what} did not end in time"))
            }
            Broken::Malformed(error) => {
                self.kill(&format!("what it sent is no message: {error}"));
                self.gone()
            }
            Broken::Unread => {
                self.kill("it leaves unread what it is sent");
                self.gone()
            }
            Broken::Closed => self.gone(),
            Broken::Io(error) => Error::Unavailable(format!("a lane broke: {error}")),
        }))
    }

    fn gone(&self) -> Error {
        Error::Unavailable(format!("the plugin's process {}", self.end().text()))
    }

    fn take_lane(&self, until: Instant) -> Result<Lane, Error> {
        let mut lanes = lock(&self.lanes);
        loop {
            if let Some(lane) = lanes.idle.pop() {
                return Ok(lane);
            }
            if self.has_ended() {
                drop(lanes);
                return Err(self.gone());
            }
            if lanes.made < self.lanes_max {
                lanes.made += 1;
                drop(lanes);
                return self.new_lane().inspect_err(|_| lock(&self.lanes).made -= 1);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::DeadlineExceeded(format!(
                    "{} calls of the plugin were running all the time",
                    self.lanes_max
                )));
            }
            lanes.waiting += 1;
            let waited = self.lane_free.wait_timeout(lanes, left);
            lanes = waited.unwrap_or_else(PoisonError::into_inner).0;
            lanes.waiting -= 1;
        }
    }

    fn new_lane(&self) -> Result<Lane, Error> {
        let cannot = |error: io::Error| Error::Unavailable(format!("no lane can be made: {error}"));
        let (channel, [socket, memory]) = channel::pair().map_err(cannot)?;
        let message = Message::new(Kind::Lane, 0, Body::Inline(&[]));
        let descriptors = [socket.as_fd(), memory.as_fd()];
        match channel::send_descriptors(self.control.as_fd(), &message, &descriptors) {
            Ok(()) => Ok(Lane::new(channel)),
            Err(Broken::Unread) => {
                self.kill("it leaves unread what it is sent");
                Err(self.gone())
            }
            Err(Broken::Io(error)) => Err(cannot(error)),
            Err(_) => Err(self.gone()),
        }
    }

    fn give_back(&self, lane: Lane) {
        let mut lanes = lock(&self.lanes);
        if !self.has_ended() {
            lanes.idle.push(lane);
        }
        let is_awaited = lanes.waiting > 0;
        drop(lanes);
        if is_awaited {
            self.lane_free.notify_one();
        }
    }

    /// Leaves a lane to the runner for the time of grace.
    fn abandon(self: &Arc<Self>, lane: Lane, what: &str, cell: &Arc<Cell>) {
        let Ok(reactor) = reactor() else { return self.kill("nobody watches its lanes") };
        let is_over = Arc::new(AtomicBool::new(false));
        let (child, over) = (Arc::downgrade(self), is_over.clone());
        let (what, grace) = (what.to_owned(), self.grace);
        reactor.at(
            Instant::now() + grace,
            Box::new(move || {
                if let (false, Some(child)) = (over.load(Ordering::Acquire), child.upgrade()) {
                    child.kill(&format!(
                        "{what} was still running {} ms after its deadline",
                        grace.as_millis()
                    ));
                }
            }),
        );
        let lane = Arc::new(Mutex::new(Some(lane)));
        let descriptor: Arc<OwnedFd> = {
            let own = lock(&lane);
            let Some(lane) = own.as_ref() else { return };
            match rustix::io::fcntl_dupfd_cloexec(lane, 3) {
                Ok(descriptor) => Arc::new(descriptor),
                Err(_) => return self.kill("one of its lanes cannot be watched"),
            }
        };
        let (child, cell) = (Arc::downgrade(self), cell.clone());
        let watched = reactor.watch(
            descriptor,
            Box::new(move || {
                let Some(child) = child.upgrade() else { return false };
                let mut place = lock(&lane);
                let Some(own) = place.as_mut() else { return false };
                match own.abandoned_turn(&cell) {
                    Ok(false) | Err(Broken::Late) => return true,
                    Ok(true) => {
                        is_over.store(true, Ordering::Release);
                        if let Some(lane) = place.take() {
                            child.give_back(lane);
                        }
                    }
                    Err(Broken::Closed) => is_over.store(true, Ordering::Release),
                    Err(broken) => child.kill(&format!("a lane that was late broke: {broken}")),
                }
                false
            }),
        );
        if watched.is_err() {
            self.kill("one of its lanes cannot be watched");
        }
    }

    /// Takes one message of the background lane. What needs a plugin or the system runs on a
    /// thread of its own; the runner sends nothing more before it has its answer.
    fn serve_background(self: &Arc<Self>, background: &Arc<Channel>) -> bool {
        let mut buffer = channel::buffer();
        let message = match background.receive(&mut buffer, Some(Instant::now())) {
            Ok(message) => message,
            Err(Broken::Late) => return true,
            Err(Broken::Malformed(error)) => {
                self.kill(&format!("what it sent is no message: {error}"));
                return false;
            }
            Err(_) => return false,
        };
        let Some(runner) = self.runner.upgrade() else { return false };
        let Some(cell) = runner.cell(message.plugin) else {
            return self.refuse_background(background, &message);
        };
        if matches!(message.kind, Kind::Log | Kind::Remade) {
            return lane::serve(background, &message, &mut Vec::new(), &cell, true).is_ok();
        }
        let (child, source) = (self.clone(), background.clone());
        let (kind, plugin, code) = (message.kind, message.plugin, message.code);
        let deadline_ms = message.deadline_ms;
        let texts = message.texts.map(str::to_owned);
        let Ok(body) = background.body(message.body) else { return false };
        let body = body.into_owned();
        let thread = std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
            let [first, second, third] = &texts;
            let texts = [first.as_str(), second, third];
            let body = Body::Inline(&body);
            let message = Message { kind, plugin, code, deadline_ms, texts, body };
            match lane::serve(&source, &message, &mut Vec::new(), &cell, true) {
                Ok(()) | Err(Broken::Closed) => {}
                Err(Broken::Unread) => child.kill("it leaves unread what it is sent"),
                Err(broken) => child.kill(&format!("its background lane broke: {broken}")),
            }
        });
        if let Err(error) = thread {
            self.kill(&format!("no thread can be started for what it asks: {error}"));
        }
        true
    }

    fn refuse_background(&self, background: &Channel, message: &Message<'_>) -> bool {
        if matches!(message.kind, Kind::Log | Kind::Remade) {
            return true;
        }
        let text = b"the plugin is not loaded and may call nobody";
        let code = modunest_sdk::Status::Unavailable.code().cast_unsigned();
        let refusal =
            Message { code, ..Message::new(Kind::Answer, message.plugin, Body::Inline(text)) };
        background.send(&refusal, &mut Vec::new()).is_ok()
    }
}

/// Ends a process that nobody watches.
pub(super) fn reap(process: &OwnedFd) {
    let ended = rustix::process::pidfd_send_signal(process, Signal::KILL).and_then(|()| {
        rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)
    });
    if let Err(error) = ended {
        tracing::error!(%error, "cannot end a plugin's process");
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
