//! Capabilities: what a plugin asks of the host's operator beyond computing.
//!
//! A capability is declared in the manifest's `[capabilities]`, repeated in the release
//! statement as `group:detail`, granted by the operator in the same words, and enforced by
//! the host. [`Capability::covers`] says what a grant means; [`effective`] is the whole of the
//! decision.

mod effective;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{PluginName, ServiceName};

pub use effective::{Decision, Effective, FREE, Outcome, effective, is_free};

/// Longest capability as text, in bytes.
pub const CAPABILITY_MAX_BYTES: usize = 255;

/// The manifest's groups, in the order of [`Capability`].
pub const GROUPS: [&str; 8] =
    ["files", "http", "kv", "clock", "random", "env", "services", "events"];

/// Something that a plugin may be allowed to use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// `files:private`: a folder of its own, read and write.
    PrivateFiles,
    /// `files:read:/path`: read below an absolute path of the host.
    ReadFiles(String),
    /// `files:write:/path`: read and write below an absolute path of the host.
    WriteFiles(String),
    /// `http:api.example.org`, `http:*.example.org`, `http:example.org:8443`: requests out.
    Http(HostPattern),
    /// `kv:name`: a key-value store of its own.
    Kv(ServiceName),
    /// `clock:wall` or `clock:monotonic`.
    Clock(Clock),
    /// `random:secure`: random numbers from the operating system.
    Random,
    /// `env:NAME`: one environment variable, read.
    Env(String),
    /// `services:org/plugin:service`: call a service.
    Services(PluginItem),
    /// `events:org/plugin:topic`: receive an event.
    Events(PluginItem),
}

/// A kind of clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Clock {
    /// Time of day.
    Wall,
    /// Time passed.
    Monotonic,
}

/// A host of outbound requests: DNS name, first label perhaps `*`, and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// Whether any one or more labels may stand before `name`.
    wildcard: bool,
    name: String,
    port: Option<u16>,
}

/// A service, guard or event of a plugin: `org/plugin:item`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginItem {
    /// The plugin.
    pub plugin: PluginName,
    /// Name within the plugin.
    pub item: ServiceName,
}

/// The text names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No such group.
    #[error(
        "there is no capability group \"{0}\"; the groups are files, http, kv, clock, random, env, services, events"
    )]
    Group(String),
    /// The group has no such detail.
    #[error("\"{text}\" is nothing that {group} can grant; write {expected}")]
    Detail {
        /// The group.
        group: &'static str,
        /// The refused text.
        text: String,
        /// What the group understands.
        expected: &'static str,
    },
}

impl Capability {
    /// Reads one entry of the manifest's list `group`.
    ///
    /// # Errors
    /// The group or the detail is unknown.
    pub fn parse(group: &str, detail: &str) -> Result<Self, CapabilityError> {
        let Some(group) = GROUPS.into_iter().find(|known| *known == group) else {
            return Err(CapabilityError::Group(group.chars().take(40).collect()));
        };
        let parsed = if group.len() + 1 + detail.len() > CAPABILITY_MAX_BYTES {
            None
        } else {
            match group {
                "files" => files(detail),
                "http" => detail.parse().ok().map(Capability::Http),
                "kv" => detail.parse().ok().map(Capability::Kv),
                "clock" => match detail {
                    "wall" => Some(Capability::Clock(Clock::Wall)),
                    "monotonic" => Some(Capability::Clock(Clock::Monotonic)),
                    _ => None,
                },
                "random" => (detail == "secure").then_some(Capability::Random),
                "env" => variable(detail).then(|| Capability::Env(detail.to_owned())),
                "services" => detail.parse().ok().map(Capability::Services),
                _ => detail.parse().ok().map(Capability::Events),
            }
        };
        parsed.ok_or_else(|| CapabilityError::Detail {
            group,
            text: detail.chars().take(120).collect(),
            expected: expected(group),
        })
    }

