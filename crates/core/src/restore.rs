//! The state as it comes back from the store.
//!
//! Only jobs, leases, ended attempts, wishes and uses are stored; which task is in which set,
//! who holds what and what was due is worked out here. A job's pace and what its attempts were
//! doing come back with the nodes.

use crate::Action;
use crate::attempt::{Kept, Lease, Open, Run, Trouble};
use crate::event::{MergeKind, NodeWish};
use crate::job::{Job, Tally};
use crate::needs::NeedId;
use crate::row::{CheckpointRow, EndedRow, JobRow, LeaseRow, Row, Snapshot};
use crate::state::State;
use crate::user::User;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use gleaner_model::{AttemptState, IntervalSet, JobId, TaskId, TaskState, Time};

impl State {
    /// The pool as the store has it. Every lease gets a fresh [`crate::LEASE`]; the actions are
    /// those that were due when the server died (a merge, say).
    #[must_use]
    pub fn restore(snapshot: Snapshot, now: Time) -> (Self, Vec<Action>) {
        let mut state = Self::new();
        state.now = now.max(snapshot.latest);
        state.refreshed = state.now;
        state.last_job = snapshot.last_job;
        state.last_lease = snapshot.last_lease;
        for row in &snapshot.users {
            state.users.insert(row.user, User::restored(row));
        }
        for row in &snapshot.nodes {
            state.meet_node(row.node);
            if let Some(node) = state.nodes.get_mut(&row.node) {
                node.wish = match (row.paused, row.draining) {
                    (_, true) => Some(NodeWish::Drain),
                    (true, false) => Some(NodeWish::Pause),
                    (false, false) => None,
                };
            }
        }
        let mut ended: BTreeMap<JobId, Vec<EndedRow>> = BTreeMap::new();
        for row in snapshot.ended {
            ended.entry(row.attempt.task.job).or_default().push(row);
        }
        let mut checkpoints: BTreeMap<JobId, Vec<CheckpointRow>> = BTreeMap::new();
        for row in snapshot.checkpoints {
            let of_job = checkpoints.entry(row.attempt.task.job).or_default();
            of_job.push(row);
        }
        let mut leases: BTreeMap<JobId, Vec<LeaseRow>> = BTreeMap::new();
        for row in snapshot.leases {
            state.last_lease = state.last_lease.max(row.lease.0);
            leases.entry(row.job).or_default().push(row);
        }
        for (id, created, spec, row) in snapshot.jobs {
            state.last_job = state.last_job.max(id.0);
            state.meet(spec.user);
            let job = Job::new(id, NeedId::default(), created, spec);
            if row.state.is_over() {
                state.jobs.insert(id, closed(job, row));
                continue;
            }
            let ended = ended.remove(&id).unwrap_or_default();
            let job = with_checkpoints(job, checkpoints.remove(&id).unwrap_or_default());
            state.reopen_job(job, row, &ended, leases.remove(&id).unwrap_or_default());
        }
        // A lease of a job that is over, or of none, cannot be; where it is, it ends here.
        for row in leases.into_values().flatten() {
            state.rows.push(Row::LeaseOver(row.lease));
        }
        let mut actions = Vec::new();
        state.changed.clear();
        state.flush(&mut actions);
        (state, actions)
    }

    fn reopen_job(&mut self, mut job: Job, row: JobRow, ended: &[EndedRow], leases: Vec<LeaseRow>) {
        let id = job.id;
        job.need = self.intern(&job.spec.need);
        take_row(&mut job, row);
        for row in ended {
            remember(&mut job, row);
        }
        let done = &job.done;
        job.trouble.retain(|index, _| !done.contains(*index));
        for trouble in job.trouble.values_mut() {
            trouble.open.sort_by_key(|open| open.number);
        }
        // Looked up for each task of each lease: a job may have as many ends as tasks.
        let over: BTreeSet<(u32, u32)> = ended
            .iter()
            .filter(|row| row.state.is_over() && row.task_over != Some(TaskState::Done))
            .map(|row| (row.attempt.task.index, row.attempt.number))
            .collect();
        let mut taken = Vec::new();
        for lease in leases {
            let held = take_back(&mut job, &lease, &over);
            taken.push((lease, held));
        }
        sort_out(&mut job);
        if !job.again.is_empty() {
            self.troubled.insert(id, None);
        }
        let over = |index: &u32| job.task_state(*index).is_over();
        let stale: Vec<u32> = job.checkpoints.keys().copied().filter(over).collect();
        self.jobs.insert(id, job);
        for index in stale {
            // Gone with the row that ended the task; where it is not, it goes here.
            self.let_go(TaskId::new(id, index));
        }
        for (lease, held) in taken {
            self.lease_again(&lease, held);
        }
        self.reindex(id);
        self.settle(id);
    }

