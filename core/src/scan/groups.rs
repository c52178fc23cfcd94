//! What imported functions are for.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Finding, shown};

/// Most names listed for a group in a report.
pub const IMPORTS_SHOWN_MAX: usize = 20;

/// What a group of imported functions gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportGroup {
    /// Files and folders.
    Filesystem,
    /// Sockets and name resolution.
    Network,
    /// Starting and signalling processes.
    Process,
    /// User, group and root folder.
    Identity,
    /// Other processes' memory.
    Tracing,
    /// Loading more code.
    Loading,
    /// Changing the protection of memory.
    Protection,
    /// Environment variables.
    Environment,
    /// Kernel modules, mounts, reboots.
    System,
    /// Any system call by number.
    RawSystemCalls,
    /// Services of other plugins, which a component must import to call.
    Services,
    /// Operations of the host, each of which the operator has to grant.
    Operations,
}

impl fmt::Display for ImportGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImportGroup::Filesystem => "files",
            ImportGroup::Network => "the network",
            ImportGroup::Process => "processes",
            ImportGroup::Identity => "user and group identity",
            ImportGroup::Tracing => "the memory of other processes",
            ImportGroup::Loading => "loading code",
            ImportGroup::Protection => "memory protection",
            ImportGroup::Environment => "environment variables",
            ImportGroup::System => "the whole system",
            ImportGroup::RawSystemCalls => "raw system calls",
            ImportGroup::Services => "services of other plugins",
            ImportGroup::Operations => "operations of the host",
        })
    }
}

/// Groups with their functions; a name ending in `*` stands for all that begin so.
const GROUPS: [(ImportGroup, &[&str]); 10] = [
    (
        ImportGroup::Filesystem,
        &[
            "open*",
            "creat*",
            "fopen*",
            "freopen*",
            "stat*",
            "lstat*",
            "fstatat*",
            "__xstat*",
            "__lxstat*",
            "__fxstatat*",
            "access",
            "faccessat",
            "rename*",
            "unlink*",
            "remove",
            "mkdir*",
            "mknod*",
            "mkfifo*",
            "mkstemp*",
            "mkdtemp*",
            "rmdir",
            "link",
            "linkat",
            "symlink*",
            "readlink*",
            "realpath",
            "chmod",
            "fchmod*",
            "chown",
            "fchown*",
            "lchown",
            "truncate*",
            "opendir",
            "fdopendir",
            "scandir*",
            "ftw*",
            "nftw*",
            "glob*",
            "utime*",
            "chdir",
            "fchdir",
            "getcwd",
            "inotify_*",
            "fanotify_*",
            "name_to_handle_at",
            "setxattr",
            "lsetxattr",
            "fsetxattr",
            "copy_file_range",
            "sendfile*",
            "shm_open",
            "shm_unlink",
            "io_uring_*",
        ],
    ),
    (
        ImportGroup::Network,
        &[
            "socket",
            "socketpair",
            "connect",
            "bind",
            "listen",
            "accept",
            "accept4",
            "send",
            "sendto",
            "sendmsg",
            "sendmmsg",
            "recv",
            "recvfrom",
            "recvmsg",
            "recvmmsg",
            "getaddrinfo",
            "gethostby*",
            "getnameinfo",
            "res_*",
            "__res_*",
            "setsockopt",
            "getifaddrs",
            "if_nametoindex",
        ],
    ),
    (
        ImportGroup::Process,
        &[
            "fork",
            "vfork",
            "_Fork",
            "clone",
            "clone3",
            "exec*",
            "fexecve",
            "posix_spawn*",
            "system",
            "popen",
            "kill",
            "killpg",
            "tgkill",
            "pthread_kill",
            "waitpid",
            "waitid",
            "wait3",
            "wait4",
            "daemon",
            "setsid",
            "prctl",
            "setrlimit*",
            "prlimit*",
            "pidfd_*",
            "unshare",
            "setns",
        ],
    ),
    (
        ImportGroup::Identity,
        &[
            "setuid",
            "setgid",
            "seteuid",
            "setegid",
            "setreuid",
            "setregid",
            "setresuid",
            "setresgid",
            "setgroups",
            "initgroups",
            "chroot",
            "capset",
            "setfsuid",
            "setfsgid",
        ],
    ),
    (
        ImportGroup::Tracing,
        &["ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"],
    ),
    (ImportGroup::Loading, &["dlopen", "dlmopen", "dlsym", "dlvsym", "memfd_create"]),
    (ImportGroup::Protection, &["mprotect", "pkey_mprotect", "remap_file_pages", "personality"]),
    (
        ImportGroup::Environment,
        &[
            "getenv",
            "secure_getenv",
            "setenv",
            "unsetenv",
            "putenv",
            "clearenv",
            "environ",
            "__environ",
        ],
    ),
    (
        ImportGroup::System,
        &[
            "mount",
            "umount*",
            "pivot_root",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "swapoff",
            "sethostname",
            "setdomainname",
            "settimeofday",
            "clock_settime",
            "stime",
            "adjtimex",
            "iopl",
            "ioperm",
            "bpf",
            "perf_event_open",
            "kexec_load",
            "acct",
            "quotactl",
            "vhangup",
        ],
    ),
    (ImportGroup::RawSystemCalls, &["syscall"]),
];

/// Libraries that come with the C library and compiler of every supported target.
const SYSTEM_LIBRARIES: [&str; 12] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "libc.so",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "ld-linux-riscv64-lp64d.so.1",
];

pub(super) fn is_system_library(name: &[u8]) -> bool {
    SYSTEM_LIBRARIES.iter().any(|known| known.as_bytes() == name)
}

/// One finding for each group of which there are imports.
pub(super) fn of_imports(imports: &BTreeSet<&[u8]>) -> Vec<Finding> {
    GROUPS
        .iter()
        .filter_map(|(group, patterns)| {
            let names: Vec<String> = imports
                .iter()
                .filter(|name| patterns.iter().any(|pattern| matches(pattern, name)))
                .take(IMPORTS_SHOWN_MAX)
                .map(|name| shown(name))
                .collect();
            (!names.is_empty()).then_some(Finding::Imports { group: *group, names })
        })
        .collect()
}

fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}
