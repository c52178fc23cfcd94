//! `[[issuer]]` and `[[access]]`: whose tokens are believed, and who may use what.
//!
//! ```toml
//! [[issuer]]
//! url = "https://id.example.org"     # as `iss` in its tokens
//! audience = "my-host"               # or a list; as `aud` in its tokens
//! jwks_url = "https://id.example.org/keys"   # found by discovery where it is missing
//! jwks_file = "keys.json"            # instead, for hosts without a network
//! algorithms = ["RS256", "ES256", "EdDSA"]   # the default
//! roles_claim = "realm_access.roles" # none where it is missing
//! role_map = { "grp-admins" = "admin", "grp-all" = ["reader", "writer"] }
//! required = { email_verified = true }
//! claims = ["email"]                 # handed on to plugins
//! skew_s = 60
//! keys_fresh_s = 600                 # then fetched again, beside the requests
//! keys_stale_s = 3600                # then no token is accepted until they can be fetched
//! keys_pause_s = 5                   # between two fetches, whoever asks
//!
//! [[access]]                         # the first rule that covers a request decides
//! plugins = ["demo/*"]               # all where it is missing
//! paths = ["/gallery/admin"]         # with everything below; all where it is missing
//! roles = ["admin"]                  # one of them is needed; any user where it is missing
//!
//! [[access]]
//! paths = ["/gallery"]
//! anonymous = true                   # nobody has to say who it is
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use modunest_core::user::{Access, Expected, Rule, segments};
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use url::Url;

use super::Pattern;
use super::read::Check;

/// What a token may be signed by.
const ALGORITHMS: [(&str, Algorithm); 3] =
    [("RS256", Algorithm::RS256), ("ES256", Algorithm::ES256), ("EdDSA", Algorithm::EdDSA)];
/// Most issuers, and most rules of access: more are a sign of a generated file gone wrong.
const LIST_MAX: usize = 1000;
/// Widest difference of clocks that is tolerated: ten times what is usual.
const SKEW_MAX_S: u64 = 600;

/// Whose tokens are believed, and who may use what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserSettings {
    /// Issuers of tokens.
    pub issuers: Vec<IssuerSettings>,
    /// Rules of access.
    pub access: Access<Pattern>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerSettings {
    /// What its tokens have to say.
    pub expected: Expected,
    /// Where its keys are.
    pub keys: KeysFrom,
    /// What its tokens may be signed by.
    pub algorithms: Vec<Algorithm>,
    /// How long its keys are believed.
    pub times: KeyTimes,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// At the address that its discovery document names.
    Discovery,
    /// At this address.
    Url(Url),
    /// In this file.
    File(PathBuf),
}

/// How long fetched keys are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// Older keys are fetched again, beside the requests that use them.
    pub fresh: Duration,
    /// Older keys are used no more. An issuer that withdrew a key has it believed for so long
    /// at most, by hosts that cannot reach it.
    pub stale_max: Duration,
    /// Least time between two fetches: strangers with invented key names cause one, not one
    /// each. A new key works so long after its first use at most.
    pub pause: Duration,
}

impl Default for KeyTimes {
    fn default() -> Self {
        KeyTimes {
            fresh: Duration::from_secs(10 * 60),
            stale_max: Duration::from_secs(60 * 60),
            pause: Duration::from_secs(5),
        }
    }
}

impl IssuerSettings {
    /// An issuer in code: keys by discovery, all algorithms, no roles.
    pub fn new(issuer: &str, audience: &str) -> Self {
        IssuerSettings {
            expected: Expected {
                issuer: issuer.to_owned(),
                audience: vec![audience.to_owned()],
                skew: Duration::from_secs(60),
                ..Expected::default()
            },
            keys: KeysFrom::Discovery,
            algorithms: ALGORITHMS.map(|(_, algorithm)| algorithm).to_vec(),
            times: KeyTimes::default(),
        }
    }
}

