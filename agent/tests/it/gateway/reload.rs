//! Users, rules and limits that change while the gateway serves.

use std::time::Duration;

use reqwest::Client;
use rustix::process::Signal;

use super::issuer::{Issuer, SigningKey};
use super::{setup, url};
use crate::configured::Given;
use crate::operator::{Process, run, text};
use crate::screens::config_file;
use crate::upkeep::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_changes_who_is_let_in_and_what_they_may_cost() {
    let setup = setup().await;
    let (kept, removed) = (Issuer::start().await, Issuer::start().await);
    let (kept_key, removed_key) = (SigningKey::ecdsa("one"), SigningKey::ecdsa("two"));
    kept.publish(&[&kept_key]);
    removed.publish(&[&removed_key]);
    let path = config_file(&setup.registry, setup.folder.path(), &[("demo/other", "^1")]);
    let base = std::fs::read_to_string(&path).unwrap();
    let write = |body_bytes: u32, issuers: &[&Issuer], more: &str| {
        let listen = "listen = \"127.0.0.1:0\"\n";
        let mut text = base.replace(listen, &format!("{listen}body_bytes = {body_bytes}\n"));
        for issuer in issuers {
            text += &format!(
                "[[issuer]]\nurl = \"{}\"\naudience = \"host\"\nroles_claim = \"roles\"\n",
                issuer.url
            );
        }
        std::fs::write(&path, text + more).unwrap();
    };
    write(2000, &[&kept, &removed], "");
    let process = Process::start(&path).await;
    let gateway = process.status().await.gateway;
    let post = async |token: &str, bytes: usize| {
        let request = Client::new().post(format!("http://{gateway}/other/head"));
        let answer = request.bearer_auth(token).body(vec![0; bytes]).send().await.unwrap();
        answer.status().as_u16()
    };
    let token =
        |issuer: &Issuer, key: &SigningKey, roles: &[&str]| key.token(&issuer.claims("ada", roles));
    let of_removed = token(&removed, &removed_key, &["admin"]);
    let admin = token(&kept, &kept_key, &["admin"]);
    let user = token(&kept, &kept_key, &[]);
    for token in [&of_removed, &admin, &user] {
        assert_eq!(post(token, 2000).await, 200);
    }
    assert_eq!(post(&admin, 2001).await, 413);
    assert_eq!(kept.fetches(), 1);

    let access = "[[access]]\npaths = [\"/other\"]\nroles = [\"admin\"]\n";
    let telemetry = "[telemetry]\notlp = \"http://127.0.0.1:9\"\n";
    write(1000, &[&kept], &(access.to_owned() + telemetry));
    process.signal(Signal::HUP);
    wait_for("the refusal", async || post(&of_removed, 1000).await == 401).await;
    assert_eq!(post(&user, 1000).await, 403);
    assert_eq!(post(&admin, 1000).await, 200);
    assert_eq!(post(&admin, 1001).await, 413);
    // Who is believed as before keeps the keys that were fetched.
    assert_eq!(kept.fetches(), 1);
    // What needs a restart is said until there is one, and what is in force only once.
    let again = text(run(&path, &["reload"]));
    assert_eq!(
        again,
        "nothing that can change while the agent runs has changed\nrestart the agent for the rest: telemetry\n"
    );
    write(1000, &[&kept], "");
    let opened = text(run(&path, &["reload"]));
    assert_eq!(opened, "in force now: users\n");
    assert_eq!(post(&user, 1000).await, 200);
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_read_again() {
    let mut setup = setup().await;
    let issuer = Issuer::start().await;
    let (old, new) = (SigningKey::ecdsa("old"), SigningKey::ecdsa("new"));
    let file = setup.folder.path().join("keys.json");
    let write = |key: &SigningKey| {
        let keys = serde_json::json!({ "keys": [key.jwk()] });
        std::fs::write(&file, keys.to_string()).unwrap();
    };
    write(&old);
    let mut settings = issuer.settings();
    settings.keys = modunest_agent::config::users::KeysFrom::File(file.clone());
    setup.config.users.issuers = vec![settings];
    setup.config.users.access.has_issuers = true;
    let given = Given::new(setup.config.clone());
    let agent = given.start().await;
    let status = async |key: &SigningKey| {
        let token = key.token(&issuer.claims("ada", &[]));
        let request = Client::new().get(url(&agent, "/other/head")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!([status(&old).await, status(&new).await], [200, 401]);
    write(&new);
    assert_eq!(agent.reload().await.unwrap().applied, ["users"]);
    assert_eq!([status(&old).await, status(&new).await], [401, 200]);
    assert!(agent.reload().await.unwrap().applied.is_empty());
    // What cannot be used is told, and changes nothing.
    std::fs::write(&file, "{}").unwrap();
    given.change(|config| config.gateway_limits.body_bytes = 1);
    let error = agent.reload().await.unwrap_err().to_string();
    assert!(error.contains("keys.json"), "{error}");
    assert_eq!([status(&old).await, status(&new).await], [401, 200]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_time_for_calls_is_in_force_for_the_next_one() {
    let setup = setup().await;
    let given = Given::new(setup.config.clone());
    let agent = given.start().await;
    let slow = async || {
        let answer = reqwest::get(url(&agent, "/other/slow?1000")).await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(slow().await, 200);
    given.change(|config| config.host.call_timeout = Duration::from_millis(50));
    assert_eq!(agent.reload().await.unwrap().applied, ["host"]);
    assert_eq!(slow().await, 504);
    agent.shutdown().await;
}
