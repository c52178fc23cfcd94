//! What a plugin's owner says beside releases, and what the registry's staff says.

use modunest_core::api::{OrgView, StatementResponse};
use modunest_core::problem::Code;
use modunest_core::publish::State;
use modunest_core::statement::{
    Deprecation, Link, Ownership, Quarantine, SignedStatement, Statement, Status, TrustLevel, Yank,
};
use modunest_tlog::SigningKey;
use serde_json::{Value, json};

use crate::package::package;
use crate::registry::{Publisher, Registry};

const PLUGIN: &str = "demo/markdown";

fn yank(link: Link, version: &str, yanked: bool, key: &SigningKey) -> SignedStatement {
    Statement::Yank(Yank {
        plugin: PLUGIN.parse().unwrap(),
        version: version.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        yanked,
        reason: Some("broken tables".into()),
    })
    .sign(key)
    .unwrap()
}

fn deprecate(link: Link, version: Option<&str>, message: Option<&str>) -> Statement {
    Statement::Deprecation(Deprecation {
        plugin: PLUGIN.parse().unwrap(),
        version: version.map(|version| version.parse().unwrap()),
        sequence: link.sequence,
        previous: link.previous,
        deprecated: message.is_some(),
        message: message.map(str::to_owned),
    })
}

fn give(link: Link, owner: &str, key: &SigningKey) -> SignedStatement {
    Statement::Ownership(Ownership {
        plugin: PLUGIN.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        owner: owner.parse().unwrap(),
    })
    .sign(key)
    .unwrap()
}

impl Registry {
    async fn say(&self, token: &str, statement: &SignedStatement) -> StatementResponse {
        self.ok("POST", "/v1/statements", token, Some(&Registry::publish_body(statement))).await
    }

    async fn not_said(&self, token: &str, statement: &SignedStatement) -> Code {
        let body = Registry::publish_body(statement);
        self.refused("POST", "/v1/statements", Some(token), Some(&body)).await.code
    }

    async fn status(&self, version: &str) -> Status {
        let state = self.plugin_state(PLUGIN).await;
        state.status(&state.releases[&version.parse().unwrap()])
    }

    async fn next(&self) -> Link {
        self.plugin_state(PLUGIN).await.next
    }

