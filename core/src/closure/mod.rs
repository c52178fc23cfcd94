//! The closure: every object of the index that a resolution can need, in one answer.
//!
//! A host that knows nothing would walk the tree level by level, one round trip each, and
//! again for every level of the dependency graph. Instead it sends what it wants
//! ([`ClosureRequest`]) to [`crate::keys::CLOSURE_PATH`], and the read side walks for it
//! ([`Closure`]) and streams what it meets, as frames:
//!
//! ```text
//! <object key> <length in decimal>\n
//! <that many bytes>
//! ```
//!
//! The first frame is the head, and an object's frame follows that of the object that names
//! it. Nodes, of which most children may not exist, and bins, which are half hexadecimal digits,
//! are sent in their compact forms ([`crate::index::Node::to_compact`],
//! [`crate::index::Bin::to_compact`]). The last frame may be `proof <length>`: the hashes
//! which prove that the log under that head has every statement of the answer, in the order of
//! [`modunest_tlog::Plan::leaves`]; without it the reader takes tiles. The answer ends with a
//! frame's last byte. Media type: [`CONTENT_TYPE`].
//!
//! A host that has read these plugins before asks for what is new since then
//! ([`ClosureRequest::since`]).
//!
//! # Nothing of it is believed
//!
//! Statements are followed here without proof, and a limit may end the answer early. The
//! reader checks the head as it checks any head, and takes an object only if the tree below
//! that head names it and it hashes to its name ([`Received`]). What is missing then is read
//! one by one. So a wrong answer costs time, and nothing else.
//!
//! # What a resolution can need
//!
//! The index files of each plugin that is asked for and of its organisation, with the nodes
//! and bins on the way (they also prove that something is *not* there); then the same for
//! the dependencies of every release that a requirement admits and the host could run.
//! Optional dependencies bring nothing in, as in [`crate::resolve`]. Yanked releases count,
//! because a lock file may hold one. What will most probably be chosen comes first, so that
//! an answer that a limit ends still holds what is most useful.

mod frame;
mod plan;
mod proof;
mod receive;
mod request;
#[cfg(test)]
mod tests;

pub use frame::{ANSWER_MAX_BYTES, Frame, FrameError, FrameReader, Part, push_frame};
pub use plan::{Closure, ClosureError, ClosureStep, FrameParts, Limits};
pub use receive::{ReceiveError, Received};
pub use request::{ClosureRequest, REQUEST_MAX_BYTES, REQUEST_PLUGINS_MAX, RequestError};

use crate::index::Node;
use crate::keys::ObjectKey;

/// Media type of the answer.
pub const CONTENT_TYPE: &str = "application/vnd.modunest.closure";

/// What holds for any bytes; the fuzz target and the corpus test call this. As a request:
/// what is read is written and read the same. As an answer: it is read the same however it is
/// cut into pieces, and its frames are written the same. As a store that does not tell the
/// truth: the walk ends, within its limits, and asks for no object twice.
///
/// Answers whether the bytes were a request or a whole answer.
///
/// # Panics
/// When a promise is broken: that is a bug in a parser or in the walk.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) -> bool {
    if let Ok(request) = ClosureRequest::parse(bytes) {
        assert_eq!(ClosureRequest::parse(&request.to_json()), Ok(request));
        return true;
    }
    let whole = frame::read_in_pieces(bytes, usize::MAX);
    for piece_bytes in [1, 7, 100] {
        assert_eq!(frame::read_in_pieces(bytes, piece_bytes), whole);
    }
    let (frames, end) = whole;
    let mut written = Vec::new();
    let mut all_written = true;
    for Frame { part, bytes } in &frames {
        let compact = match part {
            Part::Object(ObjectKey::Node(_)) => {
                Node::parse(bytes).map(|node| node.to_compact()).ok()
            }
            // It can be written again by whoever knows which slot's it is.
            Part::Object(ObjectKey::Bin(_)) => {
                all_written = false;
                break;
            }
            Part::Object(_) | Part::Proof => None,
        };
        let sent = compact.as_ref().unwrap_or(bytes);
        push_frame(&mut written, *part, sent);
    }
    assert!(bytes.starts_with(&written));
    if end.is_ok() && all_written {
        assert_eq!(written.len(), bytes.len());
    }
    let Some((head, objects)) = frames.split_first() else { return false };
    if let Ok(closure) = Closure::new(fuzz_request(), &head.bytes, Limits::WORKER) {
        walk_lies(closure, objects);
    }
    end.is_ok()
}

/// Walks with a store that gives the objects' bytes whatever their names are.
fn walk_lies(mut closure: Closure, objects: &[Frame]) {
    let mut asked = std::collections::BTreeSet::new();
    let mut answers = objects.iter().cycle();
    while let ClosureStep::Need(keys) = closure.step() {
        assert!(!keys.is_empty(), "everything that was asked for was provided");
        for key in keys {
            assert!(asked.insert(key), "{key} is asked for twice");
            assert!(asked.len() <= Limits::WORKER.objects + Limits::WORKER.tiles);
            if !objects.iter().any(|frame| same_kind(&frame.part, &key)) {
                if closure.missing(key).is_err() {
                    return;
                }
                continue;
            }
            let Some(answer) = answers.find(|frame| same_kind(&frame.part, &key)) else { return };
            if closure.provide(key, &answer.bytes).is_err() {
                return;
            }
        }
    }
}

fn same_kind(part: &Part, other: &ObjectKey) -> bool {
    matches!(part, Part::Object(one) if std::mem::discriminant(one) == std::mem::discriminant(other))
}

fn fuzz_request() -> ClosureRequest {
    let json = br#"{"plugins":[{"plugin":"demo/gallery","requirement":"^1"}]}"#;
    ClosureRequest::parse(json).unwrap_or(ClosureRequest {
        plugins: Vec::new(),
        host: None,
        since: None,
    })
}
