//! Guards: what they are asked, and what they decide.
//!
//! A request is the form of [`crate::http`] once more: the length of a head, the head as JSON
//! `{"plugin", "target", "caller"}`, with `identity` where a service is called for a user, and
//! behind it either nothing (a service is called) or an HTTP request without its body (a route
//! is asked for).
//!
//! An answer is the text `allow`, or `deny`, or `deny:` and a reason for people. Anything else
//! decides nothing, and what is not decided is denied; so is an error, a panic, and an answer
//! that comes too late.

use serde::{Deserialize, Serialize};

use crate::http::{self, HttpError};
use crate::{Error, HttpRequest, Identity};

/// Most bytes of a reason to deny; a longer one is cut.
pub const MAX_REASON_BYTES: usize = 512;
/// Most bytes of a name or a route in a request: a route has 200, a plugin's name 101.
const MAX_NAME_BYTES: usize = 256;

/// What a guard shall decide. It never sees a body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardRequest {
    /// Name of the guard.
    pub guard: String,
    /// `org/name` of the plugin whose route or service is guarded.
    pub plugin: String,
    /// The route's path as the manifest has it, or the service: `name`, or `name/method`.
    pub target: String,
    /// `org/name` of the plugin that calls the service; `None` for a route.
    pub caller: Option<String>,
    /// The end user for whom a service is called, by the host's word; of a route, the request
    /// itself says it. [`GuardRequest::user`] reads both.
    pub identity: Option<Identity>,
    /// The request to the route, its body left out; `None` for a service.
    pub http: Option<HttpRequest>,
}

/// What a guard decides. A decision lets through or it does not; it grants nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As far as this guard is concerned, the request may go on.
    Allow,
    /// It may not, for this reason, which whoever asked is shown.
    Deny(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    plugin: String,
    target: String,
    caller: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

impl GuardRequest {
    /// About a request to a route of a plugin. Its body is left out.
    #[must_use]
    pub fn route(plugin: &str, route: &str, request: HttpRequest) -> Self {
        Self {
            guard: String::new(),
            plugin: plugin.to_owned(),
            target: route.to_owned(),
            caller: None,
            identity: None,
            http: Some(HttpRequest { body: Vec::new(), upload: None, ..request }),
        }
    }

    /// About a call to a service of a plugin by another, for this end user if there is one.
    #[must_use]
    pub fn service(plugin: &str, service: &str, caller: &str, user: Option<&Identity>) -> Self {
        Self {
            guard: String::new(),
            plugin: plugin.to_owned(),
            target: service.to_owned(),
            caller: Some(caller.to_owned()),
            identity: user.cloned(),
            http: None,
        }
    }

    /// The verified end user behind the request, if there is one.
    #[must_use]
    pub fn user(&self) -> Option<&Identity> {
        self.http.as_ref().map_or(self.identity.as_ref(), |http| http.identity.as_ref())
    }

    /// The bytes of the request; the guard's name travels beside them.
    ///
    /// # Errors
    ///
    /// The rule or limit that it breaks.
    pub fn encode(&self) -> Result<Vec<u8>, HttpError> {
        let head = Head {
            plugin: self.plugin.clone(),
            target: self.target.clone(),
            caller: self.caller.clone(),
            identity: self.identity.clone(),
        };
        head.check()?;
        let request = match &self.http {
            Some(request) if !request.body.is_empty() => {
                return Err(HttpError::BodyTooLarge(request.body.len()));
            }
            Some(request) => request.clone().encode()?,
            None => Vec::new(),
        };
        http::encode(&head, &request)
    }

    /// The request that these bytes are, to the guard of this name.
    ///
    /// # Errors
    ///
    /// The rule or limit that they break.
    pub fn decode(guard: &str, bytes: &[u8]) -> Result<Self, HttpError> {
        let (head, rest): (Head, _) = http::decode(bytes)?;
        head.check()?;
        let http = if rest.is_empty() { None } else { Some(HttpRequest::decode(rest)?) };
        if let Some(request) = http.as_ref().filter(|request| !request.body.is_empty()) {
            return Err(HttpError::BodyTooLarge(request.body.len()));
        }
        let Head { plugin, target, caller, identity } = head;
        Ok(Self { guard: guard.to_owned(), plugin, target, caller, identity, http })
    }
}

impl Head {
    fn check(&self) -> Result<(), HttpError> {
        if self.identity.as_ref().is_some_and(|identity| !identity.is_within_limits()) {
            return Err(HttpError::Identity);
        }
        let texts = [Some(&self.plugin), Some(&self.target), self.caller.as_ref()];
        match texts.into_iter().flatten().find(|text| text.len() > MAX_NAME_BYTES) {
            Some(text) => Err(HttpError::Head(format!("a name of {} bytes", text.len()))),
            None => Ok(()),
        }
    }
}

impl Decision {
    /// The answer's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Allow => b"allow".to_vec(),
            Self::Deny(reason) => format!("deny:{}", cut(reason)).into_bytes(),
        }
    }

    /// The decision that these bytes are.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] where they decide nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes == b"allow" {
            return Ok(Self::Allow);
        }
        let undecided = || Error::Failed("it answered neither allow nor deny".to_owned());
        let rest = bytes.strip_prefix(b"deny").ok_or_else(undecided)?;
        if rest.is_empty() {
            return Ok(Self::Deny(String::new()));
        }
        let reason = rest.strip_prefix(b":").ok_or_else(undecided)?;
        let reason = std::str::from_utf8(reason).map_err(|_| undecided())?;
        // The reason goes to logs and into answers over HTTP.
        let plain: String = reason.chars().filter(|c| !c.is_control()).collect();
        Ok(Self::Deny(cut(plain.trim()).trim_end().to_owned()))
    }
}

