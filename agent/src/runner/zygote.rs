//! The process that runners are forked from: started once, it has loaded and relocated the
//! program, and then waits. Its forks share all that with it, and take a fraction of the time
//! and of the memory that starting the program anew for each does.
//!
//! It has one thread and knows nothing of any plugin: it reads no file, and what it is sent is a
//! name, a socket and a pipe, which it hands to the fork. The fork is a child of the agent, as if
//! the agent had started it, and goes on as a runner: only the layout of its addresses tells the
//! two apart, which is the same for all runners of one agent.

use std::os::fd::{AsFd as _, OwnedFd};

use super::channel::{self, Broken};
use super::wire::{Body, Kind, Message};
use super::{Fatal, NAME, belong_to, first_socket};
use crate::sandbox::{Forked, fork_sibling, own_arguments};

/// The first argument of the program that becomes one. The agent's process follows, and an
/// argument of [`NAME_ROOM_BYTES`].
pub(crate) const ARGUMENT: &str = "zygote";

/// Room for the names of its forks, which stand where the arguments were.
pub(crate) const NAME_ROOM_BYTES: usize = 256;

/// What follows in this process.
pub(super) enum Next {
    /// It is the zygote, and its agent is gone.
    End,
    /// It is a fork, and becomes a runner.
    Run,
}

/// Forks until the agent hangs up. Returns once more in each fork.
pub(super) fn run(agent: u32) -> Result<Next, Fatal> {
    let control = first_socket()?;
    belong_to(agent)?;
    let arguments = own_arguments()?;
    let mut buffer = channel::buffer();
    loop {
        let received = channel::receive_descriptors(control.as_fd(), &mut buffer);
        let (length, descriptors) = match received {
            Ok(received) => received,
            Err(Broken::Closed) => return Ok(Next::End),
            Err(broken) => return Err(Fatal::NoAgent(broken)),
        };
        let message = Message::parse(&buffer[..length]).map_err(|_| Fatal::NoSetup)?;
        let mut descriptors = descriptors.into_iter();
        let (Kind::Fork, Some(socket), Some(output)) =
            (message.kind, descriptors.next(), descriptors.next())
        else {
            return Err(Fatal::NoSetup);
        };
        let answer = match fork_sibling() {
            Ok(Forked::Child) => {
                arguments.write(&format!("{NAME} {}", message.texts[0]));
                stand_in(socket, output)?;
                return Ok(Next::Run);
            }
            Ok(Forked::Parent(pid)) => {
                Message { code: pid, ..Message::new(Kind::Forked, 0, Body::Inline(&[])) }
            }
            Err(error) => {
                let code = error.raw_os_error().unwrap_or_default().cast_unsigned();
                Message { code, ..Message::new(Kind::NotForked, 0, Body::Inline(&[])) }
            }
        };
        channel::send_descriptors(control.as_fd(), &answer, &[]).map_err(Fatal::NoAgent)?;
    }
}

/// Puts what the agent has sent where a runner finds it.
fn stand_in(socket: OwnedFd, output: OwnedFd) -> Result<(), Fatal> {
    rustix::stdio::dup2_stdin(&socket)?;
    rustix::stdio::dup2_stdout(&output)?;
    rustix::stdio::dup2_stderr(&output)?;
    Ok(())
}
