#![allow(clippy::unwrap_used)]

use std::time::Duration;

use modunest_core::trust::{
    File, Meta, Roles, SNAPSHOT_FRESH_FOR, Signed, SigningKey, Snapshot, TIMESTAMP_LIVES_FOR,
    Timestamp,
};
use modunest_tlog::SigningKey as NoteKey;
use tempfile::TempDir;

use super::*;

/// 2030-01-01T00:00:00Z.
const NOW: modunest_core::time::Timestamp =
    modunest_core::time::Timestamp::from_millis(1_893_456_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn publics(seeds: &[u8]) -> Vec<PublicKey> {
    seeds.iter().map(|seed| key(*seed).public()).collect()
}

fn signing(seeds: &[u8]) -> Vec<SigningKey> {
    seeds.iter().map(|seed| key(*seed)).collect()
}

fn config(log: u8) -> Config {
    let key = |seed: u8| {
        NoteKey::from_seed("registry.example.org".parse().unwrap(), &[seed; 32]).verifying_key()
    };
    let template = Template {
        origin: "registry.example.org".parse().unwrap(),
        log_key: Given::Public(key(log)),
        head_key: Given::Public(key(101)),
        statement_key: key(102),
        witness_policy: None,
    };
    template.config(key(log), key(101)).unwrap()
}

struct World {
    temporary: TempDir,
    folder: Folder,
}

impl World {
    fn empty() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(&temporary.path().join("trust"));
        World { temporary, folder }
    }

    /// Two of the holders 1, 2, 3; online key 9.
    fn create(&self, at_hand: &[u8]) -> Report {
        let founders = Founders {
            root: publics(&[1, 2, 3]),
            threshold: 2,
            targets: (publics(&[1, 2, 3]), 2),
            online: publics(&[9]),
        };
        ceremony::create(&self.folder, &founders, &config(50), &signing(at_hand), NOW).unwrap()
    }

    fn created() -> Self {
        let world = World::empty();
        world.create(&[1, 2, 9]);
        world
    }

    /// What `modunest trust show` says, without the folder's place.
    async fn shown(&self) -> String {
        let (view, config) = show::view(&self.folder, NOW).await.unwrap();
        show::words(&view, config.as_ref())
    }

    async fn verified(&self, now: modunest_core::time::Timestamp) -> Result<(), String> {
        show::view(&self.folder, now).await.unwrap().0.refused.map_or(Ok(()), Err)
    }

    fn said(&self, report: &Report) -> String {
        let place = self.temporary.path().display().to_string();
        words(&self.folder, report).replace(&place, "…")
    }

    fn versions(&self) -> Vec<String> {
        self.folder.list().unwrap().iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn one_hand_with_all_keys_makes_a_root_that_hosts_believe() {
    let world = World::empty();
    let report = world.create(&[1, 2, 3, 9]);
    assert_eq!(report.upload.len(), 5);
    assert!(report.waiting.is_empty() && !report.refresh);
    assert_eq!(world.verified(NOW).await, Ok(()));
    assert!(world.folder.drafts().list().unwrap().is_empty());
    insta::assert_snapshot!("created", world.said(&report));
    insta::assert_snapshot!("shown", world.shown().await);
    assert!(world.verified(NOW.plus(TIMESTAMP_LIVES_FOR)).await.is_err());
}

#[tokio::test]
async fn holders_sign_one_after_another() {
    let world = World::empty();
    let report = world.create(&[]);
    assert!(report.upload.is_empty());
    insta::assert_snapshot!("waiting_for_all", world.said(&report));
    // Neither a stranger nor the same one again brings it forward.
    for keys in [&[77][..], &[2], &[2]] {
        let report = ceremony::settle(&world.folder, &signing(keys), NOW).unwrap();
        assert!(report.upload.is_empty(), "{keys:?}");
    }
    let report = ceremony::settle(&world.folder, &[], NOW).unwrap();
    insta::assert_snapshot!("waiting_for_one", world.said(&report));
    let report = ceremony::settle(&world.folder, &signing(&[3]), NOW).unwrap();
    assert_eq!(report.upload.len(), 3);
    assert!(report.refresh);
    insta::assert_snapshot!("waiting_for_the_online_key", world.said(&report));
    assert!(world.verified(NOW).await.is_err());
    let report = ceremony::settle(&world.folder, &signing(&[9]), NOW).unwrap();
    assert_eq!(report.upload, ["1.snapshot.json", "timestamp.json"]);
    assert_eq!(world.verified(NOW).await, Ok(()));
}

#[tokio::test]
async fn a_ceremony_is_finished_before_the_next_one_begins() {
    let world = World::created();
    ceremony::configure(&world.folder, &config(51), &signing(&[1]), NOW).unwrap();
    let again = ceremony::configure(&world.folder, &config(52), &signing(&[1]), NOW);
    assert!(again.unwrap_err().to_string().contains("modunest trust sign"));
    assert_eq!(world.verified(NOW).await, Ok(()));
    let report = ceremony::settle(&world.folder, &signing(&[3, 9]), NOW).unwrap();
    assert_eq!(report.upload[1..], ["2.targets.json", "2.snapshot.json", "timestamp.json"]);
    let (view, _) = show::view(&world.folder, NOW).await.unwrap();
    assert_eq!(view.refused, None);
    let log_key = config(51).log_key.to_string();
    assert_eq!(view.config.unwrap()["log_key"], log_key.as_str());
    // A second root is not made over the first.
    let founders = Founders {
        root: publics(&[4]),
        threshold: 1,
        targets: (publics(&[4]), 1),
        online: publics(&[8]),
    };
    let error = ceremony::create(&world.folder, &founders, &config(1), &[], NOW).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
}

#[tokio::test]
async fn a_holder_is_replaced_where_holders_sign_everything() {
    let world = World::created();
    let (old, new) = (key(1).public().id(), key(4).public());
    // Two of the old holders are enough for the root; the configuration was signed by 1 and 2,
    // so that under the new root somebody signs it anew.
    let report = ceremony::rotate(&world.folder, old, &new, &signing(&[2]), NOW).unwrap();
    insta::assert_snapshot!("rotating", world.said(&report));
    assert_eq!(world.verified(NOW).await, Ok(()));
    let report = ceremony::settle(&world.folder, &signing(&[3]), NOW).unwrap();
    assert!(report.waiting.is_empty());
    assert_eq!(report.upload[1..], ["2.targets.json", "2.root.json"]);
    let report = ceremony::settle(&world.folder, &signing(&[9]), NOW).unwrap();
    assert_eq!(report.upload, ["2.snapshot.json", "timestamp.json"]);
    assert_eq!(world.verified(NOW).await, Ok(()));
    let error = ceremony::rotate(&world.folder, old, &new, &[], NOW).unwrap_err();
    assert!(error.to_string().contains("modunest trust show"), "{error}");
    // The one who left signs nothing any more.
    ceremony::configure(&world.folder, &config(51), &signing(&[1, 2]), NOW).unwrap();
    assert_eq!(ceremony::settle(&world.folder, &[], NOW).unwrap().waiting.len(), 1);
}

#[tokio::test]
async fn all_holders_are_replaced_by_the_old_and_the_new_ones() {
    let world = World::created();
    let holders = publics(&[4, 5, 6]);
    let change = |roles: &mut Roles| {
        roles.root = RoleKeys::new(&holders, 3);
        roles.targets = roles.root.clone();
    };
    let report =
        ceremony::change_root(&world.folder, &holders, change, &signing(&[1, 4, 5]), NOW).unwrap();
    insta::assert_snapshot!("replacing", world.said(&report));
    ceremony::settle(&world.folder, &signing(&[6]), NOW).unwrap();
    let report = ceremony::settle(&world.folder, &signing(&[2, 9]), NOW).unwrap();
    assert!(report.waiting.is_empty());
    assert_eq!(world.verified(NOW).await, Ok(()));
    let (root, _) = world.folder.root().unwrap();
    assert_eq!((root.signed.common.version, root.signed.keys.len()), (2, 4));
}

#[tokio::test]
async fn a_stolen_online_key_is_replaced_however_far_ahead_the_thief_went() {
    let world = World::created();
    let far = 1 << 40;
    let mut snapshot =
        Signed::new(Snapshot::new(far, NOW.plus(TIMESTAMP_LIVES_FOR), Meta::of(far, b"")));
    snapshot.sign(&key(9));
    let bytes = snapshot.to_bytes();
    let mut timestamp =
        Signed::new(Timestamp::new(far, NOW.plus(TIMESTAMP_LIVES_FOR), Meta::of(far, &bytes)));
    timestamp.sign(&key(9));
    world.folder.write(File::Snapshot(far), &bytes).unwrap();
    world.folder.write(File::Timestamp, &timestamp.to_bytes()).unwrap();
    assert!(world.verified(NOW).await.is_err());
    let new = key(19).public();
    let change = |roles: &mut Roles| {
        roles.snapshot = RoleKeys::new([&new], 1);
        roles.timestamp = roles.snapshot.clone();
    };
    let keys = signing(&[1, 3, 19]);
    let report = ceremony::change_root(&world.folder, &[new], change, &keys, NOW).unwrap();
    let next = format!("{}.snapshot.json", far + 1);
    assert_eq!(report.upload, [next.as_str(), "2.root.json", "timestamp.json"]);
    assert_eq!(world.verified(NOW).await, Ok(()));
    assert!(ceremony::settle(&world.folder, &signing(&[19]), NOW).unwrap().upload.is_empty());
}

#[tokio::test]
async fn the_online_key_renews_what_is_due() {
    let world = World::created();
    let nothing = ceremony::settle(&world.folder, &signing(&[9]), NOW).unwrap();
    assert_eq!(world.said(&nothing), "nothing is due");
    let later = NOW.plus(SNAPSHOT_FRESH_FOR);
    assert!(ceremony::settle(&world.folder, &[], later).unwrap().refresh);
    let report = ceremony::settle(&world.folder, &signing(&[9]), later).unwrap();
    assert_eq!(report.upload, ["2.snapshot.json", "timestamp.json"]);
    assert_eq!(world.verified(later.plus(Duration::from_secs(1))).await, Ok(()));
}

#[test]
fn a_move_that_was_cut_short_goes_on() {
    let world = World::empty();
    world.create(&[1]);
    // Another process moved the first file over and died.
    let drafts = world.folder.drafts();
    let files = drafts.list().unwrap();
    let report = ceremony::settle(&world.folder, &signing(&[2]), NOW).unwrap();
    assert_eq!(report.upload.len(), 3);
    for file in files {
        let bytes = world.folder.read(file).unwrap().unwrap();
        drafts.write(file, &bytes).unwrap();
    }
    let report = ceremony::settle(&world.folder, &signing(&[9]), NOW).unwrap();
    assert_eq!(report.upload, ["1.snapshot.json", "timestamp.json"]);
    assert_eq!(world.versions().len(), 5);
    assert!(drafts.list().unwrap().is_empty());
}

#[test]
fn key_files_are_private_and_their_public_half_is_not_secret() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("holder.pem");
    let (public, beside) = keys::create(&path).unwrap();
    assert_eq!(beside, temporary.path().join("holder.pem.pub"));
    let both = keys::read(&[path.clone(), beside.clone()]).unwrap();
    assert!(both.iter().all(|key| key.public == public));
    assert!(both[0].private.is_some() && both[1].private.is_none());
    assert!(keys::create(&path).is_err());
    // The public half signs nothing, and a private one that others can read is refused.
    assert!(matches!(keys::read_signing(&[beside]), Err(Error::Input(_))));
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(keys::read(std::slice::from_ref(&path)), Err(Error::Input(_))));
    assert!(matches!(identifier("nowhere.pem"), Err(Error::File { .. })));
    assert_eq!(identifier(&public.id().to_hex()).unwrap(), public.id());
}

#[test]
fn the_online_key_cannot_be_a_holders() {
    let world = World::empty();
    let founders = Founders {
        root: publics(&[1, 2]),
        threshold: 2,
        targets: (publics(&[1, 2]), 2),
        online: publics(&[2]),
    };
    let error = ceremony::create(&world.folder, &founders, &config(50), &signing(&[1, 2]), NOW)
        .unwrap_err();
    assert!(error.to_string().contains("to an offline and an online role"), "{error}");
    assert!(world.versions().is_empty());
}
