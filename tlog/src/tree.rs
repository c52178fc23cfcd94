//! Positions in the tree: which complete subtrees make up a range, a root or a proof.
//!
//! Everything here is arithmetic on sizes and indices; hashes come from elsewhere.

/// A complete subtree: its leaves are `index << level` up to `(index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Height: 0 for a leaf.
    pub level: u8,
    /// Position among the subtrees of this height.
    pub index: u64,
}

/// Leaves `start` up to `end`, without `end`: a subtree of the recursion in RFC 6962,
/// section 2.1, perhaps not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Range {
    pub(crate) fn length(self) -> u64 {
        self.end - self.start
    }

    /// Where the recursion splits: the largest power of two below the length, which is at
    /// least 2.
    pub(crate) fn split(self) -> (Range, Range) {
        let left = 1 << (self.length() - 1).ilog2();
        let middle = self.start + left;
        (Range { start: self.start, end: middle }, Range { start: middle, end: self.end })
    }

    /// The complete subtrees of the range, from left to right: its hash is theirs, folded
    /// from the right.
    pub(crate) fn nodes(self) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        let mut at = self.start;
        while at < self.end {
            let room = (self.end - at).ilog2();
            // Zero is aligned to everything.
            let aligned = if at == 0 { 63 } else { at.trailing_zeros() };
            let level = room.min(aligned);
            nodes.push(NodeId { level: level as u8, index: at >> level });
            at += 1 << level;
        }
        nodes
    }
}

/// All leaves of a tree.
pub(crate) fn whole(size: u64) -> Range {
    Range { start: 0, end: size }
}

/// The ranges whose hashes prove that leaf `index` is in a tree of `size` leaves, from the
/// leaf's sibling upwards (RFC 6962, section 2.1.1). `None` when there is no such leaf.
pub(crate) fn inclusion(index: u64, size: u64) -> Option<Vec<Range>> {
    if index >= size {
        return None;
    }
    let mut ranges = Vec::new();
    let mut range = whole(size);
    while range.length() > 1 {
        let (left, right) = range.split();
        let (inside, sibling) = if index < right.start { (left, right) } else { (right, left) };
        ranges.push(sibling);
        range = inside;
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose hashes prove that a tree of `old` leaves is the beginning of one of `new`
/// (RFC 6962, section 2.1.2); empty when `old` is zero or both are equal. `None` when `old`
/// is larger.
pub(crate) fn consistency(old: u64, new: u64) -> Option<Vec<Range>> {
    if old > new {
        return None;
    }
    let mut ranges = Vec::new();
    if old == 0 || old == new {
        return Some(ranges);
    }
    let mut range = whole(new);
    // As long as the old tree is a left part, whoever checks has its hash already.
    let mut known = true;
    while range.end != old {
        let (left, right) = range.split();
        if old <= left.end {
            ranges.push(right);
            range = left;
        } else {
            ranges.push(left);
            range = right;
            known = false;
        }
    }
    if !known {
        ranges.push(range);
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose hashes prove, together with the leaves at `indices`, that those leaves are in
/// a tree of `size` leaves: all that has none of them, from left to right. `None` when there is
/// no index, they do not ascend, or there is no such leaf.
pub(crate) fn leaves(indices: &[u64], size: u64) -> Option<Vec<Range>> {
    fn cover(range: Range, indices: &[u64], ranges: &mut Vec<Range>) {
        if indices.is_empty() {
            ranges.push(range);
        } else if range.length() > 1 {
            let (left, right) = range.split();
            let (in_left, in_right) =
                indices.split_at(indices.partition_point(|index| *index < right.start));
            cover(left, in_left, ranges);
            cover(right, in_right, ranges);
        }
    }
    let ascending = indices.is_sorted_by(|one, other| one < other);
    if !ascending || indices.last().is_none_or(|last| *last >= size) {
        return None;
    }
    let mut ranges = Vec::new();
    cover(whole(size), indices, &mut ranges);
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_covered_by_complete_subtrees() {
        for size in 0..200 {
            let mut next = 0;
            for node in whole(size).nodes() {
                assert_eq!(node.index << node.level, next);
                next += 1 << node.level;
            }
            assert_eq!(next, size);
        }
        let huge = whole(u64::MAX).nodes();
        assert_eq!((huge.len(), huge[0]), (64, NodeId { level: 63, index: 0 }));
    }

    #[test]
    fn proofs_exist_for_what_exists() {
        assert_eq!(inclusion(0, 0), None);
        assert_eq!(inclusion(3, 3), None);
        assert_eq!(inclusion(0, 1), Some(Vec::new()));
        assert_eq!(consistency(2, 1), None);
        assert_eq!(consistency(0, 7), Some(Vec::new()));
        assert_eq!(consistency(7, 7), Some(Vec::new()));
        // At most 64 hashes, whatever the sizes.
        assert_eq!(inclusion(u64::MAX - 1, u64::MAX).map(|ranges| ranges.len()), Some(63));
        assert!(consistency(u64::MAX / 3, u64::MAX).is_some_and(|ranges| ranges.len() <= 65));
    }
}
