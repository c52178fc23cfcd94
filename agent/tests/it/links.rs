//! Services and guards between real plugins.

use std::time::Duration;

use modunest_agent::Agent;
use modunest_agent::config::grants::Grant;
use modunest_agent::config::{Config, GuardRule, ServiceRule};
use modunest_agent::status::PluginStatus;
use modunest_core::archive::PackFile;

use crate::operator::Process;
use crate::plugins::linked;
use crate::registry::Registry;
use crate::screens::config_file;

/// Tells the plugin at a path what to do.
pub async fn tell(agent: &Agent, path: &str, command: impl Into<reqwest::Body>) -> (u16, String) {
    let url = format!("http://{}{path}", agent.gateway_addr());
    let answer = reqwest::Client::new().post(url).body(command).send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let detail = problem.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
    (status, detail.unwrap_or(text))
}

/// Manifest lines for a route that takes commands, perhaps with more lines of its own.
pub fn commands(path: &str, more: &str) -> String {
    format!("\n[[route]]\npath = \"{path}\"\nmethods = [\"POST\"]\n{more}\n")
}

pub fn guards(names: &[&str]) -> String {
    names.iter().map(|name| format!("\n[[guard]]\nname = \"{name}\"\nexported = true\n")).collect()
}

pub fn plugin(agent: &Agent, name: &str) -> PluginStatus {
    let status = agent.status();
    status.plugins.into_iter().find(|plugin| plugin.plugin == name).unwrap()
}

/// Starts an agent that wants these plugins.
pub async fn start(
    registry: &Registry,
    plugins: &[&str],
    change: impl FnOnce(&mut Config),
) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let wanted: Vec<(&str, &str)> = plugins.iter().map(|name| (*name, "^1")).collect();
    let mut config = registry.config(folder.path(), &wanted);
    change(&mut config);
    (Agent::start(config).await.unwrap(), folder)
}

fn schema(name: &str, text: &str) -> PackFile {
    PackFile { name: name.to_owned(), content: text.as_bytes().to_vec(), executable: false }
}

