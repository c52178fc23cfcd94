//! Problem details (RFC 9457): the one table of everything the API can refuse.

use serde::{Deserialize, Serialize};

/// Media type of a problem (RFC 9457, section 3).
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// A stable reason. Programs may compare it; it never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it stands in `code` and at the end of `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }
            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status),* }
            }
            /// A short text that is the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }
        }
    };
}

codes! {
    /// The request is not of the form that the path takes.
    InvalidRequest = "invalid-request", 400, "The request is malformed";
    /// A name breaks the rules of names.
    InvalidName = "invalid-name", 400, "The name is not allowed";
    /// A signed statement is malformed.
    InvalidStatement = "invalid-statement", 422, "The statement is not valid";
    /// A statement's signature is wrong, or by a key that may not sign for the organisation.
    InvalidSignature = "invalid-signature", 422, "The signature is not valid for this organisation";
    /// No token, or one that is unknown, expired or revoked.
    Unauthenticated = "unauthenticated", 401, "A valid token is needed";
    /// The token is good, and does not allow this.
    Forbidden = "forbidden", 403, "The token does not allow this";
    /// There is nothing here.
    NotFound = "not-found", 404, "Not found";
    /// The path takes other methods.
    MethodNotAllowed = "method-not-allowed", 405, "The method is not allowed here";
    /// The client took too long to send its request.
    RequestTimeout = "request-timeout", 408, "The request did not arrive in time";
    /// Somebody else holds the name, or one that looks the same.
    NameTaken = "name-taken", 409, "The name is taken, or looks like one that is";
    /// The version was released before with other bytes.
    VersionConflict = "version-conflict", 409, "The version exists with other content";
    /// The statement does not follow the newest one.
    ChainConflict = "chain-conflict", 409, "The statement does not follow the newest one";
    /// The session is in a state that does not allow this.
    SessionState = "session-state", 409, "The session's state does not allow this";
    /// The thing exists already.
    AlreadyExists = "already-exists", 409, "It exists already";
    /// What there is now does not allow this.
    Conflict = "conflict", 409, "What there is now does not allow this";
    /// The declared or sent body is too large.
    TooLarge = "too-large", 413, "Too large";
    /// The uploaded bytes are not those that were declared.
    DigestMismatch = "digest-mismatch", 422, "The bytes are not the declared ones";
    /// The archive breaks a rule of the archive gate.
    InvalidArchive = "invalid-archive", 422, "The archive is not allowed";
    /// The manifest breaks a rule, or differs from the statement.
    InvalidManifest = "invalid-manifest", 422, "The manifest is not valid";
    /// The scan found something that is not allowed.
    ScanRejected = "scan-rejected", 422, "The scan rejected the release";
    /// The session was not completed in time.
    SessionExpired = "session-expired", 410, "The session has expired";
    /// A precondition of the request does not hold.
    PreconditionFailed = "precondition-failed", 412, "A precondition does not hold";
    /// The range cannot be satisfied.
    RangeNotSatisfiable = "range-not-satisfiable", 416, "The range cannot be satisfied";
    /// Too many requests.
    RateLimited = "rate-limited", 429, "Too many requests";
    /// Something failed that is not the caller's doing.
    Internal = "internal", 500, "Something failed on our side";
    /// A plugin answered a request of the host's gateway with a failure, or panicked.
    PluginFailed = "plugin-failed", 502, "The plugin failed";
    /// A plugin that answers this path is not ready.
    PluginUnavailable = "plugin-unavailable", 503, "The plugin is not ready";
    /// A plugin did not answer in time.
    PluginTimeout = "plugin-timeout", 504, "The plugin did not answer in time";
    /// A service that is needed does not answer. Trying again later is right.
    Unavailable = "unavailable", 503, "A needed service does not answer";
}

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// Where: a JSON pointer, a file with line and column, or an archive entry.
    pub place: String,
    /// The rule, and the way out.
    pub rule: String,
}

/// A problem as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:modunest:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// This occurrence, in words.
    pub detail: String,
    /// The request's trace, for whoever is asked about it.
    pub trace_id: String,
    /// Each broken rule, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

impl Problem {
    /// A problem of one reason.
    pub fn new(code: Code, detail: impl Into<String>, trace_id: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:modunest:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            trace_id: trace_id.into(),
            errors: Vec::new(),
        }
    }

    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and numbers has no value that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A refusal by a decision: what becomes a [`Problem`] once the trace is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The reason.
    pub code: Code,
    /// This occurrence, in words.
    pub detail: String,
    /// Each broken rule, where there are several.
    pub errors: Vec<FieldProblem>,
}

impl Refusal {
    /// A refusal of one reason.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Refusal { code, detail: detail.into(), errors: Vec::new() }
    }

    /// The problem to send.
    pub fn into_problem(self, trace_id: impl Into<String>) -> Problem {
        Problem { errors: self.errors, ..Problem::new(self.code, self.detail, trace_id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_travel() {
        let mut texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()));
            let problem = Problem::new(*code, "detail", "4bf9");
            let back: Problem = serde_json::from_slice(&problem.to_json()).unwrap();
            assert_eq!(back, problem);
        }
    }
}
