//! A configuration that is read anew: what takes effect without a restart, and what is said of
//! what does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use modunest_agent::config::grants::Grant;
use modunest_agent::config::{Config, ConfigError, Grants, Listen, Wanted};
use modunest_agent::embed::Configuration;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, Error, Reloaded};
use modunest_core::statement::{Statement, VerdictOutcome};
use modunest_sdk::Status;
use modunest_sdk::operation as op;
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::outbound::Send;

use crate::homes::component;
use crate::plugins::{release, route};
use crate::process::{get as ask, plugin, runs};
use crate::registry::{Registry, Release, org_key};

/// A configuration that its test changes, and how often it was read.
#[derive(Clone)]
pub struct Given(Arc<Mutex<(Config, usize)>>);

impl Given {
    pub fn new(config: Config) -> Self {
        Given(Arc::new(Mutex::new((config, 0))))
    }

    pub async fn start(&self) -> Agent {
        Agent::builder(self.clone()).start().await.unwrap()
    }

    pub fn change(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.0.lock().unwrap().0);
    }

    pub fn reads(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Configuration for Given {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut given = self.0.lock().unwrap();
        given.1 += 1;
        Ok(given.0.clone())
    }
}

fn wanted(config: &str) -> Wanted {
    Wanted { requirement: "^1".parse().unwrap(), config: config.as_bytes().to_vec() }
}

