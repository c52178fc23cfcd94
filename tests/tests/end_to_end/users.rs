//! Users at a host's gateway, by tokens of an issuer that nobody here wrote (npm's
//! `oidc-provider`): found by discovery, with JWT access tokens as RFC 9068 has them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modunest_tests::agent::{Agent, Host};
use modunest_tests::fixtures::Plugin;
use modunest_tests::issuer::{Issuer, Setup};
use modunest_tests::process::until;
use modunest_tests::registry::Registry;
use serde_json::{Value, json};

/// What the host is for its issuers, and how it is named in their tokens.
const HOST: &str = "https://host.example/";
const AUDIENCE: &str = "the-host";
const READ: &str = "gallery:read";
const BOTH: &str = "gallery:read gallery:manage";

fn resource(audience: &str) -> Value {
    json!({ "audience": audience, "scope": format!("{BOTH} weather:read") })
}

fn issuer(key: &str, algorithm: &str) -> Setup {
    Setup::new(key, algorithm).resource(HOST, resource(AUDIENCE))
}

/// A host with a page for readers, and another for admins, that believes these issuers. It looks
/// for keys whenever it meets an unknown one, and no clock is given any grace.
async fn host_of(issuers: &[&Issuer]) -> (Registry, Host, Agent) {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let gallery = Plugin::new("acme/gallery", "1.0.0").route("/gallery").route("/manage");
    publisher.publish(&gallery.pack()).await;
    let mut host = Host::of(&registry).await.wants("acme/gallery", "^1");
    for issuer in issuers {
        host = host.section(&format!(
            "[[issuer]]\nurl = \"{}\"\naudience = \"{AUDIENCE}\"\nroles_claim = \"scope\"\n\
             role_map = {{ \"gallery:read\" = \"reader\", \"gallery:manage\" = \"admin\" }}\n\
             skew_s = 0\nkeys_pause_s = 0\n",
            issuer.name()
        ));
    }
    let access = |path: &str, role: &str| {
        format!("[[access]]\npaths = [\"{path}\"]\nroles = [\"{role}\"]\n")
    };
    let host = host.section(&(access("/gallery", "reader") + &access("/manage", "admin")));
    let agent = host.start().await;
    (registry, host, agent)
}

/// Why a token is refused.
async fn refusal(agent: &Agent, token: &str) -> String {
    let answer = agent.get_as(token, "/gallery").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    answer.problem().detail
}

async fn status(agent: &Agent, token: &str, path: &str) -> u16 {
    agent.get_as(token, path).await.status.as_u16()
}

#[tokio::test]
async fn scopes_become_roles_whatever_the_issuer_signs_by() {
    let (ecdsa, rsa, eddsa) = tokio::join!(
        issuer("e", "ES256").start(),
        issuer("r", "RS256").start(),
        issuer("o", "EdDSA").start()
    );
    let (_registry, _host, agent) = host_of(&[&ecdsa, &rsa, &eddsa]).await;
    assert_eq!(agent.get("/gallery").await.status, 401);
    for issuer in [&ecdsa, &rsa, &eddsa] {
        let pages = async |scope: &str| {
            let token = issuer.token(HOST, scope).await;
            (status(&agent, &token, "/gallery").await, status(&agent, &token, "/manage").await)
        };
        assert_eq!(pages(READ).await, (200, 403));
        assert_eq!(pages(BOTH).await, (200, 200));
        // A scope that the host's map does not have is no role.
        assert_eq!(pages("weather:read").await, (403, 403));
    }
}

#[tokio::test]
async fn what_is_not_the_issuers_word_to_this_host_is_refused() {
    let (elsewhere, short) = ("https://elsewhere.example/", "https://short.example/");
    let mut brief = resource(AUDIENCE);
    brief["accessTokenTTL"] = json!(1);
    let mut setup =
        issuer("one", "RS256").resource(elsewhere, resource("another-host")).resource(short, brief);
    // An issuer that has mistaken its own public key for a secret, in each form that it has.
    let forms = ["pem", "der", "jwk"];
    let confused = |form: &str| format!("https://{form}.example/");
    for form in forms {
        let mut settings = resource(AUDIENCE);
        settings["secret"] = json!(form);
        setup = setup.resource(&confused(form), settings);
    }
    let known = setup.start().await;
    let (_registry, _host, agent) = host_of(&[&known]).await;
    let good = known.token(HOST, READ).await;
    assert_eq!(status(&agent, &good, "/gallery").await, 200);

    let said = refusal(&agent, &known.token(elsewhere, READ).await).await;
    assert!(said.contains("this host is not in its `aud`"), "{said}");
    for form in forms {
        let said = refusal(&agent, &known.token(&confused(form), READ).await).await;
        assert_eq!(said, "the token's algorithm is not that of its key", "{form}");
    }
    // The same name and the same name of a key, but not the same key.
    let poser = issuer("one", "RS256").posing_as(&known).start().await;
    let said = refusal(&agent, &poser.token(HOST, READ).await).await;
    assert_eq!(said, "the token's signature is wrong");
    let stranger = issuer("one", "RS256").start().await;
    let said = refusal(&agent, &stranger.token(HOST, READ).await).await;
    assert_eq!(said, "this host does not know the token's issuer");
    // Unsigned, with and without the signature of the token that it is made from.
    let [_, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let header = json!({ "alg": "none", "typ": "at+jwt", "kid": "one" }).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    for signature in ["", signature] {
        let said = refusal(&agent, &format!("{header}.{claims}.{signature}")).await;
        assert_eq!(said, "the token is malformed");
    }
    // It may have a second yet.
    let brief = known.token(short, READ).await;
    until("the token to expire", async || {
        (status(&agent, &brief, "/gallery").await == 401).then_some(())
    })
    .await;
    let said = refusal(&agent, &brief).await;
    assert!(said.starts_with("the token is not accepted: it expired at "), "{said}");
    assert_eq!(status(&agent, &good, "/gallery").await, 200);
}

#[tokio::test]
async fn an_issuer_that_changes_its_key_is_followed_at_once() {
    let mut before = issuer("one", "ES256").start().await;
    let (_registry, _host, agent) = host_of(&[&before]).await;
    let old = before.token(HOST, BOTH).await;
    assert_eq!(status(&agent, &old, "/manage").await, 200);
    before.process.kill();
    // What it has signed is good while its keys are, whether it answers or not.
    assert_eq!(status(&agent, &old, "/manage").await, 200);

    let after = issuer("two", "EdDSA").in_place_of(&before).start().await;
    assert_eq!(after.name(), before.name());
    let new = after.token(HOST, BOTH).await;
    assert_eq!(status(&agent, &new, "/manage").await, 200);
    // With the keys of now, the old one is forgotten.
    assert_eq!(refusal(&agent, &old).await, "the token's issuer has no such key");
    assert_eq!(status(&agent, &new, "/gallery").await, 200);
}
