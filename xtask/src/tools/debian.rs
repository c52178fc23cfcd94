//! Packages of the distribution: what starts other package managers, and other people's
//! programs that tests start.

use std::process::Command;

use crate::error::Error;
use crate::process;

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
    ensure(&mut shell("ls /usr/lib/*/faketime/libfaketimeMT.so.1"), "libfaketime")
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
