//! What the nodes saw of the tasks: which were granted, told to be done, and acknowledged. One bit
//! a task each; compared at the end with what the server counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of task numbers that only grows; many threads add to it.
#[derive(Debug)]
struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(count: u32) -> Self {
        Self((0..=count / 64).map(|_| AtomicU64::new(0)).collect())
    }

    /// Says whether it was new.
    fn add(&self, index: u32) -> bool {
        let word = usize::try_from(index / 64).unwrap_or(usize::MAX);
        let bit = 1 << (index % 64);
        self.0
            .get(word)
            .is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    fn len(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        self.0.iter().map(ones).sum()
    }
}

/// The tasks of the one job.
#[derive(Debug)]
pub(super) struct Tally {
    told: Bits,
    acknowledged: Bits,
    /// Tasks that were granted to somebody after their end was acknowledged.
    run_anew: AtomicU64,
}

/// What the server counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Tasks done, in the job.
    pub(super) job: u64,
    /// Tasks done, summed over the nodes.
    pub(super) nodes: u64,
}

impl Tally {
    pub(super) fn new(tasks: u32) -> Self {
        Self {
            told: Bits::new(tasks),
            acknowledged: Bits::new(tasks),
            run_anew: AtomicU64::new(0),
        }
    }

    pub(super) fn grant(&self, index: u32) {
        let word = usize::try_from(index / 64).unwrap_or(usize::MAX);
        let over = self.acknowledged.0.get(word).is_some_and(|word| {
            let bits = word.load(Ordering::Relaxed);
            bits & 1 << (index % 64) != 0
        });
        if over {
            self.run_anew.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn tell(&self, index: u32) {
        self.told.add(index);
    }

    pub(super) fn acknowledge(&self, index: u32) {
        self.acknowledged.add(index);
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.len()
    }

    /// Tasks that the server counted other than once: fewer than it acknowledged, more than were
    /// told, differently in the job and in the nodes, or run again after their acknowledgement.
    pub(super) fn wrong(&self, counted: Counted) -> u64 {
        let (told, acknowledged) = (self.told.len(), self.acknowledged.len());
        acknowledged.saturating_sub(counted.job)
            + counted.job.saturating_sub(told)
            + counted.job.abs_diff(counted.nodes)
            + self.run_anew.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_other_than_once_is_wrong() {
        // Three tasks told, two of them acknowledged, one of these twice.
        let tally = || {
            let tally = Tally::new(100);
            [0, 63, 99].into_iter().for_each(|index| tally.tell(index));
            [0, 99, 99]
                .into_iter()
                .for_each(|index| tally.acknowledge(index));
            tally
        };
        for (job, nodes, wrong) in [
            (2, 2, 0),
            (3, 3, 0),
            (1, 1, 1),
            (4, 4, 1),
            (3, 4, 1),
            (0, 5, 7),
        ] {
            let counted = Counted { job, nodes };
            assert_eq!(tally().wrong(counted), wrong, "{counted:?}");
        }
        let tally = tally();
        tally.grant(63);
        assert_eq!(tally.wrong(Counted { job: 3, nodes: 3 }), 0);
        tally.grant(99);
        assert_eq!(tally.wrong(Counted { job: 3, nodes: 3 }), 1);
        assert_eq!(tally.acknowledged(), 2);
    }
}
