//! What would start next, for those who can do something for it ahead.

use super::Book;
use crate::{Verdict, Wish};
use alloc::vec::Vec;
use gleaner_model::AttemptId;

impl Book {
    /// The attempts that start next where they wait for processors and not for memory: what can be
    /// done ahead for them is worth doing. The next of each bundle, at most so many, and none
    /// where nothing starts now.
    #[must_use]
    pub fn starts_next(&self, most: usize) -> Vec<AttemptId> {
        let starts = !self.frozen && self.wish == Wish::Resume && self.verdict == Verdict::Run;
        let bundles = self.pending.iter().filter_map(|key| self.bundles.get(key));
        let next = bundles.filter_map(|bundle| Some((*bundle.ready.front()?, bundle.memory.0)));
        let mut memory = self.used.1;
        let fitting = next.take_while(|(_, bytes)| {
            memory = memory.saturating_add(*bytes);
            starts && memory <= self.capacity.memory.0
        });
        fitting.take(most).map(|(attempt, _)| attempt).collect()
    }
}
