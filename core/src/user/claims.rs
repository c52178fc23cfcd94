//! The claims of a token whose signature is good: who it is, or why nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{CLAIMS_MAX_BYTES, ROLE_MAX_BYTES, ROLES_MAX, SUBJECT_MAX_BYTES, User};
use crate::time::Timestamp;

/// What an operator expects of an issuer's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// The issuer, letter by letter.
    pub issuer: String,
    /// The audiences that mean this host; a token names one of them.
    pub audience: Vec<String>,
    /// The path of the claim with the roles; none where it is empty.
    pub roles_claim: Vec<String>,
    /// From the issuer's words to roles of this host. Words that are not in it give no role.
    /// Where there is no map, the words are the roles.
    pub role_map: Option<BTreeMap<String, Vec<String>>>,
    /// Claims that have this value, or hold it in a list.
    pub required: BTreeMap<String, Value>,
    /// Claims that are handed on.
    pub claims: Vec<String>,
    /// How far clocks may differ.
    pub skew: Duration,
}

/// Why a token is not accepted. Shown to whoever sent it: it says nothing that the token does
/// not say itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The claims are no JSON object.
    #[error("its claims are no JSON object")]
    NoClaims,
    /// A claim is missing.
    #[error("it has no `{0}`")]
    Missing(String),
    /// A claim is not of the type that it has to be.
    #[error("its `{0}` is malformed")]
    Malformed(String),
    /// Another issuer's.
    #[error("it is not of the issuer that it was checked for")]
    Issuer,
    /// For somebody else.
    #[error("it is meant for somebody else: this host is not in its `aud`")]
    Audience,
    /// Too late.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// Too early.
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
    /// From the future.
    #[error("it was issued in the future, at {0}")]
    IssuedLater(Timestamp),
    /// A claim that has to have a value has another.
    #[error("its `{0}` is not what this host asks for")]
    Required(String),
    /// More roles than a user may have.
    #[error("it gives {0} roles, at most {ROLES_MAX} are allowed")]
    TooManyRoles(usize),
    /// More in the claims that are handed on than fits.
    #[error("the claims that are handed on have more than {CLAIMS_MAX_BYTES} bytes together")]
    ClaimsTooLarge,
}

/// Judges the claims of a token that `expected`'s issuer has signed.
///
/// # Errors
/// The first rule that they break.
pub fn judge(claims: &Value, expected: &Expected, now: Timestamp) -> Result<User, Refused> {
    let claims = claims.as_object().ok_or(Refused::NoClaims)?;
    if text(claims, "iss")? != expected.issuer {
        return Err(Refused::Issuer);
    }
    let audience = words(need(claims, "aud")?).ok_or_else(|| malformed("aud"))?;
    if !audience.iter().any(|one| expected.audience.iter().any(|own| own == one)) {
        return Err(Refused::Audience);
    }
    let expires_at = date(need(claims, "exp")?).ok_or_else(|| malformed("exp"))?;
    if expires_at.plus(expected.skew) <= now {
        return Err(Refused::Expired(expires_at));
    }
    let soon = now.plus(expected.skew);
    if let Some(value) = claims.get("nbf") {
        let from = date(value).ok_or_else(|| malformed("nbf"))?;
        if from > soon {
            return Err(Refused::NotYet(from));
        }
    }
    if let Some(value) = claims.get("iat") {
        let issued = date(value).ok_or_else(|| malformed("iat"))?;
        if issued > soon {
            return Err(Refused::IssuedLater(issued));
        }
    }
    let subject = text(claims, "sub")?;
    if subject.is_empty()
        || subject.len() > SUBJECT_MAX_BYTES
        || subject.chars().any(char::is_control)
    {
        return Err(malformed("sub"));
    }
    for (name, wanted) in &expected.required {
        let found = need(claims, name)?;
        let holds = found == wanted || found.as_array().is_some_and(|list| list.contains(wanted));
        if !holds {
            return Err(Refused::Required(name.clone()));
        }
    }
    Ok(User {
        subject: subject.to_owned(),
        issuer: expected.issuer.clone(),
        roles: roles(claims, expected)?,
        // Within the skew it still counts, so that whoever looks at it later sees no past.
        expires_at: expires_at.max(Timestamp::from_millis(now.as_millis().saturating_add(1))),
        claims: handed_on(claims, &expected.claims)?,
    })
}

