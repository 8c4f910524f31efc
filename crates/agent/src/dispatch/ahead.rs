//! What engines do ahead of a start: for the attempts that the book would start next, a few at a
//! time, and only while the node works and has memory for them.

use super::Dispatch;
use gleaner_model::AttemptId;
use std::sync::Arc;

/// Most attempts that are prepared at once, whatever the node has: each takes memory.
const AHEAD_MAX: u32 = 8;

impl Dispatch {
    /// Prepares what starts next, and lets go of what does not any more.
    pub(super) fn look_ahead(&mut self) {
        let next = match self.stop_by {
            None => self.book.starts_next(self.most_ahead()),
            Some(_) => Vec::new(),
        };
        self.ahead.retain(|attempt, engine| {
            let stays = next.contains(attempt);
            if !stays {
                // From here, not by the collectors: it may start the next moment.
                engine.discard(*attempt);
            }
            stays
        });
        for attempt in next {
            if !self.ahead.contains_key(&attempt) {
                self.prepare(attempt);
            }
        }
    }

    /// One for each processor: more tasks do not end at once.
    fn most_ahead(&self) -> usize {
        let cpus = self.parts.offer.cpus.milli.div_ceil(1000);
        cpus.clamp(1, AHEAD_MAX) as usize
    }

    fn prepare(&mut self, attempt: AttemptId) {
        let slot = self.slots.get(&attempt);
        let Some(slot) = slot.filter(|slot| slot.engine.prepares()) else {
            return;
        };
        let Some((template, task)) = &slot.task else {
            return;
        };
        let files = (slot.inputs.files.clone(), slot.inputs.image.clone());
        // What is wrong with it is told when it starts.
        let Ok(spec) = template.spec(attempt, slot.lease, task, files) else {
            return;
        };
        if let Err(error) = slot.engine.prepare(spec) {
            tracing::warn!(target: "gleaner::run", %attempt, %error, "not prepared");
        }
        self.ahead.insert(attempt, Arc::clone(&slot.engine));
    }
}
