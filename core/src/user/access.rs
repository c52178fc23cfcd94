//! Who may use a path: the operator's rules, in their order.
//!
//! The first rule that covers plugin and path decides. Where none does, anybody may, as long as
//! the host knows no issuer; once it knows one, a user is needed. So a host with users is closed
//! until it is opened, path by path.

use super::User;
use crate::name::PluginName;

/// All rules of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access<P> {
    /// In the operator's order.
    pub rules: Vec<Rule<P>>,
    /// Whether the host knows users at all.
    pub has_issuers: bool,
}

impl<P> Default for Access<P> {
    fn default() -> Self {
        Access { rules: Vec::new(), has_issuers: false }
    }
}

/// One rule. `P` is what names plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<P> {
    /// Plugins that it covers; all where there is none.
    pub plugins: Vec<P>,
    /// Segments of paths that it covers, with everything below; all where there is none.
    pub paths: Vec<Vec<String>>,
    /// Roles, one of which is needed; any user will do where there is none.
    pub roles: Vec<String>,
    /// Whether nobody will do as well.
    pub anonymous: bool,
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A token is needed.
    #[error("a token of a user is needed here")]
    Anonymous,
    /// The user lacks a role.
    #[error("one of these roles is needed here: {}", .0.join(", "))]
    Roles(Vec<String>),
    /// The path means one thing to some readers and another to others.
    #[error("the path is spelled in a way that is not allowed here")]
    Path,
}

/// Whether the user, or nobody, may use `path` of `plugin`.
///
/// # Errors
/// Why not.
pub fn decide<P>(
    access: &Access<P>,
    covers: impl Fn(&P, &PluginName) -> bool,
    plugin: &PluginName,
    path: &str,
    user: Option<&User>,
) -> Result<(), Denied> {
    if access.rules.is_empty() && !access.has_issuers {
        return Ok(());
    }
    let asked = segments(path).ok_or(Denied::Path)?;
    let rule = access.rules.iter().find(|rule| {
        let plugins =
            rule.plugins.is_empty() || rule.plugins.iter().any(|pattern| covers(pattern, plugin));
        plugins && (rule.paths.is_empty() || rule.paths.iter().any(|path| asked.starts_with(path)))
    });
    match (rule, user) {
        (Some(rule), _) if rule.anonymous => Ok(()),
        (None, None) if !access.has_issuers => Ok(()),
        (_, None) => Err(Denied::Anonymous),
        (Some(rule), Some(user)) => {
            let holds = |role: &String| user.roles.binary_search(role).is_ok();
            if rule.roles.is_empty() || rule.roles.iter().any(holds) {
                Ok(())
            } else {
                Err(Denied::Roles(rule.roles.clone()))
            }
        }
        (None, Some(_)) => Ok(()),
    }
}

/// The segments of a path, decoded; `None` where readers may differ about it: an encoded
/// separator, a dot segment, a NUL, an escape that is none. Rules compare these, so that
/// `/%61dmin` is `/admin`.
pub fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect()
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    let ambiguous =
        text.contains(['/', '\\', '\0', '%']) || matches!(text.as_str(), "" | "." | "..");
    (!ambiguous).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::time::Timestamp;

    fn user(roles: &[&str]) -> User {
        User {
            subject: "ada".into(),
            issuer: "i".into(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            expires_at: Timestamp::from_millis(1),
            claims: Default::default(),
        }
    }

    fn rule(plugins: &[&str], paths: &[&str], roles: &[&str], anonymous: bool) -> Rule<String> {
        Rule {
            plugins: plugins.iter().map(|p| (*p).to_owned()).collect(),
            paths: paths.iter().map(|p| segments(p).unwrap()).collect(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            anonymous,
        }
    }

    fn ask(access: &Access<String>, path: &str, user: Option<&User>) -> Result<(), Denied> {
        let covers = |pattern: &String, plugin: &PluginName| pattern == plugin.as_str();
        decide(access, covers, &"demo/one".parse().unwrap(), path, user)
    }

    #[test]
    fn a_host_without_users_is_open_and_one_with_users_is_closed() {
        let open = Access { rules: vec![], has_issuers: false };
        assert_eq!(ask(&open, "/a/%2e%2e", None), Ok(()));
        let closed = Access { has_issuers: true, ..open };
        assert_eq!(ask(&closed, "/a", None), Err(Denied::Anonymous));
        assert_eq!(ask(&closed, "/a", Some(&user(&[]))), Ok(()));
    }

    #[test]
    fn the_first_rule_that_covers_decides() {
        let rules = vec![
            rule(&["demo/other"], &[], &[], true),
            rule(&[], &["/admin", "/x/y"], &["admin", "staff"], false),
            rule(&["demo/one"], &["/public"], &[], true),
        ];
        let access = Access { rules, has_issuers: true };
        let needed = Denied::Roles(vec!["admin".into(), "staff".into()]);
        assert_eq!(ask(&access, "/admin/below", None), Err(Denied::Anonymous));
        assert_eq!(ask(&access, "/admin", Some(&user(&["reader"]))), Err(needed.clone()));
        assert_eq!(ask(&access, "/admin", Some(&user(&["reader", "staff"]))), Ok(()));
        assert_eq!(ask(&access, "/x/y/z", Some(&user(&[]))), Err(needed.clone()));
        assert_eq!(ask(&access, "/x", Some(&user(&[]))), Ok(()));
        assert_eq!(ask(&access, "/public/x", None), Ok(()));
        assert_eq!(ask(&access, "/publicity", None), Err(Denied::Anonymous));
        // No spelling leads around a rule.
        for path in ["/%61dmin", "//admin", "/admin//x", "/%61%64%6D%69%6e/"] {
            assert_eq!(ask(&access, path, Some(&user(&[]))), Err(needed.clone()), "{path}");
        }
        for path in [
            "/public%2f..%2fadmin",
            "/public/%2e%2e/admin",
            "/a%5cb",
            "/a%00",
            "/a%zz",
            "/a%",
            "/%2561dmin",
            "/%ff",
        ] {
            assert_eq!(ask(&access, path, Some(&user(&["admin"]))), Err(Denied::Path), "{path}");
        }
    }
}
