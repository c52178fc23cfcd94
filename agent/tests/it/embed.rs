//! The host inside another program: the example of `docs/embedding.md`, and what may be
//! plugged in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use modunest_agent::embed::{CallAsk, Environment, Event, FixedEnvironment, Hooks, Permissions};
use modunest_agent::metrics::Outcome;
use modunest_agent::sync::Options;
use modunest_agent::{Agent, TrialWord};
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::{self as op, environment};
use modunest_sdk::{Error, Status};

use crate::capabilities::{Asker, decoded};
use crate::homes::built_example;
use crate::plugins::{ECHO, release, route, uses};
use crate::registry::Registry;
use crate::screens::config_file;

/// The page's program as its readers build and run it: nothing is trusted with its own process.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_runs_a_plugin_behind_the_sandbox_and_prints_what_its_page_shows() {
    let registry = Registry::start().await;
    registry.publish(release("demo/greeter", "1.0.0", &[], ECHO));
    let asks = "\n[capabilities]\nhttp = [\"api.example.org\"]\n";
    registry.publish(release("demo/caller", "1.0.0", &[], asks));
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/greeter", "^1"), ("demo/caller", "^1")];
    let config = config_file(&registry, folder.path(), &wanted);
    let trusting = std::fs::read_to_string(&config).unwrap();
    let confining = trusting.replace("in_process = [\"demo/*\"]\n", "");
    assert_ne!(confining, trusting);
    std::fs::write(&config, confining).unwrap();

    let mut command = Command::new(built_example("embed"));
    let output = command.arg(&config).args(["demo/greeter", "echo", "hello"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("it ran in the tier process\nanswer: hello via demo/greeter"), "{out}");
    let page = include_str!("../../../docs/embedding.md");
    assert!(page.contains(&out), "docs/embedding.md does not show what the example prints:\n{out}");
    let example = include_str!("../../examples/embed.rs");
    let first = "    if let Some(code) = modunest_agent::runner::run_if_asked() {\n        return code;\n    }\n";
    assert!(page.contains(first) && example.contains(first), "the page's main is another one");
}

/// Forbids calls of a plugin to the service of another.
struct NoFront;