fn malformed(name: &str) -> Refused {
    Refused::Malformed(name.to_owned())
}

fn need<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c Value, Refused> {
    claims.get(name).ok_or_else(|| Refused::Missing(name.to_owned()))
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<&'c str, Refused> {
    need(claims, name)?.as_str().ok_or_else(|| malformed(name))
}

/// One text, or a list of texts.
fn words(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(word) => Some(vec![word]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// A `NumericDate` of RFC 7519, section 2: seconds, perhaps with a fraction. Dates before 1970
/// and after the year 9999 are none.
fn date(value: &Value) -> Option<Timestamp> {
    const END_OF_9999_S: f64 = 253_402_300_799.0;
    let seconds = value.as_f64()?;
    (0.0..=END_OF_9999_S)
        .contains(&seconds)
        .then(|| Timestamp::from_millis((seconds * 1000.0) as u64))
}

fn roles(claims: &Map<String, Value>, expected: &Expected) -> Result<Vec<String>, Refused> {
    let mut path = expected.roles_claim.iter();
    let Some(first) = path.next() else { return Ok(Vec::new()) };
    let name = || expected.roles_claim.join(".");
    // A user without the claim has no role; a claim that cannot be read is an error.
    let mut value = claims.get(first);
    for step in path {
        value = match value {
            Some(Value::Object(inner)) => inner.get(step),
            None => None,
            Some(_) => return Err(Refused::Malformed(name())),
        };
    }
    let found: Vec<&str> = match value {
        None => return Ok(Vec::new()),
        // As in `scope` (RFC 8693, section 4.2): words with blanks between them.
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(list) => words(list).ok_or_else(|| Refused::Malformed(name()))?,
    };
    let mut roles: Vec<String> = match &expected.role_map {
        None => found.into_iter().map(str::to_owned).collect(),
        Some(map) => {
            found.into_iter().filter_map(|word| map.get(word)).flatten().cloned().collect()
        }
    };
    roles.sort_unstable();
    roles.dedup();
    if roles.len() > ROLES_MAX {
        return Err(Refused::TooManyRoles(roles.len()));
    }
    let fits = |role: &String| (1..=ROLE_MAX_BYTES).contains(&role.len());
    if roles.iter().all(fits) { Ok(roles) } else { Err(Refused::Malformed(name())) }
}

fn handed_on(
    claims: &Map<String, Value>,
    names: &[String],
) -> Result<BTreeMap<String, String>, Refused> {
    let mut chosen = BTreeMap::new();
    let mut size = 0;
    for name in names {
        let value = match claims.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        size += name.len() + value.len();
        chosen.insert(name.clone(), value);
    }
    if size > CLAIMS_MAX_BYTES { Err(Refused::ClaimsTooLarge) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn expected() -> Expected {
        let map = [
            ("grp-admins".to_owned(), vec!["admin".to_owned(), "reader".to_owned()]),
            ("grp-all".to_owned(), vec!["reader".to_owned()]),
        ];
        Expected {
            issuer: "https://id.example.org".into(),
            audience: vec!["host".into(), "other-name".into()],
            roles_claim: vec!["realm".into(), "roles".into()],
            role_map: Some(map.into()),
            required: [("email_verified".to_owned(), json!(true))].into(),
            claims: vec!["email".into(), "groups".into(), "absent".into()],
            skew: Duration::from_secs(60),
        }
    }

    fn good() -> Value {
        json!({
            "iss": "https://id.example.org",
            "sub": "ada",
            "aud": ["elsewhere", "host"],
            "exp": 1_700_000_300,
            "nbf": 1_700_000_000,
            "iat": 1_700_000_000.5,
            "realm": { "roles": ["grp-all", "grp-admins", "stranger"] },
            "email_verified": true,
            "email": "ada@example.org",
            "groups": ["a", "b"],
        })
    }

    fn with(name: &str, value: Value) -> Result<User, Refused> {
        let mut claims = good();
        claims[name] = value;
        judge(&claims, &expected(), NOW)
    }

    #[test]
    fn a_good_token_is_a_user_with_mapped_roles() {
        let user = judge(&good(), &expected(), NOW).unwrap();
        let claims = [("email", "ada@example.org"), ("groups", r#"["a","b"]"#)];
        assert_eq!(
            user,
            User {
                subject: "ada".into(),
                issuer: "https://id.example.org".into(),
                roles: vec!["admin".into(), "reader".into()],
                expires_at: Timestamp::from_millis(1_700_000_300_000),
                claims: claims.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            }
        );
        let plain = Expected { role_map: None, ..expected() };
        let words = json!({ "roles": "write read read" });
        let mut claims = good();
        claims["realm"] = words;
        assert_eq!(judge(&claims, &plain, NOW).unwrap().roles, ["read", "write"]);
        claims["realm"] = json!({});
        assert!(judge(&claims, &plain, NOW).unwrap().roles.is_empty());
    }

    #[test]
    fn every_broken_rule_has_its_reason() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let many: Vec<String> = (0..=ROLES_MAX).map(|n| format!("r{n}")).collect();
        let cases = [
            with("iss", json!("https://id.example.org/")),
            with("iss", json!(["https://id.example.org"])),
            with("aud", json!("hosts")),
            with("aud", json!([])),
            with("aud", json!({ "host": true })),
            with("exp", json!(1_699_999_940)),
            with("exp", json!("1700000300")),
            with("exp", json!(-1)),
            with("exp", json!(1e300)),
            with("nbf", json!(1_700_000_061)),
            with("nbf", json!(null)),
            with("iat", json!(1_700_000_061)),
            with("sub", json!("")),
            with("sub", json!("a\nb")),
            with("sub", json!("x".repeat(SUBJECT_MAX_BYTES + 1))),
            with("email_verified", json!("true")),
            with("realm", json!(["roles"])),
            with("realm", json!({ "roles": [7] })),
            with("email", json!("x".repeat(CLAIMS_MAX_BYTES))),
            judge(&json!([]), &expected(), NOW),
            judge(&json!({}), &expected(), NOW),
        ];
        let reasons: Vec<String> =
            cases.into_iter().map(|case| case.unwrap_err().to_string()).collect();
        insta::assert_snapshot!(reasons.join("\n"));
        let plain = Expected { role_map: None, ..expected() };
        let mut claims = good();
        claims["realm"]["roles"] = json!(many);
        assert_eq!(judge(&claims, &plain, NOW), Err(Refused::TooManyRoles(ROLES_MAX + 1)));
        assert_eq!(with("exp", json!(1_699_999_940)), Err(Refused::Expired(at(1_699_999_940))));
        // Clocks may differ by the skew, and not by more.
        assert!(with("exp", json!(1_699_999_941)).is_ok());
        assert!(with("nbf", json!(1_700_000_060)).is_ok());
    }

    #[test]
    fn a_required_value_may_stand_in_a_list() {
        let mut rules = expected();
        rules.required = [("groups".to_owned(), json!("b"))].into();
        assert!(judge(&good(), &rules, NOW).is_ok());
        rules.required = [("groups".to_owned(), json!("c"))].into();
        assert_eq!(judge(&good(), &rules, NOW), Err(Refused::Required("groups".into())));
        rules.required = [("none".to_owned(), json!("c"))].into();
        assert_eq!(judge(&good(), &rules, NOW), Err(Refused::Missing("none".into())));
    }
}
