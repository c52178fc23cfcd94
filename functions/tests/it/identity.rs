//! Users, tokens, organisations, members and keys.

use modunest_core::api::{KeyStatus, OrgView, RotateKey, StatementResponse, TokenCreated, WhoAmI};
use modunest_core::authorise::{Role, Scope};
use modunest_core::problem::Code;
use modunest_core::statement::{Link, Status};
use modunest_tlog::SigningKey;
use serde_json::{Value, json};

use crate::package::package;
use crate::registry::Registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_live_within_their_bounds() {
    let registry = Registry::start_silent().await;
    let admin = registry.admin.as_str();
    let me: WhoAmI = registry.ok("GET", "/v1/whoami", admin, None).await;
    assert!(me.registry_admin && me.user.as_str() == "admin" && me.scopes == Scope::ALL);

    registry.ok::<Value>("POST", "/v1/users", admin, Some(&json!({"user": "ada"}))).await;
    let again =
        registry.refused("POST", "/v1/users", Some(admin), Some(&json!({"user": "ada"}))).await;
    assert_eq!(again.code, Code::AlreadyExists);
    let ada = registry.token("ada", &["manage"]).await;
    let make = async |token: &str, body: Value| {
        registry.refused("POST", "/v1/tokens", Some(token), Some(&body)).await.code
    };
    let wish =
        |scopes: &[&str], secs: u64| json!({"scopes": scopes, "label": "x", "lifetime_secs": secs});
    assert_eq!(make(&ada, wish(&["publish"], 60)).await, Code::Forbidden);
    assert_eq!(make(&ada, wish(&["manage"], 366 * 86_400)).await, Code::InvalidRequest);
    assert_eq!(make(&ada, wish(&["manage"], 0)).await, Code::InvalidRequest);
    assert_eq!(make(&ada, wish(&[], 60)).await, Code::InvalidRequest);
    assert_eq!(
        make(admin, json!({"user": "ada", "scopes": ["admin"], "label": "x", "lifetime_secs": 60}))
            .await,
        Code::Forbidden
    );
    assert_eq!(
        make(
            &ada,
            json!({"user": "admin", "scopes": ["manage"], "label": "x", "lifetime_secs": 60})
        )
        .await,
        Code::Forbidden
    );

    let short: TokenCreated =
        registry.ok("POST", "/v1/tokens", &ada, Some(&wish(&["manage"], 60))).await;
    let who: WhoAmI = registry.ok("GET", "/v1/whoami", &short.token, None).await;
    assert_eq!((who.scopes, who.token_expires_at), (vec![Scope::Manage], Some(short.expires_at)));
    // Others cannot revoke it, its owner can, and then it is void.
    registry.ok::<Value>("POST", "/v1/users", admin, Some(&json!({"user": "bob"}))).await;
    let bob = registry.token("bob", &["manage"]).await;
    let path = format!("/v1/tokens/{}", short.id);
    assert_eq!(registry.refused("DELETE", &path, Some(&bob), None).await.code, Code::Forbidden);
    assert_eq!(registry.call("DELETE", &path, Some(&ada), None).await.0, 204);
    assert_eq!(
        registry.refused("GET", "/v1/whoami", Some(&short.token), None).await.code,
        Code::Unauthenticated
    );
    assert_eq!(registry.refused("DELETE", &path, Some(&ada), None).await.code, Code::NotFound);

    registry.move_clock(std::time::Duration::from_secs(2 * 3600));
    assert_eq!(
        registry.refused("GET", "/v1/whoami", Some(&ada), None).await.code,
        Code::Unauthenticated
    );
    let recovered = registry.functions.recover().await.unwrap();
    registry.ok::<WhoAmI>("GET", "/v1/whoami", &recovered.token, None).await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn organisations_have_owners_and_distinct_names() {
    let registry = Registry::start_silent().await;
    let admin = registry.admin.as_str();
    registry.publisher("modern").await;
    for (org, code) in [("modern", Code::NameTaken), ("modem", Code::NameTaken)] {
        let problem =
            registry.refused("POST", "/v1/orgs", Some(admin), Some(&json!({"org": org}))).await;
        assert_eq!(problem.code, code, "{org}");
    }
    for user in ["ada", "bob"] {
        registry.ok::<Value>("POST", "/v1/users", admin, Some(&json!({ "user": user }))).await;
    }
    let (ada, bob) = (
        registry.token("ada", &["manage"]).await,
        registry.token("bob", &["manage", "publish"]).await,
    );
    let member = |user: &str| format!("/v1/orgs/modern/members/{user}");
    let role = |role: Role| json!({ "role": role });
    let view: OrgView = registry.ok("PUT", &member("ada"), admin, Some(&role(Role::Owner))).await;
    assert_eq!(view.members.len(), 2);
    registry.ok::<OrgView>("PUT", &member("bob"), &ada, Some(&role(Role::Publisher))).await;
    let refused =
        registry.refused("PUT", &member("bob"), Some(&bob), Some(&role(Role::Owner))).await;
    assert_eq!(refused.code, Code::Forbidden);
    let nobody =
        registry.refused("PUT", &member("carol"), Some(&ada), Some(&role(Role::Owner))).await;
    assert_eq!(nobody.code, Code::NotFound);
    registry.ok::<OrgView>("DELETE", &member("admin"), &ada, None).await;
    let last = registry.refused("DELETE", &member("ada"), Some(&ada), None).await;
    assert_eq!(last.code, Code::PreconditionFailed);
    let demoted =
        registry.refused("PUT", &member("ada"), Some(&ada), Some(&role(Role::Publisher))).await;
    assert_eq!(demoted.code, Code::PreconditionFailed);
    let view: OrgView = registry.ok("GET", "/v1/orgs/modern", &bob, None).await;
    assert_eq!((view.members.len(), view.keys.len()), (2, 1));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_proven_registered_and_revoked() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let admin = Some(registry.admin.as_str());
    let path = "/v1/orgs/demo/keys";
    let second = key(7);
    let refused = async |body: Value| registry.refused("POST", path, admin, Some(&body)).await.code;

    let mut forged = Registry::registration("demo", &second);
    forged["proof"] = Registry::registration("demo", &publisher.key)["proof"].clone();
    assert_eq!(refused(forged).await, Code::InvalidSignature);
    let foreign = SigningKey::from_seed("other".parse().unwrap(), &[7; 32]);
    assert_eq!(refused(Registry::registration("demo", &foreign)).await, Code::InvalidRequest);
    assert_eq!(refused(Registry::registration("demo", &publisher.key)).await, Code::AlreadyExists);

    let first = package("demo/markdown", "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &first).await;
    registry.register("demo", &second).await;
    let revoke = format!("{path}/{}/revoke", hash(&publisher.key));
    let body = json!({ "reason": "left in a train" });
    let revoked: StatementResponse =
        registry.ok("POST", &revoke, &registry.admin, Some(&body)).await;
    assert_eq!(registry.head().await.epoch, revoked.epoch);
    let twice = registry.refused("POST", &revoke, admin, Some(&body)).await;
    assert_eq!(twice.code, Code::AlreadyExists);
    let nothing = format!("{path}/00000000/revoke");
    let nothing = registry.refused("POST", &nothing, admin, Some(&json!({}))).await;
    assert_eq!(nothing.code, Code::NotFound);
    assert_eq!(refused(Registry::registration("demo", &publisher.key)).await, Code::AlreadyExists);

    // The old key signs nothing more, and what it signed is refused; that is no reason to
    // release the version again.
    let next = package("demo/markdown", "1.0.1", first.sign(&publisher.key).next_link());
    let body = Registry::publish_body(&next.sign(&publisher.key));
    assert_eq!(
        registry.refused("POST", "/v1/releases", admin, Some(&body)).await.code,
        Code::InvalidSignature
    );
    let publisher = crate::registry::Publisher { key: second, ..publisher };
    registry.publish_ok(&publisher, &next).await;
    let state = registry.plugin_state("demo/markdown").await;
    let status = |version: &str| state.status(&state.releases[&version.parse().unwrap()]);
    assert!(matches!(status("1.0.0"), Status::Quarantined { .. }), "{:?}", status("1.0.0"));
    assert_eq!(status("1.0.1"), Status::Active);
    assert_eq!(registry.org_state("demo").await.valid_keys(), [publisher.key.verifying_key()]);
    registry.stop().await;
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("demo".parse().unwrap(), &[seed; 32])
}

fn hash(key: &SigningKey) -> String {
    key.verifying_key().to_string().split('+').nth(1).unwrap().to_owned()
}

/// The request that puts `new` in the place of `old`, signed by `signers`.
fn rotation(old: &SigningKey, new: &SigningKey, signers: &[&SigningKey]) -> Value {
    let (old, new) = (old.verifying_key().to_string(), new.verifying_key().to_string());
    let text = RotateKey::proof_text(&"demo".parse().unwrap(), &old, &new);
    let proof = modunest_tlog::sign(&text, signers).unwrap();
    json!({"key": new, "proof": String::from_utf8(proof).unwrap()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_leaves_what_it_signed() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let first = package("demo/markdown", "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &first).await;
    let (old, new, other) = (publisher.key.clone(), key(7), key(8));
    let path = format!("/v1/orgs/demo/keys/{}/rotate", hash(&old));
    let admin = registry.admin.as_str();
    let refused = async |path: &str, body: Value| {
        registry.refused("POST", path, Some(admin), Some(&body)).await.code
    };

    // Both hold their keys, and sign for each other and for nothing else.
    for signers in [&[&old][..], &[&new], &[&old, &other]] {
        assert_eq!(refused(&path, rotation(&old, &new, signers)).await, Code::InvalidSignature);
    }
    let mut stolen = rotation(&old, &new, &[&old, &new]);
    stolen["key"] = json!(other.verifying_key().to_string());
    assert_eq!(refused(&path, stolen).await, Code::InvalidSignature);
    assert_eq!(refused(&path, rotation(&old, &old, &[&old])).await, Code::AlreadyExists);
    let unknown = format!("/v1/orgs/demo/keys/{}/rotate", hash(&other));
    let body = rotation(&other, &new, &[&other, &new]);
    assert_eq!(refused(&unknown, body).await, Code::NotFound);
    let publishes = registry.token("admin", &["publish"]).await;
    let body = rotation(&old, &new, &[&old, &new]);
    let code = registry.refused("POST", &path, Some(&publishes), Some(&body)).await.code;
    assert_eq!(code, Code::Forbidden);

    let answer: StatementResponse = registry.ok("POST", &path, admin, Some(&body)).await;
    assert_eq!(registry.head().await.epoch, answer.epoch);
    assert_eq!(refused(&path, body).await, Code::PreconditionFailed);
    let next = package("demo/markdown", "1.0.1", first.sign(&old).next_link());
    let late = Registry::publish_body(&next.sign(&old));
    assert_eq!(refused("/v1/releases", late).await, Code::InvalidSignature);
    let publisher = crate::registry::Publisher { key: new.clone(), ..publisher };
    registry.publish_ok(&publisher, &next).await;
    let status = async |version: &str| {
        let state = registry.plugin_state("demo/markdown").await;
        state.status(&state.releases[&version.parse().unwrap()])
    };
    assert_eq!((status("1.0.0").await, status("1.0.1").await), (Status::Active, Status::Active));
    let view: OrgView = registry.ok("GET", "/v1/orgs/demo", admin, None).await;
    let shown = [KeyStatus::Rotated, KeyStatus::Valid];
    assert_eq!(view.keys.iter().map(|key| key.status).collect::<Vec<_>>(), shown);

    // What comes to light later still counts: a rotated key can be revoked.
    let revoke = format!("/v1/orgs/demo/keys/{}/revoke", hash(&old));
    registry.ok::<StatementResponse>("POST", &revoke, admin, Some(&json!({}))).await;
    assert!(matches!(status("1.0.0").await, Status::Quarantined { .. }));
    assert_eq!(status("1.0.1").await, Status::Active);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_registered_at_once_all_get_in() {
    let registry = Registry::start_silent().await;
    registry.publisher("demo").await;
    let keys: Vec<SigningKey> = (20u8..24).map(key).collect();
    futures_util::future::join_all(keys.iter().map(|key| registry.register("demo", key))).await;
    assert_eq!(registry.org_state("demo").await.valid_keys().len(), 5);
    registry.stop().await;
}
