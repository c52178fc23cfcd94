#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::relation::{BuildTarget, Dependency};
use modunest_core::statement::{Build, Release, TrustLevel};
use modunest_sdk::Error;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};

use super::ask::ServiceAsk;
use super::cell::Parts;
use super::instance::{Loaded, without_state};
use super::*;
use crate::config::{Grants, HostSettings};
use crate::embed::Hooks;
use crate::metrics::Outcome;
use crate::store::{Installed, Proven};

pub(super) fn manifest(name: &str, more: &str) -> Manifest {
    Manifest::parse(&format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"A plugin for tests\"\nauthors = [\"Ada\"]\nlicense = \"MIT\"\n[host]\nabi = 1\n[build]\nnative = {{ library = \"x\" }}\n{more}"
    ))
    .unwrap()
}

fn prepared(name: &str, uses: &[(&str, bool)]) -> Prepared {
    let manifest = manifest(name, "");
    let target = BuildTarget::Native { target: facts().target, libc: None, abi: 1 };
    let build = Build {
        target,
        archive: Digest::of(name.as_bytes()),
        size_bytes: 1,
        files: Digest::of(name.as_bytes()),
    };
    let uses: BTreeMap<PluginName, bool> =
        uses.iter().map(|(used, optional)| (used.parse().unwrap(), *optional)).collect();
    let release = Arc::new(Release {
        plugin: manifest.name.clone(),
        version: manifest.version.clone(),
        sequence: 1,
        previous: None,
        manifest: Digest::of(b"manifest"),
        host: manifest.host.clone(),
        dependencies: uses
            .iter()
            .map(|(plugin, optional)| Dependency {
                plugin: plugin.clone(),
                requirement: "*".parse().unwrap(),
                optional: *optional,
            })
            .collect(),
        incompatible: Vec::new(),
        services: Vec::new(),
        capabilities: Vec::new(),
        builds: vec![build.clone()],
    });
    let statement = Digest::of(b"statement");
    let library = modunest_core::archive::FileRecord {
        name: crate::store::LIBRARY_NAME.to_owned(),
        size_bytes: 1,
        executable: true,
        sha256: Digest::of(b"x"),
    };
    Prepared {
        proven: Proven {
            release,
            build,
            statement,
            uses,
            yanked: false,
            trust: TrustLevel::Community,
        },
        installed: Ok(Installed {
            folder: "/nowhere".into(),
            files: modunest_core::archive::FileList::new(vec![library]),
            manifest: Arc::new(manifest),
        }),
    }
}

fn plan(prepared: Vec<Prepared>) -> Plan {
    let settings = HostSettings {
        in_process: vec!["demo/*".parse().unwrap()],
        slots: 2,
        ..HostSettings::default()
    };
    let resources = Resources::new("/nowhere", settings.grants.outbound.clone());
    Plan::build(prepared, &BTreeMap::new(), &settings, &resources, None)
}

#[test]
fn users_come_behind_what_they_use() {
    let plan = plan(vec![
        prepared("demo/aa", &[("demo/bb", false), ("demo/cc", true)]),
        prepared("demo/bb", &[("demo/dd", false)]),
        prepared("demo/cc", &[("demo/dd", false)]),
        prepared("demo/dd", &[]),
    ]);
    let order: Vec<&str> = plan.host.order.iter().map(PluginName::as_str).collect();
    let at = |name: &str| order.iter().position(|o| *o == name).unwrap();
    assert!(at("demo/dd") < at("demo/bb") && at("demo/bb") < at("demo/aa"));
    assert!(at("demo/cc") < at("demo/aa"), "{order:?}");
}

#[test]
fn a_circle_of_needs_is_refused_and_one_with_an_option_is_not() {
    let text = |plan: &Plan| {
        let lines: Vec<String> = plan
            .host
            .cells()
            .map(|cell| {
                let status = cell.status();
                format!("{} {:?} {:?}", cell.name(), status.state, status.reason)
            })
            .collect();
        lines.join("\n")
    };
    let circle = plan(vec![
        prepared("demo/aa", &[("demo/bb", false)]),
        prepared("demo/bb", &[("demo/aa", false)]),
        prepared("demo/cc", &[("demo/aa", false)]),
    ]);
    insta::assert_snapshot!(text(&circle));
    let open = plan(vec![
        prepared("demo/aa", &[("demo/bb", false)]),
        prepared("demo/bb", &[("demo/aa", true)]),
    ]);
    assert!(open.host.cells().all(|cell| cell.status().state == State::Waiting));
    assert_eq!(open.host.order[0].as_str(), "demo/bb");
}

