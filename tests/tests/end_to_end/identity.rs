//! Who may do what: no write is open, and every refusal says what is missing.

use std::collections::BTreeMap;

use modunest_core::api::{
    CreateOrg, CreateToken, CreateUser, OrgView, RegisterKey, RotateKey, SetMember,
    StatementRequest, StatementResponse, TokenCreated, UserView, WhoAmI,
};
use modunest_core::authorise::{Role, Scope};
use modunest_core::problem::Code;
use modunest_core::statement::{Link, Statement, Status, Yank};
use modunest_tests::client::{Client, Publisher, request};
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::{Registry, registration, signing_key};
use modunest_tests::snapshot::Snapshot;
use modunest_tlog::SigningKey;
use reqwest::Method;
use serde_json::{Value, json};

async fn code(client: &Client, method: Method, path: &str, body: &Value) -> Code {
    client.answer(method, path, Some(body)).await.problem().code
}

/// A user with a token of these scopes.
pub async fn user(registry: &Registry, name: &str, scopes: &[Scope]) -> Client {
    let admin = registry.admin();
    let handle: modunest_core::name::UserName = name.parse().unwrap();
    let request = CreateUser { user: handle.clone(), registry_admin: false };
    let _made: UserView = admin.send(Method::POST, "/v1/users", &request).await.unwrap();
    let request = CreateToken {
        user: Some(handle),
        scopes: scopes.to_vec(),
        label: "a test".to_owned(),
        lifetime_secs: 60,
    };
    let token: TokenCreated = admin.send(Method::POST, "/v1/tokens", &request).await.unwrap();
    admin.with_token(Some(token.token))
}

#[tokio::test]
async fn no_path_of_the_api_is_open() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let signed = publisher.sign(&Plugin::new("acme/one", "1.0.0").pack(), Link::FIRST);
    let org: modunest_core::name::OrgName = "acme".parse().unwrap();
    let value = |body: &dyn erased::Json| body.value();
    let session = "0123456789abcdef0123456789abcdef";
    let paths = [
        (Method::POST, "/v1/releases".to_owned(), value(&request(&signed))),
        (Method::GET, format!("/v1/sessions/{session}"), Value::Null),
        (Method::DELETE, format!("/v1/sessions/{session}"), Value::Null),
        (
            Method::POST,
            "/v1/statements".to_owned(),
            value(&StatementRequest { statement: yank(&publisher) }),
        ),
        (Method::GET, "/v1/whoami".to_owned(), Value::Null),
        (Method::POST, "/v1/users".to_owned(), json!({ "user": "eve" })),
        (
            Method::POST,
            "/v1/tokens".to_owned(),
            json!({ "scopes": ["publish"], "label": "x", "lifetime_secs": 60 }),
        ),
        (Method::DELETE, "/v1/tokens/0123456789ab".to_owned(), Value::Null),
        (Method::POST, "/v1/orgs".to_owned(), json!({ "org": "evil" })),
        (Method::GET, "/v1/orgs/acme".to_owned(), Value::Null),
        (Method::PUT, "/v1/orgs/acme/members/eve".to_owned(), json!({ "role": "owner" })),
        (Method::DELETE, "/v1/orgs/acme/members/admin".to_owned(), Value::Null),
        (
            Method::POST,
            "/v1/orgs/acme/keys".to_owned(),
            value(&registration(&org, &signing_key("acme", 7))),
        ),
        (
            Method::POST,
            format!("/v1/orgs/acme/keys/{}/rotate", hash(&publisher.key)),
            value(&rotation(&publisher.key, &signing_key("acme", 7))),
        ),
        (
            Method::POST,
            format!("/v1/orgs/acme/keys/{}/revoke", hash(&publisher.key)),
            json!({ "reason": "a test" }),
        ),
        (
            Method::POST,
            "/v1/plugins/acme/one/quarantine".to_owned(),
            json!({ "version": "1.0.0", "quarantined": true, "reason": "a test" }),
        ),
        (Method::POST, "/v1/plugins/acme/one/trust".to_owned(), json!({ "level": "internal" })),
    ];
    let invented = format!("mnt_{}", "A".repeat(43));
    let powerless = user(&registry, "eve", &[Scope::Publish]).await;
    for (method, path, body) in paths {
        let nobody = registry.nobody();
        assert_eq!(
            code(&nobody, method.clone(), &path, &body).await,
            Code::Unauthenticated,
            "{path}"
        );
        for token in ["", "x", &invented] {
            let guessing = nobody.with_token(Some(token.to_owned()));
            let code = code(&guessing, method.clone(), &path, &body).await;
            assert_eq!(code, Code::Unauthenticated, "{method} {path} with \"{token}\"");
        }
        if method != Method::GET {
            let code = code(&powerless, method.clone(), &path, &body).await;
            assert!(matches!(code, Code::Forbidden | Code::NotFound), "{method} {path}: {code:?}");
        }
    }
}

