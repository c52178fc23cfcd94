//! What goes on between attacks: rotation, being offline, a damaged disk.

use super::*;

#[tokio::test]
async fn roots_are_followed_over_many_versions_and_only_in_order() {
    let (mut operator, host) = world().await;
    // Every holder is replaced, one a version; then the online key.
    for (version, holders) in [(2, [4, 2, 3]), (3, [4, 5, 3]), (4, [4, 5, 6])] {
        let last = std::mem::replace(&mut operator.holders, holders.to_vec());
        let by: Vec<u8> = last.into_iter().chain(holders).collect();
        let root = operator.root(version, NOW);
        operator.publish_root(root, &by);
    }
    operator.online = 19;
    let root = operator.root(5, NOW);
    operator.publish_root(root, &[4, 5]);
    operator.configure(&config(52), NOW);
    operator.renew(NOW);
    let trusted = host.refresh(&operator.server, NOW).await.unwrap();
    assert_eq!(trusted.config, config(52));
    assert_eq!(trusted.versions[0].1, 5);
    // A new host with the first root gets there too; one with a newer root begins there.
    let newer = Root::from_bytes(operator.server.files[&File::Root(4)].clone()).unwrap();
    assert_eq!(newer.version(), 4);
    for root in [operator.pinned(), newer] {
        let trusted = Host::new(root).refresh(&operator.server, NOW).await.unwrap();
        assert_eq!(trusted.config, config(52));
    }
    // Without one in between there is no way.
    let mut gap = operator.server.clone();
    gap.files.remove(&File::Root(3));
    let error = Host::new(operator.pinned()).refresh(&gap, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Signatures { .. }), "{error}");
    // The host that went the whole way does not go back with them.
    let mut back = gap.clone();
    back.put(File::Root(6), operator.server.files[&File::Root(2)].clone());
    let error = host.refresh(&back, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Succession { trusted: 5, found: 2 }), "{error}");
    // And holders of the old root have no say any longer.
    let old = Operator { holders: HOLDERS.to_vec(), ..operator.clone() };
    let mut back = operator.server.clone();
    back.put(File::Root(6), sign(old.root(6, NOW), &HOLDERS));
    let error = host.refresh(&back, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Signatures { found: 0, .. }), "{error}");
    // Nor have new ones whom the old ones did not name.
    let usurper = Operator { holders: vec![71, 72, 73], ..operator.clone() };
    let mut taken = operator.server.clone();
    taken.put(File::Root(6), sign(usurper.root(6, NOW), &[71, 72, 73, 4]));
    let error = host.refresh(&taken, NOW).await.unwrap_err();
    assert!(matches!(error, Error::Signatures { found: 1, threshold: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_host_without_a_network_goes_on_until_the_timestamp_expires() {
    let (mut operator, host) = world().await;
    operator.server.down = true;
    let trusted = host.refresh(&operator.server, NOW.plus(6 * DAY)).await.unwrap();
    assert_eq!(trusted.config, config(50));
    assert!(trusted.offline.unwrap().contains("could not reach"));
    let error = host.refresh(&operator.server, NOW.plus(7 * DAY)).await.unwrap_err();
    assert!(matches!(&error, Error::Expired { role, .. } if role == "timestamp"), "{error}");
    // A host that never was online has nothing, and hears that nobody answers.
    let error = Host::new(operator.pinned()).refresh(&operator.server, NOW).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let updater = Updater::open(operator.pinned(), &host.folder.path().join("other")).unwrap();
    assert!(matches!(updater.kept(NOW), Err(Error::NothingKept)));
}

#[tokio::test]
async fn a_refusal_is_not_papered_over_with_what_is_kept() {
    let (operator, host) = world().await;
    let mut liar = operator.server.clone();
    liar.put(File::Timestamp, b"{}".to_vec());
    assert!(host.refresh(&liar, NOW).await.is_err());
    host.refresh(&operator.server, NOW).await.unwrap();
}

#[tokio::test]
async fn nothing_is_fetched_twice() {
    let (mut operator, host) = world().await;
    operator.server.asked.lock().unwrap().clear();
    host.refresh(&operator.server, NOW).await.unwrap();
    let asked = std::mem::take(&mut *operator.server.asked.lock().unwrap());
    assert_eq!(asked, [File::Root(2), File::Timestamp]);
    operator.configure(&config(51), NOW);
    operator.renew(NOW);
    host.refresh(&operator.server, NOW).await.unwrap();
    let asked = operator.server.asked.lock().unwrap().clone();
    let digest = Targets::new(2, NOW, &config(51).to_bytes()).config().digest();
    let all =
        [File::Root(2), File::Timestamp, File::Snapshot(2), File::Targets(2), File::Config(digest)];
    assert_eq!(asked, all);
}

#[tokio::test]
async fn a_damaged_disk_is_an_error_and_never_a_blank_one() {
    let (mut operator, _) = world().await;
    let root = operator.root(2, NOW);
    operator.publish_root(root, &HOLDERS);
    for name in ["timestamp.json", "snapshot.json", "root_history/2.root.json"] {
        let host = Host::new(operator.pinned());
        host.refresh(&operator.server, NOW).await.unwrap();
        let path = host.folder.path().join(name);
        let good = std::fs::read_to_string(&path).unwrap();
        // Garbage, and a signature that does not fit.
        for bad in ["{}".to_owned(), good.replace("\"version\": ", "\"version\": 1")] {
            assert_ne!(bad, good);
            std::fs::write(&path, bad).unwrap();
            let error = host.refresh(&operator.server, NOW).await.unwrap_err();
            assert!(matches!(&error, Error::Kept { path: at, .. } if *at == path), "{error}");
        }
        // What cannot be read at all.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = host.refresh(&operator.server, NOW).await.unwrap_err();
        assert!(matches!(error, Error::Cache { .. }), "{error}");
        assert_eq!(error.kind(), Kind::Failed);
    }
    // What can be fetched again and is proven then may be lost.
    for name in ["targets.json", "targets/config.json"] {
        let host = Host::new(operator.pinned());
        host.refresh(&operator.server, NOW).await.unwrap();
        std::fs::write(host.folder.path().join(name), "damaged").unwrap();
        assert!(Updater::open(operator.pinned(), host.folder.path()).unwrap().kept(NOW).is_err());
        host.refresh(&operator.server, NOW).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_believed() {
    let operator = Operator::new(NOW);
    let host = Host::new(operator.pinned());
    let updater = Updater::open(operator.pinned(), host.folder.path()).unwrap();
    // A folder stands where the timestamp is to be written.
    std::fs::create_dir(host.folder.path().join("timestamp.json")).unwrap();
    let error = updater.refresh(operator.server.fetch(), NOW).await.unwrap_err();
    assert!(matches!(error, Error::Cache { .. }), "{error}");
}

#[tokio::test]
async fn another_registrys_root_does_not_take_over_what_is_kept() {
    let (operator, host) = world().await;
    let other = Operator { holders: vec![31, 32, 33], online: 39, ..operator };
    let root = Root::from_bytes(sign(other.root(1, NOW), &[31, 32])).unwrap();
    let error = Updater::open(root, host.folder.path()).err().unwrap();
    assert!(error.to_string().contains("delete the folder"), "{error}");
}

#[tokio::test]
async fn a_folder_serves_as_a_registry_does() {
    let operator = Operator::new(NOW);
    let served = tempfile::tempdir().unwrap();
    std::fs::create_dir(served.path().join("targets")).unwrap();
    for (file, bytes) in &operator.server.files {
        std::fs::write(served.path().join(file.to_string()), bytes).unwrap();
    }
    let host = Host::new(Root::load(&served.path().join("1.root.json")).unwrap());
    let updater = Updater::open(host.root.clone(), host.folder.path()).unwrap();
    let fetch = from_folder(served.path().to_owned());
    assert_eq!(updater.refresh(fetch, NOW).await.unwrap().config, config(50));
    assert_eq!(updater.kept(NOW).unwrap().config, config(50));
    assert!(matches!(Root::load(&served.path().join("2.root.json")), Err(Error::RootFile { .. })));
}

/// A refresh can run on any thread: the agent spawns it.
#[test]
fn a_refresh_is_send() {
    fn is_send<T: Send>(_: T) {}
    let operator = Operator::new(NOW);
    let host = Host::new(operator.pinned());
    let updater = Updater::open(operator.pinned(), host.folder.path()).unwrap();
    fn sent<'a>(
        updater: &'a Updater,
        server: &Server,
    ) -> impl Future<Output = Result<Trusted, Error>> + use<'a> {
        updater.refresh(server.fetch(), NOW)
    }
    is_send(sent(&updater, &operator.server));
}
