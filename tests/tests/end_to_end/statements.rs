//! Every kind of fact: said by whom it may be said, seen in the index, and heeded by hosts.

use modunest_core::api::{
    OrgView, SetMember, SetQuarantine, SetTrust, StatementResponse, plugin_quarantine_path,
    plugin_trust_path,
};
use modunest_core::authorise::{Role, Scope};
use modunest_core::problem::{Code, Problem};
use modunest_core::statement::{Deprecation, Link, PluginState, Statement, Status, TrustLevel};
use modunest_tests::agent::Host;
use modunest_tests::client::{Client, Publisher};
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::{Registry, signing_key};
use modunest_tests::snapshot::Snapshot;
use reqwest::Method;

const PLUGIN: &str = "acme/one";

async fn state(registry: &Registry) -> PluginState {
    let mut snapshot = Snapshot::read(&registry.started.url, &registry.keys().await).await;
    snapshot.plugins.remove(&PLUGIN.parse().unwrap()).unwrap()
}

async fn status(registry: &Registry, version: &str) -> Status {
    let state = state(registry).await;
    state.status(&state.releases[&version.parse().unwrap()])
}

async fn quarantine(
    client: &Client,
    version: &str,
    quarantined: bool,
) -> Result<StatementResponse, Problem> {
    let version = version.parse().unwrap();
    let request = SetQuarantine { version, quarantined, reason: "steals tokens".to_owned() };
    client.send(Method::POST, &plugin_quarantine_path(&PLUGIN.parse().unwrap()), &request).await
}

async fn publish(publisher: &Publisher, version: &str) {
    publisher.publish(&Plugin::new(PLUGIN, version).route("/one").pack()).await;
}

#[tokio::test]
async fn hosts_take_what_is_deprecated_and_are_warned() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publish(&publisher, "1.0.0").await;
    publisher.deprecate(PLUGIN, None, Some("take acme/two")).await.unwrap();
    let message = Some("take acme/two".to_owned());
    assert_eq!(status(&registry, "1.0.0").await, Status::Deprecated { message });

    let host = Host::of(&registry).await.wants(PLUGIN, "^1");
    let resolved = host.run(&["resolve"]).good();
    let said = format!("{}{}", resolved.stdout, resolved.stderr);
    assert!(said.contains("acme/one 1.0.0 is deprecated: take acme/two"), "{said}");
    assert_eq!(host.start().await.text("/one").await, "acme/one 1.0.0");
    publisher.deprecate(PLUGIN, None, None).await.unwrap();
    assert_eq!(status(&registry, "1.0.0").await, Status::Active);
}

#[tokio::test]
async fn hosts_refuse_what_is_quarantined_until_it_is_released() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publish(&publisher, "1.0.0").await;
    publish(&publisher, "1.1.0").await;
    let staff = registry.token(&[Scope::Staff]).await;
    let staff = registry.admin().with_token(Some(staff.token));
    let locked = Host::of(&registry).await.wants(PLUGIN, "^1");
    let pinned = Host::of(&registry).await.wants(PLUGIN, "=1.1.0");
    for host in [&locked, &pinned] {
        let mut agent = host.start().await;
        assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
        agent.process.terminate().await;
    }

    quarantine(&staff, "1.1.0", true).await.unwrap();
    let reason = "steals tokens".to_owned();
    assert_eq!(status(&registry, "1.1.0").await, Status::Quarantined { reason });
    // Whoever is new takes another, and is told when there is none.
    let newcomer = Host::of(&registry).await.wants(PLUGIN, "^1").start().await;
    assert_eq!(newcomer.text("/one").await, "acme/one 1.0.0");
    let resolved = Host::of(&registry).await.wants(PLUGIN, "=1.1.0").run(&["resolve"]);
    assert_eq!(resolved.code, Some(5), "{resolved:?}");
    assert!(resolved.stderr.contains("steals tokens"), "{resolved:?}");
    // Whoever locked it gives it up for another, and refuses to go on where there is none.
    let mut agent = locked.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.0.0");
    agent.process.terminate().await;
    let synced = pinned.run(&["sync"]);
    assert!(synced.code == Some(5) && synced.stderr.contains("steals tokens"), "{synced:?}");

    quarantine(&staff, "1.1.0", false).await.unwrap();
    let agent = pinned.start().await;
    assert_eq!(agent.text("/one").await, "acme/one 1.1.0");
}

