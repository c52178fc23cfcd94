//! Publishing: the states of a session, and the decision at its start.

use std::collections::BTreeSet;
use std::time::Duration;

use modunest_tlog::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::keys::SessionId;
use crate::name::{OrgName, PluginName};
use crate::problem::{Code, Refusal};
use crate::statement::{Link, Release, SignedStatement, Statement, StatementError};
use crate::time::Timestamp;

/// How long a publisher may take from the answer to the last uploaded byte: 50 MiB at
/// 0.5 Mbit/s take 14 minutes. Presigned URLs are valid for as long.
pub const UPLOAD_WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long a worker holds a session before the sweep may give it to another. Checking the
/// largest allowed release takes a few seconds.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often work on a session is tried before it is rejected for good.
pub const ATTEMPTS_MAX: u32 = 5;
/// How long an ended session can still be asked about.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where a publish stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Recorded; the publisher was not told where to upload yet.
    Created,
    /// The publisher uploads.
    Uploading,
    /// Every archive has arrived.
    Uploaded,
    /// Digests, archives and manifest are checked.
    Validating,
    /// The libraries are scanned.
    Scanning,
    /// The statement waits for the sequencer.
    Committing,
    /// Readers can see it. An end.
    Published,
    /// A check failed. An end.
    Rejected,
    /// The upload did not end in time. An end.
    Expired,
    /// The publisher called it off. An end.
    Cancelled,
}

impl State {
    /// Whether nothing follows.
    pub const fn is_end(self) -> bool {
        matches!(self, State::Published | State::Rejected | State::Expired | State::Cancelled)
    }

    /// Whether `next` may follow directly. Work that is repeated after a crash may fall back
    /// to [`State::Validating`].
    pub const fn may_become(self, next: State) -> bool {
        use State::*;
        matches!(
            (self, next),
            (Created, Uploading | Uploaded | Expired | Cancelled)
                | (Uploading, Uploaded | Expired | Cancelled)
                | (Uploaded, Validating | Rejected)
                | (Validating, Validating | Scanning | Rejected)
                | (Scanning, Validating | Committing | Rejected)
                | (Committing, Published | Rejected)
        )
    }

    /// The word in JSON and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Uploading => "uploading",
            State::Uploaded => "uploaded",
            State::Validating => "validating",
            State::Scanning => "scanning",
            State::Committing => "committing",
            State::Published => "published",
            State::Rejected => "rejected",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A release that exists, or is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The session that brings or brought it.
    pub session: SessionId,
    /// How far it is.
    pub state: State,
    /// What it releases.
    pub release: Release,
}

/// What the decision needs to know, read once.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The organisation that owns the plugin; of a new one, the first part of its name.
    pub owner: OrgName,
    /// Keys that may sign for it now.
    pub keys: Vec<VerifyingKey>,
    /// Place of the plugin's next statement: [`Link::FIRST`] for a new plugin.
    pub next: Link,
    /// A plugin of another name that looks the same.
    pub look_alike: Option<PluginName>,
    /// The same version of the same plugin, if there is one.
    pub existing: Option<Existing>,
    /// Archives among the release's that the public bucket holds already.
    pub present: BTreeSet<Digest>,
}

/// An archive that the publisher has to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Its SHA-256.
    pub archive: Digest,
    /// Its exact size in bytes.
    pub size_bytes: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Open a session; these archives are missing. With none missing, the session starts as
    /// [`State::Uploaded`].
    Open {
        /// The archives to upload, each once.
        missing: Vec<Missing>,
    },
    /// The same release is on its way or published: answer with its session, and with fresh
    /// URLs for what is still missing.
    Resume {
        /// The session.
        session: SessionId,
        /// Where it stands.
        state: State,
        /// The archives still to upload, when it waits for uploads.
        missing: Vec<Missing>,
    },
}

