//! What a runner gives up before it opens a plugin's library or maps its code, so that not even a
//! constructor runs with more: descriptors, privileges, resources, files, and system calls.
//!
//! [`probe()`] says what the kernel can enforce; [`enforce`] puts it in force, for the calling
//! process and for good. It must be called while the process has one thread. What a policy
//! leaves out is denied.

mod calls;
mod descriptors;
mod files;
mod fork;
mod limits;
mod probe;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use descriptors::close_from;
pub use fork::{Arguments, Forked, fork_sibling, own_arguments};
pub use limits::Limits;
pub use probe::{Support, probe};

/// What a process may still do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPolicy {
    /// Files and folders that it may read, with all that is below, beside the system's libraries.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may read, write, make and remove, with all that is below.
    pub write: Vec<PathBuf>,
    /// Whether it opens libraries. Without, no file is ever mapped to be executed, and memory
    /// that is executable was made so after it was no longer writable.
    pub libraries: bool,
    /// What it may use up.
    pub limits: Limits,
}

impl SandboxPolicy {
    /// Adds what another policy allows. Of two limits, the wider one stays.
    pub fn allow(&mut self, other: &SandboxPolicy) {
        self.libraries |= other.libraries;
        self.limits = self.limits.wider(&other.limits);
        for (own, more) in [(&mut self.read, &other.read), (&mut self.write, &other.write)] {
            for path in more {
                if !own.contains(path) {
                    own.push(path.clone());
                }
            }
        }
    }
}

/// What is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Files are confined, by Landlock.
    pub files: bool,
    /// System calls are filtered, by seccomp.
    pub calls: bool,
}

impl Enforced {
    /// Whether nothing is missing.
    pub fn is_whole(self) -> bool {
        self.files && self.calls
    }

    /// What is missing, for people; `None` when nothing is.
    pub fn missing(self) -> Option<&'static str> {
        match (self.files, self.calls) {
            (true, true) => None,
            (false, true) => Some("Landlock (Linux 5.13 or later, with it in the `lsm=` list)"),
            (true, false) => Some("seccomp filters"),
            (false, false) => Some("Landlock and seccomp filters"),
        }
    }
}

/// Why a sandbox is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit cannot be set.
    #[error("the limit of {what} cannot be set: {source}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Privileges cannot be given up.
    #[error("privileges cannot be given up: {0}")]
    Privileges(#[source] std::io::Error),
    /// A file or folder of the policy cannot be opened.
    #[error("{} cannot be allowed: {reason}", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Landlock refuses.
    #[error("files cannot be confined: {0}")]
    Files(String),
    /// Seccomp refuses.
    #[error("system calls cannot be filtered: {0}")]
    Calls(String),
}

/// Puts a policy in force for this process. With `required`, all of it or an error.
///
/// # Errors
/// What could not be put in force.
pub fn enforce(policy: &SandboxPolicy, required: bool) -> Result<Enforced, SandboxError> {
    enforce_by(policy, required, files::NEWEST)
}

/// The same, with Landlock as it was with this interface.
fn enforce_by(
    policy: &SandboxPolicy,
    required: bool,
    newest: landlock::ABI,
) -> Result<Enforced, SandboxError> {
    limits::set(&policy.limits)?;
    descriptors::give_up_privileges()?;
    let files = match files::confine(policy, newest) {
        Err(error) if required => return Err(error),
        confined => confined.is_ok(),
    };
    let calls = match calls::filter(policy.libraries) {
        Err(error) if required => return Err(error),
        filtered => filtered.is_ok(),
    };
    Ok(Enforced { files, calls })
}
