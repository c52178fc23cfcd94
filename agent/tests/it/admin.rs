//! The admin API: held against its own description, who may reach it, and what it counts.

use std::os::unix::fs::PermissionsExt as _;

use modunest_agent::Agent;
use modunest_agent::config::{Config, Listen};
use modunest_agent::status::AgentStatus;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::plugins::{ECHO, release, route, uses};
use crate::registry::Registry;
use crate::screens::config_file;

/// `demo/front` at `/front` asks the critical `demo/back`.
async fn registry() -> Registry {
    let registry = Registry::start().await;
    registry.publish(release("demo/back", "1.0.0", &[], ECHO));
    let more = uses("demo/back", "^1") + &route("/front");
    registry.publish(release("demo/front", "1.0.0", &["FORWARD_PLUGIN=\"demo/back\""], &more));
    registry
}

async fn started(registry: &Registry) -> (tempfile::TempDir, Agent, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/front", "^1")]);
    // Where nothing but the calls themselves takes time.
    config.host.in_process = vec!["demo/*".parse().unwrap()];
    let agent = Agent::start(config).await.unwrap();
    let Listen::Tcp(address) = agent.admin().clone() else { panic!("a TCP address") };
    (folder, agent, format!("http://{address}"))
}

async fn front(agent: &Agent) -> StatusCode {
    reqwest::get(format!("http://{}/front", agent.gateway_addr())).await.unwrap().status()
}