    /// The group, as in [`GROUPS`].
    pub fn group(&self) -> &'static str {
        match self {
            Capability::PrivateFiles | Capability::ReadFiles(_) | Capability::WriteFiles(_) => {
                "files"
            }
            Capability::Http(_) => "http",
            Capability::Kv(_) => "kv",
            Capability::Clock(_) => "clock",
            Capability::Random => "random",
            Capability::Env(_) => "env",
            Capability::Services(_) => "services",
            Capability::Events(_) => "events",
        }
    }

    /// Whether a grant of `self` allows `asked`. A folder covers what is below it, writing
    /// covers reading, a wildcard covers the names before it, and a host without port covers
    /// every port. Everything else covers only itself.
    pub fn covers(&self, asked: &Capability) -> bool {
        match (self, asked) {
            (
                Capability::ReadFiles(granted) | Capability::WriteFiles(granted),
                Capability::ReadFiles(path),
            )
            | (Capability::WriteFiles(granted), Capability::WriteFiles(path)) => {
                granted == "/"
                    || path
                        .strip_prefix(granted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            (Capability::Http(granted), Capability::Http(asked)) => granted.covers(asked),
            (granted, asked) => granted == asked,
        }
    }

    /// What both cover, where that is anything: of two folders the inner one, of two hosts the
    /// one that is within the other.
    fn meet(&self, other: &Capability) -> Option<Capability> {
        if self.covers(other) {
            return Some(other.clone());
        }
        if other.covers(self) {
            return Some(self.clone());
        }
        match (self, other) {
            (Capability::WriteFiles(writable), Capability::ReadFiles(readable))
            | (Capability::ReadFiles(readable), Capability::WriteFiles(writable)) => {
                // Neither covers the other, so the writable folder is the inner one, if any.
                let inner = Capability::ReadFiles(writable.clone());
                Capability::ReadFiles(readable.clone()).covers(&inner).then_some(inner)
            }
            (Capability::Http(one), Capability::Http(two)) => one.meet(two).map(Capability::Http),
            _ => None,
        }
    }
}

fn expected(group: &str) -> &'static str {
    match group {
        "files" => "private, read:/absolute/path or write:/absolute/path",
        "http" => {
            "a lower-case host name such as api.example.org, *.example.org or example.org:8443"
        }
        "kv" => "a store's name such as cache",
        "clock" => "wall or monotonic",
        "random" => "secure",
        "env" => "a variable's name such as TZ",
        "services" => "organisation/plugin:service",
        _ => "organisation/plugin:event",
    }
}

fn files(detail: &str) -> Option<Capability> {
    if detail == "private" {
        return Some(Capability::PrivateFiles);
    }
    let (mode, path) = detail.split_once(':')?;
    let rest = path.strip_prefix('/')?;
    let good = rest.is_empty()
        || rest.split('/').all(|part| {
            !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == '\\')
        });
    match mode {
        "read" if good => Some(Capability::ReadFiles(path.to_owned())),
        "write" if good => Some(Capability::WriteFiles(path.to_owned())),
        _ => None,
    }
}

/// POSIX: upper-case letters, digits and underscores, not a digit first.
fn variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

impl HostPattern {
    /// Whether every host of `asked` is one of these.
    fn covers(&self, asked: &HostPattern) -> bool {
        self.covers_name(asked) && (self.port.is_none() || self.port == asked.port)
    }

    fn covers_name(&self, asked: &HostPattern) -> bool {
        if self.wildcard {
            asked.name.strip_suffix(self.name.as_str()).is_some_and(|before| {
                before.ends_with('.') || (before.is_empty() && asked.wildcard)
            })
        } else {
            !asked.wildcard && self.name == asked.name
        }
    }

    fn meet(&self, other: &HostPattern) -> Option<HostPattern> {
        let inner = if self.covers_name(other) {
            other
        } else if other.covers_name(self) {
            self
        } else {
            return None;
        };
        let port = match (self.port, other.port) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.or(two),
        };
        Some(HostPattern { port, ..inner.clone() })
    }

    /// Whether a request to `host` and `port` is allowed. `host` is a DNS name in lower case,
    /// without a dot at its end.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.covers(&HostPattern { wildcard: false, name: host.to_owned(), port: Some(port) })
    }

    /// Whether it is of this one host, and allows the port.
    pub fn names(&self, host: &str, port: u16) -> bool {
        !self.wildcard && self.allows(host, port)
    }
}

impl FromStr for HostPattern {
    type Err = ();

