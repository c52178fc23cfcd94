//! The policy of a component's process, attacked from inside by what no component can do: by
//! the system calls themselves, as if somebody had got out of all other walls.

use std::ffi::CStr;
use std::io::Read as _;

use landlock::ABI;

use super::*;

/// What a component's process gets: nothing but the plugin's own files, to be read.
fn policy(folder: &std::path::Path) -> SandboxPolicy {
    let limits = Limits { file_max_bytes: Some(1024 * 1024), ..Limits::default() };
    SandboxPolicy { read: vec![folder.to_owned()], write: Vec::new(), libraries: false, limits }
}

/// Runs `attack` in a process of its own, under the policy and this interface of Landlock; answers
/// what it wrote down.
fn attacked(policy: &SandboxPolicy, newest: ABI, attack: impl FnOnce() -> String) -> String {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the copy has this thread alone. It asks for memory, which the C library makes ready
    // for use in a copy, and takes no other lock that another thread may hold.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let text = match enforce_by(policy, true, newest) {
            Ok(enforced) if enforced.is_whole() => attack(),
            other => format!("not enforced: {other:?}"),
        };
        let written = rustix::io::write(&writer, text.as_bytes()).is_ok();
        // SAFETY: ends the copy at once, without what this process has registered for its end.
        unsafe { libc::_exit(i32::from(!written)) };
    }
    assert!(pid > 0, "{}", std::io::Error::last_os_error());
    drop(writer);
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    let (_, status) = ended.unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "{status:?}: {text}");
    text
}

/// What a system call came to.
fn said(result: i64) -> String {
    if result >= 0 {
        return "DONE".to_owned();
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ENOSYS) => "ENOSYS".to_owned(),
        _ => error.to_string(),
    }
}

/// A system call with numbers and texts that live through it.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: numbers, null, and texts that end and that live through the call. It is refused;
        // where it is not, this process is the only one that has less than before.
        said(unsafe { libc::syscall(libc::$number $(, $argument)*) })
    };
}

fn open(path: &CStr, flags: i32) -> String {
    call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600)
}

/// Opens a file in a way of which the filter cannot see the flags.
fn open_by_pointer(path: &CStr, flags: i32) -> String {
    let how = [u64::from(flags.cast_unsigned()), 0, 0];
    call!(SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how))
}

/// New memory, of a kind.
fn map(flags: i32) -> String {
    let flags = flags | libc::MAP_ANONYMOUS;
    call!(SYS_mmap, 0_usize, 4096_usize, libc::PROT_READ, flags, -1, 0_usize)
}

/// Everything that leads out of a process; `victim` is another one.
fn everything(victim: i32) -> String {
    let nobody = std::ptr::null::<u8>();
    let program = c"/bin/true".as_ptr();
    let signal = libc::SIGCONT;
    let memory = std::ffi::CString::new(format!("/proc/{victim}/mem")).unwrap_or_default();
    let attempts = [
        ("socket inet", call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)),
        ("socket unix", call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("socket netlink", call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        ("connect", call!(SYS_connect, 0, nobody, 0)),
        ("bind", call!(SYS_bind, 0, nobody, 0)),
        ("fork", call!(SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)),
        ("execve", call!(SYS_execve, program, nobody, nobody)),
        ("execveat", call!(SYS_execveat, libc::AT_FDCWD, program, nobody, nobody, 0)),
        ("ptrace", call!(SYS_ptrace, libc::PTRACE_ATTACH, victim, 0, 0)),
        ("process_vm_readv", call!(SYS_process_vm_readv, victim, nobody, 0, nobody, 0, 0)),
        ("process_vm_writev", call!(SYS_process_vm_writev, victim, nobody, 0, nobody, 0, 0)),
        ("pidfd_open", call!(SYS_pidfd_open, victim, 0)),
        ("kill", call!(SYS_kill, victim, signal)),
        ("kill all", call!(SYS_kill, -1, signal)),
        ("tgkill", call!(SYS_tgkill, victim, victim, signal)),
        ("tkill", call!(SYS_tkill, victim, signal)),
        ("rt_sigqueueinfo", call!(SYS_rt_sigqueueinfo, victim, signal, nobody)),
        ("limits of another", call!(SYS_prlimit64, victim, libc::RLIMIT_NOFILE, nobody, nobody)),
        ("signals by F_SETOWN", call!(SYS_fcntl, 0, libc::F_SETOWN, victim)),
        ("outlive the agent", call!(SYS_prctl, libc::PR_SET_PDEATHSIG, 0)),
        ("namespaces", call!(SYS_unshare, libc::CLONE_NEWUSER)),
        ("mount", call!(SYS_mount, nobody, nobody, nobody, 0, nobody)),
        ("bpf", call!(SYS_bpf, 0, nobody, 0)),
        ("io_uring_setup", call!(SYS_io_uring_setup, 1, nobody)),
        ("memfd_create", call!(SYS_memfd_create, c"x".as_ptr(), 0)),
        ("shmget", call!(SYS_shmget, libc::IPC_PRIVATE, 4096_usize, libc::IPC_CREAT)),
        ("shared memory", map(libc::MAP_SHARED)),
        ("memory as a stack", map(libc::MAP_PRIVATE | libc::MAP_GROWSDOWN)),
        ("shared memory by a device", open(c"/dev/zero", libc::O_RDWR)),
        ("shared memory by a file", open(c"/dev/shm/attack", libc::O_CREAT | libc::O_RDWR)),
        ("another filter", call!(SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, nobody)),
        ("read /etc/passwd", open(c"/etc/passwd", libc::O_RDONLY)),
        ("list /", open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)),
        ("another's memory", open(&memory, libc::O_RDONLY)),
        ("its own memory", open(c"/proc/self/mem", libc::O_RDWR)),
        ("make a file", open(c"/tmp/modunest-attack", libc::O_CREAT | libc::O_WRONLY)),
        (
            "make a folder",
            call!(SYS_mkdirat, libc::AT_FDCWD, c"/tmp/modunest-attack".as_ptr(), 0o700),
        ),
    ];
    attempts.map(|(what, came_to)| format!("{what}: {came_to}")).join("\n")
}

