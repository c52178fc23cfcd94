//! Users, tokens, organisations, members and keys.

use modunest_core::api::{OrgView, TokenCreated, WhoAmI};
use modunest_core::authorise::{Role, Scope};
use modunest_core::problem::Code;
use modunest_core::statement::Link;
use modunest_tlog::SigningKey;
use serde_json::{Value, json};

use crate::package::package;
use crate::registry::Registry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_live_within_their_bounds() {
    let registry = Registry::start_silent().await;
    let admin = registry.admin.as_str();
    let me: WhoAmI = registry.ok("GET", "/v1/whoami", admin, None).await;
    assert!(me.registry_admin && me.user.as_str() == "admin" && me.scopes.len() == 4);

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
    let second = SigningKey::from_seed("demo".parse().unwrap(), &[7; 32]);
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
    let hash = publisher.key.verifying_key().to_string().split('+').nth(1).unwrap().to_owned();
    let revoked: modunest_core::api::StatementResponse =
        registry.ok("DELETE", &format!("{path}/{hash}"), &registry.admin, None).await;
    assert_eq!(registry.head().await.epoch, revoked.epoch);
    let twice = registry.refused("DELETE", &format!("{path}/{hash}"), admin, None).await;
    assert_eq!(twice.code, Code::AlreadyExists);
    assert_eq!(refused(Registry::registration("demo", &publisher.key)).await, Code::AlreadyExists);

    // The old key signs nothing more; what it signed stays.
    let next = package("demo/markdown", "1.0.1", first.sign(&publisher.key).next_link());
    let body = Registry::publish_body(&next.sign(&publisher.key));
    assert_eq!(
        registry.refused("POST", "/v1/releases", admin, Some(&body)).await.code,
        Code::InvalidSignature
    );
    let publisher = crate::registry::Publisher { key: second, ..publisher };
    registry.publish_ok(&publisher, &next).await;
    assert_eq!(registry.plugin_state("demo/markdown").await.releases.len(), 2);
    assert_eq!(registry.org_state("demo").await.valid_keys(), [publisher.key.verifying_key()]);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_registered_at_once_all_get_in() {
    let registry = Registry::start_silent().await;
    registry.publisher("demo").await;
    let keys: Vec<SigningKey> = (20u8..24)
        .map(|seed| SigningKey::from_seed("demo".parse().unwrap(), &[seed; 32]))
        .collect();
    futures_util::future::join_all(keys.iter().map(|key| registry.register("demo", key))).await;
    assert_eq!(registry.org_state("demo").await.valid_keys().len(), 5);
    registry.stop().await;
}
