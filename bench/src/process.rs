//! Processes: started, measured from outside, and ended.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::folders;

/// Ticks a second in `/proc/PID/stat` (proc_pid_stat(5)); Linux gives user space 100 on every
/// architecture.
const TICKS_PER_SECOND: u64 = 100;
/// How long a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);

/// A running program that ends with this value.
pub struct Server {
    child: Child,
    name: String,
    /// Held open: some programs run until their standard input closes.
    said: Option<mpsc::Receiver<serde_json::Value>>,
}

impl Server {
    /// Starts a program. With `speaks`, its standard output is read as JSON.
    pub fn start(mut command: Command, speaks: bool) -> Result<Server, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped());
        command.stdout(if speaks { Stdio::piped() } else { Stdio::null() });
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| Error::Io { what: name.clone(), source })?;
        let said = child.stdout.take().map(documents);
        Ok(Server { child, name, said })
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next JSON document that the program prints.
    pub fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, Error> {
        let not_ready = |program: &str, said: String| Error::NotReady {
            program: program.to_owned(),
            seconds: within.as_secs(),
            said,
        };
        let Some(said) = &self.said else {
            return Err(not_ready(&self.name, "; it was not listened to".to_owned()));
        };
        match said.recv_timeout(within) {
            Ok(value) => serde_json::from_value(value).map_err(|error| {
                not_ready(&self.name, format!("; it said something else: {error}"))
            }),
            Err(_) => {
                let ended = self.child.try_wait().ok().flatten();
                Err(not_ready(
                    &self.name,
                    ended.map_or(String::new(), |s| format!("; it ended: {s}")),
                ))
            }
        }
    }

    /// Asks the program to end, and waits for it.
    pub fn stop(mut self) -> Result<(), Error> {
        self.ask_to_stop();
        let until = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < until {
            let ended = self.child.try_wait();
            if ended.map_err(|source| Error::Io { what: self.name.clone(), source })?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let seconds = STOP_TIMEOUT.as_secs();
        Err(Error::Wrong { what: "stopping", why: format!("{} runs after {seconds} s", self.name) })
    }

    fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            // Gone already is as good.
            let _gone = kill_process(id, Signal::TERM);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a stop this finds nothing to do; after an error nothing may be left running.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// Reads JSON documents from a pipe until it closes.
fn documents(out: ChildStdout) -> mpsc::Receiver<serde_json::Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let stream = serde_json::Deserializer::from_reader(out).into_iter();
        for value in stream {
            // The end of the pipe, or of whoever listens.
            let Ok(value) = value else { return };
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A child of this program's own, on one processor if one is named.
pub fn own<S: AsRef<std::ffi::OsStr>>(
    arguments: &[S],
    processor: Option<usize>,
) -> Result<Command, Error> {
    let own = std::env::current_exe().map_err(Error::io(Path::new("this program")))?;
    let mut command = match processor {
        Some(number) => {
            let taskset = folders::program("taskset", "install Debian's util-linux")?;
            let mut command = Command::new(taskset);
            command.args(["--cpu-list", &number.to_string()]).arg(own);
            command
        }
        None => Command::new(own),
    };
    command.arg("child").args(arguments);
    Ok(command)
}

/// Puts a command on one processor.
pub fn pinned(command: &Command, processor: usize) -> Result<Command, Error> {
    let taskset = folders::program("taskset", "install Debian's util-linux")?;
    let mut pinned = Command::new(taskset);
    pinned.args(["--cpu-list", &processor.to_string()]);
    pinned.arg(command.get_program()).args(command.get_args());
    Ok(pinned)
}

/// Runs a program to its end and reads its one JSON answer.
pub fn ask<T: DeserializeOwned>(mut command: Command) -> Result<T, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::Io { what: program.clone(), source })?;
    if !output.status.success() {
        return Err(Error::Failed { program, status: output.status, said: String::new() });
    }
    serde_json::from_slice(&output.stdout).map_err(Error::wrong("a child's answer"))
}

/// Prints a child's answer.
pub fn answer(value: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string(value).map_err(Error::wrong("a child's answer"))?);
    Ok(())
}

