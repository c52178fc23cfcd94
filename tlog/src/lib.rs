//! The C2SP formats that the registry's trust rests on.
//!
//! In scope: [signed notes](https://c2sp.org/signed-note) with strict Ed25519;
//! [checkpoints](https://c2sp.org/tlog-checkpoint) and
//! [cosignatures](https://c2sp.org/tlog-cosignature); the tree as
//! [tiles](https://c2sp.org/tlog-tiles), grown by a [`Frontier`]; proofs, made from tiles by a
//! [`Plan`] and checked by the sizes alone; [proof files](https://c2sp.org/tlog-proof),
//! [policies](https://c2sp.org/tlog-policy) and what a
//! [witness](https://c2sp.org/tlog-witness) is sent. Out of scope: I/O, clocks and random
//! numbers; key material comes in as bytes. Nothing here panics on any input, and no length
//! from the input is believed before it is checked. Builds for `wasm32-unknown-unknown`.

mod key;
mod note;

mod checkpoint;
mod cosignature;
mod policy;

mod hash;
mod tree;

mod entries;
mod frontier;
mod tile;
mod verified;

mod offline;
mod proof;
mod submission;

pub use checkpoint::{
    CHECKPOINT_MAX_BYTES, Checkpoint, CheckpointError, SignedCheckpoint,
    check_checkpoint_invariants,
};
pub use cosignature::{Cosignature, WitnessKey, WitnessSigningKey};
pub use entries::{
    BundleError, ENTRY_MAX_BYTES, check_bundle_invariants, parse_entries, push_entry,
};
pub use frontier::Frontier;
pub use hash::{HASH_BYTES, TreeHash, TreeHashError};
pub use key::{KeyError, KeyName, PUBLIC_KEY_BYTES, SEED_BYTES, SigningKey, VerifyingKey};
pub use note::{
    NOTE_MAX_BYTES, Note, NoteError, SIGNATURES_MAX, Signature, VerifiedNote,
    check_note_invariants, sign, signed_elsewhere,
};
pub use offline::{PROOF_FILE_MAX_BYTES, ProofFile, ProofFileError, check_proof_file_invariants};
pub use policy::{
    DEFINITIONS_MAX, Log, POLICY_MAX_BYTES, Policy, PolicyError, QuorumError, Witness,
    check_policy_invariants,
};
pub use proof::{
    CONSISTENCY_MAX_HASHES, INCLUSION_MAX_HASHES, ProofError, verify_consistency, verify_inclusion,
    verify_leaves,
};
pub use submission::{
    SIZE_CONTENT_TYPE, SUBMISSION_MAX_BYTES, SUBMISSION_PATH, Submission, SubmissionError,
    check_submission_invariants,
};
pub use tile::{
    Plan, TILE_HEIGHT, TILE_MAX_BYTES, TILE_WIDTH, TileError, TileId, TileKind, Tiles,
    check_tile_path_invariants,
};
pub use verified::{HashedTile, VerifiedTiles, VerifyError};
