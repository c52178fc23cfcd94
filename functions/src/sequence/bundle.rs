//! Bundles: what the sequencer decided, written down before it happens.
//!
//! ```text
//! modunest/bundle/v1
//! {"roots":{"epoch":7,"index":"…","log":{"size":12,"root":"…"}},"bundle":"…"}
//! <length in bytes> <what waits for it>
//! <the statement's bytes, verbatim>
//! ```
//! The JSON is the head item that it follows. Behind it stand the statements in the order of
//! the log, each with the session that waits for it, `caller` when an outcome is waited for,
//! or `nobody`. From these everything follows: positions, roots, objects, and what the table
//! is to say. The bytes are named by their SHA-256 in the head item, which only this code
//! writes, so nothing else is ever read here.

use modunest_core::digest::Digest;
use modunest_core::keys::SessionId;
use modunest_core::statement::{STATEMENT_MAX_BYTES, SignedStatement};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::store::head::Roots;

const FIRST_LINE: &str = "modunest/bundle/v1";
/// Most statements in one bundle: 2,000 that wait, and a verdict behind each release.
pub(super) const BUNDLE_MAX_STATEMENTS: usize = 4_000;
/// Longest line in front of a statement: a length of four digits, a session of 32.
const LINE_MAX_BYTES: usize = 64;
/// Longest bundle: 33 MB. Half of its statements are verdicts of some hundred bytes.
pub(super) const BUNDLE_MAX_BYTES: u64 =
    (1 + BUNDLE_MAX_STATEMENTS as u64) * (STATEMENT_MAX_BYTES + LINE_MAX_BYTES) as u64;

/// Who waits for a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The session of a release.
    Session(SessionId),
    /// A caller of the API, who asks for an outcome.
    Caller,
    /// Nobody: the sequencer says it itself.
    Nobody,
}

/// A statement on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) statement: SignedStatement,
    pub(super) waiting: Waiting,
}

/// What leads from one state to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) previous: Previous,
    pub(super) entries: Vec<Entry>,
}

/// The state that a bundle follows, and the bundle that led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Previous {
    pub(super) roots: Roots,
    pub(super) bundle: Option<Digest>,
}

const DAMAGED: Error = Error::Broken("a staged bundle is not what this code writes");

impl Bundle {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let json = serde_json::to_string(&self.previous)
            .map_err(|_| Error::Broken("a head item could not be written as JSON"))?;
        let mut bytes = format!("{FIRST_LINE}\n{json}\n").into_bytes();
        for entry in &self.entries {
            let length = entry.statement.bytes().len();
            let waiting = match entry.waiting {
                Waiting::Session(session) => session.to_string(),
                Waiting::Caller => "caller".to_owned(),
                Waiting::Nobody => "nobody".to_owned(),
            };
            bytes.extend_from_slice(format!("{length} {waiting}\n").as_bytes());
            bytes.extend_from_slice(entry.statement.bytes());
        }
        Ok(bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Bundle, Error> {
        let (first, rest) = line(bytes)?;
        let (json, mut rest) = line(rest)?;
        if first != FIRST_LINE {
            return Err(DAMAGED);
        }
        let previous = serde_json::from_str(json).map_err(|_| DAMAGED)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (words, tail) = line(rest)?;
            let (length, waiting) = words.split_once(' ').ok_or(DAMAGED)?;
            let length = length.parse().map_err(|_| DAMAGED)?;
            let (statement, tail) = tail.split_at_checked(length).ok_or(DAMAGED)?;
            let waiting = match waiting {
                "caller" => Waiting::Caller,
                "nobody" => Waiting::Nobody,
                session => Waiting::Session(session.parse().map_err(|_| DAMAGED)?),
            };
            entries.push(Entry { statement: SignedStatement::parse(statement.to_vec())?, waiting });
            rest = tail;
        }
        Ok(Bundle { previous, entries })
    }
}

fn line(bytes: &[u8]) -> Result<(&str, &[u8]), Error> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(DAMAGED)?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| DAMAGED)?;
    Ok((text, &bytes[end + 1..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use modunest_core::index::LogHead;
    use modunest_core::statement::{Statement, Trust, TrustLevel};
    use modunest_tlog::SigningKey;

    use super::*;

    #[test]
    fn bundles_are_read_as_they_were_written() {
        let key = SigningKey::from_seed("test.modunest".parse().unwrap(), &[1; 32]);
        let entry = |plugin: &str, waiting| Entry {
            statement: Statement::Trust(Trust {
                plugin: plugin.parse().unwrap(),
                sequence: 1,
                previous: None,
                level: TrustLevel::Verified,
                reason: None,
            })
            .sign(&key)
            .unwrap(),
            waiting,
        };
        let log = LogHead { size: 9, root: Digest::of(b"log") };
        let roots = Roots { epoch: 3, index: Digest::of(b"index"), log };
        for (bundle, entries) in [
            (None, vec![]),
            (
                Some(Digest::of(b"before")),
                vec![
                    entry("demo/one", Waiting::Session(SessionId::from_bytes([7; 16]))),
                    entry("demo/two", Waiting::Caller),
                    entry("demo/three", Waiting::Nobody),
                ],
            ),
        ] {
            let bundle = Bundle { previous: Previous { roots, bundle }, entries };
            let bytes = bundle.to_bytes().unwrap();
            assert_eq!(Bundle::parse(&bytes).unwrap(), bundle);
            for end in 0..bytes.len() {
                let cut = Bundle::parse(&bytes[..end]);
                assert!(cut.is_err() || cut.unwrap().entries.len() < bundle.entries.len());
            }
        }
    }
}
