//! One witness asked, until it cosigns or says no.

use std::time::Duration;

use modunest_runtime::http;
use modunest_tlog::{
    Cosignature, Note, SIZE_CONTENT_TYPE, SUBMISSION_PATH, SignedCheckpoint, Submission, TreeHash,
    Witness,
};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;

use super::Collector;

/// Longest answer that is read, in bytes: a hundred signature lines of at most 400 bytes, as
/// in a checkpoint.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// How often a witness is asked: once with what is thought to be its size, once with what it
/// says, and once more in case another process of ours came between.
const TRIES_MAX: u32 = 3;
/// How much of a refusal's text is kept, in characters.
const SHOWN_MAX_CHARS: usize = 200;

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The policy has no address for it.
    #[error("the policy gives no address for it")]
    NoAddress,
    /// It could not be asked, or its answer broke off.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// It took too long.
    #[error("no answer within {} seconds", .0.as_secs())]
    Late(Duration),
    /// It refused.
    #[error("it answered with status {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of its text.
        text: String,
    },
    /// It has cosigned a larger log than this one: the log went back, or another process of
    /// the registry is ahead.
    #[error("it has cosigned size {theirs} already, and this checkpoint has {ours}")]
    Ahead {
        /// Its size.
        theirs: u64,
        /// The checkpoint's.
        ours: u64,
    },
    /// It has cosigned another tree of this size.
    #[error("it has cosigned another root at size {0}: the log was forked")]
    Forked(u64),
    /// It kept naming other sizes.
    #[error("it named another size each time it was asked")]
    Moving,
    /// Its answer is not what the protocol says.
    #[error("its answer breaks the protocol: {0}")]
    Answer(&'static str),
    /// Its cosignature does not verify.
    #[error("its cosignature does not verify with the key in the policy")]
    Cosignature,
    /// The proof that it asks for cannot be made.
    #[error("the consistency proof from size {from} cannot be made: {reason}")]
    Proof {
        /// The size that it cosigned last.
        from: u64,
        /// Why not.
        reason: String,
    },
}

/// What a witness said.
enum Answer {
    Cosigned(Cosignature),
    Knows(u64),
}

impl Collector {
    /// Asks one witness.
    pub(super) async fn ask<P, F, E>(
        &self,
        witness: &Witness,
        checkpoint: &SignedCheckpoint,
        proofs: &P,
    ) -> Result<Cosignature, AskError>
    where
        P: Fn(u64) -> F,
        F: Future<Output = Result<Vec<TreeHash>, E>>,
        E: std::fmt::Display,
    {
        let prefix = witness.url.as_deref().ok_or(AskError::NoAddress)?;
        let url = format!("{}/{SUBMISSION_PATH}", prefix.trim_end_matches('/'));
        let size = checkpoint.checkpoint.size;
        let mut old_size = Some(self.known(witness)).filter(|known| *known <= size).unwrap_or(0);
        for _ in 0..TRIES_MAX {
            let proof = if old_size == 0 || old_size == size {
                Vec::new()
            } else {
                proofs(old_size).await.map_err(|error| AskError::Proof {
                    from: old_size,
                    reason: error.to_string(),
                })?
            };
            let submission =
                Submission { old_size, proof, checkpoint: checkpoint.bytes().to_vec() };
            match self.submit(&url, witness, checkpoint, submission.to_bytes()).await? {
                Answer::Cosigned(cosignature) => {
                    self.learn(witness, size);
                    return Ok(cosignature);
                }
                Answer::Knows(theirs) if theirs > size => {
                    return Err(AskError::Ahead { theirs, ours: size });
                }
                Answer::Knows(theirs) if theirs == old_size => {
                    return Err(if theirs == size {
                        AskError::Forked(size)
                    } else {
                        AskError::Answer("it refuses the very size that it names")
                    });
                }
                Answer::Knows(theirs) => {
                    self.learn(witness, theirs);
                    old_size = theirs;
                }
            }
        }
        Err(AskError::Moving)
    }

