//! System calls, by seccomp: what is not on the list answers `EPERM`.
//!
//! On the list is what a library in Rust or C needs for threads, memory, time, and files that
//! are open or that Landlock lets it open. Not on it: other programs and processes, sockets,
//! signals to others, anything about users, mounts, namespaces, keys, tracing and devices, and
//! what changes files by their names without opening them, where Landlock does not look.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::SandboxError;

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Open files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_getdents64,
    // Files by name, below Landlock. `openat` has a condition, and `openat2` answers `ENOSYS`.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_umask,
    // Waiting.
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // The sockets to the host, which are open already.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    // Memory. `mmap` has conditions.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads. `clone3` answers `ENOSYS`, and `clone` has a condition.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals that arrive.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // What a process may know of itself and its machine.
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

/// The same, as older libraries on this processor call them.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// Namespaces that a new thread could ask for.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// `PR_SET_VMA`: the C library names its memory with it.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Filters the calling process's system calls from now on. `libraries` says whether it opens
/// any.
pub(super) fn filter(libraries: bool) -> Result<(), SandboxError> {
    let refused = |why: String| SandboxError::Calls(why);
    // A filter cannot look behind the pointers that these take. Answered so, libraries fall back
    // to `clone` and `openat`. This one comes first: the other lets no filter in any more.
    let behind_pointers = [libc::SYS_clone3, libc::SYS_openat2].map(|call| (call, Vec::new()));
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let without = program(behind_pointers.into(), SeccompAction::Allow, absent);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let listed = rules(libraries).and_then(|rules| program(rules, denied, SeccompAction::Allow));
    for program in [without, listed] {
        let program = program.map_err(|error| refused(error.to_string()))?;
        seccompiler::apply_filter(&program).map_err(|error| refused(error.to_string()))?;
    }
    Ok(())
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, listed, processor)?.try_into()
}

/// Whether these bits of an argument are all clear.
fn without(argument: u8, bits: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    with(argument, bits, 0)
}

/// Whether these bits of an argument are as in `value`.
fn with(
    argument: u8,
    bits: i32,
    value: i32,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let masked = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, value)
}

/// Opening a file, whose flags are this argument. It empties the file only in a mode that writes:
/// Landlock before its third interface looks at nothing but the mode.
fn opening(flags: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    /// Both bits of the mode. With both set, a file is opened for neither, and emptied all the same.
    const MODE: i32 = 0b11;
    let keeps = SeccompRule::new(vec![without(flags, libc::O_TRUNC)?]);
    let writes =
        [libc::O_WRONLY, libc::O_RDWR].map(|mode| SeccompRule::new(vec![with(flags, MODE, mode)?]));
    [keeps].into_iter().chain(writes).collect()
}

/// Memory that is counted by what bounds it (`RLIMIT_DATA`): the kernel leaves out what is shared,
/// although it is no file, and what grows as a stack.
fn mapping(libraries: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    // `MAP_SHARED_VALIDATE` has the bit of `MAP_SHARED`, too.
    let counted = [libc::MAP_SHARED, libc::MAP_ANONYMOUS];
    let rule = |clear: i32| {
        let mut conditions = vec![without(3, clear | libc::MAP_GROWSDOWN)?];
        if !libraries {
            conditions.push(without(2, libc::PROT_EXEC)?);
        }
        SeccompRule::new(conditions)
    };
    counted.map(rule).into_iter().collect()
}