#[test]
fn a_missing_file_fails_its_plugin_and_blocks_its_users() {
    let settings = HostSettings {
        in_process: vec!["demo/*".parse().unwrap()],
        slots: 1,
        ..HostSettings::default()
    };
    let mut base = prepared("demo/base", &[]);
    base.installed = Err(crate::store::Error::Missing { files: Digest::of(b"x") });
    let host =
        load_all(plan(vec![base, prepared("demo/user", &[("demo/base", false)])]), &settings);
    let user = host.cell(&"demo/user".parse().unwrap()).unwrap().status();
    assert_eq!(user.state, State::Blocked);
    assert!(
        user.reason
            .unwrap()
            .starts_with("needs demo/base 1.0.0, which failed: the store has no entry")
    );
    // Nothing is known of its manifest, so the host is not ready without it.
    assert!(host.ready().is_err());
}

/// Counts, and fails where it is told to.
struct Counting(AtomicU64);

impl Instance for Counting {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        if call.kind == RequestKind::Lifecycle {
            return Err(Error::Unsupported("no hooks".to_owned()));
        }
        if call.target == "unknown" {
            return Err(Error::NotFound("no such service".to_owned()));
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(call.deadline_ms.to_string().into_bytes().into())
    }
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
    without_state!();
}

pub(super) fn cell(name: &str, more: &str, dependencies: &[&Arc<Cell>]) -> Arc<Cell> {
    let manifest = manifest(name, more);
    let grants = Grants::default();
    let resources = Resources::new("/nowhere", grants.outbound.clone());
    Cell::new(Parts {
        identity: (Digest::ZERO, Digest::ZERO, Vec::new()),
        terms: terms::Terms::default(),
        operations: operations::Operations::new(&manifest, &grants, &resources),
        manifest: Arc::new(manifest),
        folder: "/nowhere".into(),
        dependencies: dependencies.iter().map(|c| (c.name().clone(), (*c).clone())).collect(),
        lifecycle: Arc::default(),
        hooks: Hooks::default(),
        load_timeout: Duration::from_secs(10),
        inherits: false,
        is_lazy: false,
    })
}

fn open(cell: &Cell) {
    cell.set(State::Loading, None);
    cell.open(Loaded::Other(Box::new(Counting(AtomicU64::new(0))))).unwrap();
}

fn service_call<'a>() -> Call<'a> {
    Call {
        kind: RequestKind::Service,
        target: "echo",
        payload: b"",
        trace: "",
        caller: "",
        deadline_ms: 0,
    }
}

#[test]
fn services_need_an_import_a_dependency_and_an_export() {
    let exports = "[[service]]\nname = \"echo\"\nversion = \"1.0.0\"\n";
    let back = cell("demo/back", exports, &[]);
    open(&back);
    let imports = "[dependencies]\n\"demo/back\" = \"1\"\n[[import]]\nplugin = \"demo/back\"\nservice = \"echo\"\n[[import]]\nplugin = \"demo/back\"\nservice = \"other\"\n";
    let front = cell("demo/front", imports, &[&back]);
    let alone = cell("demo/front", imports, &[]);
    let ask = |cell: &Cell, service| {
        let plugin = "demo/back";
        cell.call_service(ServiceAsk { plugin, service, payload: b"", trace: "", deadline_ms: 0 })
    };
    assert!(ask(&front, "echo").is_ok());
    assert!(matches!(ask(&front, "other"), Err(Error::NotFound(_))));
    assert!(matches!(ask(&front, "third"), Err(Error::Denied(_))));
    assert!(matches!(ask(&alone, "echo"), Err(Error::Unavailable(_))));
    assert_eq!(back.meter().read().calls(), 1);
}

