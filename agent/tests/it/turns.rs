//! Changes of what runs have turns, and come to their ends: where their callers go away, and where
//! the agent stops meanwhile.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use modunest_agent::Agent;
use modunest_agent::config::{Listen, Wanted};
use modunest_agent::embed::{Event, Hooks};
use modunest_agent::sync::Options;

use crate::configured::Given;
use crate::plugins::{release, route};
use crate::process::get;
use crate::registry::Registry;
use crate::upkeep::wait_for;

/// What an observer heard of states, as `plugin version state`, and what has to wait for what.
#[derive(Clone, Default)]
pub struct Heard(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// Whoever tells the first is kept until the second was heard.
    kept: Option<(String, String)>,
}

impl Heard {
    pub fn hooks(&self) -> Hooks {
        let this = self.clone();
        Hooks::default().with_observer(move |event: &Event<'_>| this.observe(event))
    }

    fn observe(&self, event: &Event<'_>) {
        if let Event::Plugin { plugin, version, state, .. } = event {
            self.hear(format!("{plugin} {version} {}", state.as_str()));
        }
    }

    /// Holds up whoever tells `first` until `second` was heard.
    fn keep(&self, first: &str, second: &str) {
        self.0.0.lock().unwrap().kept = Some((first.to_owned(), second.to_owned()));
    }

    fn hear(&self, line: String) {
        let (state, told) = &*self.0;
        let mut state = state.lock().unwrap();
        let kept = state.kept.clone().filter(|(first, _)| *first == line);
        state.lines.push(line);
        told.notify_all();
        if let Some((_, second)) = kept {
            drop(told.wait_while(state, |state| !state.lines.contains(&second)).unwrap());
        }
    }

    pub fn count(&self, line: &str) -> usize {
        self.0.0.lock().unwrap().lines.iter().filter(|one| *one == line).count()
    }

    pub async fn until(&self, line: &str) {
        self.until_counted(line, 1).await;
    }

    pub async fn until_counted(&self, line: &str, count: usize) {
        wait_for(line, async || self.count(line) >= count).await;
    }
}

/// A generation that is being loaded when the agent stops is not left behind: all of its plugins are
/// told of their end, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_loaded_while_the_agent_stops_is_stopped_as_well() {
    for by_an_operator in [false, true] {
        let registry = Registry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("moments");
        let writes = format!("HOOK_LOG=\"{}\"", log.display());
        let publish = |name: &str, version: &str| {
            registry.publish(release(name, version, &[&writes], &route(&format!("/{name}"))))
        };
        publish("demo/page", "1.0.0");
        publish("demo/other", "1.0.0");
        let wanted = [("demo/page", "^1"), ("demo/other", "^1")];
        let mut config = registry.config(folder.path(), &wanted);
        config.host.in_process = vec!["demo/*".parse().unwrap()];
        config.host.load_timeout = Duration::from_secs(60);
        if !by_an_operator {
            config.host.check_every = Duration::from_millis(20);
        }
        let heard = Heard::default();
        heard.keep("demo/page 1.1.0 loading", "demo/page 1.0.0 stopped");
        config.host.hooks = heard.hooks();
        let update = Options { update: true, ..Options::default() };
        let agent = Agent::start_with(config, update).await.unwrap();
        publish("demo/page", "1.1.0");
        let asked = by_an_operator.then(|| {
            let Listen::Tcp(admin) = agent.admin().clone() else { panic!("a TCP address") };
            let url = format!("http://{admin}/sync?update=true");
            tokio::spawn(reqwest::Client::new().post(url).send())
        });
        heard.until("demo/page 1.1.0 loading").await;
        agent.shutdown().await;
        if let Some(asked) = asked {
            assert_eq!(asked.await.unwrap().unwrap().status(), 503);
        }
        let log = std::fs::read_to_string(&log).unwrap();
        for name in ["demo/page 1.0.0", "demo/page 1.1.0", "demo/other 1.0.0"] {
            for moment in ["before-load", "before-unload", "after-unload"] {
                let line = format!("{name} {moment}");
                let times = log.lines().filter(|one| *one == line).count();
                assert_eq!(times, 1, "{line}, {by_an_operator}: {log}");
            }
        }
    }
}

/// A reload whose caller goes away goes on, and the next one waits for its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_nobody_waits_for_keeps_its_turn() {
    let registry = Registry::start().await;
    for name in ["one", "two", "three"] {
        let path = route(&format!("/{name}"));
        registry.publish(release(&format!("demo/{name}"), "1.0.0", &[], &path));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/one", "^1")]);
    config.host.load_timeout = Duration::from_secs(60);
    let given = Given::new(config);
    let heard = Heard::default();
    heard.keep("demo/two 1.0.0 loading", "go on");
    let (hears, reads) = (heard.clone(), given.clone());
    let read_by = Arc::new(Mutex::new(Vec::new()));
    let notes = read_by.clone();
    let agent = Agent::builder(given.clone())
        .observer(move |event: &Event<'_>| {
            hears.observe(event);
            if let Event::Generation { number, .. } = event {
                notes.lock().unwrap().push((*number, reads.reads()));
            }
        })
        .start()
        .await
        .unwrap();
    let wants = |name: &str| {
        let wanted = Wanted { requirement: "^1".parse().unwrap(), config: Vec::new() };
        given.change(|config| drop(config.plugins.insert(name.parse().unwrap(), wanted)));
    };
    wants("demo/two");
    tokio::select! {
        reloaded = agent.reload() => panic!("it is held up: {reloaded:?}"),
        () = heard.until("demo/two 1.0.0 loading") => {}
    }
    given.change(|config| drop(config.plugins.remove(&"demo/two".parse().unwrap())));
    wants("demo/three");
    let mut second = Box::pin(agent.reload());
    for _ in 0..20 {
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(get(&agent, "/one").await.0, 200);
    }
    heard.hear("go on".to_owned());
    assert_eq!(second.await.unwrap().applied, ["plugins"]);
    // Each was read behind the end of the one before.
    assert_eq!(*read_by.lock().unwrap(), [(1, 1), (2, 2), (3, 3)]);
    let statuses = [get(&agent, "/two").await.0, get(&agent, "/three").await.0];
    assert_eq!(statuses, [404, 200]);
    // What is in force is all of the last one.
    assert!(agent.reload().await.unwrap().applied.is_empty());
    agent.shutdown().await;
}
