use std::collections::BTreeMap;

use super::*;
use test_release as release;

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), &[seed; 32])
}

fn signed(release: Release, key: &SigningKey) -> SignedStatement {
    Statement::Release(Arc::new(release)).sign(key).unwrap()
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
        Statement::Release(Arc::new(release)).text().unwrap_err().to_string()
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

/// The registry and its one organisation `demo`, whose key was added at position 0.
struct World {
    registry: SigningKey,
    key: SigningKey,
    keys: RegistryKeys,
    orgs: BTreeMap<OrgName, OrgState>,
    plugin: PluginState,
    /// The next position.
    size: u64,
}

impl World {
    fn new() -> Self {
        let registry = key("registry.example.org", 1);
        let mut world = World {
            keys: RegistryKeys::in_use([registry.verifying_key()]),
            registry,
            key: key("demo", 2),
            orgs: BTreeMap::new(),
            plugin: PluginState::new("demo/markdown".parse().unwrap()),
            size: 0,
        };
        let added = world.key.clone();
        world.key_change("demo", KeyChange::Add, &added, None).unwrap();
        world
    }

    fn key_change(
        &mut self,
        org: &str,
        change: KeyChange,
        key: &SigningKey,
        replaces: Option<&SigningKey>,
    ) -> Result<(), FoldError> {
        let org: OrgName = org.parse().unwrap();
        let state = self.orgs.entry(org.clone()).or_insert_with(|| OrgState::new(org.clone()));
        let Link { sequence, previous } = state.next;
        let text = |key: &SigningKey| key.verifying_key().to_string();
        let (key, replaces) = (text(key), replaces.map(text));
        let reason = None;
        let statement =
            Statement::Key(Key { org, sequence, previous, key, change, replaces, reason });
        let signed = statement.sign(&self.registry).unwrap();
        self.size += 1;
        state.apply(self.size - 1, &signed, &self.keys)
    }

    fn say(&mut self, signed: &SignedStatement) -> Result<(), FoldError> {
        self.size += 1;
        let authorities = Authorities { registry: &self.keys, orgs: &self.orgs };
        self.plugin.apply(self.size - 1, signed, authorities)
    }

    fn release(&mut self, version: &str) -> Result<(), FoldError> {
        let signed = signed(release("demo/markdown", version, self.plugin.next), &self.key);
        self.say(&signed)
    }

    /// Says what `of` makes of the next link in the statement's chain.
    fn registry_says(&mut self, of: impl FnOnce(Link) -> Statement) -> Result<(), FoldError> {
        let signed = of(self.plugin.registry_next).sign(&self.registry).unwrap();
        self.say(&signed)
    }

    fn owner_says(&mut self, of: impl FnOnce(Link) -> Statement) -> Result<(), FoldError> {
        let signed = of(self.plugin.next).sign(&self.key).unwrap();
        self.say(&signed)
    }

    fn status(&self, version: &str) -> Status {
        self.plugin.status(&self.plugin.releases[&version.parse().unwrap()])
    }
}

fn plugin() -> PluginName {
    "demo/markdown".parse().unwrap()
}

fn yank(version: &str, yanked: bool, link: Link) -> Statement {
    Statement::Yank(Yank {
        plugin: plugin(),
        version: version.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        yanked,
        reason: yanked.then(|| "broken tables".into()),
    })
}

fn quarantine(version: &str, quarantined: bool, link: Link) -> Statement {
    Statement::Quarantine(Quarantine {
        plugin: plugin(),
        version: version.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        quarantined,
        reason: "sends mail".into(),
    })
}

#[test]
fn a_plugin_folds_in_its_own_order_only() {
    let mut world = World::new();
    let key = world.key.clone();
    let first = signed(release("demo/markdown", "1.0.0", Link::FIRST), &key);
    let second = signed(release("demo/markdown", "1.1.0", first.next_link()), &key);
    let third = yank("1.0.0", true, second.next_link()).sign(&key).unwrap();

    assert!(matches!(world.say(&second), Err(FoldError::Chain { .. })));
    world.say(&first).unwrap();
    assert!(matches!(world.say(&first), Err(FoldError::Chain { .. })));
    assert!(matches!(world.say(&third), Err(FoldError::Chain { .. })));
    world.say(&second).unwrap();
    world.say(&third).unwrap();
    assert_eq!(world.status("1.0.0"), Status::Yanked { reason: Some("broken tables".into()) });
    assert_eq!(world.status("1.1.0"), Status::Active);

    let stranger = signed(release("other/markdown", "1.0.0", world.plugin.next), &key);
    assert!(matches!(world.say(&stranger), Err(FoldError::Subject { .. })));
    let unknown_key =
        signed(release("demo/markdown", "1.2.0", world.plugin.next), &self::key("demo", 9));
    assert!(matches!(world.say(&unknown_key), Err(FoldError::Statement { .. })));
    let twice = signed(release("demo/markdown", "1.1.0", world.plugin.next), &key);
    assert!(matches!(world.say(&twice), Err(FoldError::Twice { .. })));
}

#[test]
fn what_the_registry_says_needs_no_turn_of_the_owner() {
    let mut world = World::new();
    world.release("1.0.0").unwrap();
    let statement = world.plugin.releases.values().next().unwrap().statement;
    let verdict = |statement, outcome, link: Link| {
        Statement::Verdict(Verdict {
            plugin: plugin(),
            version: "1.0.0".parse().unwrap(),
            sequence: link.sequence,
            previous: link.previous,
            statement,
            ruleset: 1,
            outcome,
            report: Digest::of(b"report"),
        })
    };
    let other = Digest::of(b"another statement");
    let wrong = world.registry_says(|link| verdict(other, VerdictOutcome::Clean, link));
    assert!(matches!(wrong, Err(FoldError::Verdict { .. })));
    world.registry_says(|link| verdict(statement, VerdictOutcome::Clean, link)).unwrap();
    world.registry_says(|link| quarantine("1.0.0", true, link)).unwrap();
    assert!(matches!(world.status("1.0.0"), Status::Quarantined { .. }));
    // The owner goes on behind its own last statement, and cannot undo it.
    world.owner_says(|link| yank("1.0.0", false, link)).unwrap();
    assert!(matches!(world.status("1.0.0"), Status::Quarantined { .. }));
    let by_owner = quarantine("1.0.0", false, world.plugin.registry_next).sign(&world.key);
    assert!(matches!(world.say(&by_owner.unwrap()), Err(FoldError::Statement { .. })));
    world.registry_says(|link| quarantine("1.0.0", false, link)).unwrap();
    assert_eq!(world.status("1.0.0"), Status::Active);
    world.registry_says(|link| verdict(statement, VerdictOutcome::Rejected, link)).unwrap();
    assert!(matches!(world.status("1.0.0"), Status::Quarantined { .. }));
    let trust = |link: Link| {
        Statement::Trust(Trust {
            plugin: plugin(),
            sequence: link.sequence,
            previous: link.previous,
            level: TrustLevel::Verified,
            reason: None,
        })
    };
    world.registry_says(trust).unwrap();
    assert_eq!(world.plugin.trust, TrustLevel::Verified);
}

#[test]
fn a_deprecation_is_of_one_release_or_of_all() {
    let mut world = World::new();
    world.release("1.0.0").unwrap();
    world.release("2.0.0").unwrap();
    let deprecation = |version: Option<&str>, deprecated, link: Link| {
        Statement::Deprecation(Deprecation {
            plugin: plugin(),
            version: version.map(|version| version.parse().unwrap()),
            sequence: link.sequence,
            previous: link.previous,
            deprecated,
            message: Some("use 2".into()),
        })
    };
    world.owner_says(|link| deprecation(Some("1.0.0"), true, link)).unwrap();
    let deprecated = Status::Deprecated { message: Some("use 2".into()) };
    assert_eq!(
        (world.status("1.0.0"), world.status("2.0.0")),
        (deprecated.clone(), Status::Active)
    );
    world.owner_says(|link| deprecation(None, true, link)).unwrap();
    assert_eq!(world.status("2.0.0"), deprecated);
    world.owner_says(|link| deprecation(None, false, link)).unwrap();
    world.owner_says(|link| deprecation(Some("1.0.0"), false, link)).unwrap();
    assert_eq!(world.status("1.0.0"), Status::Active);
}

#[test]
fn a_plugin_changes_hands_and_its_old_owner_is_heard_no_more() {
    let mut world = World::new();
    let new = key("other", 3);
    world.key_change("other", KeyChange::Add, &new, None).unwrap();
    world.release("1.0.0").unwrap();
    let give = |owner: &'static str| {
        move |link: Link| {
            Statement::Ownership(Ownership {
                plugin: plugin(),
                sequence: link.sequence,
                previous: link.previous,
                owner: owner.parse().unwrap(),
            })
        }
    };
    world.owner_says(give("other")).unwrap();
    assert!(matches!(world.release("1.1.0"), Err(FoldError::Statement { .. })));
    let old = std::mem::replace(&mut world.key, new);
    world.release("1.1.0").unwrap();
    assert_eq!(world.plugin.owner.as_str(), "other");
    world.owner_says(give("nobody")).unwrap();
    world.key = old;
    assert!(matches!(world.release("1.2.0"), Err(FoldError::NoKeys { .. })));
}

