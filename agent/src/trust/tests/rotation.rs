//! Who must sign: the cases of `test_updater_key_rotations.py` in the conformance suite of The
//! Update Framework (<https://github.com/theupdateframework/tuf-conformance>), as figures.

use super::*;

/// Keys of a role, how many must sign, who signs, and whether that is enough.
struct Case(&'static [u8], usize, &'static [u8], bool);

const FIVE: &[u8] = &[1, 2, 3, 4, 5];
/// The third of [`FIVE`] has gone, a sixth has come.
const OTHERS: &[u8] = &[1, 2, 4, 5, 6];
const NEW: &[u8] = &[6, 7, 8, 9, 10];

/// Versions of a root, each following the one before. Only the last can be refused.
const ROOTS: [&[Case]; 16] = [
    &[Case(&[1], 1, &[1], true), Case(&[2], 1, &[2, 1], true), Case(&[2], 1, &[2], true)],
    &[
        Case(&[1], 1, &[3, 1, 4], true),
        Case(&[2], 1, &[3, 2, 1, 4], true),
        Case(&[2], 1, &[3, 2, 4], true),
    ],
    &[
        Case(FIVE, 3, &[1, 3, 5], true),
        Case(FIVE, 3, &[1, 5, 2], true),
        Case(FIVE, 3, &[1, 2, 4], true),
        Case(FIVE, 3, &[1, 2, 4], true),
    ],
    &[Case(FIVE, 3, &[1, 3, 5], true), Case(OTHERS, 3, &[1, 5, 2], true)],
    &[
        Case(FIVE, 3, &[1, 3, 5], true),
        Case(OTHERS, 3, &[1, 3, 5, 6], true),
        Case(OTHERS, 3, &[1, 5, 6], true),
    ],
    &[
        Case(FIVE, 3, &[1, 3, 5], true),
        Case(NEW, 3, &[1, 3, 5, 6, 7, 8], true),
        Case(NEW, 3, &[6, 7, 8], true),
    ],
    &[Case(&[1, 2, 3], 1, &[1], true), Case(&[1, 2, 3], 2, &[1, 2], true)],
    &[
        Case(&[1, 2, 3], 2, &[1, 2], true),
        Case(&[1, 2, 3], 1, &[1, 2], true),
        Case(&[1, 2, 3], 1, &[1], true),
    ],
    &[Case(&[1], 1, &[1], true), Case(&[1, 2], 2, &[1, 2], true)],
    &[Case(&[1], 1, &[1], true), Case(&[2], 1, &[2, 3, 4], false)],
    &[Case(&[1], 1, &[1], true), Case(&[2], 1, &[1, 3, 4], false)],
    &[Case(FIVE, 3, &[1, 3, 5], true), Case(OTHERS, 3, &[1, 3, 5], false)],
    &[Case(FIVE, 3, &[1, 3, 5], true), Case(OTHERS, 3, &[1, 5, 6], false)],
    &[Case(&[1, 2, 3], 1, &[1], true), Case(&[1, 2, 3], 2, &[2], false)],
    &[Case(&[1, 2, 3], 2, &[1, 2], true), Case(&[1, 2, 3], 1, &[1], false)],
    // Ours: twice the same signer is one.
    &[Case(FIVE, 2, &[1, 2], true), Case(FIVE, 2, &[1, 1], false)],
];

/// Of one of the other roles.
const OTHER_ROLES: [Case; 10] = [
    Case(&[2], 1, &[2], true),
    Case(&[1], 1, &[3, 1, 4], true),
    Case(&[2], 1, &[1, 3, 4], false),
    Case(OTHERS, 3, &[1, 3, 5], false),
    Case(OTHERS, 3, &[1, 5], false),
    Case(FIVE, 3, &[1, 3, 5], true),
    Case(FIVE, 3, &[1, 5, 2], true),
    Case(FIVE, 3, &[1, 2, 4], true),
    Case(FIVE, 3, &[2, 3, 4], true),
    Case(FIVE, 3, &[3, 4, 5], true),
];

/// Keys that the cases do not use: of root, targets, snapshot and timestamp.
const FIXED: [u8; 4] = [21, 22, 23, 24];

fn public(seeds: &[u8]) -> Vec<trust::PublicKey> {
    seeds.iter().map(|seed| key(*seed).public()).collect()
}

