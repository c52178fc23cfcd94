//! What a process may use up.

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::SandboxError;

/// Stack of the first thread, which runs no plugin code; others say theirs when they start.
const STACK_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// What a process may use up. `None` is as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of its own, in bytes.
    pub memory_max_bytes: Option<u64>,
    /// Addresses, in bytes: what it maps, used or not.
    pub addresses_max_bytes: Option<u64>,
    /// Open files.
    pub files_max: Option<u64>,
    /// Length of any file that it writes, in bytes.
    pub file_max_bytes: Option<u64>,
}

impl Limits {
    /// So many addresses more.
    pub(crate) fn reserve(&mut self, bytes: u64) {
        self.addresses_max_bytes = self.addresses_max_bytes.map(|max| max.saturating_add(bytes));
    }

    /// The wider of each two.
    pub(super) fn wider(&self, other: &Limits) -> Limits {
        let wider = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
        Limits {
            memory_max_bytes: wider(self.memory_max_bytes, other.memory_max_bytes),
            addresses_max_bytes: wider(self.addresses_max_bytes, other.addresses_max_bytes),
            files_max: wider(self.files_max, other.files_max),
            file_max_bytes: wider(self.file_max_bytes, other.file_max_bytes),
        }
    }
}

pub(super) fn set(limits: &Limits) -> Result<(), SandboxError> {
    let Limits { memory_max_bytes, addresses_max_bytes, files_max, file_max_bytes } = *limits;
    for (what, resource, limit) in [
        // No image of its memory, which may hold secrets, is ever written.
        ("core dumps", Resource::Core, Some(0)),
        ("the stack", Resource::Stack, Some(STACK_MAX_BYTES)),
        ("memory", Resource::Data, memory_max_bytes),
        ("addresses", Resource::As, addresses_max_bytes),
        ("open files", Resource::Nofile, files_max),
        ("file sizes", Resource::Fsize, file_max_bytes),
    ] {
        let Some(limit) = limit else { continue };
        // What is already lower stays.
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = hard.map_or(limit, |hard| hard.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(|errno| SandboxError::Limit { what, source: errno.into() })?;
    }
    Ok(())
}