#[test]
fn a_key_signs_between_its_two_positions_only() {
    let mut world = World::new();
    let (old, new) = (world.key.clone(), key("demo", 4));
    world.release("1.0.0").unwrap();
    world.key_change("demo", KeyChange::Rotate, &new, Some(&old)).unwrap();
    // What was signed before a rotation stays good, and the old key signs nothing more.
    assert!(matches!(world.release("1.1.0"), Err(FoldError::Statement { .. })));
    world.key = new.clone();
    world.release("1.1.0").unwrap();
    assert_eq!(world.status("1.0.0"), Status::Active);
    assert_eq!(world.orgs[&"demo".parse().unwrap()].valid_keys(), [new.verifying_key()]);
    let again = world.key_change("demo", KeyChange::Add, &old, None);
    assert!(matches!(again, Err(FoldError::Key { .. })));
    let rotated_out = world.key_change("demo", KeyChange::Rotate, &key("demo", 5), Some(&old));
    assert!(matches!(rotated_out, Err(FoldError::Key { .. })));

    // A revocation takes back whatever the key signed, whenever: folded anew, as readers do.
    world.key_change("demo", KeyChange::Revoke, &new, None).unwrap();
    let twice = world.key_change("demo", KeyChange::Revoke, &new, None);
    assert!(matches!(twice, Err(FoldError::Key { .. })));
    let first = signed(release("demo/markdown", "1.0.0", Link::FIRST), &old);
    let second = signed(release("demo/markdown", "1.1.0", first.next_link()), &new);
    let mut again = PluginState::new(plugin());
    let authorities = Authorities { registry: &world.keys, orgs: &world.orgs };
    again.apply(1, &first, authorities).unwrap();
    // Position 3 is where the first attempt to use the old key failed; any between will do.
    again.apply(4, &second, authorities).unwrap();
    let status = |version: &str| again.status(&again.releases[&version.parse().unwrap()]);
    assert_eq!(status("1.0.0"), Status::Active);
    assert!(matches!(status("1.1.0"), Status::Quarantined { .. }));
    assert!(matches!(world.release("1.2.0"), Err(FoldError::Statement { .. })));
}

