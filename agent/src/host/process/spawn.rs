//! Starts runners, all from one thread that lives as long as the agent: the kernel ends a
//! runner with the thread whose child it is, so that none outlives its agent.
//!
//! The thread starts one process for each program that runners are made of, and has it forked
//! for each runner ([`crate::runner::zygote`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};

use super::child::reap;
use crate::runner::NAME;
use crate::runner::channel::{self, Broken, sockets};
use crate::runner::wire::{Body, Kind, Message};
use crate::runner::zygote::{ARGUMENT, NAME_ROOM_BYTES};

/// How the C library of a runner keeps memory (mallopt(3)). Few heaps for threads: each takes
/// memory of its own in every runner. And a mebibyte that was freed is kept: with less, each call
/// that answers some pages takes them from the kernel anew, which costs more than the call.
const MEMORY: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
];

/// How long a fork may take: a thousand times as long as on an idle machine.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that was started.
pub(super) struct Spawned {
    pub(super) pid: u32,
    /// Names the process, and no later one with its number.
    pub(super) process: OwnedFd,
    /// The first socket.
    pub(super) control: OwnedFd,
    /// What it writes.
    pub(super) output: OwnedFd,
}

struct Job {
    program: PathBuf,
    name: String,
    done: Sender<io::Result<Spawned>>,
}

/// Starts a runner for what `name` says. `program` is this process's own, if none is named.
pub(super) fn spawn(program: Option<&Path>, name: &str) -> io::Result<Spawned> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts plugins' processes ended");
    let (done, answer) = channel();
    // The link names the program that runs, even where its file was replaced meanwhile.
    let program = program.unwrap_or(Path::new("/proc/self/exe")).to_owned();
    let job = Job { program, name: name.to_owned(), done };
    let spawner = SPAWNER.get_or_init(|| {
        allow_many_files();
        let (jobs, waiting) = channel::<Job>();
        // Without the thread, the channel is closed, and that is the error.
        let _ = std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let mut zygotes = Zygotes::default();
            for job in waiting {
                // Nobody waits any more: the process ends with its first socket.
                let _ = job.done.send(zygotes.fork(&job.program, &job.name));
            }
        });
        Mutex::new(jobs)
    });
    let sent = spawner.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    sent.map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// The processes that runners are forked from, by their program.
#[derive(Default)]
struct Zygotes(HashMap<PathBuf, Zygote>);

impl Zygotes {
    /// Forks a runner. One that somebody has ended is started anew.
    fn fork(&mut self, program: &Path, name: &str) -> io::Result<Spawned> {
        if let Some(zygote) = self.0.remove(program) {
            match zygote.fork(name) {
                Ok(forked) => {
                    self.0.insert(program.to_owned(), zygote);
                    return forked;
                }
                Err(broken) => {
                    tracing::warn!(%broken, "the process that plugins' processes are forked from is started anew");
                    reap(&zygote.process);
                }
            }
        }
        let zygote = Zygote::start(program)?;
        let forked = match zygote.fork(name) {
            Ok(forked) => forked,
            Err(broken) => {
                reap(&zygote.process);
                return Err(io::Error::other(format!(
                    "{} does not become the process that plugins' processes are forked from: {broken}; a program that embeds the agent calls run_if_asked first in main",
                    program.display()
                )));
            }
        };
        self.0.insert(program.to_owned(), zygote);
        forked
    }
}

/// A process that runners are forked from. It ends with its socket, and with the thread that
/// has started it.
struct Zygote {
    process: OwnedFd,
    control: OwnedFd,
}

impl Zygote {
    fn start(program: &Path) -> io::Result<Self> {
        let (control, other) = sockets()?;
        let mut command = Command::new(program);
        command
            .arg0(format!("{NAME} {ARGUMENT}"))
            .arg(ARGUMENT)
            .arg(std::process::id().to_string())
            .arg(" ".repeat(NAME_ROOM_BYTES))
            .env_clear()
            .envs(MEMORY)
            .envs(crate::clib::environment())
            .current_dir("/")
            .stdin(Stdio::from(other))
            .stdout(Stdio::null());
        let child = command.spawn()?;
        Ok(Zygote { process: handle(child.id())?, control })
    }

    /// Forks a runner, or says why the system does not let it.
    fn fork(&self, name: &str) -> Result<io::Result<Spawned>, Broken> {
        let (control, other) = sockets()?;
        let (output, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK)?;
        let texts = [name, "", ""];
        let request = Message { texts, ..Message::new(Kind::Fork, 0, Body::Inline(&[])) };
        let descriptors = [other.as_fd(), writer.as_fd()];
        channel::send_descriptors(self.control.as_fd(), &request, &descriptors)?;
        self.await_answer()?;
        let mut buffer = channel::buffer();
        let (length, _) = channel::receive_descriptors(self.control.as_fd(), &mut buffer)?;
        let answer = Message::parse(&buffer[..length])?;
        match answer.kind {
            Kind::Forked => {
                let spawned = handle(answer.code).map(|process| Spawned {
                    pid: answer.code,
                    process,
                    control,
                    output,
                });
                Ok(spawned)
            }
            Kind::NotForked => Ok(Err(io::Error::from_raw_os_error(answer.code.cast_signed()))),
            _ => Err(Broken::Closed),
        }
    }

    fn await_answer(&self) -> Result<(), Broken> {
        let timeout = Timespec::try_from(FORK_TIMEOUT).map_err(io::Error::other)?;
        loop {
            let mut sockets = [PollFd::new(&self.control, PollFlags::IN)];
            match poll(&mut sockets, Some(&timeout)) {
                Ok(0) => return Err(Broken::Late),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Names a child of this process. Nobody else waits for it, so its number is not used again
/// before this.
fn handle(pid: u32) -> io::Result<OwnedFd> {
    let number = Pid::from_raw(pid.cast_signed()).ok_or_else(|| io::Error::other("no number"))?;
    Ok(rustix::process::pidfd_open(number, PidfdFlags::empty())?)
}

/// Each runner takes half a dozen descriptors of the agent, and many systems allow 1024 unless
/// a program asks for more.
fn allow_many_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let more = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, more) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