    /// Labels as in RFC 1123, section 2.1. A wildcard needs two labels behind it, so that
    /// nobody asks for a whole top-level domain.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => {
                let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
                let port = digits.parse::<u16>().ok().filter(|_| plain).ok_or(())?;
                (host, Some(port))
            }
            None => (text, None),
        };
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        let labels = name.split('.').count();
        let good = name.len() <= 253 && name.split('.').all(label) && (!wildcard || labels >= 2);
        if good { Ok(HostPattern { wildcard, name: name.to_owned(), port }) } else { Err(()) }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for PluginItem {
    type Err = crate::name::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((plugin, item)) = text.split_once(':') else {
            return Err(crate::name::NameError::NotQualified {
                text: text.chars().take(120).collect(),
            });
        };
        Ok(PluginItem { plugin: plugin.parse()?, item: item.parse()? })
    }
}

impl fmt::Display for PluginItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.plugin, self.item)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.group())?;
        match self {
            Capability::PrivateFiles => f.write_str("private"),
            Capability::ReadFiles(path) => write!(f, "read:{path}"),
            Capability::WriteFiles(path) => write!(f, "write:{path}"),
            Capability::Http(host) => host.fmt(f),
            Capability::Kv(name) => name.fmt(f),
            Capability::Clock(Clock::Wall) => f.write_str("wall"),
            Capability::Clock(Clock::Monotonic) => f.write_str("monotonic"),
            Capability::Random => f.write_str("secure"),
            Capability::Env(name) => f.write_str(name),
            Capability::Services(item) | Capability::Events(item) => item.fmt(f),
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    /// Reads `group:detail`.
    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let (group, detail) = text.split_once(':').unwrap_or((text, ""));
        Capability::parse(group, detail)
    }
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::parsed(deserializer)
            }
        }
    )*};
}

serialize_as_text!(Capability, PluginItem);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(text: &str) -> Capability {
        text.parse().unwrap()
    }

    #[test]
    fn one_spelling() {
        for text in [
            "files:private",
            "files:read:/srv/photos",
            "files:write:/",
            "http:api.example.org",
            "http:*.example.org:8443",
            "http:localhost",
            "kv:cache",
            "clock:wall",
            "clock:monotonic",
            "random:secure",
            "env:TZ",
            "services:demo/markdown:render",
            "events:demo/markdown:changed",
        ] {
            assert_eq!(of(text).to_string(), text);
        }
        for bad in [
            "",
            "files",
            "files:",
            "files:read:srv",
            "files:read:/a/../b",
            "files:read:/a/",
            "disk:x",
            "http:",
            "http:API.example.org",
            "http:*",
            "http:*.org",
            "http:a:0",
            "http:a:080",
            "http:a:65536",
            "http:a:+1",
            "http:-a",
            "http:a..b",
            "http:https://a",
            "clock:now",
            "random:1",
            "env:path",
            "env:1A",
            "env:",
            "services:markdown",
            "services:demo/markdown",
            "kv:A",
        ] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
        assert!(format!("files:read:/{}", "a".repeat(300)).parse::<Capability>().is_err());
    }

    #[test]
    fn grants() {
        for (granted, asked) in [
            ("files:read:/srv", "files:read:/srv"),
            ("files:read:/srv", "files:read:/srv/photos"),
            ("files:write:/srv", "files:read:/srv/photos"),
            ("files:write:/", "files:write:/etc"),
            ("http:*.example.org", "http:a.example.org"),
            ("http:*.example.org", "http:a.b.example.org:1"),
            ("http:*.example.org", "http:*.b.example.org"),
            ("http:*.example.org", "http:*.example.org"),
            ("http:a.example.org", "http:a.example.org:8443"),
        ] {
            assert!(of(granted).covers(&of(asked)), "{granted} {asked}");
        }
        for (granted, asked) in [
            ("files:read:/srv", "files:read:/srv2"),
            ("files:read:/srv", "files:write:/srv"),
            ("files:private", "files:read:/srv"),
            ("http:*.example.org", "http:example.org"),
            ("http:*.example.org", "http:evilexample.org"),
            ("http:a.example.org:443", "http:a.example.org"),
            ("http:a.example.org", "http:*.example.org"),
            ("http:example.org", "http:a.example.org"),
            ("kv:a-b", "kv:a-c"),
        ] {
            assert!(!of(granted).covers(&of(asked)), "{granted} {asked}");
        }
        let Capability::Http(pattern) = of("http:*.example.org:443") else { panic!() };
        assert!(pattern.allows("a.example.org", 443));
        assert!(!pattern.allows("a.example.org", 80));
    }
}
