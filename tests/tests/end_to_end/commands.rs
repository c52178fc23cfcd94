//! `modunest` as a publisher uses it, from founding an organisation to a yank.

use std::path::Path;

use modunest_tests::agent::{Host, sample};
use modunest_tests::client::Publisher;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::{Finished, run};
use modunest_tests::registry::{Folder, Registry, command};
use modunest_tests::stable::stable;

macro_rules! assert_shown {
    ($name:literal, $finished:expr) => {
        let Finished { code, stdout, stderr } = $finished;
        let shown = format!("exit {}\n{stdout}{stderr}", code.unwrap());
        insta::assert_snapshot!($name, without_folder(&stable(&shown)));
    };
}

/// The test's own folder is another one each time.
fn without_folder(text: &str) -> String {
    let temporary = std::env::temp_dir();
    let temporary = temporary.to_str().unwrap();
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(temporary) {
        out.push_str(before);
        out.push_str("<folder>");
        rest = after[1..].find('/').map_or("", |end| &after[1 + end..]);
    }
    out + rest
}

#[tokio::test]
async fn a_plugin_is_published_shown_loaded_and_yanked() {
    let registry = Registry::start().await;
    let key = registry.folder.file("demo.key");
    let key = key.to_str().unwrap();
    let markdown = sample("markdown");
    let markdown = markdown.to_str().unwrap();
    assert_shown!("org-new", registry.run(&["org", "new", "demo"]));
    assert_shown!("key-new", registry.run(&["key", "new", "demo", "--out", key]));
    assert_shown!("key-register", registry.run(&["key", "register", key]));
    assert_shown!("org-show", registry.run(&["org", "show", "demo"]));
    // Its component needs a compiler that is not on every machine, and has a test of its own.
    let publish = ["publish", "--only", "native", "--key", key, markdown];
    assert_shown!("publish-dry", registry.run(&[&publish[..], &["--dry-run"]].concat()));
    assert_shown!("publish", registry.run(&publish));
    assert_shown!("publish-again", registry.run(&publish));
    let published = registry.run(&[&["--json"][..], &publish[..]].concat()).good().json();
    assert_eq!(
        (&published[0]["already_there"], &published[0]["state"]),
        (&true.into(), &"published".into())
    );

    // Before anybody downloads it: when a download is counted depends on the machine.
    assert_shown!("info", registry.run(&["info", "demo/markdown"]));
    let agent = Host::of(&registry).await.wants("demo/markdown", "^1").start().await;
    let plugin = agent.plugin("demo/markdown").await;
    assert_eq!(plugin["state"], "ready", "{plugin:#}");

    let info = registry.run(&["--json", "info", "demo/markdown"]).good().json();
    let version = info["releases"][0]["version"].as_str().unwrap().to_owned();
    let release = format!("demo/markdown@{version}");
    let yank = ["yank", &release, "--reason", "a test", "--key", key];
    assert_shown!("yank", registry.run(&yank));
    let info = registry.run(&["--json", "info", "demo/markdown"]).good().json();
    assert_eq!(
        (&info["releases"][0]["status"], &info["releases"][0]["reason"]),
        (&"yanked".into(), &"a test".into())
    );
    assert_shown!("yank-undo", registry.run(&["yank", &release, "--undo", "--key", key]));
}

