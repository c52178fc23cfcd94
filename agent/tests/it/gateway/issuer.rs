//! An issuer of tokens, with a real server and real keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modunest_agent::config::users::IssuerSettings;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

/// The RSA key of RFC 7515, appendix A.2: ring makes none.
pub const RSA_JWK: &str = include_str!("rfc7515-a2.json");

/// A key that signs tokens.
pub struct SigningKey {
    pub id: String,
    pair: Pair,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl SigningKey {
    pub fn rsa(id: &str) -> Self {
        let jwk: BTreeMap<String, String> = serde_json::from_str(RSA_JWK).unwrap();
        let number = |name: &str| URL_SAFE_NO_PAD.decode(&jwk[name]).unwrap();
        let components = rsa::KeyPairComponents {
            public_key: rsa::PublicKeyComponents { n: number("n"), e: number("e") },
            d: number("d"),
            p: number("p"),
            q: number("q"),
            dP: number("dp"),
            dQ: number("dq"),
            qInv: number("qi"),
        };
        let pair = rsa::KeyPair::from_components(&components).unwrap();
        SigningKey { id: id.to_owned(), pair: Pair::Rsa(pair) }
    }

    pub fn ecdsa(id: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        SigningKey { id: id.to_owned(), pair: Pair::Ecdsa(pair) }
    }

    pub fn ed25519(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        SigningKey { id: id.to_owned(), pair: Pair::Ed25519(pair) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ecdsa(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half, as a key set has it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": encode(public.n), "e": encode(public.e) })
            }
            Pair::Ecdsa(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) })
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" });
        self.token_with(&header, claims)
    }

    /// A token whose header says anything.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

#[derive(Default)]
struct Served {
    keys: Vec<Value>,
    fetches: usize,
    /// Answers nothing but this status.
    status: Option<u16>,
}

/// A server with a discovery document and a key set.
#[derive(Clone)]
pub struct Issuer {
    pub url: String,
    served: Arc<Mutex<Served>>,
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served::default()));
        let issuer = Issuer { url, served };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        issuer
    }

    pub fn publish(&self, keys: &[&SigningKey]) {
        self.served.lock().unwrap().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    pub fn publish_raw(&self, keys: Vec<Value>) {
        self.served.lock().unwrap().keys = keys;
    }

    pub fn fail(&self, status: Option<u16>) {
        self.served.lock().unwrap().status = status;
    }

    /// How often the key set was asked for.
    pub fn fetches(&self) -> usize {
        self.served.lock().unwrap().fetches
    }

    /// Settings for this issuer, found by discovery, with roles in `roles`.
    pub fn settings(&self) -> IssuerSettings {
        let mut settings = IssuerSettings::new(&self.url, "host");
        settings.expected.roles_claim = vec!["roles".to_owned()];
        settings
    }

    /// Claims of a good token for a user.
    pub fn claims(&self, subject: &str, roles: &[&str]) -> Value {
        let now_s = modunest_runtime::clock::now().as_secs();
        json!({
            "iss": self.url,
            "sub": subject,
            "aud": "host",
            "exp": now_s + 300,
            "iat": now_s,
            "roles": roles,
        })
    }
}

async fn discovery(State(issuer): State<Issuer>) -> Response {
    if let Some(status) = issuer.served.lock().unwrap().status {
        return http::StatusCode::from_u16(status).unwrap().into_response();
    }
    let document = json!({ "issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url) });
    axum::Json(document).into_response()
}

async fn keys(State(issuer): State<Issuer>) -> Response {
    let mut served = issuer.served.lock().unwrap();
    served.fetches += 1;
    axum::Json(json!({ "keys": served.keys })).into_response()
}