const NEEDS_BACK: &str = "\n[dependencies]\n\"demo/back\" = \"^1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn services_are_called_by_name_and_by_handle() {
    let registry = Registry::start().await;
    let exports = "\n[[service]]\nname = \"plain\"\nversion = \"1.2.0\"\ndeprecated = \"use store\"\n[[service]]\nname = \"store\"\nversion = \"2.0.0\"\nmethods = [\"get\", \"put\"]\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let imports = NEEDS_BACK.to_owned()
        + "[[import]]\nplugin = \"demo/back\"\nservice = \"plain\"\nversion = \"^1.1\"\n[[import]]\nplugin = \"demo/back\"\nservice = \"store\"\nmethods = [\"get\"]\n";
    registry.publish(linked("demo/front", &(imports.clone() + &commands("/front", "")), vec![]));
    registry.publish(linked("demo/other", &(imports + &commands("/other", "")), vec![]));
    let (agent, _folder) = start(&registry, &["demo/front", "demo/other"], |_| {}).await;

    let (_, text) = tell(&agent, "/front", "call demo/back plain hello").await;
    assert_eq!(text, "plain for demo/front says hello");
    let (_, opened) = tell(&agent, "/front", "open demo/back:plain").await;
    let (handle, version) = opened.split_once(' ').unwrap();
    assert_eq!((handle.len(), version), (32, "1.2.0"));
    // The same import has the same handle, every other one another.
    assert_eq!(tell(&agent, "/front", "open demo/back:plain").await.1, opened);
    let (_, store) = tell(&agent, "/front", "open demo/back:store").await;
    let store = store.split(' ').next().unwrap().to_owned();
    let (_, other) = tell(&agent, "/other", "open demo/back:plain").await;
    let other = other.split(' ').next().unwrap().to_owned();
    assert!(handle != store && handle != other);
    let mut told = Vec::new();
    for command in [
        format!("handle {handle} - hello"),
        format!("handle {store} get key"),
        // A foreign handle, one that nobody has, and what is not imported.
        format!("handle {other} - hello"),
        format!("handle {} - hello", "0".repeat(32)),
        format!("handle {store} put key"),
        format!("handle {store} - key"),
        format!("handle {store} drop key"),
        format!("handle {handle} get key"),
        "call demo/back store/get key".to_owned(),
        "call demo/back store/put key".to_owned(),
        "call demo/back third key".to_owned(),
        "open demo/back:third".to_owned(),
        "open demo/back".to_owned(),
    ] {
        let shown = [(handle, "OWN"), (&store, "STORE"), (&other, "FOREIGN")]
            .into_iter()
            .fold(command.clone(), |text, (from, to)| text.replace(from, to));
        let (status, text) = tell(&agent, "/front", command).await;
        told.push(format!("{shown}\n  {status} {text}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    let imports = plugin(&agent, "demo/front").links.imports;
    assert_eq!(imports[0].deprecated.as_deref(), Some("use store"));
    assert_eq!(
        (imports[1].deprecated.as_deref(), imports[1].version.as_deref()),
        (None, Some("2.0.0"))
    );
    agent.shutdown().await;
}

/// Everybody has what is listed here and nothing else, not even what needs no grant otherwise.
pub fn only(allow: &[&str]) -> Vec<Grant> {
    vec![Grant {
        plugins: vec!["demo/*".parse().unwrap()],
        allow: allow.iter().map(|one| one.parse().unwrap()).collect(),
        defaults: false,
        quota: None,
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_withholds_services_of_others() {
    let registry = Registry::start().await;
    let exports = "\n[[service]]\nname = \"plain\"\nversion = \"1.2.0\"\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let import = "[[import]]\nplugin = \"demo/back\"\nservice = \"plain\"\n";
    let needs = NEEDS_BACK.to_owned() + import + &commands("/needs", "");
    registry.publish(linked("demo/needs", &needs, vec![]));
    let optional = "\n[dependencies]\n\"demo/back\" = { version = \"^1\", optional = true }\n";
    let easy = optional.to_owned() + import + &commands("/easy", "");
    registry.publish(linked("demo/easy", &easy, vec![]));
    let capability = "services:demo/back:plain";
    for allow in [&[][..], &[capability]] {
        let names = ["demo/needs", "demo/easy", "demo/back"];
        let (agent, _folder) =
            start(&registry, &names, |config| config.host.grants.rules = only(allow)).await;
        let needs = plugin(&agent, "demo/needs");
        let (status, text) = tell(&agent, "/easy", "call demo/back plain hello").await;
        if allow.is_empty() {
            let reason = needs.reason.unwrap();
            let begins = format!("it needs {capability}, which it is not granted");
            assert!(needs.state == "failed" && reason.starts_with(&begins), "{reason}");
            assert!(text.contains(&format!("demo/easy is not granted {capability}")), "{text}");
            assert_eq!((status, plugin(&agent, "demo/back").calls), (403, 0));
        } else {
            assert_eq!(needs.state, "ready", "{:?}", needs.reason);
            assert_eq!((status, text.as_str()), (200, "plain for demo/easy says hello"));
        }
        agent.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_a_deprecated_service_is_warned_of_once() {
    let registry = Registry::start().await;
    let exports = "\n[[service]]\nname = \"plain\"\nversion = \"1.2.0\"\ndeprecated = \"use store\"\n[[service]]\nname = \"store\"\nversion = \"1.0.0\"\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let import = |name: &str| format!("[[import]]\nplugin = \"demo/back\"\nservice = \"{name}\"\n");
    for name in ["front", "other"] {
        let more = NEEDS_BACK.to_owned() + &import("plain") + &import("store");
        let more = more + &commands(&format!("/{name}"), "");
        registry.publish(linked(&format!("demo/{name}"), &more, vec![]));
    }
    let folder = tempfile::tempdir().unwrap();
    let wanted = [("demo/front", "^1"), ("demo/other", "^1")];
    let process = Process::start(&config_file(&registry, folder.path(), &wanted)).await;
    let gateway = process.status().await.gateway;
    let warned = |plugin: &str| {
        let log = process.log();
        let of = |line: &&str| line.contains("calls a deprecated service") && line.contains(plugin);
        log.lines().filter(of).count()
    };
    for (name, service, expected) in [
        ("front", "store", [0, 0]),
        ("front", "plain", [1, 0]),
        ("front", "plain", [1, 0]),
        ("other", "plain", [1, 1]),
    ] {
        let request = reqwest::Client::new().post(format!("http://{gateway}/{name}"));
        let answer = request.body(format!("call demo/back {service} x")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        // It is logged before the call is made.
        assert_eq!(["demo/front", "demo/other"].map(warned), expected, "{name} {service}");
    }
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_ties_are_found_before_anything_is_loaded() {
    let registry = Registry::start().await;
    let exports = "\n[[service]]\nname = \"plain\"\nversion = \"1.2.0\"\nmethods = [\"get\"]\n\n[[guard]]\nname = \"hidden\"\n[[event]]\nname = \"added\"\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let import = "[[import]]\nplugin = \"demo/back\"\nservice = ";
    let optional =
        "\n[dependencies]\n\"demo/back\" = { version = \"^1\", optional = true }\n".to_owned();
    let absent =
        "\n[dependencies]\n\"demo/absent\" = { version = \"^1\", optional = true }\n".to_owned();
    let cases = [
        ("demo/version", format!("{NEEDS_BACK}{import}\"plain\"\nversion = \"^2\"\n")),
        ("demo/missing", format!("{NEEDS_BACK}{import}\"other\"\n")),
        ("demo/method", format!("{NEEDS_BACK}{import}\"plain\"\nmethods = [\"put\"]\n")),
        (
            "demo/topic",
            format!("{NEEDS_BACK}[[event]]\nname = \"removed\"\nfrom = \"demo/back\"\n"),
        ),
        (
            "demo/guard",
            NEEDS_BACK.to_owned() + &commands("/guard", "guards = [\"demo/back:hidden\"]"),
        ),
        ("demo/keyless", absent + &commands("/keyless", "guards = [\"demo/absent:staff\"]")),
        // Without what it can do without.
        (
            "demo/easy",
            format!("{optional}{import}\"plain\"\nversion = \"^2\"\n") + &commands("/easy", ""),
        ),
    ];
    for (name, more) in &cases {
        registry.publish(linked(name, more, vec![]));
    }
    let broken =
        "\n[[service]]\nname = \"plain\"\nversion = \"1.0.0\"\nrequest = \"request.json\"\n";
    registry.publish(linked(
        "demo/round",
        broken,
        vec![schema("request.json", "{\"$ref\":\"#\"}")],
    ));
    let mut names: Vec<&str> = cases.iter().map(|(name, _)| *name).collect();
    names.push("demo/round");
    let (agent, _folder) = start(&registry, &names, |_| {}).await;
    let lines: Vec<String> = agent
        .status()
        .plugins
        .into_iter()
        .map(|p| format!("{} {} {}", p.plugin, p.state, p.reason.unwrap_or_default()))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let (status, text) = tell(&agent, "/easy", "call demo/back plain x").await;
    assert_eq!((status, text.contains("needs demo/back:plain ^2")), (502, true), "{text}");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_obey_their_schemas_both_ways() {
    let registry = Registry::start().await;
    let exports = "\n[[service]]\nname = \"checked\"\nversion = \"1.0.0\"\nrequest = \"schema/request.json\"\nresponse = \"schema/response.json\"\n";
    let files = vec![
        schema(
            "schema/request.json",
            r#"{"type":"object","required":["path"],"properties":{"path":{"type":"string","maxLength":20}}}"#,
        ),
        schema(
            "schema/response.json",
            r#"{"type":"object","properties":{"size":{"type":"integer"}}}"#,
        ),
    ];
    registry.publish(linked("demo/back", exports, files));
    let imports =
        NEEDS_BACK.to_owned() + "[[import]]\nplugin = \"demo/back\"\nservice = \"checked\"\n";
    registry.publish(linked("demo/front", &(imports + &commands("/front", "")), vec![]));
    let (agent, _folder) = start(&registry, &["demo/front"], |_| {}).await;
    let mut told = Vec::new();
    for payload in [r#"{"path":"a"}"#, r#"{"path":7}"#, "{}", "no json", r#"{"path":"badly"}"#] {
        let (status, text) =
            tell(&agent, "/front", format!("call demo/back checked {payload}")).await;
        told.push(format!("{payload}\n  {status} {text}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    // What broke the schema of requests never reached the plugin.
    let back = plugin(&agent, "demo/back");
    assert_eq!((back.calls, back.links.refused_calls), (2, 4));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_narrows_who_calls_what() {
    let registry = Registry::start().await;
    let exports =
        "\n[[service]]\nname = \"store\"\nversion = \"2.0.0\"\nmethods = [\"get\", \"put\"]\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let imports =
        NEEDS_BACK.to_owned() + "[[import]]\nplugin = \"demo/back\"\nservice = \"store\"\n";
    registry.publish(linked("demo/front", &(imports.clone() + &commands("/front", "")), vec![]));
    registry.publish(linked("demo/other", &(imports + &commands("/other", "")), vec![]));
    let rule = |callers: &[&str], methods: &[&str]| ServiceRule {
        service: "demo/back:store".parse().unwrap(),
        callers: callers.iter().map(|name| name.parse().unwrap()).collect(),
        methods: methods.iter().map(|name| name.parse().unwrap()).collect(),
    };
    let (agent, _folder) = start(&registry, &["demo/front", "demo/other"], |config| {
        config.host.links.services = vec![rule(&["demo/front"], &[]), rule(&[], &["get"])];
    })
    .await;
    let mut told = Vec::new();
    for (path, method) in
        [("/front", "put"), ("/front", "get"), ("/other", "get"), ("/other", "put")]
    {
        let (status, text) = tell(&agent, path, format!("call demo/back store/{method} x")).await;
        told.push(format!("{path} {method}: {status} {text}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_are_asked_in_order_until_one_denies() {
    let registry = Registry::start().await;
    let names =
        ["allow", "deny", "team", "bodiless", "maybe", "fails", "panics", "late", "unknown"];
    registry.publish(linked("demo/door", &(guards(&names) + &commands("/door", "")), vec![]));
    let needs = "\n[dependencies]\n\"demo/door\" = \"^1\"\n[[guard]]\nname = \"allow\"\n";
    let mut more = needs.to_owned() + &commands("/open", "");
    more += &commands("/own", "guards = [\"allow\"]");
    more += &commands(
        "/order",
        "guards = [\"demo/door:allow\", \"demo/door:deny\", \"demo/door:team\"]",
    );
    for name in &names[2..] {
        more += &commands(
            &format!("/{name}"),
            &format!("guards = [\"demo/door:allow\", \"demo/door:{name}\"]"),
        );
    }
    registry.publish(linked("demo/page", &more, vec![]));
    let (agent, _folder) = start(&registry, &["demo/page", "demo/door"], |config| {
        config.host.links.guard_timeout = Duration::from_millis(300);
        config.host.links.guards = vec![GuardRule {
            guard: "demo/door:team".parse().unwrap(),
            plugins: vec!["demo/page".parse().unwrap()],
            paths: vec!["/own".into(), "/order".into()],
        }];
    })
    .await;
    let ask = async |path: &str, team: &str| {
        let url = format!("http://{}{path}", agent.gateway_addr());
        let request = reqwest::Client::new().post(url).header("x-team", team).body("seen");
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let text = problem.map_or(text, |problem| problem["detail"].as_str().unwrap().to_owned());
        format!("{path} {team}: {status} {text}")
    };
    let mut told = Vec::new();
    for (path, team) in [
        ("/open", "blue"),
        ("/own", "blue"),
        ("/own", "red"),
        ("/own/below", "red"),
        ("/order", "red"),
        ("/team", "blue"),
        ("/team", "red"),
        ("/bodiless", "blue"),
        ("/maybe", "red"),
        ("/fails", "red"),
        ("/panics", "red"),
        ("/late", "red"),
        ("/unknown", "red"),
    ] {
        told.push(ask(path, team).await.trim().replace('\n', ", "));
    }
    insta::assert_snapshot!(told.join("\n"));
    // The operator's first, then in the route's order, and none behind the one that denied.
    let (_, seen) = tell(&agent, "/door", "seen").await;
    let order: Vec<&str> = seen.lines().skip(3).take(3).collect();
    assert_eq!(order, ["guard team", "guard allow", "guard deny"], "{seen}");
    let links = plugin(&agent, "demo/page").links;
    assert_eq!((links.denied, links.undecided), (3, 5));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_whose_plugin_failed_denies() {
    let registry = Registry::start().await;
    let broken =
        crate::plugins::linked_with("demo/door", &["FAIL_CREATE"], &guards(&["staff"]), vec![]);
    registry.publish(broken);
    let needs = "\n[dependencies]\n\"demo/door\" = { version = \"^1\", optional = true }\n";
    let more = needs.to_owned() + &commands("/page", "guards = [\"demo/door:staff\"]");
    registry.publish(linked("demo/page", &more, vec![]));
    let (agent, _folder) = start(&registry, &["demo/page", "demo/door"], |_| {}).await;
    assert_eq!(plugin(&agent, "demo/page").state, "ready");
    let (status, text) = tell(&agent, "/page", "seen").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("demo/door:staff could not decide"), "{text}");
    assert_eq!(plugin(&agent, "demo/page").calls, 0);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_behind_an_open_breaker_denies() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/door", &guards(&["fails", "allow"]), vec![]));
    let mut more = "\n[dependencies]\n\"demo/door\" = \"^1\"\n".to_owned();
    more += &commands("/fails", "guards = [\"demo/door:fails\"]");
    more += &commands("/allow", "guards = [\"demo/door:allow\"]");
    registry.publish(linked("demo/page", &more, vec![]));
    let (agent, _folder) = start(&registry, &["demo/page"], |_| {}).await;
    assert_eq!(tell(&agent, "/allow", "seen").await.0, 200);
    for _ in 0..5 {
        assert_eq!(tell(&agent, "/fails", "seen").await.0, 503);
    }
    // The guard would allow, but is not asked any more.
    assert_eq!(plugin(&agent, "demo/door").breaker, "open");
    assert_eq!(tell(&agent, "/allow", "seen").await.0, 503);
    assert_eq!(plugin(&agent, "demo/page").calls, 1);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_guard_that_is_missing_keeps_every_door_shut() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/page", &commands("/page", ""), vec![]));
    let (agent, _folder) = start(&registry, &["demo/page"], |config| {
        let guard = "demo/door:staff".parse().unwrap();
        config.host.links.guards = vec![GuardRule { guard, plugins: vec![], paths: vec![] }];
    })
    .await;
    assert_eq!(tell(&agent, "/page", "seen").await.0, 503);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_have_guards_as_well() {
    let registry = Registry::start().await;
    registry.publish(linked("demo/door", &guards(&["deny", "fails"]), vec![]));
    let exports = "\n[dependencies]\n\"demo/door\" = \"^1\"\n[[guard]]\nname = \"allow\"\n[[service]]\nname = \"open\"\nversion = \"1.0.0\"\nguards = [\"allow\"]\n[[service]]\nname = \"shut\"\nversion = \"1.0.0\"\nguards = [\"allow\", \"demo/door:deny\"]\n[[service]]\nname = \"stuck\"\nversion = \"1.0.0\"\nguards = [\"demo/door:fails\"]\n";
    registry.publish(linked("demo/back", exports, vec![]));
    let import = |name: &str| format!("[[import]]\nplugin = \"demo/back\"\nservice = \"{name}\"\n");
    let more = NEEDS_BACK.to_owned() + &["open", "shut", "stuck"].map(import).concat();
    registry.publish(linked("demo/front", &(more + &commands("/front", "")), vec![]));
    let (agent, _folder) = start(&registry, &["demo/front"], |_| {}).await;
    let mut told = Vec::new();
    for name in ["open", "shut", "stuck"] {
        let (status, text) = tell(&agent, "/front", format!("call demo/back {name} x")).await;
        told.push(format!("{name}: {status} {text}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    agent.shutdown().await;
}
