//! The runner: a process that loads plugins behind a sandbox and serves an agent.
//!
//! It is the agent's own program, started anew once ([`run_if_asked`]) and forked from there for
//! each runner (`zygote`). It gives up what it does not need ([`crate::sandbox`]), says that it is
//! ready, and then serves its lanes, each on a thread of its own: one request at a time, and while
//! a plugin works on one, what the plugin asks goes back over the same lane. What a plugin's own
//! threads ask goes over one more lane, in turn.
//!
//! A plugin is a native library, or a component whose machine code the agent made.
//!
//! Nothing of this defends the agent: a plugin may overwrite all of it. The kernel does, and
//! the agent's distrust of every message ([`wire`]).

pub(crate) mod channel;
mod lanes;
mod serve;
pub(crate) mod setup;
#[doc(hidden)]
pub mod wire;
pub(crate) mod zygote;

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use std::sync::Arc;

use channel::{Broken, Channel};
use serve::Shared;
use setup::Setup;
use wire::{Body, Kind, Message};
use zygote::Next;

use crate::sandbox::{self, SandboxError};

/// How the name of a runner's process begins; the plugin's follows.
pub(crate) const NAME: &str = "modunest-runner";
/// Exit code of a runner that could not begin; its last words say why.
const EXIT_NOT_READY: u8 = 70;

/// Stack of a thread that serves a lane: what Rust gives threads, and plugins expect.
const LANE_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Why a runner could not begin.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("it was not started by an agent: {0}")]
    NoAgent(Broken),
    #[error("its agent sent no setup that it understands")]
    NoSetup,
    #[error("its agent has ended already")]
    Orphan,
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    #[error("its sandbox is not in force: {0}")]
    Sandbox(#[from] SandboxError),
}

impl From<rustix::io::Errno> for Fatal {
    fn from(errno: rustix::io::Errno) -> Self {
        Fatal::System(errno.into())
    }
}

/// Becomes a runner, if this process was started as one; answers its exit code when it ends.
///
/// A program that embeds the agent calls this first in `main`, before any thread is started,
/// since its agent starts the same program again for plugins' processes:
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(code) = modunest_agent::runner::run_if_asked() {
///         return code;
///     }
///     // …
///     ExitCode::SUCCESS
/// }
/// ```
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let is_named =
        arguments.next().is_some_and(|name| name.as_bytes().starts_with(NAME.as_bytes()));
    if !is_named || arguments.next().as_deref() != Some(OsStr::new(zygote::ARGUMENT)) {
        return None;
    }
    let agent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let served = agent.ok_or(Fatal::NoSetup).and_then(zygote::run);
    Some(
        match served.and_then(|next| match next {
            Next::End => Ok(()),
            Next::Run => run(),
        }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // The agent reads it, if anybody does.
                let _ = writeln!(std::io::stderr(), "the runner could not begin: {error}");
                ExitCode::from(EXIT_NOT_READY)
            }
        },
    )
}

fn run() -> Result<(), Fatal> {
    let control = first_socket()?;
    let mut buffer = channel::buffer();
    let (setup, background) = receive_setup(&control, &mut buffer)?;
    belong_to(setup.agent)?;
    prefer_to_be_killed();
    let enforced = sandbox::enforce(&setup.policy, setup.must_enforce)?;
    let body = serde_json::to_vec(&enforced).map_err(std::io::Error::other)?;
    let ready = Message::new(Kind::Ready, 0, Body::Inline(&body));
    channel::send_descriptors(control.as_fd(), &ready, &[]).map_err(Fatal::NoAgent)?;
    follow(&control, &Arc::new(Shared::new(background)), &mut buffer)
}

/// The socket that it began with as its standard input; every other descriptor is closed.
fn first_socket() -> Result<OwnedFd, Fatal> {
    sandbox::close_from(3)?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(control)
}

/// Ends with its agent from now on.
fn belong_to(agent: u32) -> Result<(), Fatal> {
    // A session of its own: what a terminal sends to the agent does not reach it.
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(agent) {
        return Err(Fatal::Orphan);
    }
    Ok(())
}

fn receive_setup(control: &OwnedFd, buffer: &mut [u8]) -> Result<(Setup, Channel), Fatal> {
    let (length, descriptors) =
        channel::receive_descriptors(control.as_fd(), buffer).map_err(Fatal::NoAgent)?;
    let is_setup = Message::parse(&buffer[..length]).is_ok_and(|m| m.kind == Kind::Setup);
    let mut descriptors = descriptors.into_iter();
    match (is_setup, descriptors.next(), descriptors.next(), descriptors.next()) {
        (true, Some(settings), Some(socket), Some(memory)) => {
            Ok((setup::read(settings)?, Channel::of(socket, memory)))
        }
        _ => Err(Fatal::NoSetup),
    }
}

/// Where memory runs out, plugins go before their agent does.
fn prefer_to_be_killed() {
    /// Half-way between what no one asked for and the first to go.
    const ADJUSTMENT: &str = "500";
    // A kernel without it has no choice to make.
    let _ = std::fs::write("/proc/self/oom_score_adj", ADJUSTMENT);
}

/// Takes lanes and files from the agent until it hangs up.
fn follow(control: &OwnedFd, shared: &Arc<Shared>, buffer: &mut [u8]) -> Result<(), Fatal> {
    loop {
        let (length, descriptors) = match channel::receive_descriptors(control.as_fd(), buffer) {
            Ok(received) => received,
            Err(Broken::Closed) => return Ok(()),
            Err(broken) => return Err(Fatal::NoAgent(broken)),
        };
        let message = Message::parse(&buffer[..length]).map_err(|_| Fatal::NoSetup)?;
        let mut descriptors = descriptors.into_iter();
        match (message.kind, descriptors.next(), descriptors.next()) {
            (Kind::Lane, Some(socket), Some(memory)) => {
                let lane = Channel::of(socket, memory);
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name("lane".to_owned())
                    .stack_size(LANE_STACK_BYTES)
                    .spawn(move || serve::serve(&shared, lane))?;
            }
            (Kind::File, Some(file), None) => shared.keep_file(message.plugin, file),
            _ => return Err(Fatal::NoSetup),
        }
    }
}
