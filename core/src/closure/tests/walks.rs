//! What an answer holds.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::resolve::{Candidate, Request, Resolver, Status, Step};

const WIDE: Limits = Limits::NATIVE;

fn small() -> Store {
    Store::of(&[
        spec("demo/front", "1.0.0", "demo/old ^1"),
        spec("demo/front", "1.1.0", "demo/back ^1, demo/extra? *"),
        Spec { target: ELSEWHERE, ..spec("demo/front", "1.2.0", "demo/mac ^1") },
        spec("demo/front", "2.0.0", "demo/next ^1"),
        spec("demo/back", "1.0.0", "other/deep ^1, gone/away ^1"),
        spec("other/deep", "1.0.0", "demo/front ^1"),
        spec("demo/old", "1.0.0", ""),
        spec("demo/extra", "1.0.0", ""),
        spec("demo/mac", "1.0.0", ""),
        spec("demo/next", "1.0.0", ""),
    ])
}

fn file_of(store: &Store, plugin: &str) -> ObjectKey {
    *store.path(&Subject::Plugin(plugin.parse().unwrap())).last().unwrap()
}

#[test]
fn what_a_requirement_admits_and_the_host_runs_is_followed() {
    let store = small();
    let sent = store.answer(want(&[("demo/front", "^1")]), WIDE);
    let has = |plugin: &str| sent.contains(&file_of(&store, plugin));
    for plugin in ["demo/front", "demo/back", "other/deep", "demo/old"] {
        assert!(has(plugin), "{plugin}");
        assert!(store.proof(plugin).iter().all(|key| sent.contains(key)), "{plugin}");
    }
    // That there is no gone/away is proven too.
    assert!(store.proof("gone/away").iter().all(|key| sent.contains(key)));
    for plugin in ["demo/extra", "demo/mac", "demo/next"] {
        assert!(!has(plugin), "{plugin}");
    }
    // Without a host, every build counts.
    let anywhere = ClosureRequest { host: None, ..want(&[("demo/front", "^1")]) };
    assert!(store.answer(anywhere, WIDE).contains(&file_of(&store, "demo/mac")));
}

#[test]
fn the_likely_comes_first_and_limits_end_cleanly() {
    let store = small();
    let request = want(&[("demo/front", "^1")]);
    let all = store.answer(request.clone(), WIDE);
    // What the newest release needs comes before what only an older one needs.
    let at = |plugin: &str| all.iter().position(|key| *key == file_of(&store, plugin)).unwrap();
    assert!(at("other/deep") < at("demo/old"));
    for objects in 0..all.len() {
        let limits = Limits { objects, ..WIDE };
        assert_eq!(store.answer(request.clone(), limits), all[..objects]);
    }
    let bytes: usize = all.iter().map(|key| store.objects[key].len()).sum();
    for less in [0, 1, bytes / 2, bytes - 1, bytes] {
        let limits = Limits { bytes: bytes - less, ..WIDE };
        let sent = store.answer(request.clone(), limits);
        assert!(sent.iter().map(|key| store.objects[key].len()).sum::<usize>() <= bytes - less);
        assert_eq!(sent.len() == all.len(), less == 0);
    }
    let mut closure = Closure::new(request, &store.head, Limits { objects: 1, ..WIDE }).unwrap();
    let ClosureStep::Need(keys) = closure.step() else { panic!("the root is needed") };
    // Until it is here, there is nothing more to say.
    assert_eq!(closure.step(), ClosureStep::Need(Vec::new()));
    assert!(closure.provide(keys[0], &store.objects[&keys[0]]).unwrap().is_some());
    assert_eq!(closure.provide(keys[0], &store.objects[&keys[0]]), Ok(None));
    assert_eq!(closure.step(), ClosureStep::Done);
    assert!(closure.is_cut_short());
}

#[test]
fn what_is_damaged_breaks_the_answer_off() {
    let store = small();
    let request = want(&[("demo/front", "^1")]);
    assert!(matches!(Closure::new(request.clone(), b"no head", WIDE), Err(ClosureError::Head(_))));
    for damaged in store.answer(request.clone(), WIDE) {
        // The keys of an organisation are not read here.
        if damaged == *store.path(&Subject::Org("demo".parse().unwrap())).last().unwrap()
            || damaged == *store.path(&Subject::Org("other".parse().unwrap())).last().unwrap()
        {
            continue;
        }
        let mut closure = Closure::new(request.clone(), &store.head, WIDE).unwrap();
        let failed = loop {
            let ClosureStep::Need(keys) = closure.step() else { break false };
            let mut results = keys.into_iter().map(|key| {
                let bytes = &store.objects[&key];
                let cut = if key == damaged { &bytes[..bytes.len() - 1] } else { &bytes[..] };
                closure.provide(key, cut)
            });
            if let Some(error) = results.find_map(Result::err) {
                assert!(matches!(error, ClosureError::Object { key, .. } if key == damaged));
                break true;
            }
        };
        assert!(failed, "{damaged} was cut and taken");
    }
}

