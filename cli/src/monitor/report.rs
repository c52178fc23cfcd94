//! What a run of the monitor came to.

use serde::Serialize;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The registry.
    pub origin: String,
    /// Its log.
    pub log: Log,
    /// Its index.
    pub head: Head,
    /// Statements that this run replayed.
    pub statements: u64,
    /// Plugins and organisations in the index.
    pub subjects: usize,
    /// What watched names and keys did since the last run, in the order of the log.
    pub activity: Vec<Activity>,
    /// Contradictions. Empty for an honest registry.
    pub findings: Vec<Finding>,
}

/// The log as its checkpoint shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Entries.
    pub size: u64,
    /// Root of the tree over them, in base64.
    pub root: String,
    /// Names of the witnesses whose cosignatures count.
    pub cosigned: Vec<String>,
    /// Entries that an earlier run replayed.
    pub known_before: u64,
}

/// The index head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its epoch.
    pub epoch: u64,
    /// Entries of the log that it is over.
    pub log_size: u64,
    /// Digest of the root node.
    pub index: String,
    /// When it was signed.
    pub issued_at: String,
}

/// A statement about or by somebody who is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Its position in the log.
    pub position: u64,
    /// The plugin or organisation.
    pub subject: String,
    /// Its kind, as in its first line.
    pub kind: &'static str,
    /// Whose key signed it: name and hash.
    pub signer: String,
    /// What it says.
    pub what: String,
    /// What is watched that it touches, as it was named.
    pub watched: Vec<String>,
}

/// A contradiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub kind: Kind,
    /// In words.
    pub what: String,
}

/// Kinds of contradictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two logs under one name.
    Fork,
    /// A log that became shorter.
    Rollback,
    /// Tiles or entries that are not those of the signed tree.
    Entries,
    /// A logged statement that does not follow, or that nobody signed who may.
    Statement,
    /// A head that contradicts the log or an earlier head.
    Head,
    /// An index that is not the fold of the log.
    Index,
    /// Nothing new for longer than the trust policy allows.
    Stale,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let Report { log, head, .. } = self;
        let cosigned = match log.cosigned.as_slice() {
            [] => String::new(),
            names => format!(", cosigned by {}", names.join(", ")),
        };
        let mut text = format!(
            "{}\nlog      {} entries{cosigned}\nhead     epoch {}, over {} entries, signed {}\n\
             replayed {} statements, from position {} on; {} subjects",
            self.origin,
            log.size,
            head.epoch,
            head.log_size,
            head.issued_at,
            self.statements,
            log.known_before,
            self.subjects
        );
        for activity in &self.activity {
            text.push_str(&format!(
                "\nwatched  {}: {} (signed by {})",
                activity.position, activity.what, activity.signer
            ));
        }
        for finding in &self.findings {
            text.push_str(&format!("\nWRONG    {}", finding.what));
        }
        if self.findings.is_empty() {
            text.push_str(
                "\nproven   the log only grew, and the index is what its statements give",
            );
        }
        text
    }
}
