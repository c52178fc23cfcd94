//! Descriptors and privileges that a process began with.

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::SandboxError;

/// Closes every descriptor from `first` on. What the caller still wants must be below.
///
/// # Errors
/// When the kernel knows no way to close them all (before 5.9).
pub fn close_from(first: u32) -> std::io::Result<()> {
    // SAFETY: takes numbers only. Called at the start of a process, before anything owns a
    // descriptor above standard error, so nobody's descriptor is closed behind its back.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Drops every capability, and the way to get one back by running a program.
pub(super) fn give_up_privileges() -> Result<(), SandboxError> {
    let privileges = |errno: rustix::io::Errno| SandboxError::Privileges(errno.into());
    rustix::thread::set_no_new_privs(true).map_err(privileges)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(privileges)
}
