//! Proofs checked: RFC 9162's algorithms, which follow the bits of the sizes and take no
//! shape from the proof itself, so that a proof of wrong length is refused and not cut.

use std::collections::BTreeMap;

use crate::hash::TreeHash;
use crate::tree::{self, Range};

/// Most hashes in an inclusion proof: one a level of a tree of 2^63 leaves.
pub const INCLUSION_MAX_HASHES: usize = 63;
/// Most hashes in a consistency proof (C2SP tlog-witness, "add-checkpoint").
pub const CONSISTENCY_MAX_HASHES: usize = 63;

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such leaf.
    #[error("the tree has {size} leaves, so there is no leaf {index}")]
    NoLeaf {
        /// The leaf that was to be proven.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The older tree is the larger one.
    #[error("a log only grows: {old} leaves cannot be the beginning of {new}")]
    Shrunk {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// More or fewer hashes than the sizes ask for.
    #[error("the proof has {found} hashes, which is not what these sizes ask for")]
    Length {
        /// Hashes in the proof.
        found: usize,
    },
    /// The hashes do not lead to the root.
    #[error("the proof leads to {found}, not to the root {expected}")]
    Root {
        /// What was computed.
        found: TreeHash,
        /// What it should be.
        expected: TreeHash,
    },
    /// The hashes do not lead to the root of the older tree: the log was rewritten.
    #[error("the proof leads to {found} for the older tree, whose root is {expected}")]
    OldRoot {
        /// What was computed.
        found: TreeHash,
        /// What it should be.
        expected: TreeHash,
    },
}

/// Proves that the leaf with hash `leaf` stands at `index` of the tree with `size` leaves
/// and this root (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`ProofError`]: the leaf is not proven to be there.
pub fn verify_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
    root: &TreeHash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::NoLeaf { index, size });
    }
    let length = ProofError::Length { found: proof.len() };
    let (mut at, mut last) = (index, size - 1);
    let mut found = *leaf;
    for hash in proof {
        if last == 0 {
            return Err(length);
        }
        if at & 1 == 1 || at == last {
            found = TreeHash::of_node(hash, &found);
            // On the right edge some levels have no sibling.
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found = TreeHash::of_node(&found, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        return Err(length);
    }
    if found != *root {
        return Err(ProofError::Root { found, expected: *root });
    }
    Ok(())
}

/// Proves that the tree with `old` leaves is the beginning of the one with `new` leaves
/// (RFC 9162, section 2.1.4.2). From nothing to something needs no hashes and has none.
///
/// # Errors
/// [`ProofError`]: the newer tree is not proven to continue the older one.
pub fn verify_consistency(
    (old, old_root): (u64, &TreeHash),
    (new, new_root): (u64, &TreeHash),
    proof: &[TreeHash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    let length = ProofError::Length { found: proof.len() };
    if old == new || old == 0 {
        if !proof.is_empty() {
            return Err(length);
        }
        let expected = if old == new { *new_root } else { TreeHash::empty() };
        if *old_root != expected {
            return Err(ProofError::OldRoot { found: expected, expected: *old_root });
        }
        return Ok(());
    }
    // A complete older tree stands in the newer one as it is, and so it is not in the proof.
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(length)?
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut found_old, mut found_new) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return Err(length);
        }
        if at & 1 == 1 || at == last {
            found_old = TreeHash::of_node(hash, &found_old);
            found_new = TreeHash::of_node(hash, &found_new);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found_new = TreeHash::of_node(&found_new, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        return Err(length);
    }
    if found_old != *old_root {
        return Err(ProofError::OldRoot { found: found_old, expected: *old_root });
    }
    if found_new != *new_root {
        return Err(ProofError::Root { found: found_new, expected: *new_root });
    }
    Ok(())
}

/// Proves that all of these leaves, given as index and hash, stand in the tree with `size`
/// leaves and this root. The proof is that of [`crate::Plan::leaves`] for their indices: the
/// hashes of all subtrees that hold none of them (split as by RFC 9162, section 2.1.1), from
/// left to right. Without leaves there is nothing to prove, and only the empty proof does.
///
/// # Errors
/// [`ProofError`]: at least one leaf is not proven to be there.
pub fn verify_leaves(
    leaves: &BTreeMap<u64, TreeHash>,
    size: u64,
    proof: &[TreeHash],
    root: &TreeHash,
) -> Result<(), ProofError> {
    let length = ProofError::Length { found: proof.len() };
    let Some((&last, _)) = leaves.last_key_value() else {
        return if proof.is_empty() { Ok(()) } else { Err(length) };
    };
    if last >= size {
        return Err(ProofError::NoLeaf { index: last, size });
    }
    let leaves: Vec<(u64, TreeHash)> = leaves.iter().map(|(index, hash)| (*index, *hash)).collect();
    let mut rest = proof.iter();
    let found = root_over(tree::whole(size), &leaves, &mut rest).ok_or(length)?;
    if rest.next().is_some() {
        return Err(length);
    }
    if found != *root {
        return Err(ProofError::Root { found, expected: *root });
    }
    Ok(())
}

/// The hash of a range, by the leaves in it and by the proof where it has none; `None` when the
/// proof is too short. As deep as the tree is high, at most 64.
fn root_over<'p>(
    range: Range,
    leaves: &[(u64, TreeHash)],
    proof: &mut impl Iterator<Item = &'p TreeHash>,
) -> Option<TreeHash> {
    match leaves {
        [] => proof.next().copied(),
        [(_, hash), ..] if range.length() == 1 => Some(*hash),
        _ => {
            let (left, right) = range.split();
            let middle = leaves.partition_point(|(index, _)| *index < right.start);
            let (in_left, in_right) = leaves.split_at(middle);
            let left = root_over(left, in_left, proof)?;
            Some(TreeHash::of_node(&left, &root_over(right, in_right, proof)?))
        }
    }
}
