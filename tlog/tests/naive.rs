//! The tree against the definition: RFC 6962's recursion over all leaves, written as it
//! stands there, at every size up to 600 and around the borders of tiles up to 70,000.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use modunest_tlog::{
    Frontier, Plan, TILE_WIDTH, TileId, Tiles, TreeHash, verify_consistency, verify_inclusion,
    verify_leaves,
};
use proptest::prelude::*;

fn leaf(index: u64) -> TreeHash {
    TreeHash::of_leaf(format!("entry {index}").as_bytes())
}

fn split(length: u64) -> u64 {
    let mut k = 1;
    while k * 2 < length {
        k *= 2;
    }
    k
}

/// MTH (RFC 6962, section 2.1), with complete subtrees remembered.
struct Naive {
    leaves: Vec<TreeHash>,
    known: BTreeMap<(u64, u64), TreeHash>,
}

impl Naive {
    fn new(size: u64) -> Self {
        Naive { leaves: (0..size).map(leaf).collect(), known: BTreeMap::new() }
    }

    fn root(&mut self, start: u64, end: u64) -> TreeHash {
        match end - start {
            0 => TreeHash::empty(),
            1 => self.leaves[start as usize],
            length => {
                if let Some(hash) = self.known.get(&(start, end)) {
                    return *hash;
                }
                let middle = start + split(length);
                let hash = TreeHash::of_node(&self.root(start, middle), &self.root(middle, end));
                if length.is_power_of_two() {
                    self.known.insert((start, end), hash);
                }
                hash
            }
        }
    }

    /// PATH (section 2.1.1).
    fn path(&mut self, index: u64, start: u64, end: u64) -> Vec<TreeHash> {
        if end - start == 1 {
            return Vec::new();
        }
        let middle = start + split(end - start);
        if index < middle {
            let mut path = self.path(index, start, middle);
            path.push(self.root(middle, end));
            path
        } else {
            let mut path = self.path(index, middle, end);
            path.push(self.root(start, middle));
            path
        }
    }

    /// SUBPROOF (section 2.1.2).
    fn subproof(&mut self, old: u64, start: u64, end: u64, complete: bool) -> Vec<TreeHash> {
        if old == end - start {
            return if complete { Vec::new() } else { vec![self.root(start, end)] };
        }
        let k = split(end - start);
        if old <= k {
            let mut proof = self.subproof(old, start, start + k, complete);
            proof.push(self.root(start + k, end));
            proof
        } else {
            let mut proof = self.subproof(old - k, start + k, end, false);
            proof.push(self.root(start, start + k));
            proof
        }
    }
}

/// A log that grew one entry at a time, with all tiles that it ever had.
struct Grown {
    frontier: Frontier,
    files: BTreeMap<TileId, Vec<u8>>,
    roots: BTreeMap<u64, TreeHash>,
}

impl Grown {
    fn to(size: u64) -> Self {
        Self::seen_at(&(0..=size).collect::<Vec<_>>())
    }

    /// Looks at roots and tiles at these sizes only, which are ascending.
    fn seen_at(sizes: &[u64]) -> Self {
        let (frontier, files) = (Frontier::new(), BTreeMap::new());
        let mut grown = Grown { frontier, files, roots: BTreeMap::new() };
        for &size in sizes {
            while grown.frontier.size() < size {
                let index = grown.frontier.size();
                assert_eq!(grown.frontier.append(leaf(index)), index);
            }
            grown.files.extend(grown.frontier.take_tiles());
            grown.roots.insert(size, grown.frontier.root());
        }
        grown
    }

    fn read(&self, plan: &Plan) -> Vec<TreeHash> {
        let mut tiles = Tiles::default();
        for id in plan.tiles() {
            tiles.insert(id, &self.files[&id]).unwrap();
        }
        plan.hashes(&tiles).unwrap()
    }
}