/// Ways to empty a file that may only be read.
fn shortened(file: &CStr) -> [String; 5] {
    let emptied = |mode: i32| open(file, mode | libc::O_TRUNC);
    [
        format!("empty its own file, and read it: {}", emptied(libc::O_RDONLY)),
        format!("empty its own file, and write it: {}", emptied(libc::O_WRONLY)),
        format!("empty its own file, and neither: {}", emptied(0b11)),
        format!("by a pointer: {}", open_by_pointer(file, libc::O_RDONLY | libc::O_TRUNC)),
        format!("shorten its own file: {}", call!(SYS_truncate, file.as_ptr(), 0)),
    ]
}

/// All of it, where Landlock is as it was with this interface.
fn nothing_leads_out(newest: ABI) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own"), "kept").unwrap();
    let path = |name: &str| {
        std::ffi::CString::new(folder.path().join(name).into_os_string().into_encoded_bytes())
            .unwrap()
    };
    let (own, new) = (path("own"), path("new"));
    let victim = std::process::id().cast_signed();
    let text = attacked(&policy(folder.path()), newest, || {
        // What it may do shows that the rest is refused for what it is.
        let allowed = [
            format!("read its own file: {}", open(&own, libc::O_RDONLY)),
            format!("signal itself: {}", call!(SYS_kill, std::process::id(), 0)),
            format!("memory of its own: {}", map(libc::MAP_PRIVATE)),
        ];
        let refused = [
            format!("write its own file: {}", open(&own, libc::O_WRONLY)),
            format!("make a file of its own: {}", open(&new, libc::O_CREAT | libc::O_WRONLY)),
        ];
        let shortened = shortened(&own).join("\n");
        [allowed.join("\n"), refused.join("\n"), shortened, everything(victim)].join("\n")
    });
    assert_eq!(std::fs::read_to_string(folder.path().join("own")).unwrap(), "kept", "{text}");
    let (done, refused): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.ends_with(": DONE"));
    let allowed = ["read its own file: DONE", "signal itself: DONE", "memory of its own: DONE"];
    assert_eq!(done, allowed, "{text}");
    // Whatever else a call might fail for: it was refused.
    let is_refusal = |line: &str| {
        line.ends_with(": EPERM") || line.ends_with(": EACCES") || line == "by a pointer: ENOSYS"
    };
    let otherwise: Vec<_> = refused.iter().filter(|line| !is_refusal(line)).collect();
    assert_eq!(otherwise, Vec::<&&str>::new());
    assert_eq!(refused.len(), 44, "{text}");
}

#[test]
fn nothing_leads_out_of_a_components_process() {
    nothing_leads_out(super::files::NEWEST);
}

/// Before its third interface, Landlock does not see that a file is emptied.
#[test]
fn nothing_leads_out_where_landlock_is_old() {
    nothing_leads_out(ABI::V2);
    nothing_leads_out(ABI::V1);
}

#[test]
fn what_may_be_written_may_be_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own");
    let path = std::ffi::CString::new(file.clone().into_os_string().into_encoded_bytes()).unwrap();
    let policy = SandboxPolicy { write: vec![folder.path().to_owned()], ..policy(folder.path()) };
    for newest in [ABI::V2, super::files::NEWEST] {
        std::fs::write(&file, "gone").unwrap();
        let text = attacked(&policy, newest, || open(&path, libc::O_WRONLY | libc::O_TRUNC));
        assert_eq!((text.as_str(), std::fs::metadata(&file).unwrap().len()), ("DONE", 0));
    }
}