#[tokio::test]
async fn everything_else_that_can_be_said_of_a_plugin() {
    let registry = Registry::start().await;
    let key_of = |org: &str, file: &str| {
        let file = registry.folder.file(file).to_str().unwrap().to_owned();
        let _made = registry.run(&["key", "new", org, "--out", &file]).good();
        file
    };
    let found = |org: &str, file: &str| {
        let _founded = registry.run(&["org", "new", org]).good();
        let key = key_of(org, file);
        let _registered = registry.run(&["key", "register", &key]).good();
        key
    };
    let key = found("demo", "demo.key");
    let secret = std::fs::read_to_string(&key).unwrap();
    let publisher = Publisher { client: registry.admin(), key: secret.trim().parse().unwrap() };
    publisher.publish(&Plugin::new("demo/markdown", "1.0.0").pack()).await;
    let info = || registry.run(&["--json", "info", "demo/markdown"]).good().json();
    let release = "demo/markdown@1.0.0";
    let status = || {
        let info = info();
        let field = |name: &str| info["releases"][0][name].as_str().unwrap_or("-").to_owned();
        format!("{}: {}", field("status"), field("reason"))
    };

    let what = ["deprecate", release, "--message", "take another", "--key", &key];
    assert_shown!("deprecate", registry.run(&what));
    assert_eq!(status(), "deprecated: take another");
    assert_shown!("deprecate-undo", registry.run(&["deprecate", release, "--undo", "--key", &key]));
    assert_eq!(status(), "active: -");
    let what = ["deprecate", "demo/markdown", "--message", "all of it", "--key", &key];
    assert_shown!("deprecate-plugin", registry.run(&what));
    assert_eq!(status(), "deprecated: all of it");

    let quarantine = ["admin", "quarantine", release, "--reason", "steals tokens"];
    assert_shown!("quarantine", registry.run(&quarantine));
    assert_eq!(status(), "quarantined: steals tokens");
    assert_shown!("info-quarantined", registry.run(&["info", "demo/markdown"]));
    assert_shown!("quarantine-undo", registry.run(&[&quarantine[..], &["--undo"]].concat()));
    assert_shown!("trust", registry.run(&["admin", "trust", "demo/markdown", "verified"]));
    assert_eq!(info()["trust"], "verified");
    assert_shown!("trust-none", registry.run(&["admin", "trust", "demo/markdown", "divine"]));

    let new_key = found("friends", "friends.key");
    assert_shown!("owner", registry.run(&["owner", "demo/markdown", "friends", "--key", &key]));
    assert_eq!(info()["owner"], "friends");
    assert_shown!("owner-former", registry.run(&["yank", release, "--key", &key]));
    let _yanked = registry.run(&["yank", release, "--key", &new_key]).good();

    let next_key = key_of("demo", "next.key");
    assert_shown!("key-rotate", registry.run(&["key", "rotate", &key, &next_key]));
    let shown = registry.run(&["--json", "org", "show", "demo"]).good().json();
    assert_eq!(
        (&shown["keys"][0]["status"], &shown["keys"][1]["status"]),
        (&"rotated".into(), &"valid".into())
    );
    assert_eq!(status(), "yanked: -", "what a rotated key signed stays good");
    let public = shown["keys"][0]["key"].as_str().unwrap().to_owned();
    let hash = public.split('+').nth(1).unwrap();
    let revoke = ["key", "revoke", "demo", hash, "--reason", "it was published"];
    assert_shown!("key-revoke-unsure", named(registry.run(&revoke), hash));
    let sure = [&revoke[..], &["--yes"]].concat();
    assert_shown!("key-revoke", named(registry.run(&sure), hash));
    assert!(status().starts_with("quarantined: "), "{}", status());
    assert_shown!("org-show-keys", registry.run(&["org", "show", "demo"]));
}

/// What was said, with `hash` named: it is another one each time.
fn named(finished: Finished, hash: &str) -> Finished {
    let name = |text: &str| text.replace(hash, "<hash>");
    Finished { stdout: name(&finished.stdout), stderr: name(&finished.stderr), ..finished }
}

#[tokio::test]
async fn every_kind_of_failure_has_its_exit_code_and_says_what_to_do() {
    let mut registry = Registry::start().await;
    let _founded = registry.run(&["org", "new", "demo"]).good();
    let key = registry.folder.file("demo.key");
    let key = key.to_str().unwrap();
    let _made = registry.run(&["key", "new", "demo", "--out", key]).good();
    let _registered = registry.run(&["key", "register", key]).good();

    assert_shown!("no-such-plugin", registry.run(&["info", "demo/nothing"]));
    assert_shown!("bad-name", registry.run(&["info", "Demo"]));
    assert_shown!("no-version", registry.run(&["yank", "demo/nothing", "--key", key]));
    assert_shown!("not-published", registry.run(&["yank", "demo/nothing@1.0.0", "--key", key]));
    assert_shown!("key-exists", registry.run(&["key", "new", "demo", "--out", key]));
    assert_shown!("org-exists", registry.run(&["org", "new", "demo"]));
    assert_shown!("no-manifest", registry.run(&["publish", "--key", key, "/"]));

    let token = |token: &str| run(registry.modunest().arg("whoami").env("MODUNEST_TOKEN", token));
    assert_shown!("bad-token", token("mnt_nobody"));
    assert_shown!("whoami", run(registry.modunest().args(["--json", "whoami"])));

    registry.process.kill();
    assert_shown!("unreachable", registry.run(&["info", "demo/nothing"]));

    let empty = Folder::new().file("");
    std::fs::create_dir_all(&empty).unwrap();
    let mut lost = command();
    lost.arg("whoami")
        .current_dir(Path::new("/"))
        .env("HOME", &empty)
        .env_remove("XDG_CONFIG_HOME");
    assert_shown!("no-profile", run(&mut lost));
}