fn rules(libraries: bool) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new())).collect();
    let own = u64::from(std::process::id());
    let one_of =
        |argument, values: &[u64]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
            let rule = |value: &u64| {
                let is = SeccompCmpOp::Eq;
                SeccompRule::new(vec![SeccompCondition::new(
                    argument,
                    SeccompCmpArgLen::Dword,
                    is,
                    *value,
                )?])
            };
            values.iter().map(rule).collect()
        };
    rules.insert(libc::SYS_openat, opening(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opening(1)?);
    rules.insert(libc::SYS_mmap, mapping(libraries)?);
    if !libraries {
        // Machine code that was written or mapped becomes executable when it is writable no more.
        let either = [libc::PROT_EXEC, libc::PROT_WRITE].map(|bit| without(2, bit));
        let either = either.map(|condition| SeccompRule::new(vec![condition?]));
        rules.insert(libc::SYS_mprotect, either.into_iter().collect::<Result<_, _>>()?);
    }
    // New threads, but no new processes and no namespaces.
    let mask = u64::from((libc::CLONE_THREAD | NAMESPACES).unsigned_abs());
    let thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        u64::from(libc::CLONE_THREAD.unsigned_abs()),
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![thread])?]);
    // Signals to itself: `abort` sends one.
    rules.insert(libc::SYS_kill, one_of(0, &[own])?);
    rules.insert(libc::SYS_tgkill, one_of(0, &[own])?);
    rules.insert(libc::SYS_prlimit64, one_of(0, &[0, own])?);
    let names = [libc::PR_SET_NAME, libc::PR_GET_NAME].map(|n| u64::from(n.unsigned_abs()));
    rules.insert(libc::SYS_prctl, one_of(0, &[names[0], names[1], PR_SET_VMA])?);
    // No `F_SETOWN`, which would send signals to others.
    let commands = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETLK,
        libc::F_SETLK,
        libc::F_SETLKW,
        libc::F_OFD_GETLK,
        libc::F_OFD_SETLK,
        libc::F_OFD_SETLKW,
    ];
    rules.insert(libc::SYS_fcntl, one_of(1, &commands.map(|c| u64::from(c.unsigned_abs())))?);
    let requests = [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS];
    rules.insert(libc::SYS_ioctl, one_of(1, &requests.map(u64::from))?);
    // A pair to wake up threads; datagram sockets could send to any name.
    let kinds = u64::from(!(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned());
    let local = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::AF_UNIX.unsigned_abs()),
    )?;
    let stream = SeccompCondition::new(
        1,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(kinds),
        u64::from(libc::SOCK_STREAM.unsigned_abs()),
    )?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![local, stream])?]);
    Ok(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE_BYTES: usize = 4096;

    /// Maps a page with these flags; answers whether it was allowed.
    fn is_mapped(flags: i32, file: i32) -> bool {
        let (nowhere, read) = (std::ptr::null_mut(), libc::PROT_READ);
        // SAFETY: a new page, of which nobody else knows, and which nobody reads.
        unsafe { libc::mmap(nowhere, PAGE_BYTES, read, flags, file, 0) != libc::MAP_FAILED }
    }

    #[test]
    fn memory_that_no_limit_counts_is_not_mapped() {
        let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
        let kinds = [
            (private | libc::MAP_ANONYMOUS, true, true),
            (private, false, true),
            (shared, false, true),
            (shared | libc::MAP_ANONYMOUS, true, false),
            (private | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN, true, false),
        ];
        let program = std::fs::File::open("/proc/self/exe").unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&program);
        let all = move || {
            kinds.map(|(flags, is_anonymous, _)| {
                is_mapped(flags, if is_anonymous { -1 } else { descriptor })
            })
        };
        assert_eq!(all(), [true; 5]);
        for libraries in [true, false] {
            let attempt = move || {
                rustix::thread::set_no_new_privs(true).unwrap();
                filter(libraries).unwrap();
                all()
            };
            let allowed = std::thread::spawn(attempt).join().unwrap();
            assert_eq!(allowed, kinds.map(|(.., allowed)| allowed), "libraries: {libraries}");
        }
    }

    /// Maps a page, and changes its protection where there is another one; answers whether both
    /// were allowed.
    fn is_allowed(mapped: i32, changed: Option<i32>) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new page, of which nobody else knows.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES, mapped, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return false;
        }
        // SAFETY: the page from above, which is not read, written or run.
        changed.is_none_or(|changed| unsafe { libc::mprotect(page, PAGE_BYTES, changed) } == 0)
    }

    /// What a thread may do under the filter, which is for this thread alone.
    fn under_filter(libraries: bool) -> [bool; 5] {
        let (read, write, run) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        let attempt = move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            filter(libraries).unwrap();
            [
                is_allowed(read | write, None),
                is_allowed(read | write, Some(read | run)),
                is_allowed(read | run, None),
                is_allowed(read | write | run, None),
                is_allowed(read | write, Some(read | write | run)),
            ]
        };
        std::thread::spawn(attempt).join().unwrap()
    }

    #[test]
    fn without_libraries_nothing_is_writable_and_executable() {
        assert_eq!(under_filter(true), [true; 5]);
        assert_eq!(under_filter(false), [true, true, false, false, false]);
    }
}