/// Decides about a release statement. Pure: the caller authorised the token before, and
/// carries the plan out conditionally on the facts not having changed.
///
/// # Errors
/// Why the release is refused.
pub fn decide(signed: &SignedStatement, facts: &Facts) -> Result<Plan, Refusal> {
    let Statement::Release(release) = signed.statement() else {
        return Err(Refusal::new(
            Code::InvalidStatement,
            "only release statements are published; all others have a path of their own",
        ));
    };
    check_signature(signed, &facts.owner, &facts.keys)?;
    let missing = missing(release, &facts.present);
    match &facts.existing {
        Some(existing)
            if matches!(existing.state, State::Rejected | State::Expired | State::Cancelled) => {}
        Some(existing) if same_content(&existing.release, release) => {
            let waits = matches!(existing.state, State::Created | State::Uploading);
            let missing = if waits { missing } else { Vec::new() };
            return Ok(Plan::Resume { session: existing.session, state: existing.state, missing });
        }
        Some(existing) => {
            let what = if existing.state == State::Published {
                "was published"
            } else {
                "is being published"
            };
            return Err(Refusal::new(
                Code::VersionConflict,
                format!(
                    "{} {} {what} with other content; releases never change, so choose another version",
                    release.plugin, release.version
                ),
            ));
        }
        None => {}
    }
    if let Some(other) = &facts.look_alike {
        return Err(Refusal::new(
            Code::NameTaken,
            format!(
                "{} looks like {other}, which exists; choose a name that cannot be mistaken for it",
                release.plugin
            ),
        ));
    }
    let link = signed.statement().link();
    if link != facts.next {
        return Err(Refusal::new(
            Code::ChainConflict,
            format!(
                "the statement is number {} of {}, and number {} is due; sign it again behind the newest one",
                link.sequence, release.plugin, facts.next.sequence
            ),
        ));
    }
    Ok(Plan::Open { missing })
}

/// Refuses a statement that none of the keys signed that may sign for `org` now, the
/// organisation that owns the plugin.
///
/// # Errors
/// [`Code::InvalidSignature`].
pub fn check_signature(
    signed: &SignedStatement,
    org: &OrgName,
    keys: &[VerifyingKey],
) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Err(Refusal::new(
            Code::InvalidSignature,
            format!("{org} has no publisher key; register one with `modunest key register`"),
        ));
    }
    signed.verify(keys).map(|_| ()).map_err(|error| match error {
        StatementError::Note(error) => Refusal::new(Code::InvalidSignature, error.to_string()),
        other => Refusal::new(Code::InvalidStatement, other.to_string()),
    })
}

/// Whether two statements release the same thing, wherever in the chain they stand.
pub fn same_content(one: &Release, other: &Release) -> bool {
    let place = |release: &Release| Release { sequence: 0, previous: None, ..release.clone() };
    place(one) == place(other)
}

fn missing(release: &Release, present: &BTreeSet<Digest>) -> Vec<Missing> {
    let unique: BTreeSet<Missing> = release
        .builds
        .iter()
        .filter(|build| !present.contains(&build.archive))
        .map(|build| Missing { archive: build.archive, size_bytes: build.size_bytes })
        .collect();
    unique.into_iter().collect()
}

/// A session's lease: who works on it, until when, for which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Until when nobody else may touch the session.
    pub until: Timestamp,
    /// 1 for the first try.
    pub attempt: u32,
}

/// What the sweep does with a session that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing: somebody holds it, or it has ended.
    Leave,
    /// The publisher took too long.
    Expire,
    /// Take it over with this lease.
    TakeOver(Lease),
    /// It was tried often enough.
    GiveUp,
}