/// Whether keys may come from there: nobody between may exchange them.
pub(crate) fn is_safe(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerTable {
    url: Spanned<String>,
    audience: Spanned<Words>,
    jwks_url: Option<Spanned<String>>,
    jwks_file: Option<Spanned<PathBuf>>,
    algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    roles_claim: Option<Spanned<String>>,
    role_map: Option<BTreeMap<String, Words>>,
    #[serde(default)]
    required: BTreeMap<String, Value>,
    #[serde(default)]
    claims: Vec<String>,
    skew_s: Option<Spanned<u64>>,
    keys_fresh_s: Option<Spanned<u64>>,
    keys_stale_s: Option<Spanned<u64>>,
    keys_pause_s: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessTable {
    #[serde(default)]
    plugins: Vec<Spanned<String>>,
    #[serde(default)]
    paths: Vec<Spanned<String>>,
    roles: Option<Spanned<Vec<String>>>,
    anonymous: Option<Spanned<bool>>,
}

/// One text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Words {
    fn into_vec(self) -> Vec<String> {
        match self {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }
    }
}

impl Check<'_> {
    pub(super) fn users(
        &mut self,
        issuers: Vec<Spanned<IssuerTable>>,
        access: Vec<Spanned<AccessTable>>,
        folder: &Path,
    ) -> UserSettings {
        for (key, length, first) in [
            ("issuer", issuers.len(), issuers.first().map(|table| table.span().start)),
            ("access", access.len(), access.first().map(|table| table.span().start)),
        ] {
            if length > LIST_MAX {
                let rule = format!("there are {length}, at most {LIST_MAX} are read");
                self.refuse(first.unwrap_or_default(), key, rule, "leave some out");
            }
        }
        let has_issuers = !issuers.is_empty();
        let mut known: Vec<IssuerSettings> = Vec::new();
        for table in issuers {
            let at = table.span().start;
            let issuer = self.issuer(table.into_inner(), folder);
            if known.iter().any(|other| other.expected.issuer == issuer.expected.issuer) {
                let rule = format!("{} stands here twice", issuer.expected.issuer);
                self.refuse(at, "issuer.url", rule, "keep one [[issuer]] of each url");
            }
            known.push(issuer);
        }
        let rules = access
            .into_iter()
            .map(|table| {
                let at = table.span().start;
                self.access(table.into_inner(), at, has_issuers)
            })
            .collect();
        UserSettings { issuers: known, access: Access { rules, has_issuers } }
    }

    fn issuer(&mut self, table: IssuerTable, folder: &Path) -> IssuerSettings {
        let (at, url) = (table.url.span().start, table.url.into_inner());
        if !Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            let rule = format!("\"{url}\" is not an http or https URL");
            self.refuse(at, "issuer.url", rule, "write it as `iss` has it in the issuer's tokens");
        }
        let audience_at = table.audience.span().start;
        let audience = table.audience.into_inner().into_vec();
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            let help = "write what `aud` has in tokens for this host: without it, tokens for anybody would do";
            self.refuse(audience_at, "issuer.audience", "is empty", help);
        }
        let keys = match (table.jwks_url, table.jwks_file) {
            (Some(url), Some(_)) => {
                let help = "keep the file where there is no network, the address elsewhere";
                self.refuse(url.span().start, "issuer.jwks_url", "stands beside jwks_file", help);
                KeysFrom::Discovery
            }
            (Some(text), None) => match Url::parse(text.get_ref()) {
                Ok(url) if is_safe(&url) => KeysFrom::Url(url),
                _ => {
                    let rule =
                        format!("\"{}\" is neither https nor http on loopback", text.get_ref());
                    let help = "whoever could exchange the keys could be anybody";
                    self.refuse(text.span().start, "issuer.jwks_url", rule, help);
                    KeysFrom::Discovery
                }
            },
            (None, Some(file)) => KeysFrom::File(folder.join(file.into_inner())),
            (None, None) => {
                if Url::parse(&url).is_ok_and(|url| !is_safe(&url)) {
                    let rule = "is neither https nor http on loopback, so its keys cannot be found";
                    let help = "name its keys by jwks_url or jwks_file";
                    self.refuse(at, "issuer.url", rule, help);
                }
                KeysFrom::Discovery
            }
        };
        let roles_claim: Vec<String> = table.roles_claim.map_or_else(Vec::new, |claim| {
            let steps: Vec<String> = claim.get_ref().split('.').map(str::to_owned).collect();
            if steps.iter().any(String::is_empty) {
                let help = "write a claim's name, or a path such as \"realm_access.roles\"";
                self.refuse(claim.span().start, "issuer.roles_claim", "has an empty step", help);
            }
            steps
        });
        if table.role_map.is_some() && roles_claim.is_empty() {
            let help = "name the claim that holds the words that role_map maps";
            self.refuse(at, "issuer.role_map", "stands without roles_claim", help);
        }
        let role_map = table
            .role_map
            .map(|map| map.into_iter().map(|(word, roles)| (word, roles.into_vec())).collect());
        let defaults = KeyTimes::default();
        let mut seconds = |key: &str, value: Option<Spanned<u64>>, max: u64, default: u64| {
            Duration::from_secs(self.number(key, value, (0, max), default))
        };
        const DAY_S: u64 = 24 * 60 * 60;
        let skew = seconds("issuer.skew_s", table.skew_s, SKEW_MAX_S, 60);
        let stale_at = table.keys_stale_s.as_ref().map_or(at, |value| value.span().start);
        let times = KeyTimes {
            fresh: seconds(
                "issuer.keys_fresh_s",
                table.keys_fresh_s,
                DAY_S,
                defaults.fresh.as_secs(),
            ),
            stale_max: seconds(
                "issuer.keys_stale_s",
                table.keys_stale_s,
                7 * DAY_S,
                defaults.stale_max.as_secs(),
            ),
            pause: seconds(
                "issuer.keys_pause_s",
                table.keys_pause_s,
                3600,
                defaults.pause.as_secs(),
            ),
        };
        if times.stale_max < times.fresh {
            let help = "keys that are still fresh cannot be too old";
            self.refuse(stale_at, "issuer.keys_stale_s", "is below keys_fresh_s", help);
        }
        let expected = Expected {
            issuer: url,
            audience,
            roles_claim,
            role_map,
            required: table.required,
            claims: table.claims,
            skew,
        };
        let algorithms = self.algorithms(table.algorithms);
        IssuerSettings { expected, keys, algorithms, times }
    }

    fn algorithms(&mut self, list: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<Algorithm> {
        let all = ALGORITHMS.map(|(_, algorithm)| algorithm).to_vec();
        let Some(list) = list else { return all };
        if list.get_ref().is_empty() {
            let help = "leave it out for all of RS256, ES256 and EdDSA";
            self.refuse(list.span().start, "issuer.algorithms", "is empty", help);
        }
        let mut chosen = Vec::new();
        for name in list.into_inner() {
            match ALGORITHMS.iter().find(|(known, _)| known == name.get_ref()) {
                Some((_, algorithm)) => chosen.push(*algorithm),
                None => {
                    let rule = format!("\"{}\" is not an algorithm of this host", name.get_ref());
                    let help = "there are RS256, ES256 and EdDSA: signatures that only the issuer can make";
                    self.refuse(name.span().start, "issuer.algorithms", rule, help);
                }
            }
        }
        chosen
    }

    fn access(&mut self, table: AccessTable, at: usize, has_issuers: bool) -> Rule<Pattern> {
        let mut plugins = Vec::new();
        for text in table.plugins {
            match text.get_ref().parse() {
                Ok(pattern) => plugins.push(pattern),
                Err(error) => {
                    let help = "write \"org/name\", or \"org/*\" for all of an organisation";
                    let error: modunest_core::name::NameError = error;
                    self.refuse(text.span().start, "access.plugins", error.to_string(), help);
                }
            }
        }
        let mut paths = Vec::new();
        for text in table.paths {
            match segments(text.get_ref()).filter(|_| text.get_ref().starts_with('/')) {
                Some(path) => paths.push(path),
                None => {
                    let rule = format!("\"{}\" is no path", text.get_ref());
                    let help = "begin with /, without . and .. and encoded slashes";
                    self.refuse(text.span().start, "access.paths", rule, help);
                }
            }
        }
        let anonymous = table.anonymous.as_ref().is_some_and(|anonymous| *anonymous.get_ref());
        let roles_at = table.roles.as_ref().map(|roles| roles.span().start);
        let roles = table.roles.map(Spanned::into_inner).unwrap_or_default();
        if let (true, Some(at)) = (anonymous, roles_at) {
            let help = "keep one of the two: who has no name has no role";
            self.refuse(at, "access.roles", "stands beside anonymous = true", help);
        }
        if !anonymous && !has_issuers {
            let help = "add an [[issuer]], or nobody can ever be let in";
            self.refuse(at, "access", "asks for a user where no issuer is known", help);
        }
        Rule { plugins, paths, roles, anonymous }
    }
}
