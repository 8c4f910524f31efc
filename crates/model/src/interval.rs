//! Sets of task indices, kept as ranges: a million ready tasks are one entry.

use alloc::collections::BTreeMap;
use serde::{Deserialize, Serialize};

/// A set of `u32`, held as disjoint half-open ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntervalSet {
    /// Start to end (exclusive); disjoint and never touching.
    ranges: BTreeMap<u32, u32>,
}

impl IntervalSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }

    /// The set of `start..end`.
    #[must_use]
    pub fn from_range(start: u32, end: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(start, end);
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges
            .iter()
            .map(|(start, end)| u64::from(end - start))
            .sum()
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.keys().next().copied()
    }

    /// Whether `value` is in it.
    #[must_use]
    pub fn contains(&self, value: u32) -> bool {
        self.ranges
            .range(..=value)
            .next_back()
            .is_some_and(|(_, end)| value < *end)
    }

    /// Adds one number; says whether it was new.
    pub fn insert(&mut self, value: u32) -> bool {
        let new = !self.contains(value);
        if new {
            self.insert_range(value, value + 1);
        }
        new
    }

    /// Adds `start..end`.
    pub fn insert_range(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let (mut low, mut high) = (start, end);
        // Every range that touches start..end is swallowed; the set keeps them disjoint, so
        // walking down from `end` meets them all.
        while let Some((s, e)) = self
            .ranges
            .range(..=high)
            .next_back()
            .map(|(s, e)| (*s, *e))
        {
            if e < low {
                break;
            }
            self.ranges.remove(&s);
            low = low.min(s);
            high = high.max(e);
        }
        self.ranges.insert(low, high);
    }

    /// Takes one number out; says whether it was there.
    pub fn remove(&mut self, value: u32) -> bool {
        let Some((start, end)) = self
            .ranges
            .range(..=value)
            .next_back()
            .map(|(s, e)| (*s, *e))
            .filter(|r| value < r.1)
        else {
            return false;
        };
        self.ranges.remove(&start);
        if start < value {
            self.ranges.insert(start, value);
        }
        if value + 1 < end {
            self.ranges.insert(value + 1, end);
        }
        true
    }

    /// Takes the smallest number out.
    pub fn pop_first(&mut self) -> Option<u32> {
        let (start, end) = self.ranges.pop_first()?;
        if start + 1 < end {
            self.ranges.insert(start + 1, end);
        }
        Some(start)
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(start, end)| *start..*end)
    }

    /// The ranges, ascending, as (start, end) with end exclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }
}

impl FromIterator<u32> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Self {
        let mut set = Self::new();
        for value in values {
            set.insert(value);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[test]
    fn behaves_like_a_set_of_numbers() {
        // A fixed linear congruential sequence: every step is compared with a plain set.
        let (mut set, mut plain, mut x) = (IntervalSet::new(), BTreeSet::new(), 12_345_u32);
        for _ in 0..5000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (x >> 16) % 64;
            if x & 1 == 0 {
                assert_eq!(set.insert(value), plain.insert(value));
            } else {
                assert_eq!(set.remove(value), plain.remove(&value));
            }
            assert!(set.iter().eq(plain.iter().copied()));
            assert_eq!(set.len(), plain.len() as u64);
            let ranges: Vec<_> = set.ranges().collect();
            assert!(
                ranges.windows(2).all(|pair| pair[0].1 < pair[1].0),
                "{ranges:?}"
            );
        }
    }

    #[test]
    fn a_million_are_one_range() {
        let mut set = IntervalSet::from_range(0, 1_000_000);
        assert_eq!(set.pop_first(), Some(0));
        assert_eq!((set.len(), set.ranges().count()), (999_999, 1));
    }
}