    /// Another user with a token of these scopes.
    async fn user(&self, user: &str, scopes: &[&str]) -> String {
        let body = json!({ "user": user });
        self.ok::<Value>("POST", "/v1/users", &self.admin, Some(&body)).await;
        self.token(user, scopes).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_yanked_and_brought_back() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let token = publisher.token.as_str();
    let release = package(PLUGIN, "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &release).await;
    let signed = release.sign(&publisher.key);

    let first = yank(signed.next_link(), "1.0.0", true, &publisher.key);
    let answer = registry.say(token, &first).await;
    assert_eq!((answer.statement, answer.epoch), (first.digest(), registry.head().await.epoch));
    assert_eq!(
        registry.status("1.0.0").await,
        Status::Yanked { reason: Some("broken tables".into()) }
    );
    let back = yank(first.next_link(), "1.0.0", false, &publisher.key);
    registry.say(token, &back).await;
    assert_eq!(registry.status("1.0.0").await, Status::Active);
    // Again, long after: the answer of then, and nothing new.
    assert_eq!(registry.say(token, &first).await, answer);
    assert_eq!(registry.status("1.0.0").await, Status::Active);

    let stale = yank(signed.next_link(), "1.0.0", false, &publisher.key);
    assert_eq!(registry.not_said(token, &stale).await, Code::ChainConflict);
    let nothing = yank(back.next_link(), "9.0.0", true, &publisher.key);
    assert_eq!(registry.not_said(token, &nothing).await, Code::NotFound);
    let stranger = SigningKey::from_seed("demo".parse().unwrap(), &[6; 32]);
    let forged = yank(back.next_link(), "1.0.0", true, &stranger);
    assert_eq!(registry.not_said(token, &forged).await, Code::InvalidSignature);
    assert_eq!(registry.not_said(token, &signed).await, Code::InvalidStatement);

    // Two at once behind the same statement: one gets in, the other is told why not.
    let one = yank(back.next_link(), "1.0.0", true, &publisher.key);
    let other = yank(back.next_link(), "1.0.0", false, &publisher.key);
    let (body_one, body_other) = (Registry::publish_body(&one), Registry::publish_body(&other));
    let (a, b) = tokio::join!(
        registry.call("POST", "/v1/statements", Some(token), Some(&body_one)),
        registry.call("POST", "/v1/statements", Some(token), Some(&body_other)),
    );
    let mut statuses = [a.0.as_u16(), b.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.1, b.1);
    assert_eq!(registry.next().await.sequence, 5);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_and_a_whole_plugin_are_deprecated() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let first = package(PLUGIN, "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &first).await;
    let second = package(PLUGIN, "2.0.0", registry.next().await);
    registry.publish_ok(&publisher, &second).await;
    let warned = |message: &str| Status::Deprecated { message: Some(message.to_owned()) };
    let say = async |version: Option<&str>, message: Option<&str>| {
        let signed = deprecate(registry.next().await, version, message).sign(&publisher.key);
        registry.say(&publisher.token, &signed.unwrap()).await;
        (registry.status("1.0.0").await, registry.status("2.0.0").await)
    };

    assert_eq!(say(Some("1.0.0"), Some("take 2")).await, (warned("take 2"), Status::Active));
    // What is said of one release counts before what is said of all.
    assert_eq!(say(None, Some("take another")).await, (warned("take 2"), warned("take another")));
    assert_eq!(say(Some("1.0.0"), None).await, (warned("take another"), warned("take another")));
    assert_eq!(say(None, None).await, (Status::Active, Status::Active));

    let nothing = deprecate(registry.next().await, Some("9.0.0"), None).sign(&publisher.key);
    assert_eq!(registry.not_said(&publisher.token, &nothing.unwrap()).await, Code::NotFound);
    // A plugin that was never released has nothing to be said about.
    let Statement::Deprecation(mut unborn) = deprecate(Link::FIRST, None, Some("no")) else {
        panic!("no deprecation")
    };
    unborn.plugin = "demo/unborn".parse().unwrap();
    let unborn = Statement::Deprecation(unborn).sign(&publisher.key).unwrap();
    assert_eq!(registry.not_said(&publisher.token, &unborn).await, Code::NotFound);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_goes_to_another_organisation() {
    let registry = Registry::start().await;
    let demo = registry.publisher("demo").await;
    let first = package(PLUGIN, "1.0.0", Link::FIRST);
    registry.publish_ok(&demo, &first).await;
    let next = first.sign(&demo.key).next_link();
    let refused = async |token: &str, owner: &str| {
        registry.not_said(token, &give(next, owner, &demo.key)).await
    };

    assert_eq!(refused(&demo.token, "demo").await, Code::AlreadyExists);
    assert_eq!(refused(&demo.token, "nobody").await, Code::Forbidden);
    let body = json!({ "org": "receiver" });
    registry.ok::<OrgView>("POST", "/v1/orgs", &registry.admin, Some(&body)).await;
    // Nobody could publish it any more.
    assert_eq!(refused(&demo.token, "receiver").await, Code::PreconditionFailed);
    let key = SigningKey::from_seed("receiver".parse().unwrap(), &[8; 32]);
    registry.register("receiver", &key).await;
    // Who publishes for one of the two only gives nothing away.
    let ada = registry.user("ada", &["publish"]).await;
    assert_eq!(refused(&ada, "receiver").await, Code::Forbidden);
    let member = json!({ "role": "publisher" });
    let path = |org: &str| format!("/v1/orgs/{org}/members/ada");
    registry.ok::<OrgView>("PUT", &path("demo"), &registry.admin, Some(&member)).await;
    assert_eq!(refused(&ada, "receiver").await, Code::Forbidden);
    // Nor does the one that receives take it by itself.
    let taken = give(next, "receiver", &key);
    assert_eq!(registry.not_said(&demo.token, &taken).await, Code::InvalidSignature);

    let given = give(next, "receiver", &demo.key);
    let answer = registry.say(&demo.token, &given).await;
    assert_eq!(registry.plugin_state(PLUGIN).await.owner.as_str(), "receiver");
    // The same again is answered as before, though its signer owns nothing any more.
    assert_eq!(registry.say(&demo.token, &given).await, answer);

    let next = given.next_link();
    let late = yank(next, "1.0.0", true, &demo.key);
    assert_eq!(registry.not_said(&demo.token, &late).await, Code::InvalidSignature);
    let second = package(PLUGIN, "1.1.0", next);
    let body = Registry::publish_body(&second.sign(&demo.key));
    let refusal = registry.refused("POST", "/v1/releases", Some(&demo.token), Some(&body)).await;
    assert_eq!(refusal.code, Code::InvalidSignature);
    // A member of the former owner may not publish it, whatever the name says.
    let body = Registry::publish_body(&second.sign(&key));
    let refusal = registry.refused("POST", "/v1/releases", Some(&ada), Some(&body)).await;
    assert_eq!(refusal.code, Code::Forbidden);

    let receiver = Publisher { key, token: registry.admin.clone() };
    let view = registry.publish_ok(&receiver, &second).await;
    assert_eq!(view.state, State::Published);
    let next = second.sign(&receiver.key).next_link();
    registry.say(&receiver.token, &yank(next, "1.0.0", true, &receiver.key)).await;
    let state = registry.plugin_state(PLUGIN).await;
    assert_eq!((state.releases.len(), state.next.sequence), (2, 5));
    assert_eq!(registry.status("1.1.0").await, Status::Active);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staff_quarantines_and_trusts() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let release = package(PLUGIN, "1.0.0", Link::FIRST);
    let quarantine = format!("/v1/plugins/{PLUGIN}/quarantine");
    let trust = format!("/v1/plugins/{PLUGIN}/trust");
    let staff = registry.token("admin", &["staff"]).await;
    let refused = async |path: &str, token: &str, body: &Value| {
        registry.refused("POST", path, Some(token), Some(body)).await.code
    };
    let body = |quarantined: bool| json!({"version": "1.0.0", "quarantined": quarantined, "reason": "steals tokens"});
    let level = |level: &str| json!({ "level": level });

    assert_eq!(refused(&quarantine, &staff, &body(true)).await, Code::NotFound);
    assert_eq!(refused(&trust, &staff, &level("verified")).await, Code::NotFound);
    registry.publish_ok(&publisher, &release).await;

    // Every scope but the one is of no use, and so is the one to a user like any other.
    let others = registry.token("admin", &["publish", "manage", "admin", "count"]).await;
    for (path, body) in [(&quarantine, body(true)), (&trust, level("internal"))] {
        assert_eq!(refused(path, &others, &body).await, Code::Forbidden);
    }
    registry.user("ada", &["publish"]).await;
    let wish = json!({"user": "ada", "scopes": ["staff"], "label": "x", "lifetime_secs": 60});
    assert_eq!(refused("/v1/tokens", &registry.admin, &wish).await, Code::Forbidden);

    let say = async |path: &str, body: Value| -> StatementResponse {
        registry.ok("POST", path, &staff, Some(&body)).await
    };
    say(&quarantine, body(true)).await;
    let expected = Status::Quarantined { reason: "steals tokens".to_owned() };
    assert_eq!(registry.status("1.0.0").await, expected);
    let answer = say(&quarantine, body(false)).await;
    assert_eq!(registry.status("1.0.0").await, Status::Active);
    assert_eq!(answer.epoch, registry.head().await.epoch);
    assert_eq!(registry.plugin_state(PLUGIN).await.trust, TrustLevel::Community);
    // Several at once: each is signed behind the others until it fits.
    tokio::join!(
        say(&trust, level("verified")),
        say(&quarantine, body(true)),
        say(&trust, level("verified")),
    );
    let state = registry.plugin_state(PLUGIN).await;
    assert_eq!(state.trust, TrustLevel::Verified);
    assert_eq!(registry.status("1.0.0").await, expected);
    // The owner's chain does not wait for the registry's.
    assert_eq!(state.next.sequence, 2);

    let long = "x".repeat(501);
    for (path, body) in [
        (&quarantine, json!({"version": "1.0.0", "quarantined": true, "reason": " "})),
        (&quarantine, json!({"version": "1.0.0", "quarantined": true, "reason": long})),
        (&trust, json!({"level": "verified", "reason": long})),
        (&trust, json!({"level": "divine"})),
    ] {
        assert_eq!(refused(path, &staff, &body).await, Code::InvalidRequest, "{body}");
    }
    let unknown = json!({"version": "9.0.0", "quarantined": true, "reason": "x"});
    assert_eq!(refused(&quarantine, &staff, &unknown).await, Code::NotFound);

    // Nobody says it in the registry's name, with whatever key.
    let forged = Statement::Quarantine(Quarantine {
        plugin: PLUGIN.parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        sequence: state.registry_next.sequence,
        previous: state.registry_next.previous,
        quarantined: false,
        reason: "it is mine".to_owned(),
    });
    let forged = forged.sign(&publisher.key).unwrap();
    assert_eq!(registry.not_said(&registry.admin, &forged).await, Code::InvalidStatement);
    registry.stop().await;
}
