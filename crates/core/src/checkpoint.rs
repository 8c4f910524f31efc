//! What was saved of tasks: which of several counts, how long it is kept, and when a program that
//! saves itself for ever is stopped.
//!
//! A task has at most one checkpoint, the newest. It is one durable row, written before the node
//! hears that it is kept, and gone with the row that ends the task. What it holds, and where, is
//! the server's and the node's business.

use crate::Action;
use crate::attempt::Kept;
use crate::event::Saved;
use crate::row::{CheckpointRow, Row};
use crate::state::State;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use gleaner_model::{AttemptId, JobId, NodeId, TaskId};

/// A program that ended this often in a row to be started again, and whose saved files were the
/// same each time, makes no progress: its task has failed. One that counts steps or writes a date
/// is not caught by it, but by [`CHECKPOINTS_MAX`].
pub const STALLS_MAX: u32 = 3;

/// Most checkpoints of one task by its program's own end (or its eviction): two months of one
/// every ten minutes. A task with more has failed.
pub const CHECKPOINTS_MAX: u32 = 10_000;

/// Why an attempt was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It goes on meanwhile, or was given back by its node.
    Copied,
    /// Its program ended for it.
    Itself,
}

impl State {
    /// A running attempt was saved; or one that the server took for lost.
    pub(crate) fn on_saved(&mut self, node: NodeId, attempt: AttemptId, saved: Saved) {
        let taken = saved.taken;
        let task = attempt.task;
        let over = self
            .jobs
            .get(&task.job)
            .is_none_or(|job| job.state.is_over() || job.task_state(task.index).is_over());
        let known = self.runs(attempt, node) || self.is_open(attempt, node);
        let kept = known && !over && self.keep(attempt, saved, Cause::Copied);
        self.out.push(Action::Kept {
            node,
            attempt,
            taken,
            kept,
        });
    }

    /// Stores a checkpoint of a task that is not over, in place of an older one. False where the
    /// stored one is of a later attempt.
    pub(crate) fn keep(&mut self, attempt: AttemptId, saved: Saved, cause: Cause) -> bool {
        let TaskId { job, index } = attempt.task;
        let Some(job) = self.jobs.get_mut(&job) else {
            return false;
        };
        let before = job.checkpoints.get(&index);
        if before.is_some_and(|kept| kept.number > attempt.number) {
            return false;
        }
        if before.is_some_and(|kept| kept.number == attempt.number && kept.taken == saved.taken) {
            // It came twice.
            return true;
        }
        let same = before.is_some_and(|kept| kept.content == saved.content);
        let stalls = before.filter(|_| same).map_or(0, |kept| kept.stalls);
        let progress = before.filter(|_| same).map(|kept| kept.progress);
        let row = CheckpointRow {
            attempt,
            saved,
            count: before.map_or(0, |kept| kept.count).saturating_add(1),
            stalls: stalls + u32::from(same && cause == Cause::Itself),
            progress: progress.unwrap_or(attempt.number),
        };
        // Of a lost attempt it may come while its task is ready, and then changes where to.
        let ready = job.pull(index);
        job.checkpoints.insert(index, Kept::of(&row));
        self.rows.push(Row::Checkpoint(row));
        if ready {
            self.put_back(attempt.task);
        }
        self.mark(attempt.task.job);
        true
    }

    /// Why a task that was saved shall not go on; none where it may.
    pub(crate) fn stuck(&self, task: TaskId) -> Option<String> {
        let kept = self.jobs.get(&task.job)?.checkpoints.get(&task.index)?;
        if kept.stalls >= STALLS_MAX {
            return Some(format!(
                "the program ended to be started again {STALLS_MAX} times in a row and saved the \
                 same files each time; does it read them?"
            ));
        }
        (kept.count >= CHECKPOINTS_MAX).then(|| {
            format!("the task was saved {CHECKPOINTS_MAX} times without an end; save less often")
        })
    }

    /// Forgets what was saved of a task: it is over, or must begin anew. Says whether there was
    /// anything.
    pub(crate) fn let_go(&mut self, task: TaskId) -> bool {
        let job = self.jobs.get_mut(&task.job);
        let had = job.is_some_and(|job| job.checkpoints.remove(&task.index).is_some());
        if had {
            self.rows.push(Row::CheckpointOver(task));
        }
        had
    }

    /// The same for all tasks of a job.
    pub(crate) fn let_all_go(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let all = core::mem::take(&mut job.checkpoints);
        let rows = all.into_keys().map(|index| TaskId::new(id, index));
        self.rows.extend(rows.map(Row::CheckpointOver));
    }

    /// Which of these tasks were saved, and how often.
    pub(crate) fn saved_of(&self, job: JobId, tasks: &[(u32, u32)]) -> BTreeMap<u32, u32> {
        let Some(job) = self
            .jobs
            .get(&job)
            .filter(|job| !job.checkpoints.is_empty())
        else {
            return BTreeMap::new();
        };
        let saved = tasks.iter().filter_map(|(index, _)| {
            let kept = job.checkpoints.get(index)?;
            Some((*index, kept.count))
        });
        saved.collect()
    }
}