fn cut(reason: &str) -> &str {
    reason.get(..reason.floor_char_boundary(MAX_REASON_BYTES)).unwrap_or_default()
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a promise is broken: that is a bug in a decoder.
#[doc(hidden)]
pub fn check_decoders(bytes: &[u8]) -> bool {
    let request = GuardRequest::decode("any", bytes);
    if let Ok(request) = &request {
        let again = request.encode().and_then(|bytes| GuardRequest::decode("any", &bytes));
        assert_eq!(again.as_ref(), Ok(request));
    }
    let decision = Decision::decode(bytes);
    if let Ok(decision) = &decision {
        assert_eq!(Decision::decode(&decision.encode()).as_ref(), Ok(decision));
        assert_eq!(*decision == Decision::Allow, bytes == b"allow");
    }
    request.is_ok() || decision.is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_travel_without_a_body() {
        let mut http = HttpRequest::get("/page/7");
        http.headers.push(("x-team".into(), "red".into()));
        http.body = b"secret".to_vec();
        let route = GuardRequest::route("demo/page", "/page/{id}", http);
        assert_eq!(route.http.as_ref().unwrap().body, b"");
        let again = GuardRequest::decode("staff", &route.encode().unwrap()).unwrap();
        assert_eq!((again.guard.as_str(), &again.http), ("staff", &route.http));
        let user = Identity {
            subject: "ada".into(),
            issuer: "https://id.example.org".into(),
            roles: vec!["staff".into()],
            expires_ms: 7,
            claims: Default::default(),
        };
        let service = GuardRequest::service("demo/store", "keep/get", "demo/page", Some(&user));
        let again = GuardRequest::decode("", &service.encode().unwrap()).unwrap();
        assert_eq!((again.user(), &again), (Some(&user), &service));
        let none = GuardRequest::service("demo/store", "keep/get", "demo/page", None);
        assert_eq!(GuardRequest::decode("", &none.encode().unwrap()).unwrap().user(), None);
        let with_body = HttpRequest { body: b"x".to_vec(), ..HttpRequest::get("/") };
        let smuggled = GuardRequest { http: Some(with_body), ..route };
        assert_eq!(smuggled.encode(), Err(HttpError::BodyTooLarge(1)));
    }

    #[test]
    fn only_the_exact_word_allows() {
        for (bytes, decision) in [
            (&b"allow"[..], Some(Decision::Allow)),
            (b"deny", Some(Decision::Deny(String::new()))),
            (b"deny:not today\n", Some(Decision::Deny("not today".into()))),
            (b"", None),
            (b"allow ", None),
            (b"Allow", None),
            (b"allowed", None),
            (b"denyed", None),
            (b"deny:\xff", None),
            (b"true", None),
        ] {
            assert_eq!(Decision::decode(bytes).ok(), decision, "{bytes:?}");
        }
        let long = Decision::Deny("ü".repeat(MAX_REASON_BYTES));
        let Decision::Deny(cut) = Decision::decode(&long.encode()).unwrap() else { panic!() };
        assert_eq!(cut.len(), MAX_REASON_BYTES);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..proptest::test_runner::Config::with_cases(500) })]

        #[test]
        fn any_bytes_keep_the_promises(start in 0_usize..8, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let mut all = b"deny:only for staff"[..start].to_vec();
            all.extend(bytes);
            check_decoders(&all);
        }
    }
}
