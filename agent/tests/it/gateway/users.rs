//! Who is at the door: good tokens, every wrong kind, keys that change, issuers that fail.

use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use modunest_agent::Agent;
use modunest_agent::config::users::KeysFrom;
use modunest_agent::config::{Config, Pattern, UserSettings};
use modunest_core::user::{Access, Rule, segments};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::issuer::{Issuer, SigningKey, encode};
use super::{Setup, setup, url};

fn rule(plugins: &[&str], paths: &[&str], roles: &[&str], anonymous: bool) -> Rule<Pattern> {
    Rule {
        plugins: plugins.iter().map(|p| p.parse().unwrap()).collect(),
        paths: paths.iter().map(|p| segments(p).unwrap()).collect(),
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        anonymous,
    }
}

struct Fixture {
    /// Holds the agent's folder and its registry.
    _setup: Setup,
    issuer: Issuer,
    key: SigningKey,
    agent: Agent,
}

/// An agent with an issuer; `/other` is open, `/front/upload` for admins.
async fn fixture(change: impl FnOnce(&mut UserSettings)) -> Fixture {
    fixture_with(|config| change(&mut config.users)).await
}

async fn fixture_with(change: impl FnOnce(&mut Config)) -> Fixture {
    let mut setup = setup().await;
    let (issuer, key) = (Issuer::start().await, SigningKey::ecdsa("one"));
    issuer.publish(&[&key]);
    let rules = vec![
        rule(&["demo/other"], &[], &[], true),
        rule(&[], &["/front/upload"], &["admin"], false),
    ];
    setup.config.users = UserSettings {
        issuers: vec![issuer.settings()],
        access: Access { rules, has_issuers: true },
    };
    change(&mut setup.config);
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    Fixture { _setup: setup, issuer, key, agent }
}

