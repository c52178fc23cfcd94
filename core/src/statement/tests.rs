use super::*;
use test_release as release;

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), &[seed; 32])
}

fn signed(release: Release, key: &SigningKey) -> SignedStatement {
    Statement::Release(Box::new(release)).sign(key).unwrap()
}

#[test]
fn bytes_survive_and_any_change_is_refused() {
    let key = key("demo", 1);
    let statement = signed(release("demo/markdown", "1.0.0", Link::FIRST), &key);
    let again = SignedStatement::parse(statement.bytes().to_vec()).unwrap();
    assert_eq!(again, statement);
    assert!(again.verify([&key.verifying_key()]).is_ok());

    let text = String::from_utf8(statement.bytes().to_vec()).unwrap();
    let swapped = text.replace("1.0.0", "1.0.1");
    let other = SignedStatement::parse(swapped.into_bytes()).unwrap();
    assert!(matches!(
        other.verify([&key.verifying_key()]),
        Err(StatementError::Note(NoteError::Invalid(_)))
    ));

    let unknown = text.replace("\"manifest\"", "\"surprise\":1,\"manifest\"");
    assert!(matches!(SignedStatement::parse(unknown.into_bytes()), Err(StatementError::Json(_))));
    let kind = text.replace("release/v1", "release/v2");
    assert!(matches!(SignedStatement::parse(kind.into_bytes()), Err(StatementError::Kind(_))));
}

#[test]
fn rules_of_a_release() {
    let refused = |change: &dyn Fn(&mut Release)| {
        let mut release = release("demo/markdown", "1.0.0", Link::FIRST);
        change(&mut release);
        Statement::Release(Box::new(release)).text().unwrap_err().to_string()
    };
    let texts = [
        refused(&|r| r.builds.clear()),
        refused(&|r| r.builds.push(r.builds[0].clone())),
        refused(&|r| r.builds[0].size_bytes = 0),
        refused(&|r| r.sequence = 2),
        refused(&|r| {
            r.dependencies.push(crate::relation::Dependency {
                plugin: r.plugin.clone(),
                requirement: "*".parse().unwrap(),
                optional: false,
            });
        }),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r"
    builds: a release has 1 to 32 builds
    builds: native x86_64-unknown-linux-gnu, abi 1 stands twice
    builds: an archive has 1 to 52428800 bytes, not 0
    previous: the first statement has sequence 1 and no previous, every other has one
    dependencies: a plugin cannot depend on itself
    ");
}

#[test]
fn a_plugin_folds_in_its_own_order_only() {
    let key = key("demo", 1);
    let keys = [key.verifying_key()];
    let first = signed(release("demo/markdown", "1.0.0", Link::FIRST), &key);
    let second = signed(release("demo/markdown", "1.1.0", first.next_link()), &key);
    let yank = Statement::Yank(Yank {
        plugin: "demo/markdown".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        sequence: 3,
        previous: Some(second.digest()),
        yanked: true,
        reason: Some("broken tables".into()),
    })
    .sign(&key)
    .unwrap();

    let mut state = PluginState::new("demo/markdown".parse().unwrap());
    assert!(matches!(state.apply(&second, &keys), Err(FoldError::Chain { .. })));
    state.apply(&first, &keys).unwrap();
    assert!(matches!(state.apply(&first, &keys), Err(FoldError::Chain { .. })));
    assert!(matches!(state.apply(&yank, &keys), Err(FoldError::Chain { .. })));
    state.apply(&second, &keys).unwrap();
    state.apply(&yank, &keys).unwrap();
    let status: Vec<_> = state.releases.values().map(|r| r.status.clone()).collect();
    assert_eq!(status, [Status::Yanked { reason: Some("broken tables".into()) }, Status::Active]);

    let stranger = signed(release("other/markdown", "1.0.0", state.next), &key);
    assert!(matches!(state.apply(&stranger, &keys), Err(FoldError::Subject { .. })));
    let unknown_key = signed(release("demo/markdown", "1.2.0", state.next), &self::key("demo", 9));
    assert!(matches!(state.apply(&unknown_key, &keys), Err(FoldError::Statement { .. })));
    let twice = signed(release("demo/markdown", "1.1.0", state.next), &key);
    assert!(matches!(state.apply(&twice, &keys), Err(FoldError::Twice { .. })));
}

#[test]
fn an_organisation_folds_keys_signed_by_the_registry() {
    let registry = key("registry.example.org", 1);
    let publisher = key("demo", 2).verifying_key();
    let statement = |link: Link, key: &VerifyingKey, valid| {
        Statement::Key(Key {
            org: "demo".parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            key: key.to_string(),
            valid,
        })
    };
    let mut state = OrgState::new("demo".parse().unwrap());
    let add = statement(state.next, &publisher, true);
    let by_itself = add.sign(&key("demo", 2)).unwrap();
    assert!(state.apply(&by_itself, &[registry.verifying_key()]).is_err());
    state.apply(&add.sign(&registry).unwrap(), &[registry.verifying_key()]).unwrap();
    assert_eq!(state.valid_keys(), std::slice::from_ref(&publisher));
    let revoke = statement(state.next, &publisher, false).sign(&registry).unwrap();
    state.apply(&revoke, &[registry.verifying_key()]).unwrap();
    assert_eq!(state.valid_keys(), []);
    assert_eq!(state.all_keys(), std::slice::from_ref(&publisher));
    let again = statement(state.next, &publisher, true).sign(&registry).unwrap();
    assert!(matches!(state.apply(&again, &[registry.verifying_key()]), Err(FoldError::Key { .. })));
    let foreign = statement(Link::FIRST, &key("other", 3).verifying_key(), true);
    assert!(matches!(foreign.text(), Err(StatementError::Field { field: "key", .. })));
}
