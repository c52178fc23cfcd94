//! Any bytes as a node, a bin and an index file: what is read is written the same, byte for byte,
//! because each is named by its hash.
#![no_main]

use modunest_core::index::{Bin, IndexFile, Node, Slot};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = Node::parse(bytes) {
        assert_eq!(node.to_bytes(), bytes);
    }
    // Whoever reads a bin or a file knows its subject; here it is the one that they name first.
    let text = String::from_utf8_lossy(bytes);
    for word in text.split_ascii_whitespace().take(2) {
        let Ok(subject) = word.parse() else { continue };
        if let Ok(bin) = Bin::parse(Slot::of(&subject), bytes) {
            assert_eq!(bin.to_bytes(), bytes);
        }
        if let Ok(file) = IndexFile::parse(&subject, bytes) {
            assert_eq!(file.to_bytes(), bytes);
        }
    }
});
