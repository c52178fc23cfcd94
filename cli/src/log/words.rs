//! Statements and keys in a person's words.

use modunest_core::statement::{KeyChange, SignedStatement, Statement};
use modunest_tlog::{Note, VerifyingKey};

/// `name+hash`: enough to tell a key from others by eye, and no proof of anything.
pub fn key_id(key: &VerifyingKey) -> String {
    identify(key.name().as_str(), key.hash())
}

/// `name+hash` of the key that a statement's signature line names.
pub fn signer_id(signed: &SignedStatement) -> Option<String> {
    let note = Note::parse(signed.bytes()).ok()?;
    note.signatures().first().map(|line| identify(line.name.as_str(), line.hash))
}

fn identify(name: &str, hash: [u8; 4]) -> String {
    format!("{name}+{:08x}", u32::from_be_bytes(hash))
}

/// The first two parts of a key's text.
fn short(key: &str) -> String {
    key.splitn(3, '+').take(2).collect::<Vec<_>>().join("+")
}

/// What a statement says, in a line.
pub fn say(statement: &Statement) -> String {
    let because =
        |reason: Option<&String>| reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    match statement {
        Statement::Release(it) => format!("{} {} is released", it.plugin, it.version),
        Statement::Yank(it) if it.yanked => {
            format!("{} {} is yanked{}", it.plugin, it.version, because(it.reason.as_ref()))
        }
        Statement::Yank(it) => format!("{} {} is no longer yanked", it.plugin, it.version),
        Statement::Deprecation(it) => {
            let what = match &it.version {
                Some(version) => format!("{} {version}", it.plugin),
                None => format!("all of {}", it.plugin),
            };
            if it.deprecated {
                format!("{what} is deprecated{}", because(it.message.as_ref()))
            } else {
                format!("{what} is no longer deprecated")
            }
        }
        Statement::Ownership(it) => format!("{} goes to {}", it.plugin, it.owner),
        Statement::Key(it) => {
            let (org, key) = (&it.org, short(&it.key));
            let why = because(it.reason.as_ref());
            match it.change {
                KeyChange::Add => format!("{key} may sign for {org} from here on{why}"),
                KeyChange::Rotate => {
                    let old = short(it.replaces.as_deref().unwrap_or_default());
                    format!("{key} takes the place of {old} for {org}{why}")
                }
                KeyChange::Revoke => {
                    format!("{key} is revoked: nothing that it signed for {org} is good{why}")
                }
            }
        }
        Statement::Verdict(it) => {
            format!("the scan of {} {} came to {}", it.plugin, it.version, it.outcome.as_str())
        }
        Statement::Quarantine(it) if it.quarantined => {
            format!("{} {} is quarantined ({})", it.plugin, it.version, it.reason)
        }
        Statement::Quarantine(it) => {
            format!("{} {} is no longer quarantined ({})", it.plugin, it.version, it.reason)
        }
        Statement::Trust(it) => {
            format!("{} has the trust level {}{}", it.plugin, it.level, because(it.reason.as_ref()))
        }
    }
}

#[cfg(test)]
mod tests {
    use modunest_core::digest::Digest;
    use modunest_core::statement::{
        Deprecation, Key, Ownership, Quarantine, Trust, TrustLevel, Verdict, VerdictOutcome, Yank,
    };
    use modunest_tlog::SigningKey;

    use super::*;

    #[test]
    fn every_kind_has_its_words() {
        let plugin = || "demo/markdown".parse().unwrap();
        let version = || "1.0.0".parse().unwrap();
        let (sequence, previous) = (1, None);
        let key = |seed| {
            let key = SigningKey::from_seed("demo".parse().unwrap(), &[seed; 32]);
            key.verifying_key().to_string()
        };
        let change = |change, replaces| {
            let (org, key) = ("demo".parse().unwrap(), key(1));
            Statement::Key(Key { org, sequence, previous, key, change, replaces, reason: None })
        };
        let said: Vec<String> = [
            Statement::Yank(Yank {
                plugin: plugin(),
                version: version(),
                sequence,
                previous,
                yanked: true,
                reason: Some("loses data".to_owned()),
            }),
            Statement::Deprecation(Deprecation {
                plugin: plugin(),
                version: None,
                sequence,
                previous,
                deprecated: true,
                message: None,
            }),
            Statement::Ownership(Ownership {
                plugin: plugin(),
                sequence,
                previous,
                owner: "other".parse().unwrap(),
            }),
            change(KeyChange::Add, None),
            change(KeyChange::Rotate, Some(key(2))),
            change(KeyChange::Revoke, None),
            Statement::Verdict(Verdict {
                plugin: plugin(),
                version: version(),
                sequence,
                previous,
                statement: Digest::ZERO,
                ruleset: 1,
                outcome: VerdictOutcome::Clean,
                report: Digest::ZERO,
            }),
            Statement::Quarantine(Quarantine {
                plugin: plugin(),
                version: version(),
                sequence,
                previous,
                quarantined: true,
                reason: "steals keys".to_owned(),
            }),
            Statement::Trust(Trust {
                plugin: plugin(),
                sequence,
                previous,
                level: TrustLevel::Verified,
                reason: None,
            }),
        ]
        .iter()
        .map(say)
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        demo/markdown 1.0.0 is yanked (loses data)
        all of demo/markdown is deprecated
        demo/markdown goes to other
        demo+630b4ffd may sign for demo from here on
        demo+630b4ffd takes the place of demo+35b54170 for demo
        demo+630b4ffd is revoked: nothing that it signed for demo is good
        the scan of demo/markdown 1.0.0 came to clean
        demo/markdown 1.0.0 is quarantined (steals keys)
        demo/markdown has the trust level verified
        ");
    }
}