#[test]
fn a_stolen_statement_key_is_believed_up_to_its_position() {
    let mut world = World::new();
    world.release("1.0.0").unwrap();
    let stolen = world.registry.clone();
    let fresh = key("registry.example.org", 7);
    world.keys = RegistryKeys(vec![
        RegistryKey { key: stolen.verifying_key(), until: Some(world.size) },
        RegistryKey { key: fresh.verifying_key(), until: None },
    ]);
    let refused = world.registry_says(|link| quarantine("1.0.0", true, link));
    assert!(matches!(refused, Err(FoldError::Statement { .. })));
    world.registry = fresh;
    world.registry_says(|link| quarantine("1.0.0", true, link)).unwrap();
    // What the stolen key said before stands: the organisation's key is still known.
    world.release("1.1.0").unwrap();
}

#[test]
fn keys_are_the_organisations_and_signed_by_the_registry() {
    let mut world = World::new();
    let state = &world.orgs[&"demo".parse().unwrap()];
    let Link { sequence, previous } = state.next;
    let statement = |name: &str, change, replaces| Key {
        org: "demo".parse().unwrap(),
        sequence,
        previous,
        key: key(name, 6).verifying_key().to_string(),
        change,
        replaces,
        reason: None,
    };
    let add = Statement::Key(statement("demo", KeyChange::Add, None));
    let by_itself = add.sign(&world.key).unwrap();
    let mut state = state.clone();
    assert!(matches!(
        state.apply(world.size, &by_itself, &world.keys),
        Err(FoldError::Statement { .. })
    ));
    let refused = |key: Key| Statement::Key(key).text().unwrap_err().to_string();
    let texts = [
        refused(statement("other", KeyChange::Add, None)),
        refused(statement("demo", KeyChange::Rotate, None)),
        refused(statement("demo", KeyChange::Add, Some(world.key.verifying_key().to_string()))),
    ];
    insta::assert_snapshot!(texts.join("\n"), @r"
    key: its name must be the organisation's, demo
    replaces: a rotation names the key it replaces, nothing else does
    replaces: a rotation names the key it replaces, nothing else does
    ");
    assert!(world.key_change("demo", KeyChange::Revoke, &key("demo", 8), None).is_err());
}
