//! A Debian kernel of its own for a test, where the machine's cannot be had as the test needs it:
//! an emulated computer whose memory holds this very test, the agent, and nothing else.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the guest finds the libraries of plugins: it has no compiler.
const LIBRARIES: &str = "/plugins";
/// What its first program says at the end.
const ENDED: &str = "the test ended: ";
/// How long it may take, on an emulated processor.
const LIMIT: Duration = Duration::from_secs(300);

/// The first program: mounts what the kernel offers, and runs the test.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox ip link set lo up
/it --exact "$MODUNEST_GUEST" --nocapture
echo "the test ended: $?"
/bin/busybox poweroff -f
"#;

/// Whether this is such a guest.
pub fn is_here() -> bool {
    std::env::var_os("MODUNEST_GUEST").is_some()
}

/// What a library is called in a guest, by what it was compiled from.
fn library_name(source: &str, macros: &[&str]) -> String {
    let parts: Vec<&str> = std::iter::once(source).chain(macros.iter().copied()).collect();
    parts.join(" ").replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}

/// A library that was compiled before this guest was started.
pub fn library(source: &str, macros: &[&str]) -> Vec<u8> {
    std::fs::read(Path::new(LIBRARIES).join(library_name(source, macros))).unwrap()
}

/// Runs a test of this program in a guest, which finds these libraries. Answers what was printed,
/// and whether the test passed.
pub fn run(test: &str, libraries: &[(&str, &[&str])]) -> (String, bool) {
    let kernel = std::env::var_os("MODUNEST_KERNEL");
    let kernel = kernel.expect("run by `cargo xtask test`, which unpacks a kernel");
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    for (source, macros) in libraries {
        let content = crate::plugins::library_of(source, macros);
        put(&root, &Path::new(LIBRARIES).join(library_name(source, macros)), &content);
    }
    let programs = [
        (std::env::current_exe().unwrap(), "/it"),
        (AGENT.into(), AGENT),
        (BUSYBOX.into(), BUSYBOX),
    ];
    for (from, to) in programs {
        let to = root.join(&to[1..]);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Without what only a debugger reads: all of this is in the guest's memory.
        succeeds(Command::new("strip").arg("-o").arg(to).arg(&from));
        for library in shared_libraries(&from) {
            put(&root, &library, &std::fs::read(&library).unwrap());
        }
    }
    for folder in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    // Clients of HTTP read them, whether they need any or not.
    put(&root, Path::new(CERTIFICATES), &std::fs::read(CERTIFICATES).unwrap());
    put(&root, Path::new("/init"), INIT.as_bytes());
    let archive = work.path().join("initramfs");
    let pack = "find . | cpio --quiet --create --format=newc --owner=+0:+0";
    let packed = std::fs::File::create(&archive).unwrap();
    succeeds(Command::new("sh").args(["-c", pack]).current_dir(&root).stdout(packed));

    let mut guest = Command::new("timeout");
    guest.arg(LIMIT.as_secs().to_string()).arg("qemu-system-x86_64");
    guest.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    guest.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    guest.arg("-kernel").arg(kernel).arg("-initrd").arg(&archive).arg("-append");
    // What the kernel hands on to its first program are the variables that it does not know.
    guest.arg(format!("console=ttyS0 quiet panic=-1 MODUNEST_GUEST={test}"));
    let output = guest.stdin(Stdio::null()).output().expect("run by `cargo xtask test`");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let passed =
        text.contains(&format!("{ENDED}0\n")) && text.contains("test result: ok. 1 passed");
    (text, passed)
}

/// As tests of this machine name it, so that it is there by the same name.
const AGENT: &str = env!("CARGO_BIN_EXE_modunest-agent");
/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// Debian's ca-certificates.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

fn put(root: &Path, path: &Path, content: &[u8]) {
    let path = root.join(path.strip_prefix("/").unwrap());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// What the dynamic linker would load, itself among it.
fn shared_libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

fn succeeds(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