fn check(grown: &Grown, naive: &mut Naive, old: u64, index: u64, size: u64) {
    let root = naive.root(0, size);
    assert_eq!(grown.roots[&size], root, "{size}");
    assert_eq!(grown.read(&Plan::root(size)), [root]);
    if index < size {
        let proof = grown.read(&Plan::inclusion(index, size).unwrap());
        assert_eq!(proof, naive.path(index, 0, size), "{index} in {size}");
        verify_inclusion(&leaf(index), index, size, &proof, &root).unwrap();
        // Nothing else is proven by it.
        assert!(verify_inclusion(&leaf(index + 1), index, size, &proof, &root).is_err());
        let other = if index == 0 { 1 } else { index - 1 };
        assert!(verify_inclusion(&leaf(index), other, size, &proof, &root).is_err());
        for length in [proof.len().saturating_sub(1), proof.len() + 1] {
            let mut other = proof.clone();
            other.resize(length, leaf(0));
            if other.len() != proof.len() {
                assert!(verify_inclusion(&leaf(index), index, size, &other, &root).is_err());
            }
        }
    }
    if old <= size {
        let old_root = naive.root(0, old);
        let proof = grown.read(&Plan::consistency(old, size).unwrap());
        let expected =
            if old == 0 || old == size { Vec::new() } else { naive.subproof(old, 0, size, true) };
        assert_eq!(proof, expected, "{old} to {size}");
        verify_consistency((old, &old_root), (size, &root), &proof).unwrap();
        if old > 0 {
            assert!(verify_consistency((old, &leaf(7)), (size, &root), &proof).is_err());
        }
        if old < size && old > 0 {
            assert!(verify_consistency((old, &old_root), (size, &leaf(7)), &proof).is_err());
            let mut longer = proof.clone();
            longer.push(leaf(0));
            assert!(verify_consistency((old, &old_root), (size, &root), &longer).is_err());
            let shorter = &proof[..proof.len() - 1];
            assert!(verify_consistency((old, &old_root), (size, &root), shorter).is_err());
        }
    }
}

#[test]
fn every_size_up_to_600() {
    let grown = Grown::to(600);
    let mut naive = Naive::new(600);
    for size in 0..=600_u64 {
        // Every leaf and every older size, in turns of 41, and the edges always.
        for at in (size % 41..size).step_by(41).chain([0, size.saturating_sub(1), size]) {
            check(&grown, &mut naive, at, at, size);
        }
    }
}

#[test]
fn borders_of_tiles_up_to_70_000() {
    let borders = [256, 512, 65_280, 65_536, 65_792, 69_888, 70_000_u64];
    let near: Vec<u64> = borders.iter().flat_map(|b| b - 2..=(b + 2).min(70_000)).collect();
    let grown = Grown::seen_at(&near);
    let mut naive = Naive::new(70_000);
    for &size in &near {
        for &at in &near {
            check(&grown, &mut naive, at, at, size);
        }
    }
}

/// Leaves at these indices together, and everything near that must not be proven.
fn check_together(grown: &Grown, naive: &mut Naive, indices: &BTreeSet<u64>, size: u64) {
    let root = naive.root(0, size);
    let wanted: Vec<u64> = indices.iter().copied().collect();
    let plan = Plan::leaves(&wanted, size).unwrap();
    let proof = grown.read(&plan);
    assert_eq!(plan.length(), proof.len());
    let leaves: BTreeMap<u64, TreeHash> =
        wanted.iter().map(|index| (*index, leaf(*index))).collect();
    verify_leaves(&leaves, size, &proof, &root).unwrap();
    // Never more than one by one.
    let singly: usize = wanted.iter().map(|index| naive.path(*index, 0, size).len()).sum();
    assert!(proof.len() <= singly);
    if let [index] = wanted[..] {
        let mut path = naive.path(index, 0, size);
        let mut sorted = proof.clone();
        path.sort();
        sorted.sort();
        assert_eq!(sorted, path);
    }
    for index in &wanted {
        let mut forged = leaves.clone();
        forged.insert(*index, TreeHash::of_leaf(b"forged"));
        assert!(verify_leaves(&forged, size, &proof, &root).is_err());
        let mut fewer = leaves.clone();
        let moved = fewer.remove(index).unwrap();
        // Nothing proves nothing, and the only leaf of a tree needs no hash.
        assert_eq!(verify_leaves(&fewer, size, &proof, &root).is_ok(), size == 1);
        if !leaves.contains_key(&(index + 1)) {
            fewer.insert(index + 1, moved);
            assert!(verify_leaves(&fewer, size, &proof, &root).is_err());
        }
    }
    for at in 0..proof.len() {
        let mut other = proof.clone();
        other[at] = leaf(u64::MAX);
        assert!(verify_leaves(&leaves, size, &other, &root).is_err());
        other.remove(at);
        assert!(verify_leaves(&leaves, size, &other, &root).is_err());
    }
    let longer = [&proof[..], &[leaf(0)]].concat();
    assert!(verify_leaves(&leaves, size, &longer, &root).is_err());
}