#[tokio::test]
async fn a_trust_level_is_staffs_to_say() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publish(&publisher, "1.0.0").await;
    let path = plugin_trust_path(&PLUGIN.parse().unwrap());
    let request = SetTrust { level: TrustLevel::Internal, reason: Some("ours".to_owned()) };
    let set = async |client: &Client| -> Result<StatementResponse, Problem> {
        client.send(Method::POST, &path, &request).await
    };
    let others = registry.token(&[Scope::Publish, Scope::Manage, Scope::Admin]).await;
    let others = registry.admin().with_token(Some(others.token));
    assert_eq!(set(&others).await.unwrap_err().code, Code::Forbidden);
    let nobodys = quarantine(&registry.nobody(), "1.0.0", true).await.unwrap_err();
    assert_eq!(nobodys.code, Code::Unauthenticated);
    assert_eq!(state(&registry).await.trust, TrustLevel::Community);
    let answer = set(&registry.admin()).await.unwrap();
    let state = state(&registry).await;
    assert_eq!((state.trust, answer.epoch > 0), (TrustLevel::Internal, true));
    // A release whose chain did not wait for the registry's.
    publish(&publisher, "1.1.0").await;
}

#[tokio::test]
async fn hosts_follow_a_plugin_to_its_new_owner() {
    let registry = Registry::start().await;
    let acme = registry.publisher("acme").await;
    publish(&acme, "1.0.0").await;
    let friends = registry.publisher("friends").await;
    // Who publishes for one of the two only cannot give it away.
    let ada = crate::identity::user(&registry, "ada", &[Scope::Publish]).await;
    let publisher = SetMember { role: Role::Publisher };
    let member = async |org: &str| -> OrgView {
        let path = format!("/v1/orgs/{org}/members/ada");
        registry.admin().send(Method::PUT, &path, &publisher).await.unwrap()
    };
    member("acme").await;
    let ada = Publisher { client: ada, ..acme.clone() };
    assert_eq!(ada.give(PLUGIN, "friends").await.unwrap_err().code, Code::Forbidden);
    member("friends").await;
    ada.give(PLUGIN, "friends").await.unwrap();
    assert_eq!(state(&registry).await.owner.as_str(), "friends");

    // What was released before stays; what comes is the new owner's to say.
    let refused = acme.yank(PLUGIN, "1.0.0", true).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidSignature);
    publish(&friends, "1.1.0").await;
    let host = Host::of(&registry).await.wants(PLUGIN, "^1");
    assert_eq!(host.start().await.text("/one").await, "acme/one 1.1.0");
    friends.yank(PLUGIN, "1.1.0", true).await.unwrap();
    let host = Host::of(&registry).await.wants(PLUGIN, "^1");
    assert_eq!(host.start().await.text("/one").await, "acme/one 1.0.0");
}

#[tokio::test]
async fn hosts_refuse_what_a_revoked_key_signed() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publish(&publisher, "1.0.0").await;
    let hash = u32::from_be_bytes(publisher.key.verifying_key().hash());
    let path = format!("/v1/orgs/acme/keys/{hash:08x}/revoke");
    let body = serde_json::json!({ "reason": "it was stolen" });
    let _revoked: StatementResponse =
        registry.admin().send(Method::POST, &path, &body).await.unwrap();
    let resolved = Host::of(&registry).await.wants(PLUGIN, "^1").run(&["resolve"]);
    assert_eq!(resolved.code, Some(5), "{resolved:?}");
    assert!(resolved.stderr.contains("quarantined"), "{resolved:?}");
}

#[tokio::test]
async fn what_does_not_follow_or_is_anothers_to_say_is_refused() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    publish(&publisher, "1.0.0").await;
    let plugin = PLUGIN.parse().unwrap();
    let deprecation = |link: Link| {
        Statement::Deprecation(Deprecation {
            plugin: PLUGIN.parse().unwrap(),
            version: None,
            sequence: link.sequence,
            previous: link.previous,
            deprecated: true,
            message: None,
        })
    };
    let first = publisher.next_link(&plugin).await;
    let answer = publisher.say(&deprecation(first)).await.unwrap();
    // Another key of the same name, another organisation, and behind what is past.
    let next = deprecation(publisher.next_link(&plugin).await);
    let stranger = Publisher { key: signing_key("acme", 9), ..publisher.clone() };
    assert_eq!(stranger.say(&next).await.unwrap_err().code, Code::InvalidSignature);
    let other = registry.publisher("other").await;
    assert_eq!(other.say(&next).await.unwrap_err().code, Code::InvalidSignature);
    let outsider = crate::identity::user(&registry, "eve", &[Scope::Publish]).await;
    let outsider = Publisher { client: outsider, ..publisher.clone() };
    assert_eq!(outsider.say(&next).await.unwrap_err().code, Code::Forbidden);
    let Statement::Deprecation(stale) = deprecation(first) else { unreachable!() };
    let stale = Statement::Deprecation(Deprecation { deprecated: false, ..stale });
    assert_eq!(publisher.say(&stale).await.unwrap_err().code, Code::ChainConflict);
    // The same again: what was answered then, and nothing new in the index.
    publisher.say(&next).await.unwrap();
    let before = state(&registry).await;
    assert_eq!(publisher.say(&deprecation(first)).await.unwrap(), answer);
    assert_eq!(state(&registry).await, before);
}
