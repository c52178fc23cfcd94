use modunest_tlog::{
    Cosignature, Frontier, Note, Plan, SignedCheckpoint, SigningKey, Submission, Tiles, TreeHash,
};

use super::*;

const ORIGIN: &str = "log.example";

/// A log that remembers everything, and can be grown in two ways.
#[derive(Clone, Default)]
struct GrowingLog {
    frontier: Frontier,
    leaves: Vec<TreeHash>,
}

impl GrowingLog {
    fn grow(&mut self, entries: u64, flavour: &str) {
        for _ in 0..entries {
            let leaf = TreeHash::of_leaf(format!("{flavour} {}", self.leaves.len()).as_bytes());
            self.leaves.push(leaf);
            self.frontier.append(leaf);
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: ORIGIN.to_owned(),
            size: self.frontier.size(),
            root: self.frontier.root(),
        }
    }

    fn proof(&self, old: u64) -> Vec<TreeHash> {
        let mut frontier = Frontier::new();
        let mut tiles = Tiles::default();
        for leaf in &self.leaves {
            frontier.append(*leaf);
        }
        for (id, bytes) in frontier.take_tiles() {
            tiles.insert(id, &bytes).unwrap();
        }
        Plan::consistency(old, frontier.size())
            .map_or(Vec::new(), |plan| plan.hashes(&tiles).unwrap())
    }

    fn submission(&self, old_size: u64) -> Vec<u8> {
        let checkpoint = self.checkpoint().sign(&log_key()).unwrap().bytes().to_vec();
        Submission { old_size, proof: self.proof(old_size), checkpoint }.to_bytes()
    }
}

fn log_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN.parse().unwrap(), &[1; 32])
}

fn open(folder: &Path) -> Witness {
    let key = WitnessSigningKey::from_seed("witness.example".parse().unwrap(), &[2; 32]);
    Witness::open(key, vec![log_key().verifying_key()], folder).unwrap()
}

fn add(witness: &Witness, body: &[u8]) -> Result<String, Refusal> {
    match witness.add_checkpoint(body, Timestamp::from_millis(5_000)) {
        Ok(line) => Ok(line),
        Err(NotCosigned::Refused(refusal)) => Err(refusal),
        Err(error @ NotCosigned::Store(_)) => panic!("{error}"),
    }
}

#[test]
fn a_log_that_grows_is_cosigned_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = GrowingLog::default();
    let mut known = 0;
    for size in [0, 1, 7, 7, 300] {
        log.grow(size - log.frontier.size(), "entry");
        // Each time it has just been started.
        let witness = open(folder.path());
        let line = add(&witness, &log.submission(known)).unwrap();
        let mut bytes = log.checkpoint().sign(&log_key()).unwrap().bytes().to_vec();
        bytes.extend_from_slice(line.as_bytes());
        let keys = [log_key().verifying_key()];
        let signed = SignedCheckpoint::verify(&bytes, ORIGIN, &keys).unwrap();
        let found = signed.cosignatures([witness.key()]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.time_secs, 5);
        known = size;
    }
}

#[test]
fn anything_else_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path());
    let mut log = GrowingLog::default();
    log.grow(5, "entry");
    add(&witness, &log.submission(0)).unwrap();
    let mut fork = log.clone();
    fork.leaves.truncate(3);
    fork.frontier = Frontier::new();
    for leaf in &fork.leaves {
        fork.frontier.append(*leaf);
    }
    fork.grow(2, "other");
    let known = log.checkpoint();

    assert_eq!(
        add(&witness, &fork.submission(5)),
        Err(Refusal::Forked { known: 5, root: known.root })
    );
    fork.grow(3, "other");
    assert!(matches!(add(&witness, &fork.submission(5)), Err(Refusal::Inconsistent(_))));
    log.grow(3, "entry");
    assert_eq!(add(&witness, &log.submission(0)), Err(Refusal::Stale { known: 5 }));
    assert_eq!(add(&witness, &log.submission(7)), Err(Refusal::Stale { known: 5 }));
    assert_eq!(add(&witness, &log.submission(9)), Err(Refusal::OldSize { old: 9, new: 8 }));
    let mut cut = Submission::parse(&log.submission(5)).unwrap();
    cut.proof.pop();
    assert!(matches!(add(&witness, &cut.to_bytes()), Err(Refusal::Inconsistent(_))));

    let signed_by = |key: &SigningKey, origin: &str| {
        let checkpoint = Checkpoint { origin: origin.to_owned(), ..log.checkpoint() };
        let checkpoint = checkpoint.sign(key).unwrap().bytes().to_vec();
        Submission { old_size: 5, proof: log.proof(5), checkpoint }.to_bytes()
    };
    let other = SigningKey::from_seed(ORIGIN.parse().unwrap(), &[9; 32]);
    assert!(matches!(add(&witness, &signed_by(&other, ORIGIN)), Err(Refusal::Unsigned(_))));
    assert_eq!(
        add(&witness, &signed_by(&log_key(), "other.example")),
        Err(Refusal::UnknownLog("other.example".to_owned()))
    );
    for bad in ["", "old 5\n\n", "old 5\n\nlog.example\n", "old x\n\nlog.example\n5\n"] {
        assert!(matches!(add(&witness, bad.as_bytes()), Err(Refusal::Malformed(_))), "{bad:?}");
    }
    // After all that it stands where it stood.
    add(&witness, &log.submission(5)).unwrap();
}

#[test]
fn an_empty_log_has_one_root() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path());
    let wrong = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root: TreeHash::of_leaf(b"x") };
    let checkpoint = wrong.sign(&log_key()).unwrap().bytes().to_vec();
    let body = Submission { old_size: 0, proof: Vec::new(), checkpoint }.to_bytes();
    assert!(matches!(add(&witness, &body), Err(Refusal::Inconsistent(_))));
}

#[test]
fn of_two_from_one_size_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path());
    let flavours = ["a", "b", "c", "d"];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = flavours
            .iter()
            .map(|flavour| {
                let witness = &witness;
                scope.spawn(move || {
                    let mut log = GrowingLog::default();
                    log.grow(4, flavour);
                    add(witness, &log.submission(0))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for outcome in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(*outcome, Refusal::Stale { known: 4 });
    }
}

#[test]
fn a_folder_serves_one_witness_and_must_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path());
    let mut log = GrowingLog::default();
    log.grow(2, "entry");
    let line = add(&witness, &log.submission(0)).unwrap();
    assert!(
        Note::parse(format!("x\n\n{line}").as_bytes())
            .is_ok_and(|note| { Cosignature::from_bytes(&note.signatures()[0].bytes).is_some() })
    );
    let key = WitnessSigningKey::from_seed("witness.example".parse().unwrap(), &[2; 32]);
    let keys = vec![log_key().verifying_key()];
    let again = Witness::open(key.clone(), keys.clone(), folder.path());
    assert!(matches!(again, Err(Error::Failed(_))));
    drop(witness);
    let state = std::fs::read_dir(folder.path()).unwrap();
    let file = state
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "checkpoint"))
        .unwrap();
    for damage in [
        "",
        "log.example\n2\n",
        "other.example\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— x AAAAAAA=\n",
    ] {
        std::fs::write(&file, damage).unwrap();
        let opened = Witness::open(key.clone(), keys.clone(), folder.path());
        assert!(matches!(opened, Err(Error::Input(_))), "{damage:?}");
    }
}
