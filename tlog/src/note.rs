//! Signed notes: a text, a blank line, and signature lines (<https://c2sp.org/signed-note>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{KeyName, SigningKey, VerifyingKey};

/// Longest note, in bytes: the bound that Go's `note` package uses.
pub const NOTE_MAX_BYTES: usize = 1_000_000;
/// Most signature lines in a note: the bound that Go's `note` package uses.
pub const SIGNATURES_MAX: usize = 100;

/// What a signature line starts with: U+2014 and a space.
pub(crate) const LINE_START: &str = "\u{2014} ";

/// Why a note was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than [`NOTE_MAX_BYTES`].
    #[error("the note has {0} bytes; at most {NOTE_MAX_BYTES} are read")]
    TooLong(usize),
    /// Not UTF-8, or with control characters other than line feeds.
    #[error("the note is not UTF-8 text without control characters")]
    NotText,
    /// No blank line between text and signatures, or no line feed at an end.
    #[error("the note is not a text, a blank line and signature lines")]
    Form,
    /// A signature line that is not `— name base64`.
    #[error("signature line {0} is not of the form \"— name base64\"")]
    SignatureLine(usize),
    /// More than [`SIGNATURES_MAX`] signature lines.
    #[error("the note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// No signature is by one of the keys that were asked for.
    #[error("no signature by a trusted key ({trusted}); the note is signed by {found}")]
    Unsigned {
        /// Names of the keys that would have done.
        trusted: String,
        /// Names in the note's signature lines.
        found: String,
    },
    /// A signature line names a trusted key, and the signature is wrong.
    #[error("the signature by {0} is wrong: the text was changed, or another key made it")]
    Invalid(KeyName),
    /// The text to sign does not end with a line feed, or holds control characters.
    #[error("a note's text is UTF-8 without control characters and ends with a line feed")]
    Text,
}

/// One signature line, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub name: KeyName,
    /// The key's hash.
    pub hash: [u8; 4],
    /// The signature itself; 64 bytes for Ed25519.
    pub bytes: Vec<u8>,
}

/// A note whose form was checked and whose signatures were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    text: &'a str,
    signatures: Vec<Signature>,
}

/// A note's text, with the keys that are proven to have signed it: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNote<'a> {
    /// The signed text, with its final line feed.
    pub text: &'a str,
    /// The keys that signed, in the order of the signature lines.
    pub signers: Vec<&'a VerifyingKey>,
}

impl<'a> Note<'a> {
    /// Checks the form.
    ///
    /// # Errors
    /// Every variant but [`NoteError::Unsigned`], [`NoteError::Invalid`] and [`NoteError::Text`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_MAX_BYTES {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if !is_note_text(note) {
            return Err(NoteError::NotText);
        }
        // The last blank line separates: a text may hold blank lines of its own.
        let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let mut signatures = Vec::new();
        for (index, line) in lines.split('\n').enumerate() {
            if index == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(signature(line).ok_or(NoteError::SignatureLine(index + 1))?);
        }
        Ok(Note { text, signatures })
    }

    /// The text, with its final line feed. Nobody is proven to have signed it.
    pub fn unverified_text(&self) -> &'a str {
        self.text
    }

    /// The signature lines.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Proves that at least one of `keys` signed the text. Lines by other keys are passed
    /// over; a line that names one of `keys` must verify.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] or [`NoteError::Invalid`].
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<VerifiedNote<'k>, NoteError>
    where
        'a: 'k,
    {
        let keys: Vec<&VerifyingKey> = keys.into_iter().collect();
        let mut signers: Vec<&'k VerifyingKey> = Vec::new();
        for signature in &self.signatures {
            let known =
                keys.iter().find(|k| *k.name() == signature.name && k.hash() == signature.hash);
            let Some(key) = known else { continue };
            let bytes = signature.bytes.as_slice().try_into().ok();
            if !bytes.is_some_and(|b| key.verifies(self.text.as_bytes(), b)) {
                return Err(NoteError::Invalid(signature.name.clone()));
            }
            if !signers.contains(key) {
                signers.push(key);
            }
        }
        if signers.is_empty() {
            return Err(NoteError::Unsigned {
                trusted: names(keys.iter().map(|k| (k.name(), k.hash()))),
                found: names(self.signatures.iter().map(|s| (&s.name, s.hash))),
            });
        }
        Ok(VerifiedNote { text: self.text, signers })
    }
}

/// Signs `text` with each key, in order, and returns the note's bytes.
///
/// # Errors
/// [`NoteError::Text`] when the text cannot stand in a note.
pub fn sign(text: &str, keys: &[&SigningKey]) -> Result<Vec<u8>, NoteError> {
    if !text.ends_with('\n') || !is_note_text(text) {
        return Err(NoteError::Text);
    }
    let mut note = format!("{text}\n");
    for key in keys {
        let line = STANDARD.encode(key.sign(text.as_bytes()));
        note.push_str(&format!("{LINE_START}{} {line}\n", key.name()));
    }
    Ok(note.into_bytes())
}

