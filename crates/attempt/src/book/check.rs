//! What must hold in a book after every step. Reads everything, changes nothing.

use super::Book;
use crate::entry::Phase;
use alloc::collections::BTreeSet;

impl Book {
    /// Proves that the book agrees with itself. Tests and simulations call it after every step.
    ///
    /// # Panics
    /// Where a count, a queue or a timer does not fit the attempts: a bug in this crate.
    pub fn check(&self) {
        let mut used = (0, 0);
        for (key, bundle) in &self.bundles {
            let mine = || self.attempts.values().filter(|entry| entry.bundle == *key);
            let count = |phase: &Phase| mine().filter(|entry| entry.phase == *phase).count();
            let live = mine().filter(|entry| entry.phase.is_live()).count();
            assert!(
                live <= bundle.width as usize,
                "bundle {}: too wide",
                bundle.lease
            );
            assert_eq!(live, bundle.live as usize, "live of {}", bundle.lease);
            assert_eq!(mine().count(), bundle.held as usize, "held");
            assert_eq!(count(&Phase::Leased), bundle.leased.len(), "leased");
            assert_eq!(
                count(&Phase::Fetching),
                bundle.fetching as usize,
                "fetching"
            );
            assert_eq!(count(&Phase::Ready), bundle.ready.len(), "ready");
            assert!(
                !bundle.has_pending() || self.pending.contains(key),
                "bundle {} would never be looked at",
                bundle.lease
            );
            used.0 += live as u64 * u64::from(bundle.cpus.milli);
            used.1 += live as u64 * bundle.memory.0;
        }
        assert_eq!(used, self.used, "what the live attempts use");
        let live = self.attempts.values().filter(|entry| entry.phase.is_live());
        assert_eq!(live.count(), self.live as usize, "live attempts");
        let due: BTreeSet<_> = self
            .attempts
            .iter()
            .filter_map(|(attempt, entry)| Some((entry.due?, *attempt)))
            .collect();
        assert_eq!(due, self.timers, "timers");
        let due: BTreeSet<_> = self
            .attempts
            .iter()
            .filter_map(|(attempt, entry)| Some((entry.save_due?, *attempt)))
            .collect();
        assert_eq!(due, self.saves, "times of saves");
        let saved = |entry: &&crate::entry::Entry| entry.saving || entry.save_due.is_some();
        assert!(
            self.attempts
                .values()
                .filter(saved)
                .all(|entry| entry.phase.is_live()),
            "only what lives is saved"
        );
    }
}