async fn get(agent: &Agent, path: &str, token: Option<&str>) -> Response {
    let request = Client::new().get(url(agent, path));
    send(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

/// Status, challenge and detail of a refusal.
async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map_or("", |value| value.to_str().unwrap()).to_owned();
    let problem: Value = response.json().await.unwrap();
    (status, challenge, problem["detail"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_known_to_every_plugin_and_forged_by_nobody() {
    let fixture = fixture(|users| {
        let expected = &mut users.issuers[0].expected;
        expected.claims = vec!["email".to_owned()];
        let map = [("grp-admins".to_owned(), vec!["admin".to_owned()])];
        expected.role_map = Some(map.into());
    })
    .await;
    let Fixture { agent, issuer, key, .. } = &fixture;
    let mut claims = issuer.claims("ada", &["grp-admins", "admin", "root"]);
    claims["email"] = json!("ada@example.org");
    let token = key.token(&claims);

    let request = Client::new().get(url(agent, "/front/head")).bearer_auth(&token);
    let forged = r#"{"subject":"eve","roles":["admin"]}"#;
    let answer = send(
        request
            .header("x-modunest-identity", forged)
            .header("X-Modunest-User", "eve")
            .header("identity", forged),
    )
    .await;
    assert_eq!(answer.status(), 200);
    let head: Value = answer.json().await.unwrap();
    assert_eq!(
        head["identity"],
        json!({
            "subject": "ada",
            "issuer": issuer.url,
            "roles": ["admin"],
            "expires_ms": claims["exp"].as_u64().unwrap() * 1000,
            "claims": { "email": "ada@example.org" },
        })
    );
    let text = head["headers"].to_string();
    assert!(!text.contains("x-modunest") && !text.contains("authorization"), "{text}");
    // It is a header like any other, and no identity.
    assert!(text.contains("identity"), "{text}");

    // The plugin behind it hears of the same user, whatever the one between says.
    let nested = get(agent, "/front/service", Some(&token)).await;
    let nested: Value = nested.json().await.unwrap();
    assert_eq!(nested, head["identity"]);

    // Nobody has no identity, and no header gives one.
    let request = Client::new().get(url(agent, "/other/head"));
    let answer = send(request.header("x-modunest-identity", forged)).await;
    let head: Value = answer.json().await.unwrap();
    assert_eq!(head.get("identity"), None);
    assert!(!head.to_string().contains("eve"));
    fixture.agent.shutdown().await;
}

/// Whatever a plugin says of its user, to the one behind it or to the host: both know the user of
/// the call, and nobody where the plugin calls by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_speaks_for_the_user_of_its_call_and_for_nobody_else() {
    for in_process in [vec![], vec!["demo/*".parse().unwrap()]] {
        let tier = if in_process.is_empty() { "process" } else { "in-process" };
        let fixture = fixture_with(|config| config.host.in_process = in_process).await;
        let Fixture { agent, issuer, key, .. } = &fixture;
        assert_eq!(crate::process::plugin(agent, "demo/front").tier, tier);
        for subject in ["ada", "bob"] {
            let token = key.token(&issuer.claims(subject, &["reader"]));
            let told = get(agent, "/front/forge", Some(&token)).await.text().await.unwrap();
            let told: Vec<&str> = told.lines().collect();
            let [in_call, by_itself, to_the_host] = told[..] else { panic!("{told:?}") };
            for told in [in_call, to_the_host] {
                let user: Value = serde_json::from_str(told.strip_prefix("0 ").unwrap()).unwrap();
                let known = (&user["subject"], &user["roles"]);
                assert_eq!(known, (&json!(subject), &json!(["reader"])), "{tier}");
            }
            assert_eq!(by_itself, "0 ", "{tier}");
        }
        fixture.agent.shutdown().await;
    }
}

/// What waits for something to happen ends with the token that opened it: its client has to come
/// back with another one. What needed no token goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_ends_when_its_users_token_expires() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let fixture = fixture(|_| {}).await;
    let Fixture { agent, issuer, key, .. } = &fixture;
    let mut anybodys = get(agent, "/other/events", None).await;
    assert_eq!(anybodys.chunk().await.unwrap().unwrap(), "data: 0\n\n");
    let expires_s = modunest_runtime::clock::now().as_secs() + 2;
    let mut claims = issuer.claims("ada", &[]);
    claims["exp"] = json!(expires_s);
    let token = key.token(&claims);

    let events = get(agent, "/front/events", Some(&token)).await;
    assert_eq!(events.status(), 200);
    let address = format!("ws://{}/front/socket", agent.gateway_addr());
    let mut request = address.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("sec-websocket-protocol", "echo".parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();

    let text = tokio::time::timeout(PATIENCE, events.text()).await.expect("the events end");
    assert_eq!(text.unwrap(), "data: 0\n\n");
    assert!(modunest_runtime::clock::now().as_secs() >= expires_s, "they ended before");
    let closed = tokio::time::timeout(PATIENCE, socket.next()).await.expect("the socket is closed");
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!(frame.code, CloseCode::Away);
    assert!(anybodys.chunk().now_or_never().is_none(), "it needed no token");
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_closed_until_they_are_opened() {
    let fixture = fixture(|_| {}).await;
    let Fixture { agent, issuer, key, .. } = &fixture;
    let (plain, admin) = (
        key.token(&issuer.claims("bob", &["reader"])),
        key.token(&issuer.claims("ada", &["admin"])),
    );
    let challenge = "Bearer realm=\"modunest\"".to_owned();
    let denied = refusal(get(agent, "/front/head", None).await).await;
    assert_eq!(denied, (401, challenge, "a token of a user is needed here".to_owned()));
    assert_eq!(get(agent, "/front/head", Some(&plain)).await.status(), 200);
    assert_eq!(get(agent, "/other/head", None).await.status(), 200);
    assert_eq!(get(agent, "/other/head", Some(&plain)).await.status(), 200);
    // A bad token is not the same as none, even where none will do.
    let bad = refusal(get(agent, "/other/head", Some("x.y.z")).await).await;
    assert_eq!((bad.0, bad.2.as_str()), (401, "the token is malformed"));

    let (status, challenge, detail) =
        refusal(get(agent, "/front/upload", Some(&plain)).await).await;
    assert_eq!((status, detail.as_str()), (403, "one of these roles is needed here: admin"));
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    // The plugin itself refuses: the door let it through.
    let through = refusal(get(agent, "/front/upload", Some(&admin)).await).await;
    assert!(through.2.contains("no upload"), "{through:?}");
    // Spelled otherwise, it is the same path, or none.
    let encoded = get(agent, "/front/%75pload", Some(&plain)).await;
    assert_eq!(encoded.status(), 403);
    assert_eq!(get(agent, "/front/x%2f..%2fupload", Some(&plain)).await.status(), 400);
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_may_bring_its_token_as_a_protocol() {
    let fixture = fixture(|_| {}).await;
    let Fixture { agent, issuer, key, .. } = &fixture;
    let token = key.token(&issuer.claims("ada", &[]));
    let connect = async |path: &str, token: &str| {
        let address = format!("ws://{}{path}", agent.gateway_addr());
        let mut request = address.into_client_request().unwrap();
        let offer = format!("bearer.authorization.modunest.{token}, echo");
        request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
        connect_async(request).await
    };
    let (mut socket, response) = connect("/front/socket", &token).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "echo");
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    let refused = connect("/front/socket", "x.y.z").await;
    assert!(matches!(&refused, Err(Error::Http(answer)) if answer.status() == 401), "{refused:?}");
    // The plugin knows who it is, and not by what.
    let Err(Error::Http(head)) = connect("/front/head", &token).await else { panic!("no head") };
    let head: Value = serde_json::from_slice(head.body().as_ref().unwrap()).unwrap();
    assert_eq!(head["identity"]["subject"], "ada");
    assert!(head.to_string().contains("echo") && !head.to_string().contains(&token), "{head}");
    // Without a WebSocket it is no token.
    let offer = format!("bearer.authorization.modunest.{token}");
    let request = Client::new().get(url(agent, "/front/head"));
    assert_eq!(send(request.header("sec-websocket-protocol", offer)).await.status(), 401);
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_token_is_refused_with_its_reason() {
    let fixture = fixture(|_| {}).await;
    let Fixture { agent, issuer, key, .. } = &fixture;
    let stranger = SigningKey::ecdsa("one");
    let other_issuer = Issuer::start().await;
    let good = issuer.claims("ada", &[]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.token(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        key.token(&claims)
    };
    let header = |header: Value| key.token_with(&header, &good);
    let now_s = modunest_runtime::clock::now().as_secs();
    let token = key.token(&good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let none = json!({ "alg": "none", "kid": "one" });
    // Signed with the public key as a shared secret, as if the host did not know better.
    let secret = key.jwk().to_string();
    let hs = json!({ "alg": "HS256", "kid": "one" });
    let hs_signed = format!("{}.{}", encode(hs.to_string()), encode(good.to_string()));
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let hs_token = format!("{hs_signed}.{}", encode(ring::hmac::sign(&hmac, hs_signed.as_bytes())));
    let mut flipped = signature.as_bytes().to_vec();
    flipped[10] = if flipped[10] == b'A' { b'B' } else { b'A' };
    let wrong = [
        ("no token", String::new()),
        ("no parts", "abc".to_owned()),
        ("four parts", format!("{token}.x")),
        ("too long", "a".repeat(9000)),
        ("alg none", format!("{}.{}.", encode(none.to_string()), encode(good.to_string()))),
        ("alg none, signed", header(none)),
        ("alg HS256 by the public key", hs_token),
        ("alg of another kind", header(json!({ "alg": "RS256", "kid": "one" }))),
        ("alg that nobody knows", header(json!({ "alg": "ES999", "kid": "one" }))),
        ("another purpose", header(json!({ "alg": "ES256", "kid": "one", "typ": "logout+jwt" }))),
        (
            "critical extension",
            header(json!({ "alg": "ES256", "kid": "one", "crit": ["x"], "x": 1 })),
        ),
        ("unknown key", header(json!({ "alg": "ES256", "kid": "two" }))),
        ("stranger's signature", stranger.token(&good)),
        ("cut signature", format!("{signed}.{}", &signature[..40])),
        ("no signature", format!("{signed}.")),
        ("changed signature", format!("{signed}.{}", String::from_utf8(flipped).unwrap())),
        ("changed claims", {
            let mut claims = good.clone();
            claims["sub"] = json!("eve");
            let (head, _) = signed.split_once('.').unwrap();
            format!("{head}.{}.{signature}", encode(claims.to_string()))
        }),
        ("unknown issuer", with("iss", json!(other_issuer.url))),
        ("no issuer", without("iss")),
        ("for somebody else", with("aud", json!("elsewhere"))),
        ("for nobody", without("aud")),
        ("expired", with("exp", json!(now_s - 100))),
        ("for ever", without("exp")),
        ("not yet", with("nbf", json!(now_s + 1000))),
        ("from the future", with("iat", json!(now_s + 1000))),
        ("of nobody", without("sub")),
        ("roles of a wrong type", with("roles", json!(7))),
    ];
    let mut seen = Vec::new();
    for (name, token) in wrong {
        let (status, challenge, detail) =
            refusal(get(agent, "/front/head", Some(&token)).await).await;
        assert_eq!(status, 401, "{name}: {detail}");
        assert!(challenge.contains("error=\"invalid_token\""), "{name}: {challenge}");
        // Times differ from run to run.
        let detail = match detail.split_once("T") {
            Some((before, _)) if before.ends_with(|c: char| c.is_ascii_digit()) => {
                before.rsplit_once(' ').unwrap().0.to_owned()
            }
            _ => detail,
        };
        seen.push(format!("{name}: {detail}"));
    }
    insta::assert_snapshot!(seen.join("\n"));
    let twice = Client::new().get(url(agent, "/front/head"));
    let twice = twice.bearer_auth(&token).header("authorization", "Bearer x");
    assert_eq!(send(twice).await.status(), 401);
    // The good one still is.
    assert_eq!(get(agent, "/front/head", Some(&token)).await.status(), 200);
    // Invented keys made the host look once, not once each.
    assert!(issuer.fetches() <= 2, "{}", issuer.fetches());
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_algorithms_and_keys_without_names() {
    let fixture = fixture(|users| users.issuers[0].times.pause = Duration::ZERO).await;
    let Fixture { agent, issuer, .. } = &fixture;
    let keys = [SigningKey::rsa("r"), SigningKey::ecdsa("e"), SigningKey::ed25519("o")];
    issuer.publish(&[&keys[0], &keys[1], &keys[2]]);
    let good = issuer.claims("ada", &[]);
    for key in &keys {
        let algorithm = key.algorithm();
        let named = get(agent, "/front/head", Some(&key.token(&good))).await;
        assert_eq!(named.status(), 200, "{algorithm}");
        let unnamed = key.token_with(&json!({ "alg": algorithm }), &good);
        assert_eq!(get(agent, "/front/head", Some(&unnamed)).await.status(), 200, "{algorithm}");
    }
    // Keys for other uses, secrets and broken ones are passed over.
    let mut encryption = keys[1].jwk();
    encryption["use"] = json!("enc");
    encryption["kid"] = json!("e2");
    let secret = json!({ "kty": "oct", "k": "AAAA", "kid": "s", "alg": "HS256" });
    let other_alg = {
        let mut jwk = keys[0].jwk();
        jwk["alg"] = json!("PS256");
        jwk["kid"] = json!("ps");
        jwk
    };
    let weak = json!({ "kty": "RSA", "n": encode([0xff; 128]), "e": "AQAB", "kid": "w" });
    issuer.publish_raw(vec![json!(7), secret, weak, other_alg, encryption, keys[2].jwk()]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    for (id, alg) in [("s", "HS256"), ("ps", "RS256"), ("e2", "ES256"), ("w", "RS256")] {
        let token = keys[1].token_with(&json!({ "alg": alg, "kid": id }), &good);
        assert_eq!(get(agent, "/front/head", Some(&token)).await.status(), 401, "{id}");
    }
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_issuers_fail() {
    let fixture = fixture(|users| {
        let times = &mut users.issuers[0].times;
        times.pause = Duration::from_millis(50);
        times.fresh = Duration::from_millis(200);
        times.stale_max = Duration::from_millis(1500);
    })
    .await;
    let Fixture { agent, issuer, key: old, .. } = &fixture;
    let claims = issuer.claims("ada", &[]);
    let pause = || tokio::time::sleep(Duration::from_millis(60));
    let status = async |key: &SigningKey| {
        get(agent, "/front/head", Some(&key.token(&claims))).await.status().as_u16()
    };
    assert_eq!(status(old).await, 200);
    // A new key is found by the first token that names it.
    let new = SigningKey::ed25519("two");
    assert_eq!(status(&new).await, 401);
    issuer.publish(&[old, &new]);
    pause().await;
    assert_eq!((status(&new).await, status(old).await), (200, 200));
    // A withdrawn key is forgotten once the set is fetched again.
    issuer.publish(&[&new]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(status(&new).await, 200);
    let gone = async {
        while status(old).await != 401 {
            pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    // An issuer that fails leaves its keys good for a while, and then nobody is let in.
    issuer.fail(Some(500));
    assert_eq!(status(&new).await, 200);
    let closed = async {
        while status(&new).await == 200 {
            pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    let response = get(agent, "/front/head", Some(&new.token(&claims))).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, challenge, detail) = refusal(response).await;
    let expected = "the keys of the token's issuer cannot be had now".to_owned();
    assert_eq!((status, challenge, detail), (503, String::new(), expected));
    // What needs no user goes on, and what came back is believed again.
    assert_eq!(get(agent, "/other/head", None).await.status(), 200);
    issuer.fail(None);
    pause().await;
    assert_eq!(get(agent, "/front/head", Some(&new.token(&claims))).await.status(), 200);
    fixture.agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_come_from_a_file() {
    let mut setup = setup().await;
    let key = SigningKey::rsa("one");
    let path = setup.folder.path().join("keys.json");
    std::fs::write(&path, json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    let issuer = Issuer::start().await;
    let mut settings = issuer.settings();
    settings.keys = KeysFrom::File(path.clone());
    setup.config.users = UserSettings {
        issuers: vec![settings],
        access: Access { rules: vec![], has_issuers: true },
    };
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    let token = key.token(&issuer.claims("ada", &[]));
    assert_eq!(get(&agent, "/front/head", Some(&token)).await.status(), 200);
    assert_eq!(issuer.fetches(), 0);
    agent.shutdown().await;
    std::fs::write(&path, "{}").unwrap();
    let error = Agent::start(setup.config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("this is no key set"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_issuers_the_header_is_the_plugins_own() {
    let setup = setup().await;
    let agent = Agent::start(setup.config.clone()).await.unwrap();
    let answer = get(&agent, "/front/head", Some("a token of the plugin's own")).await;
    let head: Value = answer.json().await.unwrap();
    assert!(head["headers"].to_string().contains("a token of the plugin's own"), "{head}");
    agent.shutdown().await;
}
