//! Users, rules and limits that change while the gateway serves.

use reqwest::Client;
use rustix::process::Signal;

use super::issuer::{Issuer, SigningKey};
use super::setup;
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
