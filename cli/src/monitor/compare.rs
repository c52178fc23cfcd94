//! Where an index differs from the fold: the registry's own tree, walked where it differs.

use std::collections::BTreeSet;

use modunest_core::digest::Digest;
use modunest_core::index::{Bin, Node, Slot};
use modunest_core::keys::ObjectKey;

use super::fold::{Index, differences};
use crate::log::{Files, ReadError};

/// Subjects that are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// Names the subjects whose files are others below the registry's root.
///
/// # Errors
/// When the registry's tree cannot be read.
pub(super) async fn differing(
    files: &Files,
    ours: &Index,
    theirs: Digest,
) -> Result<String, ReadError> {
    let mut names = BTreeSet::new();
    let root = Node::parse(&files.get(ObjectKey::Node(theirs)).await?)?;
    for place in 0..=u8::MAX {
        let our_node = ours.nodes.get(&place);
        let their_digest = root.child(place);
        if our_node.map(|node| Digest::of(&node.to_bytes())) == their_digest {
            continue;
        }
        let their_node = match their_digest {
            Some(digest) => Node::parse(&files.get(ObjectKey::Node(digest)).await?)?,
            None => Node::EMPTY,
        };
        for bin in 0..=u8::MAX {
            let slot = Slot { node: place, bin };
            let our_bin = ours.bins.get(&slot);
            let their_digest = their_node.child(bin);
            if our_bin.map(|bin| Digest::of(&bin.to_bytes())) == their_digest {
                continue;
            }
            let their_bin = match their_digest {
                Some(digest) => Some(Bin::parse(slot, &files.get(ObjectKey::Bin(digest)).await?)?),
                None => None,
            };
            names.extend(differences(our_bin, their_bin.as_ref()));
        }
    }
    Ok(say(&names))
}

fn say(names: &BTreeSet<String>) -> String {
    let named: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match named.as_slice() {
        [] => "no subject differs, the tree is written in another way".to_owned(),
        named => format!("it differs about {}{more}", named.join(", ")),
    }
}