#[test]
fn depth_and_deadline_are_inherited() {
    let cell = cell("demo/back", "", &[]);
    open(&cell);
    let far = modunest_runtime::clock::now().as_millis() + 60_000;
    let within = |depth, deadline_ms| {
        let frame = frame::Frame { depth, deadline_ms, ..frame::Frame::default() };
        frame::within(frame, || cell.call(Call { deadline_ms: far + 1, ..service_call() }))
    };
    assert_eq!(within(1, far).unwrap(), far.to_string().into_bytes().into());
    assert!(matches!(within(1, 1), Err(Error::DeadlineExceeded(_))));
    assert!(matches!(within(frame::DEPTH_MAX, 0), Err(Error::Denied(_))));
    assert_eq!(frame::current().depth, 0);
}

#[test]
fn a_stopped_plugin_takes_no_calls() {
    let cell = cell("demo/back", "", &[]);
    assert!(matches!(cell.call(service_call()), Err(Error::Unavailable(_))));
    open(&cell);
    assert!(cell.call(service_call()).is_ok());
    cell.clone().stop(Instant::now() + Duration::from_secs(5));
    assert!(matches!(cell.call(service_call()), Err(Error::Unavailable(_))));
    assert_eq!(cell.status().state, State::Stopped);
}

#[test]
fn the_most_specific_route_answers() {
    let mut routes = Routes::default();
    let methods = |list: &[&str]| list.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
    let names = ["demo/root", "demo/list", "demo/item", "demo/edit", "demo/any"];
    let cells = names.map(|name| cell(name, "", &[]));
    routes.insert("/", &methods(&["GET"]), &cells[0]);
    routes.insert("/items", &methods(&["GET", "POST"]), &cells[1]);
    routes.insert("/items/{id}", &methods(&["GET"]), &cells[2]);
    routes.insert("/items/{id}/edit", &methods(&["POST"]), &cells[3]);
    routes.insert("/{any}/deep", &methods(&["GET"]), &cells[4]);
    let find = |method: &str, path: &str| match routes.find(method, path) {
        Found::Plugin(cell, _) => cell.name().short().to_owned(),
        Found::Methods(methods) => methods.join(","),
        Found::Nothing => "-".to_owned(),
    };
    for (method, path, expected) in [
        ("GET", "/", "root"),
        ("GET", "/other", "root"),
        ("GET", "/items", "list"),
        ("HEAD", "/items", "list"),
        ("GET", "/items/", "list"),
        ("GET", "/items/7", "item"),
        ("GET", "/items/7/more", "item"),
        ("POST", "/items/7/edit", "edit"),
        ("GET", "/items/7/edit", "POST"),
        ("DELETE", "/items", "GET,POST"),
        ("GET", "/x/deep/er", "any"),
        ("GET", "/items/../secret", "-"),
        ("GET", "/items/%2E./secret", "-"),
        ("GET", "*", "-"),
    ] {
        assert_eq!(find(method, path), expected, "{method} {path}");
    }
}

#[test]
fn a_plugin_that_fails_again_and_again_is_left_alone() {
    let failing = cell("demo/back", "", &[]);
    failing.set(State::Loading, None);
    failing.open(Loaded::Other(Box::new(Failing))).unwrap();
    for _ in 0..5 {
        assert!(matches!(failing.call(service_call()), Err(Error::Failed(_))));
    }
    let Err(Error::Unavailable(text)) = failing.call(service_call()) else { panic!("it opened") };
    assert!(text.starts_with("echo of demo/back failed too often and is left alone"), "{text}");
    let reading = failing.meter().read();
    assert_eq!((reading.calls(), reading.count(Outcome::Failed), reading.refused), (5, 5, 1));
    let (plugin, services) = failing.breakers().states();
    assert_eq!(services, [("echo".to_owned(), BreakerState::Open)]);
    // Its other calls go on, until they fail as often.
    assert_eq!(plugin.state(), BreakerState::Closed);
    let event = Call { kind: RequestKind::Event, ..service_call() };
    for _ in 0..4 {
        assert!(matches!(failing.call(event), Err(Error::Failed(_))));
    }
    let Err(Error::Unavailable(text)) = failing.call(event) else { panic!("it opened") };
    assert!(text.starts_with("demo/back failed too often and is left alone"), "{text}");
    // What the caller did wrong is not held against it.
    let denying = cell("demo/back", "", &[]);
    open(&denying);
    for _ in 0..20 {
        let call = Call { target: "unknown", ..service_call() };
        assert!(matches!(denying.call(call), Err(Error::NotFound(_))));
    }
    assert!(denying.call(service_call()).is_ok());
}

