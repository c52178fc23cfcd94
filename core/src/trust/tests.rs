#![allow(clippy::unwrap_used)]

use std::time::Duration;

use modunest_tlog::{SigningKey as NoteKey, VerifyingKey};
use proptest::prelude::*;

use super::*;
use crate::statement::{RegistryKey, RegistryKeys, TrustLevel};
use crate::time::Timestamp as Time;

const ORIGIN: &str = "registry.example.org";
/// 2030-01-01T00:00:00Z.
const NOW: Time = Time::from_millis(1_893_456_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn note_key(seed: u8) -> VerifyingKey {
    NoteKey::from_seed(ORIGIN.parse().unwrap(), &[seed; 32]).verifying_key()
}

fn config() -> Config {
    Config {
        origin: ORIGIN.parse().unwrap(),
        log_key: note_key(1),
        head_keys: RegistryKeys::in_use([note_key(2)]),
        statement_keys: RegistryKeys(vec![
            RegistryKey { key: note_key(3), until: Some(4711) },
            RegistryKey { key: note_key(4), until: None },
        ]),
        witnesses: WitnessPolicy::parse("quorum none\n".to_owned()).unwrap(),
        policy: TrustPolicy {
            head_max_age: DAY,
            checkpoint_max_age: DAY,
            verdict_required: true,
            lowest_level: TrustLevel::Community,
        },
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn publics(seeds: &[u8]) -> Vec<PublicKey> {
    seeds.iter().map(|seed| key(*seed).public()).collect()
}

/// A root of these keys; targets are the root's holders', the online key is one.
fn root(version: u64, holders: &[u8], threshold: usize, online: u8) -> Root {
    let (holders, online) = (publics(holders), publics(&[online]));
    let roles = Roles {
        root: RoleKeys::new(&holders, threshold),
        targets: RoleKeys::new(&holders, threshold),
        snapshot: RoleKeys::new(&online, 1),
        timestamp: RoleKeys::new(&online, 1),
    };
    Root::new(version, NOW.plus(ROOT_LIVES_FOR), holders.iter().chain(&online), roles).unwrap()
}

fn signed<T: Role>(signed: T, by: &[u8]) -> Signed<T> {
    let mut signed = Signed::new(signed);
    by.iter().for_each(|seed| signed.sign(&key(*seed)));
    signed
}

/// A repository's files: root, targets.
fn files(online: u8) -> (Vec<u8>, Vec<u8>) {
    let root = signed(root(1, &[10, 11, 12], 2, online), &[10, 11]).to_bytes();
    let targets = Targets::new(1, NOW.plus(TARGETS_LIVE_FOR), &config().to_bytes());
    (root, signed(targets, &[11, 12]).to_bytes())
}

#[test]
fn a_configuration_is_written_as_it_is_documented() {
    let text = String::from_utf8(config().to_bytes()).unwrap();
    insta::assert_snapshot!(text);
    assert_eq!(Config::parse(text.as_bytes()), Ok(config()));
}

#[test]
fn configurations_that_cannot_be_meant_are_refused_with_the_field() {
    let text = String::from_utf8(config().to_bytes()).unwrap();
    let second = note_key(2).to_string();
    let changed = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        Config::parse(changed.as_bytes()).unwrap_err().to_string()
    };
    let mut errors = vec![
        changed("\"format\": \"modunest/trust-config/v1\"", "\"format\": \"v2\""),
        changed("\"format\"", "\"extra\": 1, \"format\""),
        changed("\"until\"", "\"before\""),
        changed("registry.example.org\"", "two words\""),
        changed("registry.example.org\"", "other.example.org\""),
        changed(&note_key(4).to_string(), &note_key(3).to_string()),
        changed(&note_key(4).to_string(), "nonsense"),
        changed(&format!("\"key\": \"{second}\""), &format!("\"key\": \"{second}\", \"until\": 1")),
        changed("quorum none\\n", "quorum some\\n"),
        changed("quorum none\\n", &format!("log {second}\\nquorum none\\n")),
        changed("\"head_max_age_s\": 86400", "\"head_max_age_s\": 59"),
        changed("\"checkpoint_max_age_s\": 86400", "\"checkpoint_max_age_s\": 99999999"),
        changed("community", "nobody"),
        changed("true", "1"),
    ];
    let key = format!("{{\"key\": \"{second}\"}}");
    let lists = [String::new(), vec![key; KEYS_MAX + 1].join(",")];
    for list in lists {
        let start = text.find("\"head_keys\"").unwrap();
        let end = text.find("\"statement_keys\"").unwrap();
        let changed = format!("{}\"head_keys\":[{list}],{}", &text[..start], &text[end..]);
        errors.push(Config::parse(changed.as_bytes()).unwrap_err().to_string());
    }
    errors.push(Config::parse(&vec![b' '; CONFIG_MAX_BYTES + 1]).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn a_log_key_in_the_witness_policy_must_be_ours() {
    let text = String::from_utf8(config().to_bytes()).unwrap();
    let policy = format!("log {}\\nquorum none\\n", note_key(1));
    let read = Config::parse(text.replace("quorum none\\n", &policy).as_bytes()).unwrap();
    assert_eq!(read.witnesses.policy().logs.len(), 1);
}

#[test]
fn metadata_reads_as_it_was_written() {
    let (root, targets) = files(20);
    let read = Signed::<Root>::parse(&root).unwrap();
    assert_eq!(read.to_bytes(), root);
    assert_eq!(read.signed.common.expires, NOW.plus(ROOT_LIVES_FOR));
    assert_eq!(Signed::<Targets>::parse(&targets).unwrap().to_bytes(), targets);
    insta::assert_snapshot!("root", String::from_utf8(root).unwrap());
    insta::assert_snapshot!("targets", String::from_utf8(targets).unwrap());
}

#[test]
fn metadata_that_cannot_be_meant_is_refused() {
    let (root, targets) = files(20);
    let text = String::from_utf8(root).unwrap();
    let online = key(20).public().id().to_hex();
    let holder = key(10).public().id().to_hex();
    let changed = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        Signed::<Root>::parse(changed.as_bytes()).unwrap_err().to_string()
    };
    let mut errors = vec![
        changed("\"version\": 1", "\"version\": 0"),
        changed("\"version\": 1", "\"version\": 1.0"),
        changed("\"1.0.34\"", "\"2.0.0\""),
        changed("\"consistent_snapshot\": true", "\"consistent_snapshot\": false"),
        changed("\"threshold\": 2", "\"threshold\": 4"),
        changed("\"threshold\": 2", "\"threshold\": 0"),
        changed("\"threshold\": 2", "\"threshold\": 2, \"x-more\": 1"),
        changed("\"version\": 1", "\"version\": 1, \"x-more\": 1"),
        changed("\"version\": 1", "\"version\": 1, \"version\": 1"),
    ];
    errors.push(changed("00:00:00Z", "24:00:00Z"));
    errors.push(changed("00:00:00Z", "00:00:00.5Z"));
    let twice = text.replace(&key(11).public().id().to_hex(), &holder);
    errors.push(Signed::<Root>::parse(twice.as_bytes()).unwrap_err().to_string());
    let shared = text.replacen(&format!("\"{online}\"\n"), &format!("\"{holder}\"\n"), 1);
    errors.push(Signed::<Root>::parse(shared.as_bytes()).unwrap_err().to_string());
    errors.push(Signed::<Root>::parse(&targets).unwrap_err().to_string());
    errors.push(Signed::<Root>::parse(&[b' '; METADATA_MAX_BYTES + 1]).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn a_root_needs_different_keys_of_its_own_and_of_the_one_before() {
    let first = root(1, &[10, 11, 12], 2, 20);
    assert!(signed(first.clone(), &[10, 11]).check(&first).is_ok());
    assert!(signed(first.clone(), &[10]).check(&first).is_err());
    // Signing twice is signing once; a stranger and the online key count for nothing.
    assert!(signed(first.clone(), &[10, 10, 20, 99]).check(&first).is_err());

    let second = root(2, &[13, 14, 15], 2, 20);
    for (by, enough) in [
        (&[10, 11, 13, 14][..], true),
        (&[10, 11], false),
        (&[13, 14], false),
        (&[10, 13, 14], false),
        (&[10, 11, 13], false),
    ] {
        let follows = signed(second.clone(), by).check_follows(&first);
        assert_eq!(follows.is_ok(), enough, "{by:?}: {follows:?}");
    }
    let third = signed(root(3, &[10, 11, 12], 2, 20), &[10, 11]);
    assert_eq!(third.check_follows(&first), Err(MetadataError::Succession { last: 1, found: 3 }));
    // A signature over other bytes is none.
    let mut moved = signed(second, &[10, 11, 13, 14]);
    moved.signed.common.version = 3;
    assert!(moved.check(&first).is_err());
}

/// Renews, and keeps what came out in `snapshot` and `timestamp`.
struct Online {
    root: Vec<u8>,
    targets: Vec<u8>,
    snapshot: Option<Vec<u8>>,
    timestamp: Option<Vec<u8>>,
}

impl Online {
    fn renew(&mut self, seed: u8, now: Time) -> Result<Vec<File>, MetadataError> {
        let current = Current {
            root: &self.root,
            targets: &self.targets,
            snapshot: self.snapshot.as_deref(),
            timestamp: self.timestamp.as_deref(),
        };
        let renewed = renew(current, &[key(seed)], now)?;
        let mut names = Vec::new();
        for (file, bytes) in renewed.files {
            names.push(file);
            match file {
                File::Snapshot(_) => self.snapshot = Some(bytes),
                _ => self.timestamp = Some(bytes),
            }
        }
        Ok(names)
    }
}

#[test]
fn what_is_due_is_renewed_and_nothing_else() {
    let (root_bytes, targets) = files(20);
    let mut online = Online { root: root_bytes, targets, snapshot: None, timestamp: None };
    assert_eq!(online.renew(20, NOW), Ok(vec![File::Snapshot(1), File::Timestamp]));
    assert_eq!(online.renew(20, NOW), Ok(vec![]));
    let second = Duration::from_secs(1);
    assert_eq!(online.renew(20, NOW.plus(DAY - second)), Ok(vec![]));
    assert_eq!(online.renew(20, NOW.plus(DAY)), Ok(vec![File::Timestamp]));
    assert_eq!(online.renew(20, NOW.plus(7 * DAY)), Ok(vec![File::Snapshot(2), File::Timestamp]));
    // A clock that was set back renews rather than trusts the future.
    assert_eq!(online.renew(20, NOW).unwrap().len(), 2);
    // New targets are named at once.
    let targets = Targets::new(2, NOW.plus(TARGETS_LIVE_FOR), b"{}");
    let last = std::mem::replace(&mut online.targets, signed(targets, &[10, 12]).to_bytes());
    assert_eq!(online.renew(20, NOW), Ok(vec![File::Snapshot(4), File::Timestamp]));
    let timestamp = Signed::<Timestamp>::parse(online.timestamp.as_ref().unwrap()).unwrap();
    assert_eq!(timestamp.signed.snapshot().version, 4);
    assert_eq!(timestamp.signed.common.version, 5);
    // Older ones are not, nor those that too few signed.
    let newest = std::mem::replace(&mut online.targets, last);
    assert!(matches!(online.renew(20, NOW), Err(MetadataError::Rule { .. })));
    let mut few = Signed::<Targets>::parse(&newest).unwrap();
    few.signatures.pop();
    online.targets = few.to_bytes();
    assert!(matches!(online.renew(20, NOW), Err(MetadataError::Threshold { .. })));
    online.targets = newest;
    assert!(matches!(online.renew(21, NOW.plus(DAY)), Err(MetadataError::Key { .. })));
}

#[test]
fn a_new_online_key_signs_everything_anew_whatever_a_thief_signed() {
    let (root_bytes, targets) = files(20);
    let mut online = Online { root: root_bytes, targets, snapshot: None, timestamp: None };
    online.renew(20, NOW).unwrap();
    // The thief of key 20 names targets that there are not, far ahead.
    let meta = Meta::of(1 << 60, b"");
    let stolen = signed(Snapshot::new(1 << 40, NOW.plus(DAY), meta), &[20]).to_bytes();
    let meta = Meta::of(1 << 40, &stolen);
    let far = signed(Timestamp::new(1 << 50, NOW.plus(DAY), meta), &[20]).to_bytes();
    (online.snapshot, online.timestamp) = (Some(stolen), Some(far));
    assert!(online.renew(20, NOW).is_err());
    let second = root(2, &[10, 11, 12], 2, 21);
    online.root = signed(second, &[10, 11]).to_bytes();
    let snapshot = File::Snapshot((1 << 40) + 1);
    assert_eq!(online.renew(21, NOW), Ok(vec![snapshot, File::Timestamp]));
    assert_eq!(online.renew(21, NOW), Ok(vec![]));
    // At the end of all numbers there is nothing to go on from.
    let meta = Meta::of(1, b"");
    let last = Timestamp::new(u64::MAX, NOW.plus(DAY), meta);
    online.timestamp = Some(signed(last, &[20]).to_bytes());
    assert_eq!(online.renew(21, NOW), Err(MetadataError::Exhausted(RoleName::Timestamp)));
}

proptest! {
    /// Any whole second up to the year 9999 is written and read the same.
    #[test]
    fn times_round_trip(second in 0u64..253_402_300_800) {
        let targets = Targets::new(1, Time::from_millis(second * 1000 + 999), b"");
        let bytes = Signed::new(targets).to_bytes();
        let read = Signed::<Targets>::parse(&bytes).unwrap();
        prop_assert_eq!(read.signed.common.expires.as_millis(), second * 1000);
    }

    /// One changed byte is refused, or read and no longer signed.
    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let (root, _) = files(20);
        let mut changed = root.clone();
        changed[at.index(root.len())] = to;
        if let Ok(read) = Signed::<Root>::parse(&changed) {
            let first = Signed::<Root>::parse(&root).unwrap();
            // White space and signatures that are not needed may change; what is said may not.
            prop_assert!(read.signed == first.signed || read.check(&first.signed).is_err());
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_invariants(&bytes);
    }
}