fn applied(sections: &[&str]) -> Reloaded {
    Reloaded {
        applied: sections.iter().map(|section| (*section).to_owned()).collect(),
        needs_restart: Vec::new(),
        generation: Some(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_somebody_s_own_is_read_at_the_start_and_at_each_reload() {
    let registry = Registry::start().await;
    for name in ["one", "two"] {
        let path = route(&format!("/{name}"));
        registry.publish(release(&format!("demo/{name}"), "1.0.0", &[], &path));
    }
    let folder = tempfile::tempdir().unwrap();
    let given = Given::new(registry.config(folder.path(), &[("demo/one", "^1")]));
    let agent = given.start().await;
    assert_eq!(given.reads(), 1);
    assert_eq!(agent.reload().await.unwrap(), applied(&[]));
    assert_eq!(given.reads(), 2);
    assert_eq!(ask(&agent, "/two").await.0, 404);

    given.change(|config| drop(config.plugins.insert("demo/two".parse().unwrap(), wanted(""))));
    // An operator's request is one to whoever has the configuration.
    let Listen::Tcp(admin) = agent.admin().clone() else { panic!("a TCP address") };
    let post = reqwest::Client::new().post(format!("http://{admin}/reload"));
    let reloaded: Reloaded = post.send().await.unwrap().json().await.unwrap();
    assert_eq!(reloaded, Reloaded { generation: Some(2), ..applied(&["plugins"]) });
    assert_eq!(given.reads(), 3);
    assert_eq!(ask(&agent, "/two").await.0, 200);
    agent.shutdown().await;

    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(registry.config(folder.path(), &[])).await.unwrap();
    assert!(matches!(agent.reload().await, Err(Error::NoConfigFile)));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_trusted_any_more_leaves_the_agents_process() {
    let registry = Registry::start().await;
    let kept = "\n[state]\nversion = 1\naccepts = []\n";
    let more = route("/count") + kept;
    registry.publish(release("demo/counter", "1.0.0", &["STATE"], &more));
    registry.publish(release("demo/other", "1.0.0", &[], &route("/other")));
    let folder = tempfile::tempdir().unwrap();
    let all = [("demo/counter", "^1"), ("demo/other", "^1")];
    let given = Given::new(registry.config(folder.path(), &all));
    given.change(|config| config.host.in_process = vec!["demo/counter".parse().unwrap()]);
    let agent = given.start().await;
    let tier = |name: &str| plugin(&agent, name).tier;
    assert_eq!([tier("demo/counter"), tier("demo/other")], ["in-process", "process"]);
    assert_eq!(ask(&agent, "/count").await.1, "demo/counter 1.0.0 counts 1");
    let since = plugin(&agent, "demo/other").since;

    given.change(|config| config.host.in_process.clear());
    assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
    assert_eq!([tier("demo/counter"), tier("demo/other")], ["process", "process"]);
    assert!(runs(&agent, "demo/counter").confined);
    assert_eq!(ask(&agent, "/count").await.1, "demo/counter 1.0.0 counts 2");
    // Who runs where it is to run goes on.
    assert_eq!(plugin(&agent, "demo/other").since, since);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_was_made_with_makes_another_one() {
    let registry = Registry::start().await;
    registry.publish(release("demo/bad", "1.0.0", &["FAIL_CALL"], &route("/bad")));
    let folder = tempfile::tempdir().unwrap();
    let given = Given::new(registry.config(folder.path(), &[("demo/bad", "^1")]));
    let agent = given.start().await;
    let bad = || plugin(&agent, "demo/bad");
    assert_eq!([ask(&agent, "/bad").await.0, ask(&agent, "/bad").await.0], [502, 502]);
    assert_eq!(bad().breaker, "closed");
    let pid = runs(&agent, "demo/bad").pid;

    // Of a switch, and of no instance.
    given.change(|config| config.host.lifecycle.keep_old = Duration::from_secs(7));
    assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
    assert_eq!(runs(&agent, "demo/bad").pid, pid);

    given.change(|config| config.host.lifecycle.breaker.failures = 1);
    assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
    assert_eq!(bad().breaker, "closed");
    assert_eq!(ask(&agent, "/bad").await.0, 502);
    assert_eq!(bad().breaker, "open");

    let before = runs(&agent, "demo/bad").pid;
    assert_ne!(before, pid);
    given.change(|config| config.host.process.files_max = 100);
    assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
    let now = runs(&agent, "demo/bad").pid.unwrap();
    assert_ne!(Some(now), before);
    let limits = std::fs::read_to_string(format!("/proc/{now}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("100"), "{limits}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_preference_chooses_another_build_of_the_same_release() {
    let registry = Registry::start().await;
    let (native, wasm) = (release("demo/both", "1.0.0", &[], ""), component("demo/both", ""));
    let builds = "[build]\nwasm = { library = \"probe\", world = \"1.0.0\" }\n";
    let manifest = native.manifest.replace("[build]\n", builds);
    let statements = [native, wasm].map(|one| {
        let release = Release { manifest: manifest.clone(), files: one.files };
        let (name, Statement::Release(release)) = registry.statement(&release) else {
            panic!("a release")
        };
        (name, Arc::unwrap_or_clone(release))
    });
    let [(name, mut both), (_, wasm)] = statements;
    both.builds.extend(wasm.builds);
    let both = Statement::Release(Arc::new(both));
    registry.publish_signed(&name, both, &org_key("demo", 2), Some(VerdictOutcome::Clean));
    let folder = tempfile::tempdir().unwrap();
    let given = Given::new(registry.config(folder.path(), &[("demo/both", "^1")]));
    given.change(|config| config.host.load_timeout = Duration::from_secs(30));
    let agent = given.start().await;
    for (generation, prefer, tier) in
        [(1, false, "process"), (2, true, "component-process"), (3, false, "process")]
    {
        given.change(|config| config.host.component.prefer = prefer);
        assert_eq!(agent.reload().await.unwrap().generation, Some(generation));
        let both = plugin(&agent, "demo/both");
        assert_eq!((both.tier.as_str(), both.state.as_str()), (tier, "ready"), "{both:?}");
    }
    // As well where it changed while no agent ran.
    agent.shutdown().await;
    given.change(|config| config.host.component.prefer = true);
    let agent = given.start().await;
    let both = plugin(&agent, "demo/both");
    assert_eq!((both.tier.as_str(), both.state.as_str()), ("component-process", "ready"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_chooses_what_it_allows() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], ""));
    let (name, found) = registry.statement(&release("demo/page", "1.1.0", &[], ""));
    registry.publish_signed(&name, found, &org_key("demo", 2), Some(VerdictOutcome::Findings));
    let folder = tempfile::tempdir().unwrap();
    let given = Given::new(registry.config(folder.path(), &[("demo/page", "^1")]));
    let agent = given.start().await;
    assert_eq!(plugin(&agent, "demo/page").version, "1.1.0");
    given.change(|config| config.policy.allow_findings = false);
    assert_eq!(agent.reload().await.unwrap().applied, ["policy"]);
    assert_eq!(plugin(&agent, "demo/page").version, "1.0.0");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_do_not_leave_a_generation_that_was_gone_back_to() {
    let registry = Registry::start().await;
    let page = |version: &str| release("demo/page", version, &["FAIL_CALL"], &route("/page"));
    registry.publish(page("1.0.0"));
    let folder = tempfile::tempdir().unwrap();
    let given = Given::new(registry.config(folder.path(), &[("demo/page", "^1")]));
    let agent = given.start().await;
    registry.publish(page("1.1.0"));
    let update = Options { update: true, ..Options::default() };
    assert_eq!(agent.sync_with(update).await.unwrap().generation, 2);
    agent.rollback(None).await.unwrap();

    given.change(|config| config.host.lifecycle.breaker.failures = 1);
    assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
    assert_eq!(ask(&agent, "/page").await.0, 502);
    let page = plugin(&agent, "demo/page");
    assert_eq!((page.version.as_str(), page.breaker.as_str()), ("1.0.0", "open"));
    // Another wish is a word about what is to run.
    let name = "demo/page".parse().unwrap();
    let newer = Wanted { requirement: "^1.1".parse().unwrap(), config: Vec::new() };
    given.change(|config| drop(config.plugins.insert(name, newer)));
    agent.reload().await.unwrap();
    assert_eq!(plugin(&agent, "demo/page").version, "1.1.0");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_out_obey_what_was_read_last() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/", get(async || "hello"));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let registry = Registry::start().await;
    let asks = "\n[capabilities]\nhttp = [\"*.example.org\"]\n\n[[route]]\npath = \"/ask\"\nmethods = [\"POST\"]\n";
    registry.publish(release("demo/asker", "1.0.0", &["OPERATE"], asks));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/asker", "^1")]);
    let grant = Grant {
        plugins: vec!["demo/*".parse().unwrap()],
        allow: vec!["http:*.example.org".parse().unwrap()],
        defaults: true,
        quota: None,
    };
    let Grants { rules, outbound, .. } = &mut config.host.grants;
    rules.push(grant);
    outbound.addresses.insert("api.example.org".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
    let given = Given::new(config);
    let agent = given.start().await;
    let send = async || {
        let url = format!("http://{}/ask/{}", agent.gateway_addr(), op::HTTP_SEND);
        let request = Send::get(&format!("http://api.example.org:{port}/")).encode();
        let answer = reqwest::Client::new().post(url).body(request).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        let status: i32 = answer.headers()["x-status"].to_str().unwrap().parse().unwrap();
        status
    };
    let (denied, answered) = (Status::Denied as i32, Status::Ok as i32);
    assert_eq!(send().await, denied);
    let pid = runs(&agent, "demo/asker").pid;
    for (networks, status) in [(&["127.0.0.0/8"][..], answered), (&[], denied)] {
        let networks = networks.iter().map(|one| one.parse().unwrap()).collect();
        given.change(|config| config.host.grants.outbound.networks = networks);
        assert_eq!(agent.reload().await.unwrap(), applied(&["host"]));
        assert_eq!(send().await, status);
    }
    // They are the host's, so the plugin goes on.
    assert_eq!(runs(&agent, "demo/asker").pid, pid);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_puts_nothing_in_force_and_fails_again() {
    let registry = Registry::start().await;
    let check = ["CHECK_CONFIG=\"{\\\"a\\\":1}\""];
    registry.publish(release("demo/one", "1.0.0", &check, &route("/one")));
    registry.publish(release("demo/bad", "1.0.0", &["FAIL_CALL"], &route("/bad")));
    let folder = tempfile::tempdir().unwrap();
    let all = [("demo/one", "^1"), ("demo/bad", "^1")];
    let given = Given::new(registry.config(folder.path(), &all));
    let configure = |text: &str| {
        given.change(|config| {
            drop(config.plugins.insert("demo/one".parse().unwrap(), wanted(text)))
        });
    };
    configure("{\"a\":1}");
    let agent = given.start().await;
    let since = plugin(&agent, "demo/one").since;

    configure("{\"a\":2}");
    given.change(|config| config.host.lifecycle.breaker.failures = 1);
    given.change(|config| config.gateway_limits.header_bytes = 8 * 1024);
    let first = agent.reload().await.unwrap_err();
    assert!(matches!(&first, Error::Worse { plugin, .. } if plugin.as_str() == "demo/one"));
    let first = first.to_string();
    assert!(first.contains("another configuration was expected"), "{first}");
    assert_eq!(agent.reload().await.unwrap_err().to_string(), first);

    // Neither the plugin, nor what else the same configuration says.
    assert_eq!(ask(&agent, "/one").await, (200, "demo/one 1.0.0 says hello".to_owned()));
    assert_eq!(plugin(&agent, "demo/one").since, since);
    assert_eq!(ask(&agent, "/bad").await.0, 502);
    assert_eq!(plugin(&agent, "demo/bad").breaker, "closed");
    let long = || async {
        let url = format!("http://{}/one", agent.gateway_addr());
        let request = reqwest::Client::new().get(url).header("a", "a".repeat(12 * 1024));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(long().await, 200);
    // A look for news neither, which finds none.
    assert!(!agent.sync().await.unwrap().changed);
    assert_eq!(plugin(&agent, "demo/one").since, since);

    configure("{\"a\":1}");
    let expected = applied(&["host", "gateway_limits"]);
    assert_eq!(agent.reload().await.unwrap(), expected);
    assert_eq!(long().await, 431);
    assert_eq!(ask(&agent, "/bad").await.0, 502);
    assert_eq!(plugin(&agent, "demo/bad").breaker, "open");
    agent.shutdown().await;
}