/// Whether `value` is what `schema` of `document` says.
fn validate(document: &Value, schema: &Value, value: &Value, what: &str) {
    let mut whole = json!({ "components": document["components"] });
    whole.as_object_mut().unwrap().extend(schema.as_object().unwrap().clone());
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {value:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_answers_as_its_description_says() {
    let registry = registry().await;
    let (_folder, agent, base) = started(&registry).await;
    assert_eq!(front(&agent).await, 200);
    let document: Value =
        reqwest::get(format!("{base}/openapi.json")).await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut asked = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            // Each once as it is meant, and where it can be wrong, wrong.
            let good = path.replace("{org}", "demo").replace("{name}", "back");
            // This host has no file of its configuration, and no earlier generation.
            // Nothing is or was tried.
            let expected = match path.as_str() {
                "/reload" => 409,
                "/rollback" => 404,
                path if path.contains("/canary/") => 404,
                _ => 200,
            };
            let mut tries = vec![(good.clone(), expected)];
            if path.contains("{name}") {
                tries.push((path.replace("{org}", "demo").replace("{name}", "other"), 404));
                tries.push((path.replace("{org}", "demo").replace("{name}", "%ff"), 400));
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
                let (value, status) = match parameter["name"].as_str().unwrap() {
                    "latency" => ("latency=buckets", 200),
                    "update" => ("update=true", 200),
                    "generation" => ("generation=77", 404),
                    other => panic!("{other} is not tried"),
                };
                tries.push((format!("{good}?{value}"), status));
                tries.push((format!("{good}?{}=x", parameter["name"].as_str().unwrap()), 400));
                // A slip of the pen is not taken for nothing.
                tries.push((format!("{good}?{}", value.replacen('=', "s=", 1)), 400));
            }
            for (path, status) in tries {
                let verb: Method = method.to_uppercase().parse().unwrap();
                let what = format!("{verb} {path}");
                let request = Client::new().request(verb, format!("{base}{path}"));
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), status, "{what}");
                assert_eq!(answer.headers()["cache-control"], "no-store", "{what}");
                let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
                let described = &operation["responses"][status.to_string()]["content"];
                let (described_kind, content) = described
                    .as_object()
                    .and_then(|content| content.iter().next())
                    .unwrap_or_else(|| panic!("{what} describes no answer {status}"));
                assert!(kind.starts_with(described_kind), "{what}: {kind}, not {described_kind}");
                let body = answer.text().await.unwrap();
                if kind.contains("json") {
                    let value: Value = serde_json::from_str(&body).unwrap();
                    validate(&document, &content["schema"], &value, &what);
                } else {
                    assert!(!body.is_empty(), "{what}");
                }
            }
            asked.push(format!("{method} {path}"));
        }
    }
    insta::assert_snapshot!(asked.join("\n"));
    let unknown = reqwest::get(format!("{base}/elsewhere")).await.unwrap();
    assert_eq!(unknown.status(), 404);
    let text = unknown.text().await.unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(text.contains(path.as_str()), "{path} is described and not there: {text}");
    }
    let served = text.matches(", /").count() + 1;
    assert_eq!(served, document["paths"].as_object().unwrap().len(), "{text}");
    let wrong = Client::new().delete(format!("{base}/status")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_says_whose_doing_it_is() {
    let registry = Registry::start().await;
    registry.publish(release("demo/page", "1.0.0", &[], &route("/page")));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&registry, folder.path(), &[("demo/page", "^1")]);
    let agent = Agent::start(Config::load(&path).unwrap()).await.unwrap();
    let socket = folder.path().join("state/admin.sock");
    let client = Client::builder().unix_socket(socket).build().unwrap();
    let refused = async |path: &str| {
        let answer = client.post(format!("http://localhost{path}")).send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = answer.json().await.unwrap();
        (status, problem["detail"].as_str().unwrap().to_owned())
    };
    let good = std::fs::read_to_string(&path).unwrap();
    for (wrong, status, told) in [
        (good.replace("slots = 1", "slots = 0"), 400, "host.slots"),
        (good.replace("\"^1\"", "\"^7\""), 409, "demo/page"),
    ] {
        std::fs::write(&path, wrong).unwrap();
        let (answered, detail) = refused("/reload").await;
        assert!(answered == status && detail.contains(told), "{answered}: {detail}");
    }
    std::fs::write(&path, good).unwrap();
    // One that cannot take the place of what runs.
    registry.publish(release("demo/page", "1.1.0", &["FAIL_CREATE"], &route("/page")));
    let (answered, detail) = refused("/sync?update=true").await;
    assert!(answered == 409 && detail.contains("was not taken into service"), "{detail}");
    let seen = agent.status();
    assert_eq!((seen.generation, seen.plugins[0].version.as_str()), (Some(1), "1.0.0"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_agents_own_user_reaches_the_socket() {
    let registry = registry().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = registry.config(folder.path(), &[("demo/front", "^1")]);
    config.admin = Listen::below(folder.path());
    let agent = Agent::start(config.clone()).await.unwrap();
    let path = folder.path().join("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let client = Client::builder().unix_socket(path.as_path()).build().unwrap();
    let status: AgentStatus =
        client.get("http://localhost/status").send().await.unwrap().json().await.unwrap();
    assert_eq!(status.ready, Ok(()));
    assert!(status.process.unwrap().resident_bytes > 0);
    // A second agent does not take the socket of one that answers, and finds it gone later.
    let error = Agent::start(config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("cannot listen on unix:"), "{error}");
    agent.shutdown().await;
    assert!(!path.exists());
    // What a killed one leaves is taken over.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    Agent::start(config).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_changes_nothing() {
    let registry = registry().await;
    let (_folder, agent, base) = started(&registry).await;
    let post = |header: Option<(&'static str, &'static str)>| {
        let request = Client::new().post(format!("{base}/sync"));
        match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
        .send()
    };
    for header in [("origin", "https://example.org"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(post(Some(header)).await.unwrap().status(), 403, "{header:?}");
    }
    let synced: Value = post(None).await.unwrap().json().await.unwrap();
    assert_eq!(synced, json!({ "generation": 1, "changed": false, "offline": null }));
    registry.stop();
    let synced: Value = post(None).await.unwrap().json().await.unwrap();
    assert!(synced["offline"].is_string(), "{synced}");
    let ready: Value = reqwest::get(format!("{base}/readyz")).await.unwrap().json().await.unwrap();
    // The registry is away, and what runs goes on.
    assert_eq!(ready["ready"], true);
    let named = |name: &str| {
        let all = ready["dependencies"].as_array().unwrap();
        all.iter().find(|d| d["name"] == name).unwrap_or_else(|| panic!("no {name} in {ready}"))
    };
    assert_eq!(
        (&named("registry")["ok"], &named("registry")["required"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(named("generation")["detail"], "generation 1 runs");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_where_they_happen() {
    let registry = registry().await;
    let (_folder, agent, base) = started(&registry).await;
    for _ in 0..3 {
        assert_eq!(front(&agent).await, 200);
    }
    let metrics = reqwest::get(format!("{base}/metrics")).await.unwrap();
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = metrics.text().await.unwrap();
    let labels = "plugin=\"demo/front\",version=\"1.0.0\",tier=\"in-process\"";
    for line in [
        format!("modunest_plugin_calls_total{{{labels},outcome=\"answered\"}} 3"),
        format!("modunest_plugin_calls_total{{{labels},outcome=\"panicked\"}} 0"),
        format!("modunest_plugin_call_duration_seconds_count{{{labels}}} 3"),
        format!("modunest_plugin_call_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
        "modunest_plugins{state=\"ready\"} 2".to_owned(),
        "modunest_ready 1".to_owned(),
        "modunest_generation 1".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(
        text.contains(&format!("modunest_plugin_activation_seconds{{{labels}}} 0.0")),
        "{text}"
    );
    let front: Value =
        reqwest::get(format!("{base}/plugins/demo/front")).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&front["calls"], &front["errors"], &front["running"]),
        (&json!(3), &json!(0), &json!(0))
    );
    assert_eq!(front["outcomes"], json!({ "answered": 3 }));
    let (p50, p99) = (
        front["latency"]["p50_ms"].as_f64().unwrap(),
        front["latency"]["p99_ms"].as_f64().unwrap(),
    );
    assert!(0.0 < p50 && p50 <= p99, "{front}");
    agent.shutdown().await;
}