/// A root whose roles have the fixed keys, but for one.
fn root(version: u64, role: RoleName, case: &Case) -> trust::Root {
    let of = |this: RoleName, fixed: u8| {
        if this == role {
            RoleKeys::new(&public(case.0), case.1)
        } else {
            RoleKeys::new(&public(&[fixed]), 1)
        }
    };
    let roles = Roles {
        root: of(RoleName::Root, FIXED[0]),
        targets: of(RoleName::Targets, FIXED[1]),
        snapshot: of(RoleName::Snapshot, FIXED[2]),
        timestamp: of(RoleName::Timestamp, FIXED[3]),
    };
    let keys = public(&[FIXED.as_slice(), case.0].concat());
    trust::Root::new(version, NOW.plus(DAY), &keys, roles).unwrap()
}

/// Signs all but the roots; `role` as the case has it.
fn publish(server: &mut Server, version: u64, role: RoleName, case: &Case) {
    let by = |this: RoleName, fixed: u8| if this == role { case.2.to_vec() } else { vec![fixed] };
    let config = config(50).to_bytes();
    let end = NOW.plus(DAY);
    let targets = Targets::new(version, end, &config);
    server.put(File::Config(targets.config().digest()), config);
    let targets = sign(targets, &by(RoleName::Targets, FIXED[1]));
    let snapshot = Snapshot::new(version, end, Meta::of(version, &targets));
    server.put(File::Targets(version), targets);
    let snapshot = sign(snapshot, &by(RoleName::Snapshot, FIXED[2]));
    let timestamp = trust::Timestamp::new(version, end, Meta::of(version, &snapshot));
    server.put(File::Snapshot(version), snapshot);
    server.put(File::Timestamp, sign(timestamp, &by(RoleName::Timestamp, FIXED[3])));
}

#[tokio::test]
async fn every_root_is_signed_by_enough_of_both() {
    for (number, cases) in ROOTS.iter().enumerate() {
        let mut server = Server::default();
        for (version, case) in (1..).zip(cases.iter()) {
            server.put(File::Root(version), sign(root(version, RoleName::Root, case), case.2));
        }
        publish(&mut server, 1, RoleName::Root, &cases[0]);
        let host = Host::new(Root::from_bytes(server.files[&File::Root(1)].clone()).unwrap());
        let refreshed = host.refresh(&server, NOW).await;
        let (last, good) = (cases.len() as u64, cases[cases.len() - 1].3);
        match refreshed {
            Ok(trusted) => {
                assert!(good, "case {number}");
                assert_eq!(trusted.versions[0], (RoleName::Root, last), "case {number}");
            }
            Err(error) => {
                assert!(!good, "case {number}: {error}");
                let is_root = matches!(&error, Error::Signatures { role, .. } if role == "root");
                assert!(is_root, "case {number}: {error}");
            }
        }
        // What is kept is the last good root.
        let kept = std::fs::read(host.folder.path().join("root.json")).unwrap();
        let last_good = if good { last } else { last - 1 };
        assert_eq!(kept, server.files[&File::Root(last_good)], "case {number}");
    }
}

#[tokio::test]
async fn every_other_role_is_signed_by_enough_of_what_the_root_names() {
    for role in [RoleName::Targets, RoleName::Snapshot, RoleName::Timestamp] {
        for (number, case) in OTHER_ROLES.iter().enumerate() {
            let mut server = Server::default();
            let first = Case(&[25], 1, &[25], true);
            server.put(File::Root(1), sign(root(1, role, &first), &FIXED));
            publish(&mut server, 1, role, &first);
            let host = Host::new(Root::from_bytes(server.files[&File::Root(1)].clone()).unwrap());
            host.refresh(&server, NOW).await.unwrap();
            server.put(File::Root(2), sign(root(2, role, case), &FIXED));
            publish(&mut server, 2, role, case);
            match host.refresh(&server, NOW).await {
                Ok(trusted) => {
                    assert!(case.3, "{role}, case {number}");
                    assert_eq!(trusted.versions.map(|(_, version)| version), [2; 4]);
                }
                Err(error) => {
                    let expected = matches!(&error, Error::Signatures { role: named, .. }
                        if named == role.as_str());
                    assert!(!case.3 && expected, "{role}, case {number}: {error}");
                }
            }
        }
    }
}
