//! One number over every action, in order: two runs that differ anywhere differ here.

use gleaner_core::{Action, Bundle, Reply, Row};
use gleaner_model::{AttemptId, IntervalSet, TaskState};

/// A running hash. Multiply and rotate, as in FxHash, with a final mix: fast, and the same on any
/// machine; nobody attacks it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Digest {
    state: u64,
}

impl Digest {
    pub(crate) const fn feed(&mut self, value: u64) {
        self.state = (self.state.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(crate) fn finish(self) -> String {
        format!("{:016x}", crate::chance::mix(self.state))
    }

    fn attempt(&mut self, attempt: AttemptId) {
        self.feed(attempt.task.job.0);
        self.feed(u64::from(attempt.task.index) << 32 | u64::from(attempt.number));
    }

    fn attempts(&mut self, attempts: &[AttemptId]) {
        for attempt in attempts {
            self.attempt(*attempt);
        }
    }

    fn set(&mut self, set: &IntervalSet) {
        for (start, end) in set.ranges() {
            self.feed(u64::from(start) << 32 | u64::from(end));
        }
    }

    fn bundle(&mut self, bundle: &Bundle) {
        self.feed(bundle.lease.0);
        self.feed(u64::from(bundle.node.0) << 32 | u64::from(bundle.width));
        self.feed(bundle.job.0);
        for (index, number) in &bundle.tasks {
            self.feed(u64::from(*index) << 32 | u64::from(*number));
        }
    }

    pub(crate) fn action(&mut self, action: &Action) {
        match action {
            Action::Write(row) => self.row(row),
            Action::Reply(reply) => self.feed(match reply {
                Reply::Submitted(job) => 0x100 + job.0,
                Reply::Accepted(count) => 0x200 + count,
                Reply::Refused(_) => 0x300,
            }),
            Action::Dispatch(bundle) => self.bundle(bundle),
            Action::Revoke { node, attempts } => {
                self.feed(0x400 + u64::from(node.0));
                self.attempts(attempts);
            }
            Action::Acknowledge { node, attempts } => {
                self.feed(0x500 + u64::from(node.0));
                self.attempts(attempts);
            }
            Action::Kept {
                attempt,
                taken,
                kept,
                ..
            } => {
                self.attempt(*attempt);
                self.feed(taken.ms << 1 | u64::from(*kept));
            }
            Action::Wish { node, wish } => {
                self.feed(u64::from(node.0) << 8 | *wish as u64);
            }
            Action::Merge { job } => self.feed(0x600 + job.0),
            Action::Changed { job } => self.feed(0x700 + job.0),
        }
    }

    fn row(&mut self, row: &Row) {
        match row {
            Row::NewJob(id, at, job) => {
                self.feed(id.0);
                self.feed(at.ms);
                self.feed(u64::from(job.count));
            }
            Row::Job(row) => {
                self.feed(row.job.0);
                self.feed(row.state as u64);
                self.set(&row.failed);
                self.set(&row.cancelled);
                self.feed(u64::from(row.base));
            }
            Row::Lease(row) => {
                self.feed(row.lease.0);
                self.set(&row.tasks);
                for (index, number) in &row.numbers {
                    self.feed(u64::from(*index) << 32 | u64::from(*number));
                }
            }
            Row::JobGone(job) => self.feed(job.0 << 8),
            Row::LeaseOver(lease) => self.feed(lease.0),
            Row::Attempt(row) => {
                self.attempt(row.attempt);
                self.feed(row.state as u64);
                self.feed(row.at.ms);
                self.feed(u64::from(row.counts) << 8 | over(row.task_over));
            }
            Row::Forgiven(job, tasks) => {
                self.feed(job.0);
                for (index, number) in tasks {
                    self.feed(u64::from(*index) << 32 | u64::from(*number));
                }
            }
            Row::Checkpoint(row) => {
                self.attempt(row.attempt);
                self.feed(row.saved.taken.ms);
                self.feed(u64::from(row.count) << 32 | u64::from(row.stalls));
            }
            Row::CheckpointOver(task) => self.feed(task.job.0 << 32 | u64::from(task.index)),
            Row::Node(row) => self.feed(u64::from(row.node.0)),
            Row::User(row) => {
                self.feed(u64::from(row.user.0));
                self.feed(row.used.to_bits());
            }
        }
    }
}

const fn over(state: Option<TaskState>) -> u64 {
    match state {
        None => 0,
        Some(state) => 1 + state as u64,
    }
}
