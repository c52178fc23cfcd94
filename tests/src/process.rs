//! Child processes: found, started, watched, ended, and their logs kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a program may take to be ready, on a machine that compiles beside it.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take when it builds the sample plugins first, with optimisation.
const BUILD_LIMIT: Duration = Duration::from_secs(500);
/// How long anything else may take that is expected to happen.
pub const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How long a program may take to end with its input.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Lines of a log that a failing test shows.
const SHOWN_LINES: usize = 60;

/// A program of the workspace, next to the tests' own.
///
/// # Panics
/// With the way out, when it was not built.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    // The tests' own program is in `deps` of the folder that holds the others.
    let found = tests.ancestors().skip(1).map(|folder| folder.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no program {name} next to the tests; build it first: \
             cargo build -p modunest -p modunest-agent -p modunest-functions -p modunest-tests"
        )
    })
}

/// A plugin library that is an example of this package.
///
/// # Panics
/// With the way out, when it was not built.
pub fn example_library(name: &str) -> PathBuf {
    let file = Path::new("examples").join(format!("lib{name}.so"));
    let tests = std::env::current_exe().unwrap();
    let found = tests.ancestors().skip(1).map(|folder| folder.join(&file)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{} was not built; run: cargo build -p modunest-tests --examples", file.display())
    })
}

/// A running program. It is killed when dropped; a test that fails shows its log.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Where this process's part of the log begins.
    log_start: usize,
    /// Kept open for a program that ends when its input does.
    input: Option<ChildStdin>,
}

impl Process {
    /// Starts `command`, which writes its output to files in `logs`. What an earlier process
    /// of this name logged there stays in front of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: Command, logs: &Path) -> Process {
        Process::spawn(name, command, logs, Stdio::null())
    }

    /// As [`Process::start`], for a program that goes on until its input ends. Whatever becomes
    /// of the test, its end is the program's.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with_input(name: &str, command: Command, logs: &Path) -> Process {
        Process::spawn(name, command, logs, Stdio::piped())
    }

    fn spawn(name: &str, mut command: Command, logs: &Path, input: Stdio) -> Process {
        std::fs::create_dir_all(logs).unwrap();
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.log")));
        let log = File::options().create(true).append(true).open(&stderr).unwrap();
        let log_start = usize::try_from(log.metadata().unwrap().len()).unwrap();
        command.stdin(input).stdout(File::create(&stdout).unwrap()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        Process { name: name.to_owned(), child, stdout, stderr, log_start, input }
    }

    /// The first JSON value that the program prints.
    ///
    /// # Panics
    /// When the program ends or [`START_LIMIT`] passes before.
    pub async fn first_value(&mut self) -> Value {
        self.first_value_within(START_LIMIT).await
    }

    /// As [`Process::first_value`], for a program that builds the sample plugins before.
    pub async fn first_value_after_a_build(&mut self) -> Value {
        self.first_value_within(BUILD_LIMIT).await
    }

    async fn first_value_within(&mut self, limit: Duration) -> Value {
        let start = Instant::now();
        loop {
            let ended = self.ended();
            let text = self.output();
            let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                return value;
            }
            if let Some(status) = ended {
                panic!("{} ended ({status}) before it was ready:\n{}", self.name, self.log_end());
            }
            assert!(start.elapsed() < limit, "{} is not ready:\n{}", self.name, self.log_end());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Its process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Panics
    /// When the system does not know the process.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it as a power failure would, and waits until it is gone.
    ///
    /// # Panics
    /// When the system does not know the process.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ended = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Panics
    /// When it does not end within [`WAIT_LIMIT`].
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.wait().await
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than [`WAIT_LIMIT`].
    pub async fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                start.elapsed() < WAIT_LIMIT,
                "{} does not end:\n{}",
                self.name,
                self.log_end()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What it has printed.
    ///
    /// # Panics
    /// When that is not UTF-8.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    /// What it has logged, as text.
    ///
    /// # Panics
    /// When that is not UTF-8.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap().split_off(self.log_start)
    }

    /// Waits for a line of the log with this message.
    ///
    /// # Panics
    /// When the program ends or [`START_LIMIT`] passes before.
    pub async fn logged(&mut self, message: &str) -> Value {
        let start = Instant::now();
        loop {
            let ended = self.ended();
            if let Some(line) = self.log_lines().into_iter().find(|line| line["message"] == message)
            {
                return line;
            }
            assert!(
                ended.is_none() && start.elapsed() < START_LIMIT,
                "{} has not said \"{message}\":\n{}",
                self.name,
                self.log_end()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Its log's lines, each a JSON object.
    ///
    /// # Panics
    /// When a line is no JSON: logs that are not on a terminal are for programs.
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        // A process that was killed may have been cut off within its last line.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}"))
            })
            .collect()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.input.take().is_some() {
            // A program with children of its own: it ends them when its input has ended.
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < END_LIMIT {
                std::thread::sleep(PAUSE);
            }
        }
        // It may have ended before, and there is nobody to tell here.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        if std::thread::panicking() {
            // The one place where a failing test says what the programs had to say.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("── end of the log of {} ──\n{}", self.name, self.log_end());
            }
        }
    }
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command) -> Finished {
    let output = command.stdin(Stdio::null()).output();
    Finished::new(output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// What a program that ended has said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    fn new(output: Output) -> Finished {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// That it ended well.
    ///
    /// # Panics
    /// With everything it said, when not.
    #[must_use]
    pub fn good(self) -> Finished {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The JSON it printed.
    ///
    /// # Panics
    /// When that is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks again until there is an answer.
///
/// # Panics
/// Naming `what`, when [`WAIT_LIMIT`] passes before.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < WAIT_LIMIT, "{what}: not within {WAIT_LIMIT:?}");
        tokio::time::sleep(PAUSE * 4).await;
    }
}
