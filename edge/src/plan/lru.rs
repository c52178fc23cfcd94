//! A bounded map that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values up to a total weight. Nothing is ever forgotten by age: who puts in only what is
/// right for ever reads only what is right.
#[derive(Debug)]
pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Uses in their order. Each entry has exactly one.
    uses: BTreeMap<u64, K>,
    next_use: u64,
    weight: u64,
    capacity: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// An empty map that holds values of at most `capacity` in all.
    pub fn new(capacity: u64) -> Self {
        Lru { entries: HashMap::new(), uses: BTreeMap::new(), next_use: 0, weight: 0, capacity }
    }

    /// The value of `key`, which is used now.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        self.uses.remove(&entry.used);
        entry.used = self.next_use;
        self.uses.insert(entry.used, *key);
        self.next_use += 1;
        Some(&mut entry.value)
    }

    /// Puts a value in, and forgets as many as it takes. What weighs more than all may is
    /// not kept.
    pub fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        if weight > self.capacity {
            return;
        }
        while self.weight + weight > self.capacity {
            let Some((_, oldest)) = self.uses.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.uses.insert(self.next_use, key);
        self.entries.insert(key, Entry { value, weight, used: self.next_use });
        self.next_use += 1;
        self.weight += weight;
    }

    /// Forgets a value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.uses.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a list in the order of use, looked through from one end.
        #[test]
        fn it_is_the_naive_list(
            steps in proptest::collection::vec((0_u8..3, 0_u8..8, 0_u64..12), 0..80),
        ) {
            const CAPACITY: u64 = 20;
            let mut lru = Lru::new(CAPACITY);
            let mut list: Vec<(u8, u64)> = Vec::new();
            for (step, key, weight) in steps {
                match step {
                    0 => {
                        let at = list.iter().position(|(other, _)| *other == key);
                        prop_assert_eq!(lru.get(&key).copied(), at.map(|at| list[at].1));
                        if let Some(at) = at {
                            let used = list.remove(at);
                            list.push(used);
                        }
                    }
                    1 => {
                        lru.insert(key, weight * 3, weight * 3);
                        list.retain(|(other, _)| *other != key);
                        if weight * 3 <= CAPACITY {
                            list.push((key, weight * 3));
                            while list.iter().map(|(_, weight)| weight).sum::<u64>() > CAPACITY {
                                list.remove(0);
                            }
                        }
                    }
                    _ => {
                        lru.remove(&key);
                        list.retain(|(other, _)| *other != key);
                    }
                }
                prop_assert_eq!(lru.entries.len(), list.len());
                prop_assert_eq!(lru.uses.len(), list.len());
                prop_assert_eq!(lru.weight, list.iter().map(|(_, weight)| weight).sum::<u64>());
            }
        }
    }
}