/// Decides what becomes of a session at `now`.
pub fn overdue(state: State, lease: Lease, deadline: Timestamp, now: Timestamp) -> Overdue {
    match state {
        _ if state.is_end() => Overdue::Leave,
        State::Created | State::Uploading if now >= deadline => Overdue::Expire,
        State::Created | State::Uploading => Overdue::Leave,
        _ if now < lease.until => Overdue::Leave,
        // What waits for the sequencer cannot fail by being tried.
        State::Committing => {
            Overdue::TakeOver(Lease { until: now.plus(LEASE), attempt: lease.attempt })
        }
        _ if lease.attempt >= ATTEMPTS_MAX => Overdue::GiveUp,
        _ => Overdue::TakeOver(Lease { until: now.plus(LEASE), attempt: lease.attempt + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::test_release;
    use modunest_tlog::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("demo".parse().unwrap(), &[seed; 32])
    }

    fn sign(release: &Release) -> SignedStatement {
        Statement::Release(std::sync::Arc::new(release.clone())).sign(&key(1)).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            owner: "demo".parse().unwrap(),
            keys: vec![key(1).verifying_key()],
            next: Link::FIRST,
            look_alike: None,
            existing: None,
            present: BTreeSet::new(),
        }
    }

    #[test]
    fn a_new_release_uploads_what_is_missing() {
        let release = test_release("demo/markdown", "1.0.0", Link::FIRST);
        let archive = release.builds[0].archive;
        let missing = vec![Missing { archive, size_bytes: 7 }];
        assert_eq!(decide(&sign(&release), &facts()), Ok(Plan::Open { missing }));
        let present = Facts { present: [archive].into(), ..facts() };
        assert_eq!(decide(&sign(&release), &present), Ok(Plan::Open { missing: vec![] }));
    }

    #[test]
    fn same_bytes_resume_and_other_bytes_conflict() {
        let release = test_release("demo/markdown", "1.0.0", Link::FIRST);
        let session = SessionId::from_bytes([1; 16]);
        let existing = |state| Facts {
            existing: Some(Existing { session, state, release: release.clone() }),
            ..facts()
        };
        let later = Release { sequence: 2, previous: Some(Digest::of(b"x")), ..release.clone() };
        assert_eq!(
            decide(&sign(&later), &existing(State::Published)),
            Ok(Plan::Resume { session, state: State::Published, missing: vec![] })
        );
        let mut other = release.clone();
        other.builds[0].archive = Digest::of(b"other");
        for state in [State::Uploading, State::Committing, State::Published] {
            let refusal = decide(&sign(&other), &existing(state)).unwrap_err();
            assert_eq!(refusal.code, Code::VersionConflict);
        }
        assert!(matches!(decide(&sign(&other), &existing(State::Rejected)), Ok(Plan::Open { .. })));
    }

    #[test]
    fn wrong_key_chain_and_look_alike_are_refused() {
        let release = test_release("demo/markdown", "1.0.0", Link::FIRST);
        let code = |facts: &Facts| decide(&sign(&release), facts).unwrap_err().code;
        assert_eq!(code(&Facts { keys: vec![], ..facts() }), Code::InvalidSignature);
        assert_eq!(
            code(&Facts { keys: vec![key(2).verifying_key()], ..facts() }),
            Code::InvalidSignature
        );
        assert_eq!(
            code(&Facts { look_alike: Some("demo/markd0wn".parse().unwrap()), ..facts() }),
            Code::NameTaken
        );
        let next = Link { sequence: 2, previous: Some(Digest::of(b"x")) };
        assert_eq!(code(&Facts { next, ..facts() }), Code::ChainConflict);
    }

    #[test]
    fn the_sweep_takes_over_expires_and_gives_up() {
        let at = Timestamp::from_millis;
        let lease = |attempt| Lease { until: at(100), attempt };
        assert_eq!(overdue(State::Uploading, lease(1), at(500), at(400)), Overdue::Leave);
        assert_eq!(overdue(State::Uploading, lease(1), at(500), at(500)), Overdue::Expire);
        assert_eq!(overdue(State::Validating, lease(1), at(500), at(99)), Overdue::Leave);
        assert!(
            matches!(overdue(State::Validating, lease(1), at(500), at(100)), Overdue::TakeOver(l) if l.attempt == 2)
        );
        assert_eq!(
            overdue(State::Scanning, lease(ATTEMPTS_MAX), at(500), at(100)),
            Overdue::GiveUp
        );
        assert!(matches!(
            overdue(State::Committing, lease(ATTEMPTS_MAX), at(500), at(100)),
            Overdue::TakeOver(_)
        ));
        assert_eq!(overdue(State::Published, lease(1), at(0), at(100)), Overdue::Leave);
    }

    #[test]
    fn ends_have_no_successor() {
        use State::*;
        let all = [
            Created, Uploading, Uploaded, Validating, Scanning, Committing, Published, Rejected,
            Expired, Cancelled,
        ];
        for from in all {
            let successors = all.iter().filter(|to| from.may_become(**to)).count();
            assert_eq!(successors == 0, from.is_end(), "{from}");
        }
    }
}
