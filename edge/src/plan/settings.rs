//! The settings of a shell that reads them as text: the worker's variables.

use modunest_core::api::{Discovery, PROTOCOL_VERSION};
use modunest_core::closure::Limits;

/// Origins that may be configured besides the bucket.
const ORIGIN_VARIABLES: [&str; 2] = ["ORIGIN_URL", "SECOND_ORIGIN_URL"];

/// Subrequests for an object beside those to origins, where the platform's cache is asked
/// first: looking it up there, and putting it there (Workers, Limits, "Subrequests").
const CACHE_SUBREQUESTS: usize = 2;

/// What the worker needs to know, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The discovery document.
    pub discovery: Discovery,
    /// Where this server is reached, without a slash at the end.
    pub public_url: String,
    /// Where requests below `/v1/` go, without a slash at the end. `None` serves files only.
    pub api_url: Option<String>,
    /// Whom to ask for objects, in this order.
    pub origins: Vec<OriginUrl>,
}

/// Where objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginUrl {
    /// The bucket that is bound to the worker.
    Bucket,
    /// A server whose paths below this URL are the bucket's keys. No slash at the end.
    Http(String),
}

/// Why the settings cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A variable is missing.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable is no URL of the form that it takes.
    #[error("{name} is http://HOST[:PORT] or https://HOST[:PORT], {path}, not {value:?}")]
    Url {
        /// The variable.
        name: &'static str,
        /// Whether a path may follow, in words.
        path: &'static str,
        /// What it holds.
        value: String,
    },
}

impl Settings {
    /// Reads the settings; `variable` gives a variable's text. An empty one is not set.
    ///
    /// # Errors
    /// The first variable that is missing or malformed.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
        let text = |name: &'static str| {
            let text = variable(name)?;
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let needed = |name| text(name).ok_or(SettingsError::Missing(name));
        let public_url = origin(needed("PUBLIC_URL")?, "PUBLIC_URL")?;
        let api_url = text("API_URL").map(|url| origin(url, "API_URL")).transpose()?;
        let [first, second] = ORIGIN_VARIABLES
            .map(|name| text(name).map(|value| base(value, name).map(OriginUrl::Http)).transpose());
        let mut origins = vec![first?.unwrap_or(OriginUrl::Bucket)];
        origins.extend(second?);
        let discovery = Discovery {
            protocols: vec![PROTOCOL_VERSION],
            origin: needed("REGISTRY_ORIGIN")?,
            api: format!("{public_url}/v1/"),
            files: format!("{public_url}/"),
            keys: needed("REGISTRY_KEYS")?.split_whitespace().map(str::to_owned).collect(),
        };
        Ok(Settings { discovery, public_url, api_url, origins })
    }

    /// Whether objects come from a server, so that the platform's cache is nearer.
    pub fn any_server(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, OriginUrl::Http(_)))
    }

    /// What one closure may read in the worker. [`Limits::WORKER`] is for objects that take
    /// one subrequest each; here each may take one to every origin, and those to the cache:
    /// 750 of the bucket, 250 of one server, 187 when there is a second. Tiles are not in the
    /// cache.
    pub fn closure_limits(&self) -> Limits {
        let cache = if self.any_server() { CACHE_SUBREQUESTS } else { 0 };
        let origins = self.origins.len().max(1);
        let objects = Limits::WORKER.objects / (origins + cache);
        let tiles = Limits::WORKER.tiles / origins;
        Limits { objects, tiles, ..Limits::WORKER }
    }
}

/// A URL of scheme, host and port.
fn origin(value: String, name: &'static str) -> Result<String, SettingsError> {
    let bare = base(value.clone(), name)?;
    let (_, rest) = bare.split_once("://").unwrap_or_default();
    if rest.contains('/') {
        return Err(SettingsError::Url { name, path: "without a path", value });
    }
    Ok(bare)
}

/// A URL without user, query and fragment.
fn base(value: String, name: &'static str) -> Result<String, SettingsError> {
    let bare = value.strip_suffix('/').unwrap_or(&value);
    let rest = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://"));
    let plain = |rest: &str| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\\\"<>`".contains(&b))
            && rest.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
    };
    if rest.is_some_and(plain) {
        return Ok(bare.to_owned());
    }
    let path =
        if name.ends_with("ORIGIN_URL") { "with or without a path" } else { "without a path" };
    Err(SettingsError::Url { name, path, value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(changes: &[(&'static str, &str)]) -> Result<Settings, SettingsError> {
        let mut all = BTreeMap::from([
            ("REGISTRY_ORIGIN", "example.org".to_owned()),
            ("REGISTRY_KEYS", " a+00aa11bb+AQ==  b+00aa11bb+AQ==\n".to_owned()),
            ("PUBLIC_URL", "https://example.org/".to_owned()),
        ]);
        all.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Settings::read(|name| all.get(name).cloned())
    }

    #[test]
    fn the_least_that_works() {
        let settings = read(&[("API_URL", ""), ("ORIGIN_URL", "")]).unwrap();
        assert_eq!(settings.origins, [OriginUrl::Bucket]);
        assert_eq!(settings.api_url, None);
        assert_eq!(settings.discovery.api, "https://example.org/v1/");
        assert_eq!(settings.discovery.files, "https://example.org/");
        assert_eq!(settings.discovery.keys, ["a+00aa11bb+AQ==", "b+00aa11bb+AQ=="]);
    }

    #[test]
    fn origins_are_asked_in_this_order() {
        let url = |url: &str| OriginUrl::Http(url.to_owned());
        let second = ("SECOND_ORIGIN_URL", "https://b.example/x/y/");
        let settings = read(&[("ORIGIN_URL", "http://a.example:8080"), second]).unwrap();
        assert_eq!(settings.origins, [url("http://a.example:8080"), url("https://b.example/x/y")]);
        assert_eq!(
            read(&[second]).unwrap().origins,
            [OriginUrl::Bucket, url("https://b.example/x/y")]
        );
    }

    /// The head takes a subrequest to each origin, and is in no cache.
    #[test]
    fn a_closure_stays_within_the_platforms_subrequests() {
        const SUBREQUESTS_MAX: usize = 1_000;
        let first = ("ORIGIN_URL", "https://a.example");
        let second = ("SECOND_ORIGIN_URL", "https://b.example");
        for (changes, objects, each) in
            [(&[][..], 750, 1), (&[first], 250, 3), (&[second], 187, 4), (&[first, second], 187, 4)]
        {
            let settings = read(changes).unwrap();
            assert_eq!(settings.closure_limits().objects, objects, "{changes:?}");
            assert!(objects * each + settings.origins.len() < SUBREQUESTS_MAX);
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        for name in ["REGISTRY_ORIGIN", "REGISTRY_KEYS", "PUBLIC_URL"] {
            assert_eq!(read(&[(name, " ")]), Err(SettingsError::Missing(name)));
        }
        for (name, value) in [
            ("PUBLIC_URL", "example.org"),
            ("PUBLIC_URL", "https://example.org/path"),
            ("API_URL", "ftp://example.org"),
            ("API_URL", "https://user@example.org"),
            ("API_URL", "https://"),
            ("ORIGIN_URL", "https://example.org/?list"),
            ("ORIGIN_URL", "https://example.org/a/../b"),
            ("ORIGIN_URL", "https://example.org//"),
            ("SECOND_ORIGIN_URL", "https://exa mple.org"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(matches!(&error, SettingsError::Url { .. }), "{name} {value}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(value), "{text}");
        }
    }
}