    async fn submit(
        &self,
        url: &str,
        witness: &Witness,
        checkpoint: &SignedCheckpoint,
        body: Vec<u8>,
    ) -> Result<Answer, AskError> {
        let unreachable = |reason: String| AskError::Unreachable { url: url.to_owned(), reason };
        let response = http::traced(self.client.post(url).body(body))
            .send()
            .await
            .map_err(|error| unreachable(http::reason(&error)))?;
        let status = response.status();
        let names_size =
            response.headers().get(CONTENT_TYPE).is_some_and(|value| value == SIZE_CONTENT_TYPE);
        let body = http::body(response, ANSWER_MAX_BYTES)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        match status {
            StatusCode::OK => cosignature(witness, checkpoint, &body).map(Answer::Cosigned),
            StatusCode::CONFLICT if names_size => size(&body).map(Answer::Knows),
            _ => {
                let text = String::from_utf8_lossy(&body);
                let text: String =
                    text.trim().chars().filter(|c| !c.is_control()).take(SHOWN_MAX_CHARS).collect();
                Err(AskError::Refused { status: status.as_u16(), text })
            }
        }
    }
}

/// The witness's line among those of the answer, if it is over this checkpoint. What the
/// lines say is compared with the text that was submitted, never with a text of theirs.
fn cosignature(
    witness: &Witness,
    checkpoint: &SignedCheckpoint,
    body: &[u8],
) -> Result<Cosignature, AskError> {
    let text = checkpoint.checkpoint.to_string();
    // A text of any note: only its signature lines are read.
    let bytes = [b"\n\n", body].concat();
    let note = Note::parse(&bytes).map_err(|_| AskError::Answer("not signature lines"))?;
    let key = &witness.key;
    let mut own = note
        .signatures()
        .iter()
        .filter(|line| line.name == *key.name() && line.hash == key.hash())
        .peekable();
    if own.peek().is_none() {
        return Err(AskError::Answer("no line by the key in the policy"));
    }
    own.filter_map(|line| Cosignature::from_bytes(&line.bytes))
        .find(|cosignature| key.verifies(&text, cosignature))
        .ok_or(AskError::Cosignature)
}

/// A size in decimal and a line feed.
fn size(body: &[u8]) -> Result<u64, AskError> {
    let wrong = AskError::Answer("a conflict's text is the size in decimal and a line feed");
    let digits = std::str::from_utf8(body).ok().and_then(|text| text.strip_suffix('\n'));
    let size = digits
        .and_then(|digits| digits.parse::<u64>().ok().filter(|size| size.to_string() == digits));
    size.ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use modunest_tlog::{Checkpoint, SigningKey, WitnessSigningKey};

    use super::*;

    #[test]
    fn a_size_has_one_spelling() {
        assert!(matches!(size(b"0\n"), Ok(0)));
        assert!(matches!(size(b"18446744073709551615\n"), Ok(u64::MAX)));
        for bad in ["", "\n", "7", "07\n", "+7\n", "-7\n", "7\n\n", "18446744073709551616\n"] {
            assert!(matches!(size(bad.as_bytes()), Err(AskError::Answer(_))), "{bad:?}");
        }
    }

    #[test]
    fn only_a_cosignature_of_the_text_that_was_sent_is_taken() {
        let log = SigningKey::from_seed("log.example".parse().unwrap(), &[1; 32]);
        let checkpoint =
            |size| Checkpoint { origin: "log.example".to_owned(), size, root: TreeHash::empty() };
        let sent = checkpoint(4).sign(&log).unwrap();
        let key = |seed| WitnessSigningKey::from_seed("w.example".parse().unwrap(), &[seed; 32]);
        let (own, other) = (key(1), key(2));
        let line =
            |key: &WitnessSigningKey, text: &str| key.cosign(text, 7).line(key.witness_key());
        let text = checkpoint(4).to_string();
        let witness = Witness { name: "w".to_owned(), key: own.witness_key().clone(), url: None };
        let taken = |body: String| cosignature(&witness, &sent, body.as_bytes());

        assert_eq!(taken(line(&own, &text)).unwrap().time_secs, 7);
        let both = format!("{}{}", line(&other, &text), line(&own, &text));
        assert_eq!(taken(both).unwrap().time_secs, 7);
        assert!(matches!(taken(line(&other, &text)), Err(AskError::Answer(_))));
        let elsewhere = checkpoint(5).to_string();
        assert!(matches!(taken(line(&own, &elsewhere)), Err(AskError::Cosignature)));
        // A text of the witness's own in front of its lines changes nothing.
        let smuggled = format!("{elsewhere}\n{}", line(&own, &elsewhere));
        assert!(matches!(taken(smuggled), Err(AskError::Cosignature)));
        for bad in ["", "\n", "no line\n", "\u{2014} w.example AAAA\n"] {
            assert!(matches!(taken(bad.to_owned()), Err(AskError::Answer(_))), "{bad:?}");
        }
    }
}
