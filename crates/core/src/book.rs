//! The reference store: applies rows in memory and gives back a [`Snapshot`].
//!
//! Tests and the simulator restart from it; a real store must give the same snapshot.

use crate::NewJob;
use crate::cost::JobCost;
use crate::row::{CheckpointRow, EndedRow, JobRow, LeaseRow, NodeRow, Row, Snapshot, UserRow};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, IntervalSet, JobId, JobState, LeaseId, NodeId, TaskId, Time, UserId,
};

/// Rows applied so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    jobs: BTreeMap<JobId, (Time, NewJob, JobRow)>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    ended: BTreeMap<AttemptId, EndedRow>,
    checkpoints: BTreeMap<TaskId, CheckpointRow>,
    nodes: BTreeMap<NodeId, NodeRow>,
    users: BTreeMap<UserId, UserRow>,
    last_job: u64,
    last_lease: u64,
    latest: Time,
}

/// A job's changing part before anything happened to it: what a store gives for a job that has
/// no [`JobRow`] yet.
#[must_use]
pub const fn fresh_job_row(job: JobId) -> JobRow {
    JobRow {
        job,
        state: JobState::Waiting,
        reason: String::new(),
        paused: false,
        started: None,
        ended: None,
        failed: IntervalSet::new(),
        cancelled: IntervalSet::new(),
        merged: false,
        base: 0,
        cost: JobCost {
            ends: 0.0,
            cpu_seconds: 0.0,
            system_seconds: 0.0,
            faults: 0.0,
            busy_seconds: 0.0,
            guest_seconds: 0.0,
            guest_system_seconds: 0.0,
        },
    }
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one row.
    pub fn apply(&mut self, row: &Row) {
        match row {
            Row::NewJob(id, at, job) => {
                let job = NewJob {
                    body: Vec::new(),
                    ..job.clone()
                };
                self.jobs.insert(*id, (*at, job, fresh_job_row(*id)));
                self.last_job = self.last_job.max(id.0);
                self.latest = self.latest.max(*at);
            }
            Row::JobGone(id) => {
                self.jobs.remove(id);
                self.leases.retain(|_, row| row.job != *id);
                self.ended.retain(|attempt, _| attempt.task.job != *id);
                self.checkpoints.retain(|task, _| task.job != *id);
            }
            Row::Job(row) => {
                self.latest = self
                    .latest
                    .max(row.ended.or(row.started).unwrap_or_default());
                if let Some(entry) = self.jobs.get_mut(&row.job) {
                    entry.2 = row.clone();
                }
            }
            Row::Lease(row) => {
                self.last_lease = self.last_lease.max(row.lease.0);
                self.leases.insert(row.lease, row.clone());
            }
            Row::LeaseOver(lease) => {
                self.leases.remove(lease);
            }
            Row::Attempt(row) => {
                self.latest = self.latest.max(row.at);
                let ended = EndedRow {
                    attempt: row.attempt,
                    node: row.node,
                    state: row.state,
                    counts: row.counts,
                    no_program: row.no_program,
                    task_over: row.task_over,
                };
                self.ended.insert(row.attempt, ended);
            }
            Row::Forgiven(job, tasks) => self.forgive(*job, tasks),
            Row::Checkpoint(row) => {
                let mut kept = row.clone();
                (kept.saved.blobs, kept.saved.record) = (Vec::new(), Vec::new());
                self.checkpoints.insert(row.attempt.task, kept);
            }
            Row::CheckpointOver(task) => {
                self.checkpoints.remove(task);
            }
            Row::Node(row) => {
                self.nodes.insert(row.node, row.clone());
            }
            Row::User(row) => {
                self.latest = self.latest.max(row.at);
                self.users.insert(row.user, row.clone());
            }
        }
    }

    fn forgive(&mut self, job: JobId, tasks: &[(u32, u32)]) {
        for (index, number) in tasks {
            let task = TaskId::new(job, *index);
            let range = task.attempt(0)..=task.attempt(*number);
            for (_, row) in self.ended.range_mut(range) {
                row.counts = false;
            }
        }
    }

    /// Everything that a restart needs.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let live = |job: &JobId| self.jobs.get(job).is_some_and(|job| !job.2.state.is_over());
        Snapshot {
            jobs: self
                .jobs
                .iter()
                .map(|(id, (at, job, row))| (*id, *at, job.clone(), row.clone()))
                .collect(),
            leases: self.leases.values().cloned().collect(),
            ended: self
                .ended
                .values()
                .filter(|row| live(&row.attempt.task.job))
                .cloned()
                .collect(),
            checkpoints: self
                .checkpoints
                .values()
                .filter(|row| live(&row.attempt.task.job))
                .cloned()
                .collect(),
            nodes: self.nodes.values().cloned().collect(),
            users: self.users.values().cloned().collect(),
            last_job: self.last_job,
            last_lease: self.last_lease,
            latest: self.latest,
        }
    }
}