fn yank(publisher: &Publisher) -> String {
    let yank = Yank {
        plugin: "acme/one".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        sequence: Link::FIRST.sequence,
        previous: None,
        yanked: true,
        reason: None,
    };
    modunest_tests::client::text(&Statement::Yank(yank).sign(&publisher.key).unwrap())
}

/// Values of several types in one list.
mod erased {
    pub trait Json {
        fn value(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Json for T {
        fn value(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

#[tokio::test]
async fn members_publish_and_owners_manage() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let all = [Scope::Publish, Scope::Manage];
    let ada = Publisher { client: user(&registry, "ada", &all).await, ..publisher.clone() };

    let refused = ada.open(&ada.sign(&package, Link::FIRST)).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden, "a stranger: {refused:?}");

    let member = "/v1/orgs/acme/members/ada";
    let _org: OrgView = publisher
        .client
        .send(Method::PUT, member, &SetMember { role: Role::Publisher })
        .await
        .unwrap();
    ada.publish(&package).await;
    let owner = json!({ "role": "owner" });
    assert_eq!(code(&ada.client, Method::PUT, member, &owner).await, Code::Forbidden);

    // Only the scopes of the token count, whatever its user may do.
    let manages = registry.token(&[Scope::Manage]).await;
    let manages =
        Publisher { client: registry.admin().with_token(Some(manages.token)), ..publisher.clone() };
    let next = Plugin::new("acme/one", "1.1.0").pack();
    let link = publisher.next_link(&next.manifest.name).await;
    let refused = manages.open(&manages.sign(&next, link)).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    insta::assert_snapshot!(refused.detail, @r#"the token lacks the scope "publish""#);

    // The last owner stays.
    let path = "/v1/orgs/acme/members/admin";
    let answer = publisher.client.answer(Method::DELETE, path, None::<&()>).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    assert!(!answer.problem().detail.is_empty());
}

#[tokio::test]
async fn a_revoked_token_is_void() {
    let registry = Registry::start().await;
    let created = registry.token(&[Scope::Publish]).await;
    let client = registry.nobody().with_token(Some(created.token));
    let who: WhoAmI = client.get("/v1/whoami").await;
    assert_eq!((who.user.as_str(), who.scopes), ("admin", vec![Scope::Publish]));
    let path = format!("/v1/tokens/{}", created.id);
    let answer = registry.admin().answer(Method::DELETE, &path, None::<&()>).await;
    assert_eq!(answer.status, 204);
    let answer = client.answer(Method::GET, "/v1/whoami", None::<&()>).await;
    assert_eq!(answer.problem().code, Code::Unauthenticated);
}

fn hash(key: &SigningKey) -> String {
    format!("{:08x}", u32::from_be_bytes(key.verifying_key().hash()))
}

/// The request that puts `new` in the place of `old`.
fn rotation(old: &SigningKey, new: &SigningKey) -> RotateKey {
    let public = new.verifying_key().to_string();
    let org = old.name().as_str().parse().unwrap();
    let text = RotateKey::proof_text(&org, &old.verifying_key().to_string(), &public);
    let proof = modunest_tlog::sign(&text, &[old, new]).unwrap();
    RotateKey { key: public, proof: String::from_utf8(proof).unwrap() }
}

/// What becomes of releases `1.0.0` and `1.1.0` when their key's time ends after the first.
async fn after_the_end_of_a_key(
    registry: &Registry,
    end: &str,
    body: &Value,
) -> BTreeMap<String, Status> {
    let publisher = registry.publisher("acme").await;
    publisher.publish(&Plugin::new("acme/one", "1.0.0").pack()).await;
    let path = format!("/v1/orgs/acme/keys/{}/{end}", hash(&publisher.key));
    let _ended: StatementResponse = publisher.client.send(Method::POST, &path, body).await.unwrap();

    let next = Plugin::new("acme/one", "1.1.0").pack();
    let link = publisher.next_link(&next.manifest.name).await;
    let refused = publisher.open(&publisher.sign(&next, link)).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidSignature);

    let org: modunest_core::name::OrgName = "acme".parse().unwrap();
    let new = Publisher { key: signing_key("acme", 2), ..publisher.clone() };
    if end == "revoke" {
        let _registered: StatementResponse = publisher
            .client
            .send(Method::POST, "/v1/orgs/acme/keys", &registration(&org, &new.key))
            .await
            .unwrap();
    }
    new.publish(&next).await;
    let snapshot = Snapshot::read(&registry.started.url, &registry.keys().await).await;
    let plugin = &snapshot.plugins[&"acme/one".parse().unwrap()];
    plugin
        .releases
        .iter()
        .map(|(version, release)| (version.to_string(), plugin.status(release)))
        .collect()
}

#[tokio::test]
async fn a_revoked_key_signs_nothing_more_and_what_it_signed_is_void() {
    let registry = Registry::start().await;
    let body = json!({ "reason": "left in a train" });
    let status = after_the_end_of_a_key(&registry, "revoke", &body).await;
    assert!(matches!(status["1.0.0"], Status::Quarantined { .. }), "{status:?}");
    assert_eq!(status["1.1.0"], Status::Active);
}

#[tokio::test]
async fn a_rotated_key_signs_nothing_more_and_what_it_signed_stays() {
    let registry = Registry::start().await;
    let rotation = rotation(&signing_key("acme", 1), &signing_key("acme", 2));
    let body = serde_json::to_value(rotation).unwrap();
    let status = after_the_end_of_a_key(&registry, "rotate", &body).await;
    assert!(status.values().all(|status| *status == Status::Active), "{status:?}");
    assert_eq!(status.len(), 2);
}

#[tokio::test]
async fn nobody_registers_a_key_that_they_do_not_hold() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let org: modunest_core::name::OrgName = "acme".parse().unwrap();
    let (held, other) = (signing_key("acme", 3), signing_key("acme", 4));
    let stolen = RegisterKey {
        key: other.verifying_key().to_string(),
        proof: registration(&org, &held).proof,
    };
    let answer = publisher.client.answer(Method::POST, "/v1/orgs/acme/keys", Some(&stolen)).await;
    assert_eq!(answer.problem().code, Code::InvalidSignature);
    let view: OrgView = publisher.client.get("/v1/orgs/acme").await;
    assert_eq!(view.keys.len(), 1);
}

#[tokio::test]
async fn an_organisation_is_founded_once_and_by_no_look_alike() {
    let registry = Registry::start().await;
    let _publisher = registry.publisher("acme-tools").await;
    for (name, expected) in [("acme-tools", Code::NameTaken), ("acme-t0ols", Code::NameTaken)] {
        let body = serde_json::to_value(CreateOrg { org: name.parse().unwrap() }).unwrap();
        let code = code(&registry.admin(), Method::POST, "/v1/orgs", &body).await;
        assert!(code == expected || code == Code::AlreadyExists, "{name}: {code:?}");
    }
}
