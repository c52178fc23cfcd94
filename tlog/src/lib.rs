//! The C2SP formats that the registry's trust rests on.
//!
//! In scope: [signed notes](https://c2sp.org/signed-note) with strict Ed25519. Out of scope:
//! I/O, clocks and random numbers; key material comes in as bytes. Nothing here panics on
//! any input, and no length from the input is believed before it is checked. Builds for
//! `wasm32-unknown-unknown`.

mod key;
mod note;

pub use key::{KeyError, KeyName, PUBLIC_KEY_BYTES, SEED_BYTES, SigningKey, VerifyingKey};
pub use note::{
    NOTE_MAX_BYTES, Note, NoteError, SIGNATURES_MAX, Signature, VerifiedNote,
    check_note_invariants, sign,
};
