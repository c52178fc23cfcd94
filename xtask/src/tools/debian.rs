//! Packages of the distribution: what starts other package managers, and other people's
//! programs that tests start.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::process;

/// Names the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Makes sure that a program can be started, by installing its Debian package if it cannot.
///
/// `probe` succeeds where nothing is to be done.
pub fn ensure(probe: &mut Command, package: &str) -> Result<(), Error> {
    if process::first_line(probe).is_some() {
        return Ok(());
    }
    eprintln!("installing Debian's {package}");
    // Package lists may be absent on a fresh image, so a first failure only says that.
    if process::run(&mut install(package)).is_err() {
        process::run(as_root("apt-get").args(["update", "-qq"]))?;
        process::run(&mut install(package))?;
    }
    match process::first_line(probe) {
        Some(_) => Ok(()),
        None => Err(Error::NoProgram { probe: process::shown(probe), package: package.to_owned() }),
    }
}

/// Makes sure that the programs and libraries of others are there which tests use: a cache that
/// stands before a registry, a reader of logs that nobody here wrote, and a clock that runs fast.
pub fn ensure_peers() -> Result<(), Error> {
    const TLOG: &str = "ls /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tlog.go";
    let shell = |probe: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", probe]);
        command
    };
    ensure(&mut shell("PATH=$PATH:/usr/sbin command -v nginx"), "nginx-light")?;
    ensure(&mut shell("command -v go"), "golang-go")?;
    ensure(&mut shell(TLOG), "golang-golang-x-mod-dev")?;
    ensure(&mut shell("ls /usr/lib/*/faketime/libfaketimeMT.so.1"), "libfaketime")?;
    ensure(&mut shell("command -v qemu-system-x86_64"), "qemu-system-x86")?;
    ensure(&mut shell("ls /bin/busybox && ! ldd /bin/busybox"), "busybox-static")?;
    ensure(&mut shell("command -v cpio"), "cpio")
}

/// Unpacks Debian's kernel for virtual machines to `folder/vmlinuz`, for tests that need control
/// groups, which the machine they run on may not let them have. It is not installed.
pub fn unpack_kernel(folder: &Path) -> Result<(), Error> {
    eprintln!("unpacking Debian's {KERNEL}");
    let file = |source| Error::File { path: folder.to_owned(), source };
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    fs::create_dir_all(folder).map_err(file)?;
    if download_kernel(folder).is_err() {
        process::run(as_root("apt-get").args(["update", "-qq"]))?;
        download_kernel(folder)?;
    }
    let unpack = "dpkg-deb --fsys-tarfile linux-image-*.deb | tar --extract --wildcards \
                  --strip-components=2 './boot/vmlinuz-*' && mv vmlinuz-* vmlinuz && rm -- *.deb";
    process::run(Command::new("sh").args(["-ec", unpack]).current_dir(folder))
}

/// The package depends on the one of today's version, which has the kernel.
fn download_kernel(folder: &Path) -> Result<(), Error> {
    let depends = process::output(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let mut words = depends.split_whitespace();
    let versioned = words.find(|word| word.starts_with("linux-image-") && *word != KERNEL);
    let versioned = versioned.unwrap_or(KERNEL);
    process::run(Command::new("apt-get").args(["download", "-q", versioned]).current_dir(folder))
}

fn install(package: &str) -> Command {
    let mut command = as_root("apt-get");
    command.args(["install", "-y", "-q", "--no-install-recommends", package]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn as_root(program: &str) -> Command {
    let is_root = process::first_line(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_for_a_program_that_runs() {
        assert!(ensure(Command::new("uname").arg("-s"), "no-such-package").is_ok());
    }
}