/// CPU time that a process has taken so far, in user and kernel mode, with that of children
/// it has waited for.
pub fn cpu_time(id: u32) -> Result<Duration, Error> {
    let text = proc_file(id, "stat")?;
    // The name stands in parentheses and may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    // utime, stime, cutime and cstime are fields 14 to 17; the state, field 3, is first here.
    let ticks = fields.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok());
    let ticks: Option<u64> = ticks.sum();
    let ticks = ticks.ok_or_else(|| Error::Wrong { what: "/proc/PID/stat", why: text.clone() })?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// CPU time that a process and all processes below it have taken so far.
///
/// Of a process that has ended only what its parent has waited for is counted, so this is for
/// trees that stay as they are between two calls.
pub fn cpu_time_of_tree(id: u32) -> Result<Duration, Error> {
    let mut sum = cpu_time(id)?;
    for child in children(id)? {
        sum += cpu_time_of_tree(child)?;
    }
    Ok(sum)
}

/// The processes that a process has started and that run (proc_tid_children(5)).
pub fn children(id: u32) -> Result<Vec<u32>, Error> {
    let tasks = Path::new("/proc").join(id.to_string()).join("task");
    let mut children = Vec::new();
    for task in fs::read_dir(&tasks).map_err(Error::io(&tasks))? {
        let path = task.map_err(Error::io(&tasks))?.path().join("children");
        // A thread may have ended since.
        let text = fs::read_to_string(&path).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All of its pages that are in memory.
    pub resident_bytes: u64,
    /// The same, with shared pages divided among those who share them.
    pub proportional_bytes: u64,
    /// Pages that nobody else has.
    pub private_bytes: u64,
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Memory) {
        self.resident_bytes += other.resident_bytes;
        self.proportional_bytes += other.proportional_bytes;
        self.private_bytes += other.private_bytes;
    }
}

/// Memory that a process takes now (proc_pid_smaps_rollup(5)).
pub fn memory(id: u32) -> Result<Memory, Error> {
    let text = proc_file(id, "smaps_rollup")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| Error::Wrong { what: "/proc/PID/smaps_rollup", why: text.clone() })
    };
    Ok(Memory {
        resident_bytes: field("Rss:")?,
        proportional_bytes: field("Pss:")?,
        private_bytes: field("Private_Clean:")? + field("Private_Dirty:")?,
    })
}

/// The same of a process and all below it. Resident pages that they share count for each.
pub fn memory_of_tree(id: u32) -> Result<Memory, Error> {
    let mut sum = memory(id)?;
    for child in children(id)? {
        sum += memory_of_tree(child)?;
    }
    Ok(sum)
}

/// Bytes that a process has caused to be written to disks so far (proc_pid_io(5)).
pub fn written_bytes(id: u32) -> Result<u64, Error> {
    let text = proc_file(id, "io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| Error::Wrong { what: "/proc/PID/io", why: text.clone() })
}

fn proc_file(id: u32, name: &str) -> Result<String, Error> {
    let path = Path::new("/proc").join(id.to_string()).join(name);
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(Error::io(&path))?;
    Ok(text)
}

/// A port that is free now.
pub fn free_port() -> Result<u16, Error> {
    let any = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    std::net::TcpListener::bind(any)
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::Io { what: "a free port".to_owned(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_cpu_time_and_memory() {
        let id = std::process::id();
        let before = cpu_time(id).unwrap();
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {
            std::hint::black_box(vec![1_u8; 4096]);
        }
        assert!(cpu_time(id).unwrap() > before);
        let memory = memory(id).unwrap();
        assert!(memory.resident_bytes >= memory.proportional_bytes);
        assert!(memory.proportional_bytes > 100_000);
    }

    #[test]
    fn work_of_children_is_counted_with_their_parent() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap 'kill $!; exit' TERM; sh -c 'while :; do :; done' & echo 1; wait"]);
        let mut server = Server::start(command, true).unwrap();
        let _started: u32 = server.hear(Duration::from_secs(10)).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while cpu_time_of_tree(server.id()).unwrap() < Duration::from_millis(50) {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(cpu_time(server.id()).unwrap() < Duration::from_millis(50));
        server.stop().unwrap();
    }

    #[test]
    fn a_server_says_json_and_ends_with_its_input() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo '{\"port\": 1}'; cat"]);
        let mut server = Server::start(command, true).unwrap();
        let said: serde_json::Value = server.hear(Duration::from_secs(10)).unwrap();
        assert_eq!(said["port"], 1);
        server.stop().unwrap();
    }
}