#[test]
fn a_host_that_knows_gets_what_is_new() {
    let store = small();
    let log = store.log.size;
    let plugins = [("demo/front", "*"), ("other/deep", "*")];
    let ask = |since| ClosureRequest { host: None, since: Some(since), ..want(&plugins) };
    let files = |since| {
        let sent = store.answer(ask(since), WIDE).into_iter();
        sent.filter(|key| matches!(key, ObjectKey::Index(_))).collect::<BTreeSet<_>>()
    };
    let org = |org: &str| *store.path(&Subject::Org(org.parse().unwrap())).last().unwrap();
    let (front, deep) = (file_of(&store, "demo/front"), file_of(&store, "other/deep"));
    // From the beginning: these alone, and no dependency of theirs.
    assert_eq!(files(0), BTreeSet::from([front, deep, org("demo"), org("other")]));
    // The log: two keys, then the releases in the order above.
    assert_eq!(files(2), BTreeSet::from([front, deep]));
    assert_eq!(files(6), BTreeSet::from([deep]));
    assert_eq!(files(log), BTreeSet::new());
    for since in 0..=log {
        let (frames, end) = frame::read_in_pieces(&store.send(ask(since), WIDE), usize::MAX);
        assert_eq!(end, Ok(()));
        let mut received = Received::new(store.root, Some(since));
        let mut proven = BTreeMap::new();
        for Frame { part, bytes } in &frames[1..] {
            match part {
                Part::Object(key) => received.accept(*key, bytes).unwrap(),
                Part::Proof => {
                    let whole = std::mem::replace(&mut received, Received::new(store.root, None));
                    proven = whole.prove(bytes, &store.log).unwrap();
                }
            }
        }
        let expected = [0, 1, 2, 3, 4, 5, 7].into_iter().filter(|position| *position >= since);
        assert!(proven.into_keys().eq(expected), "since {since}");
    }
}

#[test]
fn without_its_tiles_there_is_an_answer_without_a_proof() {
    let store = small();
    let request = want(&[("demo/front", "^1")]);
    let proofs = |bytes: &[u8]| {
        let frames = frame::read_in_pieces(bytes, usize::MAX).0;
        frames.iter().filter(|frame| frame.part == Part::Proof).count()
    };
    assert_eq!(proofs(&store.send(request.clone(), WIDE)), 1);
    let none = Limits { tiles: 0, ..WIDE };
    assert_eq!(proofs(&store.send(request.clone(), none)), 0);
    for damaged in [true, false] {
        let mut closure = Closure::new(request.clone(), &store.head, WIDE).unwrap();
        let mut tiles = 0;
        while let ClosureStep::Need(keys) = closure.step() {
            for key in keys {
                match key {
                    ObjectKey::Tile(_) if damaged => {
                        assert_eq!(closure.provide(key, b"short"), Ok(None));
                    }
                    ObjectKey::Tile(_) => assert_eq!(closure.missing(key), Ok(())),
                    _ => assert!(closure.provide(key, &store.objects[&key]).unwrap().is_some()),
                }
                tiles += usize::from(matches!(key, ObjectKey::Tile(_)));
            }
        }
        assert_eq!((tiles, closure.proof()), (1, None));
    }
    // Nothing else may be missing.
    let mut closure = Closure::new(request, &store.head, WIDE).unwrap();
    let ClosureStep::Need(keys) = closure.step() else { panic!("the root is needed") };
    assert_eq!(closure.missing(keys[0]), Err(ClosureError::Missing(keys[0])));
}

const NAMES: [&str; 6] = ["demo/aa", "demo/bb", "demo/cc", "other/aa", "other/bb", "third/aa"];
const VERSIONS: [&str; 5] = ["0.1.0", "1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"];
const REQUIREMENTS: [&str; 8] = ["*", "*", "^1", "^2", ">=1.1", "<2", "=1.0.0", ">=2.0.0-rc.1"];

fn link() -> impl Strategy<Value = String> {
    let mut targets = NAMES.repeat(4);
    targets.extend(["gone/zz", "demo/zz"]);
    (select(vec!["", "", "", "?"]), select(targets), select(REQUIREMENTS.to_vec()))
        .prop_map(|(optional, target, requirement)| format!("{target}{optional} {requirement}"))
}

