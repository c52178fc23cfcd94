//! Any bytes as a signed note: what is accepted is the text it came from, and never panics.
#![no_main]

use modunest_tlog::Note;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(note) = Note::parse(bytes) else { return };
    assert!(bytes.starts_with(note.unverified_text().as_bytes()));
    assert!(note.unverified_text().ends_with('\n'));
    assert!(!note.signatures().is_empty());
});