/// Answers no call.
struct Failing;

impl Instance for Failing {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        match call.kind {
            RequestKind::Lifecycle => Err(Error::Unsupported("no hooks".to_owned())),
            _ => Err(Error::Failed("out of cheese".to_owned())),
        }
    }
    fn health(&self) -> Result<(), Error> {
        Err(Error::Failed("out of cheese".to_owned()))
    }
    without_state!();
}

/// Answers calls, and never the question after its health.
struct Silent;

impl Instance for Silent {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        Ok(call.payload.to_vec().into())
    }
    fn health(&self) -> Result<(), Error> {
        loop {
            std::thread::park();
        }
    }
    without_state!();
}

/// Has no place free for any call.
struct Full;

impl Instance for Full {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.try_call(call).map_err(Unserved::into_error)
    }
    fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        Err(match call.kind {
            RequestKind::Lifecycle => Error::Unsupported("no hooks".to_owned()).into(),
            _ => Unserved::Refused(Error::DeadlineExceeded("no turn".to_owned())),
        })
    }
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
    without_state!();
}

#[test]
fn a_late_health_answer_counts_only_where_no_call_has_ended_meanwhile() {
    let cell = cell("demo/back", "", &[]);
    cell.set(State::Loading, None);
    cell.open(Loaded::Other(Box::new(Silent))).unwrap();
    let ask = || cell.ask_after(modunest_runtime::clock::now());
    for _ in 0..5 {
        cell.call(service_call()).unwrap();
        assert_eq!(ask(), None);
    }
    assert_eq!([ask(), ask()], [None, None]);
    assert_eq!(ask().unwrap(), "its health check failed: it did not end within 2000 ms");
    assert_eq!(cell.status().state, State::Unhealthy);
}

#[tokio::test]
async fn a_plugin_that_has_no_place_free_is_not_left_alone_for_that() {
    let full = cell("demo/back", "", &[]);
    full.set(State::Loading, None);
    full.open(Loaded::Other(Box::new(Full))).unwrap();
    let kinds = [RequestKind::Service, RequestKind::Http, RequestKind::Event];
    for call in [kinds; 6].as_flattened().iter().map(|kind| Call { kind: *kind, ..service_call() })
    {
        assert!(matches!(full.call(call), Err(Error::DeadlineExceeded(_))));
        let call = OwnedCall {
            kind: call.kind,
            target: call.target.to_owned(),
            payload: Vec::new(),
            trace: String::new(),
            caller: String::new(),
            deadline_ms: 0,
        };
        assert!(matches!(full.clone().call_async(call).await, Err(Error::DeadlineExceeded(_))));
    }
    assert!(full.breakers().are_quiet());
    // Whoever looks at figures sees them all the same.
    assert_eq!(full.meter().read().count(Outcome::Late), 36);
}

#[test]
fn a_switch_that_does_not_come_about_leaves_a_plugin_as_it_was() {
    let soon = || Instant::now() + Duration::from_secs(60);
    let cold = || Some("it has a cold".to_owned());
    let plugin = cell("demo/back", "", &[]);
    open(&plugin);
    assert!(plugin.turn_from(&[State::Ready], State::Unhealthy, cold()));
    let before = plugin.status();
    plugin.hold_calls(soon()).unwrap();
    assert_eq!(plugin.status().state, State::Switching);
    plugin.release_calls();
    assert_eq!(plugin.status(), before);
    assert!(plugin.call(service_call()).is_ok());
    // What is found out meanwhile holds behind it.
    plugin.hold_calls(soon()).unwrap();
    assert!(plugin.turn_from(&[State::Unhealthy], State::Ready, None));
    assert_eq!(plugin.status().state, State::Switching);
    plugin.release_calls();
    assert_eq!((plugin.status().state, plugin.status().reason), (State::Ready, None));
    plugin.hold_calls(soon()).unwrap();
    assert!(plugin.turn_from(&[State::Ready], State::Restarting, cold()));
    plugin.release_calls();
    assert_eq!((plugin.status().state, plugin.status().reason), (State::Restarting, cold()));
    assert!(matches!(plugin.call(service_call()), Err(Error::Unavailable(_))));
    // Where there was no switch, nothing is to be undone.
    plugin.release_calls();
    assert_eq!(plugin.status().state, State::Restarting);
}
