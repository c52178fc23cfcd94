//! The attacks that The Update Framework names (its specification, section 1.5.2), one test
//! each.
//!
//! Extraneous dependencies are no attack here: the only target is a configuration, which
//! depends on nothing.

use super::*;

#[tokio::test]
async fn arbitrary_software() {
    let (operator, _) = world().await;
    // A configuration of the attacker's, signed by keys of the attacker's, all of it well made.
    let mut attacker = Operator { holders: vec![61, 62, 63], online: 64, ..operator.clone() };
    attacker.server.files.retain(|file, _| *file == File::Root(1));
    attacker.configure(&config(66), NOW);
    let targets = attacker.server.files[&File::Targets(1)].clone();
    let meta = Meta::of(1, &targets);
    let snapshot = sign(Snapshot::new(1, NOW.plus(DAY), meta), &[64]);
    let meta = Meta::of(1, &snapshot);
    attacker.server.put(File::Snapshot(1), snapshot);
    let timestamp = trust::Timestamp::new(1, NOW.plus(DAY), meta);
    attacker.server.put(File::Timestamp, sign(timestamp.clone(), &[64]));
    let host = Host::new(operator.pinned());
    let error = host.refresh(&attacker.server, NOW).await.unwrap_err();
    assert!(matches!(&error, Error::Signatures { role, .. } if role == "timestamp"), "{error}");
    // With the online key stolen, the targets are still not theirs.
    attacker.online = 9;
    let snapshot = sign(Snapshot::new(1, NOW.plus(DAY), Meta::of(1, &targets)), &[9]);
    let timestamp = trust::Timestamp::new(1, NOW.plus(DAY), Meta::of(1, &snapshot));
    attacker.server.put(File::Snapshot(1), snapshot);
    attacker.server.put(File::Timestamp, sign(timestamp, &[9]));
    let error = host.refresh(&attacker.server, NOW).await.unwrap_err();
    assert!(matches!(&error, Error::Signatures { role, .. } if role == "targets"), "{error}");
    assert_eq!(error.kind(), Kind::Refused);
}

#[tokio::test]
async fn endless_data() {
    let operator = Operator::new(NOW);
    let host = Host::new(operator.pinned());
    for file in operator.server.files.keys().filter(|file| **file != File::Root(1)) {
        let mut server = operator.server.clone();
        server.put(*file, vec![b' '; CONFIG_MAX_BYTES + 1]);
        let error = Host::new(operator.pinned()).refresh(&server, NOW).await.unwrap_err();
        let expected = matches!(&error, Error::Fetch(error)
            if matches!(**error, registry::Error::TooLong { .. }));
        assert!(expected, "{file}: {error}");
    }
    // What is fetched is asked for with its bound.
    let updater = Updater::open(host.root.clone(), host.folder.path()).unwrap();
    let files = operator.server.files.clone();
    let fetch = move |key, limit| {
        let ObjectKey::Trust(file) = key else { panic!("{key}") };
        let bytes = files.get(&file).cloned();
        let length = bytes.as_ref().map_or(0, Vec::len);
        assert!(limit <= METADATA_MAX_BYTES, "{file}: {limit}");
        assert!(!matches!(file, File::Config(_)) || limit == length, "{limit} for {length}");
        ready(Ok(bytes))
    };
    updater.refresh(fetch, NOW).await.unwrap();
    // Roots without end: every one of them good.
    let mut endless = operator.clone();
    for version in 2..=242 {
        let root = endless.root(version, NOW);
        endless.publish_root(root, &HOLDERS);
    }
    let error = Host::new(operator.pinned()).refresh(&endless.server, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Roots(240)), "{error}");
}

#[tokio::test]
async fn fast_forward() {
    let (mut operator, host) = world().await;
    // The thief of the online key goes as far ahead as numbers go.
    let far = u64::from(u32::MAX);
    let mut thief = operator.server.clone();
    let snapshot = sign(Snapshot::new(far, NOW.plus(DAY), Meta::of(far, b"")), &[9]);
    let timestamp = trust::Timestamp::new(far, NOW.plus(DAY), Meta::of(far, &snapshot));
    thief.put(File::Snapshot(far), snapshot);
    thief.put(File::Timestamp, sign(timestamp, &[9]));
    let error = host.refresh(&thief, NOW).await.unwrap_err();
    assert!(
        matches!(error, Error::Missing(ObjectKey::Trust(File::Targets(v))) if v == far),
        "{error}"
    );
    // Now the registry's own files look old.
    let error = host.refresh(&operator.server, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Rollback { .. }), "{error}");
    // A root with another online key forgets what the stolen one signed.
    operator.online = 19;
    let root = operator.root(2, NOW);
    operator.publish_root(root, &[1, 3]);
    operator.renew(NOW);
    let trusted = host.refresh(&operator.server, NOW).await.unwrap();
    assert_eq!(trusted.config, config(50));
    assert_eq!(trusted.versions.map(|(_, version)| version), [2, 1, 2, 2]);
}