impl Permissions for NoFront {
    fn call(&self, ask: &CallAsk<'_>) -> Result<(), String> {
        if ask.caller == "demo/front" {
            Err(format!("{} is off limits", ask.plugin))
        } else {
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_forbids_and_hears() {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let more = uses("demo/back", "^1") + &route("/front") + ECHO;
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let heard = calls.clone();
    let agent = Agent::builder(registry.config(folder.path(), &[("demo/front", "^1")]))
        .permissions(NoFront)
        .observer(move |event: &Event<'_>| {
            if let Event::Call { plugin, caller, outcome, took, .. } = event {
                let call = (plugin.to_string(), (*caller).to_owned(), *outcome, took.is_some());
                heard.lock().unwrap().push(call);
            }
        })
        .start()
        .await
        .unwrap();
    let back = agent.call_service("demo/back", "echo", "x").await;
    assert!(back.is_ok(), "{back:?}");
    let answer = reqwest::get(format!("http://{}/front", agent.gateway_addr())).await.unwrap();
    assert_eq!(answer.status(), 403);
    let text = answer.text().await.unwrap();
    assert!(text.contains("demo/back is off limits"), "{text}");
    for (plugin, service) in [("demo/back", "other"), ("demo/other", "echo"), ("nonsense", "echo")]
    {
        let error = agent.call_service(plugin, service, "").await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_) | Error::InvalidInput(_)), "{error}");
    }
    agent.shutdown().await;
    let calls = calls.lock().unwrap().clone();
    let nobody = String::new;
    assert_eq!(
        calls,
        [
            ("demo/back".to_owned(), nobody(), Outcome::Answered, true),
            ("demo/front".to_owned(), nobody(), Outcome::Denied, true),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_hears_of_trials_and_of_breakers() {
    let registry = Registry::start().await;
    let page = |version: &str| release("demo/page", version, &[], &route("/page"));
    registry.publish(page("1.0.0"));
    registry.publish(release("demo/bad", "1.0.0", &["FAIL_CALL"], &route("/bad")));
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/page", "^1"), ("demo/bad", "^1")]);
    // Nothing is decided but by hand.
    let canary = &mut config.host.lifecycle.canary.common;
    (canary.share_percent, canary.calls) = (50, 1000);
    config.host.lifecycle.breaker.failures = 2;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let agent = Agent::builder(config)
        .observer(move |event: &Event<'_>| {
            let line = match event {
                Event::TrialBegan { plugin, version, serving, share_percent } => {
                    format!("{plugin} {version} beside {serving}, {share_percent} percent")
                }
                Event::TrialPromoted { plugin, version } => format!("{plugin} {version} promoted"),
                Event::TrialRolledBack { plugin, version, reason } => {
                    format!("{plugin} {version} rolled back: {reason}")
                }
                Event::TrialEnded { plugin, version, reason } => {
                    format!("{plugin} {version} ended: {reason}")
                }
                Event::BreakerOpened { plugin, service } => {
                    format!("{plugin} opened by \"{service}\"")
                }
                _ => return,
            };
            hears.lock().unwrap().push(line);
        })
        .start()
        .await
        .unwrap();
    let name = "demo/page".parse().unwrap();
    let update = Options { update: true, ..Options::default() };
    for (version, word) in [("1.1.0", TrialWord::Promote), ("1.2.0", TrialWord::Abort)] {
        registry.publish(page(version));
        agent.sync_with(update).await.unwrap();
        agent.decide_trial(&name, word).await.unwrap();
    }
    registry.publish(release("demo/page", "1.3.0", &["FAIL_CREATE"], &route("/page")));
    agent.sync_with(update).await.unwrap();
    registry.publish(page("1.4.0"));
    agent.sync_with(update).await.unwrap();
    agent.rollback(Some(1)).await.unwrap();
    for _ in 0..3 {
        reqwest::get(format!("http://{}/bad", agent.gateway_addr())).await.unwrap();
    }
    agent.shutdown().await;
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "demo/page 1.1.0 beside 1.0.0, 50 percent",
            "demo/page 1.1.0 promoted",
            "demo/page 1.2.0 beside 1.1.0, 50 percent",
            "demo/page 1.2.0 rolled back: an operator ended its trial",
            "demo/page 1.3.0 rolled back: failed: its start failed: no license server",
            "demo/page 1.4.0 beside 1.1.0, 50 percent",
            "demo/page 1.4.0 ended: the instance beside it was replaced",
            "demo/bad opened by \"\"",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_around_the_host_says_which_environment_plugins_see() {
    struct Odd;
    impl Environment for Odd {
        fn variable(&self, name: &str) -> Option<OsString> {
            match name {
                "HOME" => Some(OsString::from_vec(vec![0xff])),
                "PATH" => panic!("an embedder's own fault"),
                _ => None,
            }
        }
    }
    let variable = |name: &str| environment::Variable { name }.encode();
    let given = FixedEnvironment::new([("PATH", "/given")]);
    let asker = Asker::start(&["env:HOME", "env:PATH"], |config| {
        config.host.hooks = Hooks::default().with_environment(given);
    })
    .await;
    let value = async |name: &str| {
        let answer = asker.ask(op::ENVIRONMENT, variable(name)).await.unwrap();
        decoded::<environment::VariableValue>(&answer).value
    };
    // What this process was started with is not shown.
    assert!(std::env::var("HOME").is_ok());
    assert_eq!(value("HOME").await, None);
    assert_eq!(value("PATH").await.as_deref(), Some("/given"));
    asker.agent.shutdown().await;
    let asker = Asker::start(&["env:HOME", "env:PATH"], |config| {
        config.host.hooks = Hooks::default().with_environment(Odd);
    })
    .await;
    let (status, text) = asker.refused(op::ENVIRONMENT, variable("HOME")).await;
    assert_eq!((status, text.contains("is not UTF-8")), (Status::Failed, true), "{text}");
    let (status, text) = asker.refused(op::ENVIRONMENT, variable("PATH")).await;
    assert_eq!((status, text.contains("panicked over PATH")), (Status::Failed, true), "{text}");
    asker.agent.shutdown().await;
}
