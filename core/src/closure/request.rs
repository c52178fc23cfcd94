//! What a host asks for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::PluginName;
use crate::problem::{Code, FieldProblem, Refusal};
use crate::relation::HostFacts;
use crate::resolve::Root;

/// Longest body of a request, in bytes, as of any request to the API: 500 plugins, the most
/// that we plan for on one host, take 35 KB with names of usual length.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Most plugins in one request: twice those of the largest host.
pub const REQUEST_PLUGINS_MAX: usize = 1_000;

/// What a host wants and what it is.
///
/// ```json
/// {"plugins":[{"plugin":"demo/gallery","requirement":"^1"}],
///  "host":{"version":"0.1.0","target":"x86_64-unknown-linux-gnu","libc":"2.36","abi":[1,1]}}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClosureRequest {
    /// The plugins, at least one.
    pub plugins: Vec<Root>,
    /// What the host can run; releases that it cannot run are not followed. Without it, all
    /// are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFacts>,
    /// The host has everything about these plugins and their organisations up to this size of
    /// the log, in entries. What it wants is how they stand now: index files that did not grow
    /// since are left out, statements before are not proven again, and nobody's dependencies
    /// are followed. With 0, these plugins alone, from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Why a body is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`REQUEST_MAX_BYTES`].
    #[error("the body has more than {REQUEST_MAX_BYTES} bytes")]
    TooLarge,
    /// A rule is broken at a place.
    #[error("{place}: {rule}")]
    Rule {
        /// A JSON pointer (RFC 6901), or line and column where it is not even JSON of this form.
        place: String,
        /// The rule.
        rule: String,
    },
}

impl RequestError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            RequestError::TooLarge => Refusal::new(
                Code::TooLarge,
                format!("A request for a closure has a body of at most {REQUEST_MAX_BYTES} bytes."),
            ),
            RequestError::Rule { place, rule } => {
                let problem = FieldProblem { place: place.clone(), rule: rule.clone() };
                let detail = format!("The request for a closure is malformed at {place}: {rule}.");
                Refusal { errors: vec![problem], ..Refusal::new(Code::InvalidRequest, detail) }
            }
        }
    }
}

/// The JSON's form, before its texts are read: so each error can say where it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with \"plugins\"")]
struct Form {
    plugins: Vec<RootForm>,
    #[serde(default)]
    host: Option<Value>,
    #[serde(default)]
    since: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with \"plugin\" and \"requirement\"")]
struct RootForm {
    plugin: String,
    requirement: String,
}

impl ClosureRequest {
    /// A request for as many of `roots` as one request holds, from the first on. The others
    /// are read one by one, like everything else that an answer lacks.
    pub fn fitting(
        roots: impl IntoIterator<Item = Root>,
        host: Option<HostFacts>,
        since: Option<u64>,
    ) -> Self {
        let mut request = ClosureRequest { plugins: Vec::new(), host, since };
        let mut left_bytes = REQUEST_MAX_BYTES.saturating_sub(request.to_json().len());
        for root in roots {
            // A comma follows each but the last.
            let size_bytes = serde_json::to_vec(&root).map_or(usize::MAX, |json| json.len() + 1);
            if request.plugins.len() == REQUEST_PLUGINS_MAX || size_bytes > left_bytes {
                break;
            }
            left_bytes -= size_bytes;
            request.plugins.push(root);
        }
        request
    }

    /// The body.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers has no value that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// The first broken rule, with its place.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let rule = |place: String, rule: String| RequestError::Rule { place, rule };
        if body.len() > REQUEST_MAX_BYTES {
            return Err(RequestError::TooLarge);
        }
        let form: Form = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            rule(place, text.to_owned())
        })?;
        if form.plugins.is_empty() || form.plugins.len() > REQUEST_PLUGINS_MAX {
            let text = format!("there are 1 to {REQUEST_PLUGINS_MAX} plugins");
            return Err(rule("/plugins".to_owned(), text));
        }
        let mut plugins = Vec::with_capacity(form.plugins.len());
        for (position, root) in form.plugins.iter().enumerate() {
            let at = |field: &str| format!("/plugins/{position}/{field}");
            let plugin: PluginName =
                root.plugin.parse().map_err(|error| rule(at("plugin"), format!("{error}")))?;
            let requirement = root
                .requirement
                .parse()
                .map_err(|error| rule(at("requirement"), format!("{error}")))?;
            plugins.push(Root { plugin, requirement });
        }
        let host = form
            .host
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| rule("/host".to_owned(), error.to_string()))?;
        Ok(ClosureRequest { plugins, host, since: form.since })
    }
}
