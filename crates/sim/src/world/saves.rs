//! Programs that save themselves, on virtual time: how far each had come is what is saved, and
//! what the next attempt goes on from must be just that of its own task.

use super::World;
use super::engine::Program;
use crate::agenda::Pc;
use crate::link::Up;
use crate::report::Failure;
use gleaner_attempt::Event;
use gleaner_core::Saved;
use gleaner_model::{AttemptId, Digest, TaskId, Time};

/// A record: job, index, and which part of the task's work is done.
const RECORD_BYTES: usize = 20;

/// What is saved of a task that has come this far.
pub(crate) fn record(task: TaskId, part: f64, taken: Time) -> Saved {
    let mut record = Vec::with_capacity(RECORD_BYTES);
    record.extend(task.job.0.to_le_bytes());
    record.extend(task.index.to_le_bytes());
    record.extend(part.to_le_bytes());
    let mut content = [0; 32];
    for (to, from) in content.iter_mut().zip(&record) {
        *to = *from;
    }
    Saved {
        taken,
        content: Digest(content),
        machine: None,
        blobs: Vec::new(),
        record,
    }
}

/// Reads a record back; none where it is of another task.
fn part_of(task: TaskId, record: &[u8]) -> Option<f64> {
    let (job, rest) = record.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let ours = u64::from_le_bytes(*job) == task.job.0 && u32::from_le_bytes(*index) == task.index;
    let part = f64::from_le_bytes(rest.try_into().ok()?);
    ours.then_some(part)
}

impl World {
    /// The book wants an attempt saved.
    pub(crate) fn save(&mut self, pc: Pc, attempt: AttemptId) {
        let now = Time { ms: self.now };
        let Some(node) = self.pc(pc) else { return };
        let pace = node.pace;
        let Some(program) = node.programs.get(&attempt) else {
            return;
        };
        let saved = record(attempt.task, program.part(now.ms, pace), now);
        node.untold.insert(attempt, saved);
        self.tell_saved(pc, attempt);
    }

    pub(crate) fn tell_saved(&mut self, pc: Pc, attempt: AttemptId) {
        let saved = self.pc(pc).and_then(|node| node.untold.get(&attempt));
        if let Some(saved) = saved.cloned() {
            self.send(pc, Up::Saved(attempt, Box::new(saved)));
        }
    }

    /// The server answered.
    pub(crate) fn kept(&mut self, pc: Pc, (attempt, taken): (AttemptId, Time), well: bool) {
        let Some(node) = self.pc(pc) else { return };
        let waits = node
            .untold
            .get(&attempt)
            .is_some_and(|saved| saved.taken == taken);
        if waits {
            node.untold.remove(&attempt);
            self.feed(pc, Event::Saved { attempt, well });
        }
    }

    /// What the tasks of a bundle go on from, as the store has it.
    pub(crate) fn restored(&self, task: TaskId) -> Result<Option<f64>, Failure> {
        let Some(record) = self.server.ledger.checkpoint(task) else {
            return Ok(None);
        };
        match part_of(task, record) {
            Some(part) => Ok(Some(part)),
            None => Err(self.failure(format!("{task} would go on from another task"))),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a task stay below 2^53"
)]
impl Program {
    /// Which part of its task's work is done.
    pub(crate) fn part(&self, now: u64, pace: u32) -> f64 {
        let ran = self
            .since
            .map_or(0, |since| now.saturating_sub(since) * u64::from(pace));
        let left = self.left_us.saturating_sub(ran) + self.rest_us;
        1.0 - left as f64 / self.whole_us.max(1) as f64
    }
}
