//! Starts runners, all from one thread that lives as long as the agent: the kernel ends a
//! runner with the thread that started it, so that none outlives its agent.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};

use crate::runner::channel::sockets;
use crate::runner::{ARGUMENT, NAME};

/// Heaps that the C library makes for threads: each takes memory of its own in every runner.
const ARENAS_MAX: &str = "2";

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
            for job in waiting {
                // Nobody waits any more: the process ends with its first socket.
                let _ = job.done.send(start(&job.program, &job.name));
            }
        });
        Mutex::new(jobs)
    });
    let sent = spawner.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    sent.map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn start(program: &Path, name: &str) -> io::Result<Spawned> {
    let (control, other) = sockets()?;
    let (output, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK)?;
    let mut command = Command::new(program);
    command
        .arg0(format!("{NAME} {name}"))
        .arg(ARGUMENT)
        .env_clear()
        .env("MALLOC_ARENA_MAX", ARENAS_MAX)
        .current_dir("/")
        .stdin(Stdio::from(other))
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer));
    let child = command.spawn()?;
    let pid = child.id();
    let number = Pid::from_raw(pid.cast_signed()).ok_or_else(|| io::Error::other("no number"))?;
    // Nobody else waits for it, so its number is not used again before this.
    let process = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
    Ok(Spawned { pid, process, control, output })
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