fn releases() -> impl Strategy<Value = Vec<Spec>> {
    let one = |(plugin, version): (&'static str, &'static str)| {
        (prop::collection::vec(link(), 0..4), 0..8_u8).prop_map(move |(links, fit)| Spec {
            target: if fit == 0 { ELSEWHERE } else { HERE },
            yanked: fit == 1,
            ..spec(plugin, version, &links.join(","))
        })
    };
    let all = NAMES.iter().flat_map(|plugin| VERSIONS.iter().map(|version| (*plugin, *version)));
    all.map(|release| prop::option::weighted(0.5, one(release)))
        .collect::<Vec<_>>()
        .prop_map(|specs| specs.into_iter().flatten().collect())
}

fn roots() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    prop::collection::vec((select(NAMES.to_vec()), select(REQUIREMENTS.to_vec())), 1..4)
}

/// Everything that the resolver asks for on its way.
fn asked_by_resolver(
    specs: &[Spec],
    request: &ClosureRequest,
    locked: BTreeMap<PluginName, semver::Version>,
) -> BTreeSet<PluginName> {
    let mut resolver =
        Resolver::new(Request { roots: request.plugins.clone(), locked, host: host() });
    let mut asked = BTreeSet::new();
    while let Step::Need(names) = resolver.step() {
        for name in &names {
            let of = specs.iter().filter(|spec| spec.plugin == name.as_str());
            let candidates: Vec<Candidate> = of
                .map(|spec| Candidate {
                    version: spec.version.parse().unwrap(),
                    status: if spec.yanked { Status::Yanked } else { Status::Active },
                    dependencies: spec.dependencies(),
                    incompatible: Vec::new(),
                    host: test_release(spec.plugin, spec.version, Link::FIRST).host,
                    builds: vec![BuildTarget::Native {
                        target: spec.target.parse().unwrap(),
                        libc: None,
                        abi: 1,
                    }],
                })
                .collect();
            resolver.provide(name, candidates);
        }
        asked.extend(names);
    }
    asked
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_holds_all_that_the_resolver_asks_for(
        specs in releases(),
        roots in roots(),
        locked in prop::collection::btree_map(select(NAMES.to_vec()), select(VERSIONS.to_vec()), 0..3),
        limit in 0..60_usize,
    ) {
        let store = Store::of(&specs);
        let request = want(&roots);
        let sent = store.answer(request.clone(), WIDE);
        let unique: BTreeSet<_> = sent.iter().copied().collect();
        prop_assert_eq!(unique.len(), sent.len(), "an object was sent twice");
        let locked = locked.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        for plugin in asked_by_resolver(&specs, &request, locked) {
            prop_assert!(store.proof(plugin.as_str()).is_subset(&unique), "{} is missing", plugin);
        }
        // A reader takes all of it, in this order.
        let mut received = Received::new(store.root, None);
        for key in &sent {
            prop_assert_eq!(received.accept(*key, &store.objects[key]), Ok(()));
        }
        let (frames, _) = frame::read_in_pieces(&store.send(request.clone(), WIDE), usize::MAX);
        if let Some(Frame { part: Part::Proof, bytes }) = frames.last() {
            prop_assert!(received.prove(bytes, &store.log).is_ok());
        } else {
            let files = sent.iter().filter(|key| matches!(key, ObjectKey::Index(_))).count();
            prop_assert_eq!(files, 0, "statements without a proof");
        }
        let limits = Limits { objects: limit, ..WIDE };
        prop_assert_eq!(&store.answer(request, limits)[..], &sent[..limit.min(sent.len())]);
    }

    /// A shell may provide objects in any order, and step whenever it likes.
    #[test]
    fn order_has_no_influence(
        specs in releases(),
        roots in roots(),
        picks in prop::collection::vec(any::<Index>(), 1..40),
    ) {
        let store = Store::of(&specs);
        let request = want(&roots);
        let expected: BTreeSet<_> = store.answer(request.clone(), WIDE).into_iter().collect();
        let mut closure = Closure::new(request, &store.head, WIDE).unwrap();
        let mut received = Received::new(store.root, None);
        let mut open: Vec<ObjectKey> = Vec::new();
        let mut sent = BTreeSet::new();
        let mut picks = picks.iter().cycle();
        loop {
            match closure.step() {
                ClosureStep::Done => break,
                ClosureStep::Need(keys) => open.extend(keys),
            }
            let key = open.swap_remove(picks.next().unwrap().index(open.len()));
            let bytes = &store.objects[&key];
            let frame = closure.provide(key, bytes).unwrap();
            prop_assert_eq!(frame.is_none(), matches!(key, ObjectKey::Tile(_)));
            if frame.is_none() {
                continue;
            }
            prop_assert_eq!(received.accept(key, bytes), Ok(()));
            sent.insert(key);
        }
        prop_assert_eq!(sent, expected);
    }
}