/// A note of `text` with a signature that was made elsewhere, as by a key that cannot be read.
///
/// # Errors
/// [`NoteError::Text`] when the text cannot stand in a note, [`NoteError::Invalid`] when the
/// signature is not by `key` over it.
pub fn signed_elsewhere(
    text: &str,
    key: &VerifyingKey,
    signature: &[u8; 64],
) -> Result<Vec<u8>, NoteError> {
    if !text.ends_with('\n') || !is_note_text(text) {
        return Err(NoteError::Text);
    }
    if !key.verifies(text.as_bytes(), signature) {
        return Err(NoteError::Invalid(key.name().clone()));
    }
    let line = [&key.hash()[..], signature].concat();
    Ok(format!("{text}\n{LINE_START}{} {}\n", key.name(), STANDARD.encode(line)).into_bytes())
}

/// What holds for any bytes; the fuzz target and the corpus test call this. What is accepted
/// starts with the text it gives, ends it with a line feed, and is signed by somebody.
///
/// Answers whether the bytes were a note at all.
///
/// # Panics
/// When a promise is broken: that is a bug in the parser.
#[doc(hidden)]
pub fn check_note_invariants(bytes: &[u8]) -> bool {
    let Ok(note) = Note::parse(bytes) else { return false };
    assert!(bytes.starts_with(note.unverified_text().as_bytes()));
    assert!(note.unverified_text().ends_with('\n'));
    assert!((1..=SIGNATURES_MAX).contains(&note.signatures().len()));
    true
}

fn is_note_text(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\n' || byte >= 0x20)
}

fn signature(line: &str) -> Option<Signature> {
    let (name, encoded) = line.strip_prefix(LINE_START)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (hash, rest) = bytes.split_first_chunk::<4>()?;
    if rest.is_empty() {
        return None;
    }
    Some(Signature { name: name.parse().ok()?, hash: *hash, bytes: rest.to_vec() })
}

/// `name+hash` of each key: two keys of one name are told apart by their hashes.
fn names<'n>(keys: impl Iterator<Item = (&'n KeyName, [u8; 4])>) -> String {
    let names: Vec<String> =
        keys.map(|(name, hash)| format!("{name}+{:08x}", u32::from_be_bytes(hash))).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example note of golang.org/x/mod/sumdb/note, section "Verifying Notes".
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("example.org".parse().unwrap(), &[seed; 32])
    }

    #[test]
    fn published_note() {
        let peter: VerifyingKey = PETER.parse().unwrap();
        let note = Note::parse(NOTE.as_bytes()).unwrap();
        assert_eq!(note.verify([&peter]).unwrap().signers, [&peter]);
        let changed = NOTE.replace("answer", "Answer");
        let note = Note::parse(changed.as_bytes()).unwrap();
        assert_eq!(note.verify([&peter]), Err(NoteError::Invalid("PeterNeumann".parse().unwrap())));
    }

    #[test]
    fn signatures_by_others_do_not_count() {
        let bytes = sign("text\n", &[&key(1)]).unwrap();
        let (own, other) = (key(1).verifying_key(), key(2).verifying_key());
        let note = Note::parse(&bytes).unwrap();
        assert!(note.verify([&own]).is_ok());
        assert!(matches!(note.verify([&other]), Err(NoteError::Unsigned { .. })));
        assert!(matches!(note.verify([]), Err(NoteError::Unsigned { .. })));
    }

    #[test]
    fn a_signature_made_elsewhere_makes_the_same_note() {
        let key = key(1);
        let (public, line) = (key.verifying_key(), key.sign(b"text\n"));
        let mut signature: [u8; 64] = line[4..].try_into().unwrap();
        let note = signed_elsewhere("text\n", &public, &signature);
        assert_eq!(note, sign("text\n", &[&key]));
        assert_eq!(signed_elsewhere("text", &public, &signature), Err(NoteError::Text));
        signature[0] ^= 1;
        let wrong = signed_elsewhere("text\n", &public, &signature);
        assert_eq!(wrong, Err(NoteError::Invalid(public.name().clone())));
    }

    #[test]
    fn forms() {
        for bad in [
            "",
            "\n",
            "a\n",
            "a\n\n",
            "a\n\nb\n",
            "a\r\n\n— x AAAAAAA=\n",
            "a\n\n— x AAAA\n",
            "a\n\n—  AAAAAAA=\n",
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(sign("no line feed", &[&key(1)]), Err(NoteError::Text));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(note) = Note::parse(&bytes) {
                prop_assert!(note.verify([&key(1).verifying_key()]).is_err());
            }
        }

        #[test]
        fn any_change_is_noticed(text in "[ -~\n]{0,60}", position: prop::sample::Index, flip in 1u8..=255) {
            let key = key(7);
            let public = key.verifying_key();
            let mut bytes = sign(&format!("{text}\n"), &[&key]).unwrap();
            prop_assert!(Note::parse(&bytes).unwrap().verify([&public]).is_ok());
            let text_bytes = text.len() + 1;
            let at = position.index(text_bytes);
            bytes[at] ^= flip;
            let verified = Note::parse(&bytes).is_ok_and(|note| note.verify([&public]).is_ok());
            prop_assert!(!verified);
        }
    }
}
