//! Any bytes as a signed statement: carried verbatim, and with one spelling of what it says.
#![no_main]

use modunest_core::statement::SignedStatement;
use modunest_tlog::Note;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(signed) = SignedStatement::parse(bytes.to_vec()) else { return };
    assert_eq!(signed.bytes(), bytes);
    let note = Note::parse(bytes).expect("a statement is a note");
    assert_eq!(note.signatures().len(), 1);
    // Nobody signs what breaks a rule, so a statement that breaks one is not read either.
    signed.statement().text().expect("what was read can be written");
});