    fn lease_again(&mut self, row: &LeaseRow, tasks: IntervalSet) {
        if tasks.is_empty() {
            self.rows.push(Row::LeaseOver(row.lease));
            return;
        }
        self.meet_node(row.node);
        self.arm(row.node);
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let before = self
            .nodes
            .get(&row.node)
            .and_then(|node| node.seats.get(&row.job))
            .map_or(0, |seat| seat.width);
        // The latest lease's width holds for all the node's tasks of the job.
        let more = row.width.saturating_sub(before);
        self.sit(row.node, row.job, count, more);
        if let Some(node) = self.nodes.get_mut(&row.node) {
            node.leases.insert(row.lease);
        }
        let lease = Lease {
            node: row.node,
            job: row.job,
            tasks,
        };
        self.leases.insert(row.lease, lease);
    }
}

fn with_checkpoints(mut job: Job, rows: Vec<CheckpointRow>) -> Job {
    let kept = rows
        .iter()
        .map(|row| (row.attempt.task.index, Kept::of(row)));
    job.checkpoints = kept.collect();
    job
}

/// The changing part of a job, as it was stored.
fn take_row(job: &mut Job, row: JobRow) {
    job.state = row.state;
    job.reason = row.reason;
    job.paused = row.paused;
    job.started = row.started;
    job.ended = row.ended;
    job.merged = row.merged;
    job.base = row.base;
    job.highest = row.base;
    job.cost = row.cost;
    job.failed = Tally::of(row.failed);
    job.cancelled = Tally::of(row.cancelled);
}

/// A job that is over: every task that neither failed nor was cancelled is done.
fn closed(mut job: Job, row: JobRow) -> Job {
    take_row(&mut job, row);
    job.held = false;
    job.ready = Tally::default();
    let mut over = job.failed.clone();
    over.absorb(&job.cancelled);
    job.done = Tally::of(complement(over.set(), job.total()));
    job
}

/// Notes an ended attempt.
fn remember(job: &mut Job, row: &EndedRow) {
    let (index, number) = (row.attempt.task.index, row.attempt.number);
    job.highest = job.highest.max(number);
    if row.task_over == Some(TaskState::Done) {
        job.done.insert(index);
        return;
    }
    if number <= job.base || !row.state.is_over() {
        return;
    }
    if row.task_over == Some(TaskState::Failed) && row.counts {
        job.failed.insert(index);
    }
    let trouble: &mut Trouble = job.trouble.entry(index).or_default();
    trouble.last = trouble.last.max(number);
    match row.state {
        AttemptState::Lost | AttemptState::Cancelled => trouble.open.push(Open {
            number,
            node: row.node,
            ran: row.counts,
        }),
        AttemptState::Evicted => trouble.evictions += u32::from(row.counts),
        AttemptState::Failed | AttemptState::Checkpointed if row.counts => {
            trouble.failures += 1;
            trouble.shun(row.node);
        }
        AttemptState::Failed
        | AttemptState::Checkpointed
        | AttemptState::Leased
        | AttemptState::Fetching
        | AttemptState::Running
        | AttemptState::Paused
        | AttemptState::Finished => {}
    }
}

/// The tasks of a lease that have not ended; they run again.
fn take_back(job: &mut Job, lease: &LeaseRow, over: &BTreeSet<(u32, u32)>) -> IntervalSet {
    let mut tasks = IntervalSet::new();
    for index in lease.tasks.iter() {
        let number = lease.numbers.get(&index).copied().unwrap_or(1);
        let gone = over.contains(&(index, number))
            || job.done.contains(index)
            || job.failed.contains(index)
            || job.cancelled.contains(index)
            || job.running.contains_key(&index);
        if gone {
            continue;
        }
        job.highest = job.highest.max(number);
        let run = Run {
            number,
            lease: lease.lease,
            state: AttemptState::Leased,
        };
        job.running.insert(index, run);
        tasks.insert(index);
    }
    tasks
}

/// Works out which tasks are ready, and whether the merge command still waits.
fn sort_out(job: &mut Job) {
    let mut taken = job.done.clone();
    taken.absorb(&job.failed);
    taken.absorb(&job.cancelled);
    let running: IntervalSet = job.running.keys().copied().collect();
    taken.absorb(&Tally::of(running));
    job.ready = Tally::of(complement(taken.set(), job.spec.count));
    // Only these can be shy of anything.
    let noted: Vec<u32> = job
        .trouble
        .keys()
        .chain(job.checkpoints.keys())
        .copied()
        .collect();
    for index in noted {
        if job.ready.remove(index) {
            job.put_back(index);
        }
    }
    let merge = job.spec.count;
    job.held = job.spec.merge == MergeKind::Command && !taken.contains(merge);
    if job.held && job.done.len() == u64::from(merge) {
        job.held = false;
        job.put_back(merge);
    }
}

/// The numbers below `end` that are not in `set`.
fn complement(set: &IntervalSet, end: u32) -> IntervalSet {
    let mut rest = IntervalSet::new();
    let mut next = 0;
    for (start, stop) in set.ranges() {
        rest.insert_range(next, start.min(end));
        next = stop;
    }
    rest.insert_range(next, end);
    rest
}
