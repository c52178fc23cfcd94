//! Trust policies: which logs and witnesses count, and how many of them
//! (<https://c2sp.org/tlog-policy>).
//!
//! Names and comments are UTF-8 here; the specification only recommends it.

use std::collections::BTreeMap;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::cosignature::WitnessKey;
use crate::key::{KeyError, VerifyingKey};

/// Longest policy that is read, in bytes: four times the 96 definitions below with names and
/// addresses of a line each.
pub const POLICY_MAX_BYTES: usize = 64 * 1024;
/// Most logs, most witnesses and most groups: twice what the specification asks for.
pub const DEFINITIONS_MAX: usize = 64;
/// What stands for no witness at all.
const NONE: &str = "none";

/// Why a policy was refused. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`POLICY_MAX_BYTES`], or not text.
    #[error("a policy is text of at most {POLICY_MAX_BYTES} bytes without control characters")]
    Text,
    /// A line that is none of the forms.
    #[error("line {0} is not log, witness, group or quorum with what belongs to it")]
    Line(usize),
    /// A key that cannot be used.
    #[error("line {line}: {error}")]
    Key {
        /// Where.
        line: usize,
        /// Why not.
        error: KeyError,
    },
    /// A key or a name that was defined before.
    #[error("line {0} defines a name or a key for the second time")]
    Twice(usize),
    /// A name that no line before it defines, or that is a member of another group already.
    #[error(
        "line {0} names a witness or group that is not defined before it, or is a member already"
    )]
    Member(usize),
    /// A threshold that cannot be met or asks for nothing.
    #[error("line {0}: the number of witnesses must be from 1 to the number of members")]
    Threshold(usize),
    /// No quorum, or a second one.
    #[error("a policy has exactly one quorum line")]
    Quorum,
    /// More than [`DEFINITIONS_MAX`] of a kind.
    #[error("a policy has at most {DEFINITIONS_MAX} logs, witnesses and groups each")]
    TooMany,
}

/// Who must have signed a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Keys of logs; each is named like the log's origin.
    pub logs: Vec<Log>,
    witnesses: Vec<Witness>,
    rules: Vec<Rule>,
    /// `None` asks for no witness.
    quorum: Option<usize>,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its key, named like its origin.
    pub key: VerifyingKey,
    /// Where it can be read.
    pub url: Option<String>,
}

/// A witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy, and nowhere else.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Where checkpoints are submitted to it.
    pub url: Option<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Witness(usize),
    Group { threshold: usize, members: Vec<usize> },
}