#[tokio::test]
async fn indefinite_freeze() {
    let (mut operator, host) = world().await;
    let frozen = operator.server.clone();
    let end = NOW.plus(TIMESTAMP_LIVES_FOR);
    let before = Timestamp::from_millis(end.as_millis() - 1);
    host.refresh(&frozen, before).await.unwrap();
    for late in [end, end.plus(DAY)] {
        let error = host.refresh(&frozen, late).await.unwrap_err();
        assert!(matches!(&error, Error::Expired { role, .. } if role == "timestamp"), "{error}");
    }
    // A new timestamp over an old snapshot, and over old targets, ends too.
    operator.server = frozen;
    let (version, snapshot) = operator.server.newest(File::Snapshot);
    let meta = Meta::of(version, snapshot);
    let late = NOW.plus(SNAPSHOT_LIVES_FOR);
    let timestamp = trust::Timestamp::new(5, late.plus(DAY), meta);
    operator.server.put(File::Timestamp, sign(timestamp, &[9]));
    let error = host.refresh(&operator.server, late).await.unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "snapshot"), "{error}");
    let late = NOW.plus(ROOT_LIVES_FOR);
    let error = host.refresh(&operator.server, late).await.unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "root"), "{error}");
    let root = operator.root(2, late);
    operator.publish_root(root, &HOLDERS);
    operator.renew(late);
    let error = host.refresh(&operator.server, late).await.unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "targets"), "{error}");
}

#[tokio::test]
async fn malicious_mirrors() {
    let (mut operator, host) = world().await;
    operator.configure(&config(51), NOW);
    operator.renew(NOW);
    // Each file in turn is missing, empty, cut short, or changed in one byte.
    let files: Vec<File> =
        operator.server.files.keys().copied().filter(|file| *file != File::Root(1)).collect();
    let mut refused = 0;
    for file in &files {
        let good = operator.server.files[file].clone();
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let cut = good[..good.len() / 2].to_vec();
        for bad in [None, Some(Vec::new()), Some(cut), Some(flipped)] {
            let mut mirror = operator.server.clone();
            match bad {
                Some(bad) => mirror.put(*file, bad),
                None => drop(mirror.files.remove(file)),
            }
            match Host::new(operator.pinned()).refresh(&mirror, NOW).await {
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), Kind::Refused, "{file}: {error}");
                }
                // Old versions are not asked for.
                Ok(trusted) => assert_eq!(trusted.config, config(51), "{file}"),
            }
        }
    }
    // timestamp, and the newest snapshot, targets and configuration.
    assert_eq!(refused, 4 * 4, "of {files:?}");
    // And a mirror that lied does not stand in the way of the next one.
    let mut mirror = operator.server.clone();
    mirror.put(File::Snapshot(2), b"{}".to_vec());
    assert!(host.refresh(&mirror, NOW).await.is_err());
    assert_eq!(host.refresh(&operator.server, NOW).await.unwrap().config, config(51));
}

#[tokio::test]
async fn mix_and_match() {
    let (mut operator, _) = world().await;
    let old = operator.server.clone();
    operator.configure(&config(51), NOW);
    operator.renew(NOW);
    // Old targets under a new name; another snapshot of the same version; another
    // configuration of the same length.
    for (name, bytes) in [
        (File::Targets(2), old.files[&File::Targets(1)].clone()),
        (File::Snapshot(2), old.files[&File::Snapshot(1)].clone()),
        (
            File::Config(Targets::new(2, NOW, &config(51).to_bytes()).config().digest()),
            config(50).to_bytes(),
        ),
    ] {
        let mut mixed = operator.server.clone();
        mixed.put(name, bytes);
        let host = Host::new(operator.pinned());
        host.refresh(&old, NOW).await.unwrap();
        let error = host.refresh(&mixed, NOW).await.unwrap_err();
        assert!(matches!(error, Error::Mixed(_)), "{name}: {error}");
    }
}

