//! Proof checks against the raw rate of SHA-256, and signatures against the bare library.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modunest_core::statement::{Link, SignedStatement};
use modunest_tlog::{Frontier, HASH_BYTES, Plan, Tiles, TreeHash, verify_inclusion};
use sha2::{Digest as _, Sha256};

use super::population;
use super::rate::rates;
use crate::error::Error;
use crate::report::{Report, Row, Target};

/// Sizes of the logs whose proofs are checked.
const SIZES: [u64; 2] = [1_000, 1_000_000];
/// Different proofs of each; more than the first cache holds.
const PROOFS: u64 = 2_000;
/// Different statements whose signatures are checked.
const STATEMENTS: usize = 64;
/// What a node of the tree hashes: a byte that says so, and two hashes (RFC 6962, section
/// 2.1). With the padding these are two blocks of SHA-256.
const NODE_BYTES: usize = 1 + 2 * HASH_BYTES;
/// Hashes of one piece of raw work.
const RAW_PIECE: u64 = 4_096;
/// How much of the machine's rate a proof check should reach: the rest is reading the proof.
const HASH_RATIO_MIN: f64 = 0.8;
/// The same for signatures: the rest is reading the note.
const SIGNATURE_RATIO_MIN: f64 = 0.9;

/// Adds the figures.
pub fn measure(report: &mut Report) -> Result<(), Error> {
    for size in SIZES {
        let tree = Tree::make(size)?;
        let hashes: usize = tree.proofs.iter().map(|proof| proof.hashes.len()).sum();
        let hashes_a_check = hashes as f64 / tree.proofs.len() as f64;
        let [raw, checks] = rates([&mut raw(), &mut || tree.check()])?;
        let what = format!("inclusion in a log of {size} entries, checks a second");
        report.row(Row::new(what, "1/s", checks));
        let what = format!("the same, hashes a second ({hashes_a_check:.1} a check)");
        let row = Row::new(what, "1/s", checks * hashes_a_check).against("raw SHA-256", raw);
        report.row(row.target(Target::RatioMin(HASH_RATIO_MIN)));
    }
    signatures(report)
}

/// SHA-256 over inputs of a node's length, each another.
fn raw() -> impl FnMut() -> Result<u64, Error> {
    let mut input = [1_u8; NODE_BYTES];
    move || {
        for number in 0..RAW_PIECE {
            input[1..9].copy_from_slice(&number.to_le_bytes());
            black_box(Sha256::digest(black_box(&input)));
        }
        Ok(RAW_PIECE)
    }
}

struct Tree {
    size: u64,
    root: TreeHash,
    proofs: Vec<Proof>,
}

struct Proof {
    index: u64,
    leaf: TreeHash,
    hashes: Vec<TreeHash>,
}

impl Tree {
    /// A tree, with proofs for leaves all over it, in no order.
    fn make(size: u64) -> Result<Tree, Error> {
        let leaf = |index: u64| TreeHash::of_leaf(&index.to_le_bytes());
        let mut frontier = Frontier::new();
        for index in 0..size {
            frontier.append(leaf(index));
        }
        let mut tiles = Tiles::default();
        for (id, bytes) in frontier.take_tiles() {
            tiles.insert(id, &bytes).map_err(Error::wrong("a tile"))?;
        }
        let proof = |number: u64| {
            // Multiples of the golden ratio of 2^64 fill the range evenly.
            let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let index = ((u128::from(place) * u128::from(size)) >> 64) as u64;
            let plan = Plan::inclusion(index, size);
            let plan = plan.ok_or(Error::Wrong { what: "a proof", why: "no leaf".to_owned() })?;
            let hashes = plan.hashes(&tiles).map_err(Error::wrong("a proof"))?;
            Ok(Proof { index, leaf: leaf(index), hashes })
        };
        let proofs = (0..PROOFS).map(proof).collect::<Result<_, Error>>()?;
        Ok(Tree { size, root: frontier.root(), proofs })
    }

    /// Checks every proof once.
    fn check(&self) -> Result<u64, Error> {
        for Proof { index, leaf, hashes } in &self.proofs {
            verify_inclusion(leaf, *index, self.size, black_box(hashes), &self.root)
                .map_err(Error::wrong("a proof"))?;
        }
        Ok(self.proofs.len() as u64)
    }
}

fn signatures(report: &mut Report) -> Result<(), Error> {
    let signer = population::publisher(0)?;
    let key = signer.verifying_key();
    let statements = (0..STATEMENTS)
        .map(|number| {
            let release = population::release(number, 0, Link::FIRST, STATEMENTS)?;
            let signed = population::signed(&release, &signer)?;
            let text = release.text().map_err(Error::wrong("a statement"))?;
            Ok((bare_signature(&signed)?, text, signed))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let bare_key = ed25519_dalek::VerifyingKey::from_bytes(key.public_bytes());
    let bare_key = bare_key.map_err(Error::wrong("a key"))?;
    let mut ours = || {
        for (_, _, signed) in &statements {
            signed.verify([&key]).map_err(Error::wrong("a signature"))?;
        }
        Ok(statements.len() as u64)
    };
    let mut bare = || {
        for (signature, text, _) in &statements {
            let verified = bare_key.verify_strict(text.as_bytes(), signature);
            verified.map_err(Error::wrong("a signature"))?;
        }
        Ok(statements.len() as u64)
    };
    let [ours, bare] = rates([&mut ours, &mut bare])?;
    let row = Row::new("statements' strict signatures, checks a second", "1/s", ours);
    report.row(row.against("bare ed25519", bare).target(Target::RatioMin(SIGNATURE_RATIO_MIN)));
    Ok(())
}

/// The 64 bytes at the end of a statement's one signature line.
fn bare_signature(signed: &SignedStatement) -> Result<ed25519_dalek::Signature, Error> {
    let note = String::from_utf8_lossy(signed.bytes());
    let base64 = note.trim_end().rsplit(' ').next().unwrap_or_default();
    let bytes = STANDARD.decode(base64).map_err(Error::wrong("a signature"))?;
    // Four bytes name the key.
    ed25519_dalek::Signature::from_slice(bytes.get(4..).unwrap_or_default())
        .map_err(Error::wrong("a signature"))
}
