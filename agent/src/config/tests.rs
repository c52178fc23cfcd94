#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use modunest_tlog::SigningKey;

use super::read::parse;
use super::*;

fn key(name: &str) -> String {
    SigningKey::from_seed(name.parse().unwrap(), &[7; 32]).verifying_key().to_string()
}

/// The least that is a configuration, with a section of these lines.
pub(super) fn with_section(section: &str, lines: &str) -> String {
    format!(
        "state_dir = \"state\"\n[[registry]]\nname = \"local\"\nurl = \"http://127.0.0.1:7878\"\norigin = \"local.modunest\"\nkeys = [\"{}\"]\n[{section}]\n{lines}",
        key("local.modunest")
    )
}

fn good() -> String {
    format!(
        r#"state_dir = "state"

[[registry]]
name = "local"
url = "http://127.0.0.1:7878"
origin = "local.modunest"
keys = ["{}"]

[plugins]
"demo/gallery" = "^1"
"demo/other" = {{ version = "=1.2.3", config = {{ title = "x" }} }}

[host]
in_process = ["demo/*", "other/one"]
slots = 2
"#,
        key("local.modunest")
    )
}

#[test]
fn a_good_file() {
    let config = parse(&good(), Path::new("/etc/modunest")).unwrap();
    assert_eq!(config.state_dir, Path::new("/etc/modunest/state"));
    assert_eq!(config.gateway.port(), 8080);
    assert_eq!(config.host.slots, 2);
    let other = &config.plugins[&"demo/other".parse().unwrap()];
    assert_eq!(other.config, br#"{"title":"x"}"#);
    let allowed = |name: &str| config.host.allows_in_process(&name.parse().unwrap());
    assert!(allowed("demo/anything") && allowed("other/one") && !allowed("other/two"));
}

#[test]
fn a_registry_is_believed_for_its_root_or_for_its_keys() {
    let keys = format!("keys = [\"{}\"]", key("local.modunest"));
    let registry = |by: &str| {
        parse(&good().replace(&keys, by), Path::new("/etc/modunest")).map(|config| config.registry)
    };
    let rooted = registry("root = \"root.json\"").unwrap();
    assert_eq!(rooted.root.as_deref(), Some(Path::new("/etc/modunest/root.json")));
    assert!(rooted.keys.is_empty());
    let keyed = registry(&keys).unwrap();
    assert_eq!((keyed.root, keyed.keys.len()), (None, 1));
    for refused in ["", "keys = []", "root = \"\"", &format!("root = \"root.json\"\n{keys}")] {
        let problems = registry(refused).unwrap_err();
        assert_eq!(problems.len(), 1, "{refused}: {problems:?}");
        assert!(problems[0].key.starts_with("registry."), "{problems:?}");
    }
}

#[test]
fn every_broken_rule_names_its_place_and_a_way_out() {
    let report = |text: String| {
        let problems = parse(&text, Path::new("")).unwrap_err();
        let path = PathBuf::from("agent.toml");
        ConfigError::Invalid { path, problems }.to_string()
    };
    let several = good()
        .replace("slots = 2", "slots = 0\ndownloads = 1000")
        .replace("http://", "ftp://")
        .replace("demo/*", "*")
        + "[admin]\nlisten = \"unix:relative\"\n[gateway]\nlisten = \"unix:/x\"\n";
    let links = good()
        + "[links]\nguard_timeout_ms = 0\nevent_attempts = 21\n[[service]]\nname = \"store\"\ncallers = [\"*\"]\nmethods = [\"G\"]\n[[guard]]\nuse = \"demo/door\"\npaths = [\"admin\", \"/%61\"]\n";
    let reports = [
        report(several),
        report(links),
        report(good().replace("slots", "slotz")),
        report(good().replace("\"^1\"", "\"latest\"")),
        report(good().replace("demo/gallery", "gallery")),
        report(good().replace(&key("local.modunest"), &key("other.modunest"))),
        report(good().replace("local.modunest+", "local.modunest")),
        report("state_dir = ".to_owned()),
    ];
    insta::assert_snapshot!(reports.join("\n---\n"));
}

#[test]
fn clients_have_to_make_progress() {
    let progress = |bytes: &str| {
        let text = good() + &format!("[gateway]\nprogress_bytes = {bytes}\n");
        parse(&text, Path::new("")).map(|config| config.gateway_limits.progress_bytes)
    };
    assert_eq!(progress("1").unwrap(), 1);
    assert_eq!(progress("0").unwrap_err()[0].key, "gateway.progress_bytes");
}

#[test]
fn lifecycle_is_read_and_bounded() {
    let more = r#"
[lifecycle]
on_quarantine = "deny"
retry_s = 5
retry_max_s = 20
[lifecycle.breaker]
failures = 3
failure_percent = 50
[lifecycle.critical_breaker]
open_s = 1
"#;
    let lifecycle = parse(&(good() + more), Path::new("")).unwrap().host.lifecycle;
    assert_eq!(lifecycle.on_quarantine, OnQuarantine::Deny);
    assert_eq!((lifecycle.breaker.failures, lifecycle.breaker.rate.unwrap().window), (3, 20));
    let pauses = [0, 1, 2, 3, u32::MAX].map(|loads| lifecycle.retry.pause(loads).as_secs());
    assert_eq!(pauses, [5, 10, 20, 20, 20]);
    let critical = lifecycle.critical_breaker;
    assert_eq!((critical.failures, critical.open_ms, critical.rate), (10, 1000, None));
    let wrong = more
        .replace("\"deny\"", "\"ignore\"\nqueue = 0")
        .replace("failure_percent", "window")
        .replace("open_s = 1", "open_s = 0");
    let problems = parse(&(good() + &wrong), Path::new("")).unwrap_err();
    insta::assert_snapshot!(
        ConfigError::Invalid { path: PathBuf::from("agent.toml"), problems }.to_string()
    );
}

#[test]
fn links_between_plugins() {
    let text = good()
        + "[links]\nevent_attempts = 3\n[[service]]\nname = \"demo/store:keep\"\ncallers = [\"demo/*\"]\nmethods = [\"get\"]\n[[guard]]\nuse = \"demo/door:staff\"\npaths = [\"/admin\"]\n";
    let links = parse(&text, Path::new("")).unwrap().host.links;
    let allows =
        |caller: &str, method: &str| links.services[0].allows(&caller.parse().unwrap(), method);
    assert!(
        allows("demo/page", "get") && !allows("demo/page", "put") && !allows("else/page", "get")
    );
    assert_eq!(links.guards[0].guard.to_string(), "demo/door:staff");
    assert_eq!((links.event_attempts, links.guard_timeout.as_secs()), (3, 2));
    assert_eq!(parse(&good(), Path::new("")).unwrap().host.links, LinkSettings::default());
}

#[test]
fn grants_add_up_and_quotas_are_the_last() {
    let text = good()
        + r#"
[[grant]]
plugins = ["demo/*"]
allow = ["http:*.example.org", "env:TZ"]

[[grant]]
plugins = ["demo/gallery"]
allow = ["files:read:/srv"]
quota = { store_keys = 7 }

[[grant]]
plugins = ["other/one"]
defaults = false

[quota]
store_bytes = 1000

[outbound]
timeout_ms = 500
networks = ["10.1.0.0/16"]
addresses = { "api.example.org" = ["192.0.2.7", "2001:db8::1"] }
"#;
    let grants = parse(&text, Path::new("")).unwrap().host.grants;
    let quota = |name: &str| {
        let quota = grants.quota(&name.parse().unwrap());
        (quota.store_bytes, quota.store_keys)
    };
    assert_eq!(quota("demo/gallery"), (1000, 7));
    assert_eq!(quota("demo/other"), (1000, grants::Quota::default().store_keys));
    assert_eq!(grants.outbound.addresses["api.example.org"].len(), 2);
    let manifest = |name: &str| {
        modunest_core::manifest::Manifest::parse(&format!(
            "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"A plugin for tests\"\nauthors = [\"Ada\"]\nlicense = \"MIT\"\n[host]\nabi = 1\n[capabilities]\nkv = [\"cache\"]\nhttp = [\"api.example.org\"]\nfiles = [\"read:/srv/photos\"]\n"
        ))
        .unwrap()
    };
    let refused = |name: &str| {
        let effective = grants.effective(&manifest(name));
        effective.refused().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(refused("demo/gallery"), "");
    assert_eq!(refused("demo/other"), "files:read:/srv/photos");
    assert_eq!(refused("other/one"), "files:read:/srv/photos http:api.example.org kv:cache");
    assert_eq!(refused("other/two"), "files:read:/srv/photos http:api.example.org");
}

#[test]
fn every_broken_rule_of_grants_names_its_place_and_a_way_out() {
    let text = good()
        + r#"
[[grant]]
plugins = []
allow = ["net:example.org", "http:https://example.org", "files:read:srv"]

[[grant]]
plugins = ["demo"]
quota = { http_concurrent = 1000 }

[quota]
store_bytes = 9000000000000000

[outbound]
timeout_ms = 0
networks = ["10.1.2.3/16", "10.0.0.0"]
addresses = { "API.example.org" = ["192.0.2"] }
"#;
    let problems = parse(&text, Path::new("")).unwrap_err();
    let path = PathBuf::from("agent.toml");
    insta::assert_snapshot!(ConfigError::Invalid { path, problems });
}

#[test]
fn changes_are_tried_as_the_most_exact_name_says() {
    let canary = |more: &str| {
        let text = good() + more;
        parse(&text, Path::new("/etc/modunest")).map(|config| config.host.lifecycle.canary)
    };
    let share = |settings: &CanarySettings, plugin: &str| {
        settings.rule(&plugin.parse().unwrap()).map(|rule| (rule.share_percent, rule.calls))
    };
    assert_eq!(share(&canary("").unwrap(), "demo/page"), None);
    assert_eq!(share(&canary("[lifecycle.canary]\n").unwrap(), "demo/page"), Some((10, 50)));
    let some = canary(
        "[lifecycle.canary]\nshare_percent = 5\ncalls = 7\n[lifecycle.canary.plugins]\n\
         \"demo/page\" = { share_percent = 50 }\n\"demo/*\" = { share_percent = 0 }\n",
    )
    .unwrap();
    assert_eq!(share(&some, "demo/page"), Some((50, 7)));
    assert_eq!(share(&some, "demo/other"), None);
    assert_eq!(share(&some, "other/page"), Some((5, 7)));
    let problems = canary(
        "[lifecycle.canary]\nshare_percent = 100\n[lifecycle.canary.plugins]\n\"page\" = { calls = 1 }\n",
    )
    .unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["lifecycle.canary.share_percent", "lifecycle.canary.plugins.\"page\""]);
}