#[test]
fn leaves_are_proven_together() {
    let mut state: u64 = 1;
    let mut random = |below: u64| {
        // Knuth's multiplicative generator (MMIX).
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let grown = Grown::to(600);
    let mut naive = Naive::new(600);
    for size in 1..=600_u64 {
        let count = 1 + random(size.min(12));
        let indices = (0..count).map(|_| random(size)).collect();
        check_together(&grown, &mut naive, &indices, size);
    }
    let all = (0..600).collect();
    check_together(&grown, &mut naive, &all, 600);
    let sizes = [65_535, 65_536, 65_537, 69_999, 70_000];
    let grown = Grown::seen_at(&sizes);
    let mut naive = Naive::new(70_000);
    for size in sizes {
        let near = [0, 1, 255, 256, 65_279, 65_280, 65_534, 65_535, size - 1];
        let indices = near.into_iter().filter(|index| *index < size).chain([random(size)]);
        check_together(&grown, &mut naive, &indices.collect(), size);
    }
    assert_eq!(Plan::leaves(&[], 5), None);
    assert_eq!(Plan::leaves(&[5], 5), None);
    assert_eq!(Plan::leaves(&[3, 3], 5), None);
    assert_eq!(Plan::leaves(&[3, 2], 5), None);
    let none = BTreeMap::new();
    assert!(verify_leaves(&none, 5, &[], &leaf(0)).is_ok());
    assert!(verify_leaves(&none, 5, &[leaf(0)], &leaf(0)).is_err());
}

#[test]
fn a_frontier_goes_on_where_another_stopped() {
    let grown = Grown::to(1_000);
    for size in [0, 1, 255, 256, 257, 511, 512, 777] {
        let mut tiles = Tiles::default();
        for id in Frontier::tiles(size) {
            tiles.insert(id, &grown.files[&id]).unwrap();
        }
        let mut frontier = Frontier::load(size, &tiles).unwrap();
        assert_eq!(frontier.root(), grown.roots[&size]);
        let mut files = BTreeMap::new();
        for index in size..1_000 {
            frontier.append(leaf(index));
        }
        files.extend(frontier.take_tiles());
        assert_eq!(frontier.root(), grown.roots[&1_000]);
        assert!(files.iter().all(|(id, bytes)| grown.files[id] == *bytes));
        // Whole tiles that were finished meanwhile, and what is partial at the end.
        for id in Frontier::tiles(1_000) {
            let unchanged = Frontier::tiles(size).contains(&id);
            assert!(unchanged || files.contains_key(&id), "{id} after {size}");
        }
        for index in size / TILE_WIDTH..1_000 / TILE_WIDTH {
            assert!(files.contains_key(&TileId::hashes(0, index, 1_000).unwrap()));
        }
    }
}

#[test]
fn forged_tiles_make_proofs_that_fail() {
    // Sizes at which a published reader accepted a forged leaf (CVE-2026-56865), and others.
    let grown = Grown::to(512);
    for size in [1, 2, 255, 256, 257, 259, 263, 300, 511, 512_u64] {
        let root = grown.roots[&size];
        for index in [0, size / 2, size - 1] {
            let plan = Plan::inclusion(index, size).unwrap();
            for forged in plan.tiles() {
                let mut tiles = Tiles::default();
                for id in plan.tiles() {
                    let mut bytes = grown.files[&id].clone();
                    if id == forged {
                        bytes.iter_mut().for_each(|byte| *byte ^= 1);
                    }
                    tiles.insert(id, &bytes).unwrap();
                }
                let proof = plan.hashes(&tiles).unwrap();
                assert!(verify_inclusion(&leaf(index), index, size, &proof, &root).is_err());
            }
            // A forged leaf is not in the tree, whatever the tiles.
            let proof = grown.read(&plan);
            let forged = TreeHash::of_leaf(b"forged");
            assert!(verify_inclusion(&forged, index, size, &proof, &root).is_err());
        }
    }
}

proptest! {
    #[test]
    fn random_hashes_prove_nothing(
        index in any::<u64>(),
        size in any::<u64>(),
        old in any::<u64>(),
        proof in proptest::collection::vec(any::<[u8; 32]>().prop_map(TreeHash::from_bytes), 0..70),
    ) {
        let root = TreeHash::of_leaf(b"root");
        prop_assert!(verify_inclusion(&leaf(0), index, size, &proof, &root).is_err());
        let leaves = BTreeMap::from([(index, leaf(0)), (old, leaf(1))]);
        prop_assert!(verify_leaves(&leaves, size, &proof, &root).is_err());
        if old != size {
            let old_root = TreeHash::of_leaf(b"old root");
            prop_assert!(verify_consistency((old, &old_root), (size, &root), &proof).is_err());
        }
    }
}