/// What is still missing for a quorum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// A cosignature is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Too few.
    #[error("the checkpoint is cosigned by {}, which is no quorum", list(.found))]
    Missing {
        /// Names of the witnesses that cosigned.
        found: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`], with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_MAX_BYTES {
            return Err(PolicyError::Text);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::Text)?;
        let allowed = |byte: u8| matches!(byte, b'\t' | b'\n') || (byte >= 0x20 && byte != 0x7f);
        if !text.bytes().all(allowed) || !(text.is_empty() || text.ends_with('\n')) {
            return Err(PolicyError::Text);
        }
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> =
                line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            reader.line(number, &words)?;
        }
        let quorum = reader.quorum.ok_or(PolicyError::Quorum)?;
        let Reader { logs, witnesses, rules, .. } = reader;
        Ok(Policy { logs, witnesses, rules, quorum })
    }

    /// All witnesses, whether the quorum needs them or not.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// The policy that asks for nobody: `quorum none`.
    pub const fn none() -> Self {
        Policy { logs: Vec::new(), witnesses: Vec::new(), rules: Vec::new(), quorum: None }
    }

    /// Whether a checkpoint needs cosignatures at all.
    pub const fn asks_for_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// Proves that enough witnesses cosigned; answers who, with the time of each in seconds
    /// since the epoch.
    ///
    /// # Errors
    /// [`QuorumError`].
    pub fn check(&self, signed: &SignedCheckpoint) -> Result<Vec<(&Witness, u64)>, QuorumError> {
        let cosignatures =
            signed.cosignatures(self.witnesses.iter().map(|witness| &witness.key))?;
        let mut found = Vec::new();
        for witness in &self.witnesses {
            let own = cosignatures.iter().find(|(key, _)| **key == witness.key);
            found.extend(own.map(|(_, cosignature)| (witness, cosignature.time_secs)));
        }
        let signed_by = |index: usize| {
            self.witnesses.get(index).is_some_and(|w| found.iter().any(|(other, _)| *other == w))
        };
        if self.quorum.is_none_or(|rule| self.holds(rule, &signed_by)) {
            return Ok(found);
        }
        let found = found.into_iter().map(|(witness, _)| witness.name.clone()).collect();
        Err(QuorumError::Missing { found })
    }

    /// Groups name only what stands before them, so this ends.
    fn holds(&self, rule: usize, signed_by: &impl Fn(usize) -> bool) -> bool {
        match &self.rules[rule] {
            Rule::Witness(index) => signed_by(*index),
            Rule::Group { threshold, members } => {
                members.iter().filter(|member| self.holds(**member, signed_by)).count()
                    >= *threshold
            }
        }
    }
}

#[derive(Default)]
struct Reader {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    rules: Vec<Rule>,
    names: BTreeMap<String, usize>,
    /// Rules that are members of a group.
    members: Vec<usize>,
    quorum: Option<Option<usize>>,
}

impl Reader {
    fn line(&mut self, line: usize, words: &[&str]) -> Result<(), PolicyError> {
        let url = |rest: &[&str]| match rest {
            [] => Ok(None),
            [url] => Ok(Some((*url).to_owned())),
            _ => Err(PolicyError::Line(line)),
        };
        match words {
            ["log", key, rest @ ..] => {
                let key: VerifyingKey =
                    key.parse().map_err(|error| PolicyError::Key { line, error })?;
                if self.logs.iter().any(|log| log.key.public_bytes() == key.public_bytes()) {
                    return Err(PolicyError::Twice(line));
                }
                bounded(self.logs.len())?;
                self.logs.push(Log { key, url: url(rest)? });
            }
            ["witness", name, key, rest @ ..] => {
                let key: WitnessKey =
                    key.parse().map_err(|error| PolicyError::Key { line, error })?;
                if self.witnesses.iter().any(|w| w.key.public_bytes() == key.public_bytes()) {
                    return Err(PolicyError::Twice(line));
                }
                bounded(self.witnesses.len())?;
                self.define(line, name, Rule::Witness(self.witnesses.len()))?;
                let name = (*name).to_owned();
                self.witnesses.push(Witness { name, key, url: url(rest)? });
            }
            ["group", name, threshold, members @ ..] => {
                bounded(self.rules.len() - self.witnesses.len())?;
                let mut known = Vec::new();
                for member in members {
                    let rule = *self.names.get(*member).ok_or(PolicyError::Member(line))?;
                    if self.members.contains(&rule) {
                        return Err(PolicyError::Member(line));
                    }
                    self.members.push(rule);
                    known.push(rule);
                }
                let threshold = match *threshold {
                    "any" => 1,
                    "all" => known.len(),
                    number => crate::tile::decimal(number)
                        .and_then(|number| usize::try_from(number).ok())
                        .ok_or(PolicyError::Line(line))?,
                };
                if !(1..=known.len()).contains(&threshold) {
                    return Err(PolicyError::Threshold(line));
                }
                self.define(line, name, Rule::Group { threshold, members: known })?;
            }
            ["quorum", name] => {
                let rule = match *name {
                    NONE => None,
                    name => Some(*self.names.get(name).ok_or(PolicyError::Member(line))?),
                };
                if self.quorum.replace(rule).is_some() {
                    return Err(PolicyError::Quorum);
                }
            }
            _ => return Err(PolicyError::Line(line)),
        }
        Ok(())
    }

    fn define(&mut self, line: usize, name: &str, rule: Rule) -> Result<(), PolicyError> {
        if name == NONE || self.names.contains_key(name) {
            return Err(PolicyError::Twice(line));
        }
        self.names.insert(name.to_owned(), self.rules.len());
        self.rules.push(rule);
        Ok(())
    }
}

fn bounded(count: usize) -> Result<(), PolicyError> {
    if count < DEFINITIONS_MAX { Ok(()) } else { Err(PolicyError::TooMany) }
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a policy that asks for witnesses is content with none: that is a bug.
#[doc(hidden)]
pub fn check_policy_invariants(bytes: &[u8]) -> bool {
    let Ok(policy) = Policy::parse(bytes) else { return false };
    if let Some(rule) = policy.quorum {
        assert!(!policy.holds(rule, &|_| false));
        assert!(policy.holds(rule, &|_| true));
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Checkpoint, SigningKey, TreeHash, WitnessSigningKey};

    fn witness(seed: u8) -> WitnessSigningKey {
        WitnessSigningKey::from_seed(format!("w{seed}").parse().unwrap(), &[seed; 32])
    }

    fn log() -> SigningKey {
        SigningKey::from_seed("example.org/log".parse().unwrap(), &[100; 32])
    }

    /// The specification's example, with keys: two of X and one of Y.
    fn example() -> String {
        let mut text = format!("# who counts\nlog {}\n\n", log().verifying_key());
        for seed in 1..=6 {
            text.push_str(&format!(" witness W{seed}\t{} \n", witness(seed).witness_key()));
        }
        text.push_str("group X 2 W1 W2 W3\ngroup Y any W4 W5 W6\ngroup X-and-Y all X Y\n");
        text.push_str("quorum X-and-Y\n");
        text
    }

    fn signed(by: &[u8]) -> SignedCheckpoint {
        let checkpoint =
            Checkpoint { origin: "example.org/log".to_owned(), size: 0, root: TreeHash::empty() };
        let mut signed = checkpoint.sign(&log()).unwrap();
        for seed in by {
            let witness = witness(*seed);
            let cosignature = witness.cosign(&checkpoint.to_string(), 1_000);
            signed.push(witness.witness_key(), &cosignature);
        }
        signed
    }

    #[test]
    fn the_specifications_example_asks_for_two_and_one() {
        let policy = Policy::parse(example().as_bytes()).unwrap();
        for (by, enough) in [
            (&[1, 2, 4][..], true),
            (&[2, 3, 6], true),
            (&[1, 2, 3], false),
            (&[1, 4, 5, 6], false),
            (&[], false),
            // The same one twice is one.
            (&[1, 1, 4], false),
            // One that the policy does not know counts for nothing.
            (&[1, 9, 4], false),
        ] {
            assert_eq!(policy.check(&signed(by)).is_ok(), enough, "{by:?}");
        }
        let error = policy.check(&signed(&[1, 4])).unwrap_err();
        assert_eq!(error.to_string(), "the checkpoint is cosigned by W1, W4, which is no quorum");
    }

    #[test]
    fn a_quorum_of_none_needs_nobody() {
        let policy = Policy::parse(b"quorum none\n").unwrap();
        assert_eq!(policy.check(&signed(&[])), Ok(Vec::new()));
    }

    #[test]
    fn policies_that_cannot_be_meant_are_refused_with_their_line() {
        let key = witness(1).witness_key().to_string();
        let other = witness(2).witness_key().to_string();
        let log = log().verifying_key().to_string();
        let refused = |text: &str| Policy::parse(text.as_bytes()).unwrap_err();
        for (text, error) in [
            (String::new(), PolicyError::Quorum),
            ("quorum none\nquorum none\n".to_owned(), PolicyError::Quorum),
            ("quorum none".to_owned(), PolicyError::Text),
            ("quorum\u{1} none\n".to_owned(), PolicyError::Text),
            ("quorum nobody\n".to_owned(), PolicyError::Member(1)),
            ("quorum none more\n".to_owned(), PolicyError::Line(1)),
            (format!("witness none {key}\n"), PolicyError::Twice(1)),
            (format!("witness a {key}\nwitness b {key}\n"), PolicyError::Twice(2)),
            (format!("witness a {key}\nwitness a {other}\n"), PolicyError::Twice(2)),
            (format!("log {log}\nlog {log} https://example.org\n"), PolicyError::Twice(2)),
            (format!("witness a {log}\n"), PolicyError::Key { line: 1, error: KeyError::Type(1) }),
            (format!("log {key}\n"), PolicyError::Key { line: 1, error: KeyError::Type(4) }),
            (format!("witness a {key}\ngroup g 2 a\n"), PolicyError::Threshold(2)),
            (format!("witness a {key}\ngroup g 0 a\n"), PolicyError::Threshold(2)),
            (format!("witness a {key}\ngroup g all\n"), PolicyError::Threshold(2)),
            (format!("witness a {key}\ngroup g 01 a\n"), PolicyError::Line(2)),
            (format!("witness a {key}\ngroup g any a a\n"), PolicyError::Member(2)),
            (format!("witness a {key}\ngroup g any a\ngroup h any a g\n"), PolicyError::Member(3)),
            (format!("group g any a\nwitness a {key}\n"), PolicyError::Member(1)),
        ] {
            assert_eq!(refused(&text), error, "{text}");
        }
    }
}
