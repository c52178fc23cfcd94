//! An operator's commands to an agent that runs as a process: going back, and another
//! configuration.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use modunest_agent::admin::SyncAnswer;
use modunest_agent::status::AgentStatus;
use rustix::process::{Pid, Signal, kill_process};

use crate::plugins::{release, route};
use crate::registry::{Lie, Registry};
use crate::screens::config_file;
use crate::upkeep::wait_for;

/// A real `modunest-agent run`, ended with the test.
pub struct Process {
    child: Child,
    config: PathBuf,
}

impl Process {
    /// Starts it, and waits until its first sync has ended.
    pub async fn start(config: &Path) -> Process {
        Process::start_with(config, []).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_with<'v>(
        config: &Path,
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> Process {
        Process::start_asked(config, &["run"], variables).await
    }

    /// The same, with these arguments.
    async fn start_asked<'v>(
        config: &Path,
        arguments: &[&str],
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> Process {
        Process::spawn(config, arguments, variables).settled().await
    }

    /// The same, with its log there.
    pub async fn start_to(config: &Path, log: Stdio) -> Process {
        Process::spawn_to(config, &["run"], [], log).settled().await
    }

    async fn settled(self) -> Process {
        wait_for("the first sync", async || {
            let status = self.try_status().await;
            status.is_some_and(|status| status.last_sync.is_some())
        })
        .await;
        self
    }

    /// Starts it, and waits for nothing.
    fn spawn<'v>(
        config: &Path,
        arguments: &[&str],
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> Process {
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        Process::spawn_to(config, arguments, variables, log.into())
    }

    fn spawn_to<'v>(
        config: &Path,
        arguments: &[&str],
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
        log: Stdio,
    ) -> Process {
        modunest_runtime::http::install_crypto();
        let mut command = agent(config, arguments);
        command.envs(variables);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Process { child, config: config.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.config.parent().unwrap().join("state/admin.sock")
    }

    fn admin(&self) -> reqwest::Client {
        reqwest::Client::builder().unix_socket(self.socket()).build().unwrap()
    }

    async fn try_status(&self) -> Option<AgentStatus> {
        let asked = self.admin().get("http://localhost/status").send().await.ok()?;
        asked.json().await.ok()
    }

    pub async fn status(&self) -> AgentStatus {
        self.try_status().await.expect("the agent answers")
    }

    pub async fn post(&self, path: &str) -> SyncAnswer {
        let answer = self.admin().post(format!("http://localhost{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let gateway = self.status().await.gateway;
        let answer = reqwest::get(format!("http://{gateway}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the gateway answers to a POST.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.status().await.gateway);
        let answer = reqwest::Client::new().post(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap()
    }

    /// Ends it as a service manager does. Answers its log.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        assert!(self.end().success(), "{}", self.log());
        self.log()
    }

    /// The same where its log is not a file.
    pub fn stop_unlogged(mut self) {
        self.signal(Signal::TERM);
        assert!(self.end().success());
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn agent(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modunest-agent"));
    command.env_remove("MODUNEST_LOG").arg("--config").arg(config).args(arguments);
    command
}

pub fn run(config: &Path, arguments: &[&str]) -> Output {
    agent(config, arguments).output().unwrap()
}

pub fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_goes_back_at_once_and_a_stopped_one_at_its_next_start() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let process = Process::start(&config).await;
    registry.publish(release("demo/page", "1.1.0", &[], &route("/page")));
    assert_eq!(process.post("/sync?update=true").await.generation, 2);
    let says = async |process: &Process| process.get("/page").await.1;
    assert_eq!(says(&process).await, "demo/page 1.1.0 says hello");

    let back = text(run(&config, &["rollback"]));
    assert!(back.starts_with("generation 1 runs; it is stayed with"), "{back}");
    assert_eq!(says(&process).await, "demo/page 1.0.0 says hello");
    let listed = text(run(&config, &["generations"]));
    let first = listed.lines().find(|line| line.starts_with("1 ")).unwrap();
    assert!(first.contains("running current pinned"), "{listed}");
    // There is nothing before it, and nothing of this number.
    for arguments in [&["rollback"][..], &["rollback", "7"]] {
        let refused = run(&config, arguments);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("error: the agent refused:"));
    }
    assert_eq!(says(&process).await, "demo/page 1.0.0 says hello");

    // The admin API goes where it is told to, forward as well.
    let forward = process.post("/rollback?generation=2").await;
    assert_eq!((forward.generation, forward.changed), (2, true));
    assert_eq!(says(&process).await, "demo/page 1.1.0 says hello");
    process.stop();

    let back = text(run(&config, &["rollback", "1"]));
    assert!(back.starts_with("generation 1 will run when the agent starts"), "{back}");
    let process = Process::start(&config).await;
    assert_eq!(says(&process).await, "demo/page 1.0.0 says hello");
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_configuration_anew() {
    let registry = Registry::start().await;
    for name in ["one", "two"] {
        registry.publish(release(
            &format!("demo/{name}"),
            "1.0.0",
            &[],
            &route(&format!("/{name}")),
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/one", "^1")]);
    let process = Process::start(&config).await;
    assert_eq!(process.get("/two").await.0, 404);
    let since = process.status().await.plugins[0].since.clone();

    config_file(&registry, folder.path(), &[("demo/one", "^1"), ("demo/two", "^1")]);
    process.signal(Signal::HUP);
    wait_for("the second plugin", async || process.get("/two").await.0 == 200).await;
    // What has not changed goes on.
    assert_eq!(process.status().await.plugins[0].since, since);

    // What is not valid changes nothing, and is told.
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("slots = 1", "slots = 0")).unwrap();
    process.signal(Signal::HUP);
    wait_for("the refusal", async || process.log().contains("the old one is in force")).await;
    assert!(process.log().contains("host.slots"), "{}", process.log());
    assert_eq!(process.get("/two").await.0, 200);
    std::fs::write(&config, good).unwrap();
    let nothing = text(run(&config, &["reload"]));
    assert_eq!(nothing, "nothing that can change while the agent runs has changed\n");
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_nothing_to_run_offline_ends_at_once_and_says_so() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let ended = run(&config, &["run", "--offline"]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(6), "{said}");
    let state = folder.path().join("state");
    let why = format!("error: nothing is kept in {} to run without a network;", state.display());
    assert!(said.contains(&why), "{said}");
    assert!(said.contains("`modunest-agent sync --bundle FILE`"), "{said}");
    // It asked nobody, and listened nowhere.
    assert_eq!(registry.take_requests(), []);
    assert!(!said.contains("listening"), "{said}");

    // What it says is what helps.
    text(run(&config, &["sync"]));
    let process = Process::start_asked(&config, &["run", "--offline"], []).await;
    assert_eq!(process.get("/page").await, (200, "demo/page 1.0.0 says hello".to_owned()));
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_during_the_start_are_heeded() {
    // The first sync waits for the registry.
    let registry = Registry::start().await;
    registry.lie("/head", usize::MAX, Lie::Silence);
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/one", "^1")]);
    let collector = Collector::start().await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];

    let process = Process::spawn(&config, &["run"], variables);
    wait_for("the admin API", async || process.try_status().await.is_some()).await;
    assert_eq!(process.status().await.last_sync, None);
    process.signal(Signal::HUP);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(process.status().await.last_sync, None);
    // Something for the collector, which is told at the end only.
    let asked = process.admin().get("http://localhost/status");
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(asked.header("traceparent", sampled).send().await.unwrap().status(), 200);
    assert_eq!(collector.came.load(Ordering::Relaxed), 0);
    let socket = process.socket();
    assert!(socket.exists());
    process.stop();
    assert!(collector.came.load(Ordering::Relaxed) > 0);
    assert!(!socket.exists());
}

/// A collector of traces that counts what is sent to it.
struct Collector {
    url: String,
    came: Arc<AtomicUsize>,
}

impl Collector {
    async fn start() -> Self {
        let came = Arc::new(AtomicUsize::new(0));
        let comes = came.clone();
        let count = async move || {
            comes.fetch_add(1, Ordering::Relaxed);
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(count));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Collector { url, came }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_reload() {
    let registry = Registry::start().await;
    for name in ["one", "two"] {
        registry.publish(release(&format!("demo/{name}"), "1.0.0", &[], ""));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/one", "^1")]);
    let process = Process::start(&config).await;
    registry.take_requests();
    registry.lie("/head", usize::MAX, Lie::Silence);
    config_file(&registry, folder.path(), &[("demo/one", "^1"), ("demo/two", "^1")]);
    process.signal(Signal::HUP);
    wait_for("the reload's request", async || registry.requests() > 0).await;
    let log = process.stop();
    // It would have come to its end by itself, without the registry.
    assert!(log.contains("stopping") && !log.contains("the old one is in force"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_waits_for_nothing() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &["HOLD_CALLS"], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let mut process = Process::start(&config).await;
    let gateway = process.status().await.gateway;
    let held = tokio::spawn(reqwest::get(format!("http://{gateway}/page/hold")));
    wait_for("the call", async || process.status().await.plugins[0].running == 1).await;
    process.signal(Signal::INT);
    wait_for("the stop", async || process.log().contains("stopping")).await;
    process.signal(Signal::INT);
    assert_eq!(process.end().code(), Some(1), "{}", process.log());
    assert!(process.log().contains("stopping at once"));
    assert!(held.await.unwrap().is_err());
}
