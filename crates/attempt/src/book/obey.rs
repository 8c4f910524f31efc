//! What wish, verdict and want of memory do to attempts.

use super::{Book, evicted};
use crate::entry::Phase;
use crate::{Action, Verdict, Wish};
use alloc::vec::Vec;
use gleaner_model::Time;

/// Why attempts come back from a node that its admin drains.
const DRAINED: &str = "the node is being drained";
/// Why attempts come back from a node that its admin emptied.
const EMPTIED: &str = "the node was told to give its work back";
/// Why attempts come back from a node whose owner needs it.
const NEEDED: &str = "the node needs itself";
/// Why the youngest attempt comes back from a node whose owner needs the memory.
const MEMORY: &str = "the node's owner needs the memory";

impl Book {
    /// Whether granted work that has not started goes back, and why.
    pub(super) const fn gives_back(&self) -> Option<&'static str> {
        match (self.wish, self.verdict) {
            (Wish::Evict, _) => Some(EMPTIED),
            (_, Verdict::Evict) => Some(NEEDED),
            (Wish::Drain, _) => Some(DRAINED),
            (Wish::Pause | Wish::Resume, Verdict::Run | Verdict::Pause) => None,
        }
    }

    /// Brings the attempts in line with the wish and the verdict.
    pub(super) fn obey(&mut self, now: Time, out: &mut Vec<Action>) {
        if let Some(why) = self.gives_back() {
            let pending = self.those(Phase::is_pending);
            for attempt in pending {
                self.leave_queue(attempt);
                self.end(attempt, evicted(why), false, out);
            }
            let all = self.wish == Wish::Evict || self.verdict == Verdict::Evict;
            for attempt in self.those(Phase::is_live) {
                // What can be moved without loss does not keep a node that is drained waiting.
                if all || self.saving_of(attempt).every.is_some() {
                    self.give_back(now, attempt, why, out);
                }
            }
        }
        let frozen = self.wish == Wish::Pause || self.verdict == Verdict::Pause;
        if frozen != self.frozen {
            self.frozen = frozen;
            for attempt in self.those(Phase::is_live) {
                out.push(match frozen {
                    true => Action::Pause(attempt),
                    false => Action::Resume(attempt),
                });
            }
        }
    }

    /// Gives the youngest attempt back: it has done least. One at a time, since only its end
    /// tells whether it was enough.
    pub(super) fn shed(&mut self, now: Time, out: &mut Vec<Action>) {
        let live = self.attempts.iter().filter(|(_, e)| e.phase.is_live());
        if live.clone().any(|(_, entry)| entry.stop.is_some()) {
            return;
        }
        let youngest = live.max_by_key(|(_, entry)| entry.begun);
        let Some(attempt) = youngest.map(|(attempt, _)| *attempt) else {
            return;
        };
        self.give_back(now, attempt, MEMORY, out);
    }
}
