//! What the kernel under this process can enforce.

use std::sync::OnceLock;

use super::Enforced;

/// What can be enforced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Version of Landlock's interface; zero where there is none.
    pub landlock: u32,
    /// Whether seccomp can answer a system call with an error.
    pub seccomp: bool,
}

impl Support {
    /// What would be in force.
    pub fn enforces(self) -> Enforced {
        Enforced { files: self.landlock > 0, calls: self.seccomp }
    }

    /// What is missing, for people; `None` when nothing is.
    pub fn missing(self) -> Option<&'static str> {
        self.enforces().missing()
    }
}

/// Asks the kernel, once.
pub fn probe() -> Support {
    static ONCE: OnceLock<Support> = OnceLock::new();
    *ONCE.get_or_init(|| Support { landlock: landlock(), seccomp: seccomp() })
}

fn landlock() -> u32 {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: u32 = 1;
    // SAFETY: with this flag, null and zero are what the call wants; nothing is made.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

fn seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: reads four bytes at the pointer, which live through the call.
    let known = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0_u32,
            std::ptr::from_ref(&action),
        )
    };
    known == 0
}
