//! What a plugin may use: what it asks for, as far as it was granted.
//!
//! [`effective`] is the whole decision, and the same below every version of every interface:
//! a host works it out once, before it loads a plugin, and every operation asks
//! [`Effective::allows`] only.

use serde::Serialize;

use super::{Capability, HostPattern};

/// What needs no grant, as a group or as one capability of it, and why not. An operator who
/// sees it otherwise says `defaults = false` in the plugin's `[[grant]]`.
pub const FREE: [(&str, &str); 6] = [
    ("files:private", "a folder of the plugin's own, bounded by its quota"),
    ("kv", "stores that only the plugin sees, bounded by its quota"),
    ("clock", "every processor tells the time anyway"),
    ("random", "random numbers tell nothing about the host"),
    ("services", "the exporting plugin is a declared dependency, and the call goes by the host"),
    ("events", "as services"),
];

/// Whether a plugin may use this without a grant.
pub fn is_free(capability: &Capability) -> bool {
    let text = capability.to_string();
    FREE.iter().any(|(free, _)| *free == text || *free == capability.group())
}

/// What came of one capability that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "parts")]
pub enum Outcome {
    /// All of it was granted.
    Granted,
    /// These parts of it were granted, at least one.
    Narrowed(Vec<Capability>),
    /// Nothing of it was granted.
    Refused,
}

/// One capability that was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What was asked for.
    pub asked: Capability,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a plugin may use, and what became of what it asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    decisions: Vec<Decision>,
    allowed: Vec<Capability>,
}

/// Request ∩ grant: allows exactly what both cover.
pub fn effective(requested: &[Capability], granted: &[Capability]) -> Effective {
    let decide = |asked: &Capability| {
        if granted.iter().any(|grant| grant.covers(asked)) {
            return Outcome::Granted;
        }
        let mut parts: Vec<Capability> = Vec::new();
        for part in granted.iter().filter_map(|grant| grant.meet(asked)) {
            if !parts.iter().any(|other| other.covers(&part)) {
                parts.retain(|other| !part.covers(other));
                parts.push(part);
            }
        }
        if parts.is_empty() { Outcome::Refused } else { Outcome::Narrowed(parts) }
    };
    let mut result = Effective::default();
    for asked in requested {
        let outcome = decide(asked);
        match &outcome {
            Outcome::Granted => result.allowed.push(asked.clone()),
            Outcome::Narrowed(parts) => result.allowed.extend(parts.iter().cloned()),
            Outcome::Refused => {}
        }
        result.decisions.push(Decision { asked: asked.clone(), outcome });
    }
    result
}

impl Effective {
    /// Whether the plugin may do what `used` describes.
    pub fn allows(&self, used: &Capability) -> bool {
        self.allowed.iter().any(|allowed| allowed.covers(used))
    }

    /// Whether it may send requests to a DNS name, in lower case and without a dot at its end,
    /// at a port.
    pub fn allows_host(&self, name: &str, port: u16) -> bool {
        self.hosts().any(|pattern| pattern.allows(name, port))
    }

    /// Whether exactly this host is allowed by its name, not by a pattern around it: what an
    /// address in digits, and a name that is known to be the host itself, need.
    pub fn names_host(&self, name: &str, port: u16) -> bool {
        self.hosts().any(|pattern| pattern.names(name, port))
    }

    fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.allowed.iter().filter_map(|allowed| match allowed {
            Capability::Http(pattern) => Some(pattern),
            _ => None,
        })
    }

    /// Everything that is allowed; nothing in it goes beyond what was asked for or granted.
    pub fn allowed(&self) -> &[Capability] {
        &self.allowed
    }

    /// What became of each capability, in the order of the request.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// What was asked for and refused altogether.
    pub fn refused(&self) -> impl Iterator<Item = &Capability> {
        self.decisions
            .iter()
            .filter(|decision| decision.outcome == Outcome::Refused)
            .map(|decision| &decision.asked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn list(texts: &[&str]) -> Vec<Capability> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nothing_beyond_either_side() {
        let asked = [
            "files:private",
            "files:read:/srv",
            "http:*.example.org",
            "http:other.example",
            "env:TZ",
            "kv:cache",
        ];
        let granted = [
            "files:write:/srv/photos",
            "files:read:/srv/photos/old",
            "http:api.example.org:443",
            "http:*.b.example.org",
            "env:HOME",
            "kv:cache",
        ];
        let result = effective(&list(&asked), &list(&granted));
        let outcomes: Vec<_> = result.decisions().iter().map(|d| d.outcome.clone()).collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Refused,
                Outcome::Narrowed(list(&["files:read:/srv/photos"])),
                Outcome::Narrowed(list(&["http:api.example.org:443", "http:*.b.example.org"])),
                Outcome::Refused,
                Outcome::Refused,
                Outcome::Granted,
            ]
        );
        assert!(
            result.allows_host("api.example.org", 443) && result.allows_host("a.b.example.org", 1)
        );
        assert!(
            !result.allows_host("api.example.org", 80) && !result.allows_host("example.org", 443)
        );
        assert!(
            result.names_host("api.example.org", 443) && !result.names_host("a.b.example.org", 1)
        );
        assert_eq!(result.refused().count(), 3);
    }

    #[test]
    fn what_is_free() {
        for (text, free) in [
            ("files:private", true),
            ("files:read:/srv", false),
            ("files:write:/srv", false),
            ("http:api.example.org", false),
            ("kv:cache", true),
            ("clock:wall", true),
            ("random:secure", true),
            ("env:TZ", false),
            ("services:demo/markdown:render", true),
            ("events:demo/markdown:changed", true),
        ] {
            assert_eq!(is_free(&text.parse().unwrap()), free, "{text}");
        }
    }

    /// Few enough that requests and grants meet often.
    fn capability() -> impl Strategy<Value = Capability> {
        let path = prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c", "/ab", "/b"]);
        let host = prop::sample::select(vec![
            "a.example.org",
            "b.a.example.org",
            "*.example.org",
            "*.a.example.org",
            "example.org",
        ]);
        let port = prop::sample::select(vec!["", ":80", ":443"]);
        prop_oneof![
            path.clone().prop_map(|path| format!("files:read:{path}")),
            path.prop_map(|path| format!("files:write:{path}")),
            (host, port).prop_map(|(host, port)| format!("http:{host}{port}")),
            prop::sample::select(vec!["files:private", "kv:aa", "kv:bb", "env:A", "random:secure"])
                .prop_map(str::to_owned),
        ]
        .prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// The intersection, told the long way round.
        #[test]
        fn allows_what_request_and_grant_both_cover(
            requested in prop::collection::vec(capability(), 0..5),
            granted in prop::collection::vec(capability(), 0..5),
            used in capability(),
        ) {
            let result = effective(&requested, &granted);
            let both = [&requested, &granted]
                .iter()
                .all(|side| side.iter().any(|capability| capability.covers(&used)));
            prop_assert_eq!(result.allows(&used), both);
            for allowed in result.allowed() {
                prop_assert!(requested.iter().any(|asked| asked.covers(allowed)));
                prop_assert!(granted.iter().any(|grant| grant.covers(allowed)));
            }
            prop_assert_eq!(result.decisions().len(), requested.len());
        }

        /// More grants never allow less, and a grant of everything asked for refuses nothing.
        #[test]
        fn grants_only_add(
            requested in prop::collection::vec(capability(), 0..5),
            granted in prop::collection::vec(capability(), 0..5),
            more in capability(),
            used in capability(),
        ) {
            let before = effective(&requested, &granted);
            let after = effective(&requested, &[granted, vec![more]].concat());
            prop_assert!(!before.allows(&used) || after.allows(&used));
            prop_assert_eq!(effective(&requested, &requested).refused().count(), 0);
        }
    }
}