#[tokio::test]
async fn rollback() {
    let (mut operator, host) = world().await;
    let old = operator.server.clone();
    operator.configure(&config(51), NOW);
    operator.renew(NOW);
    host.refresh(&operator.server, NOW).await.unwrap();
    let error = host.refresh(&old, NOW).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rollback { role, trusted: 2, found: 1 } if role == "timestamp"),
        "{error}"
    );
    // A newer timestamp over the old snapshot; a newer snapshot over the old targets.
    let meta = Meta::of(1, &old.files[&File::Snapshot(1)]);
    let mut mirror = operator.server.clone();
    mirror.put(File::Timestamp, sign(trust::Timestamp::new(3, NOW.plus(DAY), meta), &[9]));
    let error = host.refresh(&mirror, NOW).await.unwrap_err();
    assert!(matches!(&error, Error::Rollback { trusted: 2, found: 1, .. }), "{error}");
    let meta = Meta::of(1, &old.files[&File::Targets(1)]);
    let snapshot = sign(Snapshot::new(3, NOW.plus(DAY), meta), &[9]);
    let meta = Meta::of(3, &snapshot);
    mirror.put(File::Snapshot(3), snapshot);
    mirror.put(File::Timestamp, sign(trust::Timestamp::new(3, NOW.plus(DAY), meta), &[9]));
    let error = host.refresh(&mirror, NOW).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rollback { role, .. } if role.starts_with("targets")),
        "{error}"
    );
}

#[tokio::test]
async fn slow_retrieval() {
    let (operator, host) = world().await;
    let mut updater = Updater::open(host.root.clone(), host.folder.path()).unwrap();
    updater.timeout = Duration::from_millis(20);
    let never = |_, _| pending::<Result<Option<Vec<u8>>, registry::Error>>();
    // What is kept serves, and says why it does.
    let trusted = updater.refresh(never, NOW).await.unwrap();
    assert!(trusted.offline.unwrap().contains("too slowly"));
    let error = updater.refresh(never, NOW.plus(TIMESTAMP_LIVES_FOR)).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    let fresh = Host::new(operator.pinned());
    let mut updater = Updater::open(fresh.root.clone(), fresh.folder.path()).unwrap();
    updater.timeout = Duration::from_millis(20);
    assert!(matches!(updater.refresh(never, NOW).await, Err(Error::Slow(_))));
}

#[tokio::test]
async fn key_compromise() {
    let (operator, host) = world().await;
    // One stolen holder's key, or one and the online key, sign no root and no targets.
    for by in [&[1][..], &[1, 9], &[1, 1], &[9]] {
        let mut thief = operator.clone();
        let root = thief.root(2, NOW);
        thief.publish_root(root, by);
        let error = host.refresh(&thief.server, NOW).await.unwrap_err();
        assert!(
            matches!(&error, Error::Signatures { role, threshold: 2, .. } if role == "root"),
            "{by:?}: {error}"
        );
    }
    // Weak keys verify anything: a root that names one is signed by enough others, and the
    // weak one still counts for nothing.
    let mut text = String::from_utf8(operator.server.files[&File::Root(1)].clone()).unwrap();
    let public = modunest_core::digest::Digest::from_bytes(*key(3).public().as_bytes()).to_hex();
    text = text.replace(&public, &format!("01{}", "0".repeat(62)));
    assert!(matches!(Root::from_bytes(text.into_bytes()), Err(Error::Root(_))));
}

#[tokio::test]
async fn wrong_software() {
    let (mut operator, host) = world().await;
    // A file that the targets name rightly, and that is no configuration.
    for bytes in [b"{}".to_vec(), operator.server.files[&File::Root(1)].clone()] {
        let targets = Targets::new(2, NOW.plus(DAY), &bytes);
        operator.server.put(File::Config(targets.config().digest()), bytes);
        operator.server.put(File::Targets(2), sign(targets, &HOLDERS));
        let mut renewed = operator.clone();
        renewed.renew(NOW);
        let error = host.refresh(&renewed.server, NOW).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
    }
    // Metadata of one role in place of another's.
    let mut mixed = Operator::new(NOW);
    let root = mixed.server.files[&File::Root(1)].clone();
    mixed.server.put(File::Timestamp, root);
    let error = host.refresh(&mixed.server, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "{error}");
}
