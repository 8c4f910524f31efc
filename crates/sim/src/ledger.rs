//! The ledger: an account of the pool kept from durable rows alone, by other means than the
//! brain's. What it says must hold whatever was lost on the way.

use gleaner_core::{AttemptRow, Bundle, CheckpointRow, JobRow, LeaseRow, MergeKind, NewJob, Row};
use gleaner_model::{AttemptState, IntervalSet, JobId, LeaseId, NodeId, TaskId, TaskState};
use std::collections::BTreeMap;

/// One job's account.
#[derive(Debug, Default)]
struct Account {
    total: u32,
    done: IntervalSet,
    count_done: u64,
    /// Tasks on nodes: the attempt's number and its lease.
    live: BTreeMap<u32, (u32, LeaseId)>,
    /// The highest number of each task that was ever granted.
    highest: Vec<u32>,
    over: bool,
}

/// All accounts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    jobs: BTreeMap<JobId, Account>,
    leases: BTreeMap<LeaseId, (NodeId, JobId, usize)>,
    pub(crate) granted: u64,
    pub(crate) lost: u64,
    pub(crate) returned: u64,
    pub(crate) evicted: u64,
    /// Attempts that a row said came back: their numbers may be leased again.
    back: BTreeMap<(JobId, u32), u32>,
    /// What is stored of tasks that were saved: how often, and what was saved last.
    saved: BTreeMap<TaskId, (u32, Vec<u8>)>,
    pub(crate) checkpoints: u64,
}

type Held = Result<(), String>;

impl Ledger {
    /// Enters a durable row.
    pub(crate) fn enter(&mut self, row: &Row) -> Held {
        match row {
            Row::NewJob(id, _, job) => {
                self.open(*id, job);
                Ok(())
            }
            Row::Lease(row) => self.lease(row),
            Row::LeaseOver(lease) => {
                let left = self.leases.remove(lease).map_or(0, |lease| lease.2);
                ensure(left == 0, || {
                    format!("lease {lease} is over with {left} tasks left")
                })
            }
            Row::Attempt(row) => self.attempt(row),
            Row::Job(row) => self.job(row),
            Row::Checkpoint(row) => self.saved(row),
            Row::CheckpointOver(task) => {
                self.saved.remove(task);
                Ok(())
            }
            // Users of fleets delete nothing.
            Row::JobGone(_) | Row::Forgiven(..) | Row::Node(_) | Row::User(_) => Ok(()),
        }
    }

    /// A checkpoint is of its own task, which is not over, and counts up by one.
    fn saved(&mut self, row: &CheckpointRow) -> Held {
        let task = row.attempt.task;
        let over = self
            .jobs
            .get(&task.job)
            .is_none_or(|account| account.over || account.done.contains(task.index));
        ensure(!over, || format!("{task} is over and was saved"))?;
        let before = self.saved.get(&task).map_or(0, |saved| saved.0);
        ensure(row.count == before + 1, || {
            format!("{task} was saved {before} times, then {}", row.count)
        })?;
        self.saved
            .insert(task, (row.count, row.saved.record.clone()));
        self.checkpoints += 1;
        Ok(())
    }

    /// What a task goes on from: what was stored of it last.
    pub(crate) fn checkpoint(&self, task: TaskId) -> Option<&[u8]> {
        self.saved.get(&task).map(|saved| saved.1.as_slice())
    }

    fn open(&mut self, id: JobId, job: &NewJob) {
        let total = job.count + u32::from(job.merge == MergeKind::Command);
        let account = Account {
            total,
            highest: vec![0; total as usize],
            ..Account::default()
        };
        self.jobs.insert(id, account);
    }

    fn lease(&mut self, row: &LeaseRow) -> Held {
        let Some(account) = self.jobs.get_mut(&row.job) else {
            return Err(format!("lease {} is of no job", row.lease));
        };
        let mut count = 0;
        for index in row.tasks.iter() {
            let task = format_args!("{}.{index}", row.job).to_string();
            let number = row.numbers.get(&index).copied().unwrap_or(1);
            ensure(!account.done.contains(index), || {
                format!("{task} leased when done")
            })?;
            let other = account.live.insert(index, (number, row.lease));
            ensure(other.is_none(), || {
                format!("{task} leased twice: {other:?}")
            })?;
            let Some(highest) = account.highest.get_mut(index as usize) else {
                return Err(format!("{task} does not exist"));
            };
            if self.back.remove(&(row.job, index)) != Some(number) {
                let before = *highest;
                ensure(number > before, || {
                    format!("{task}: number {number} after {before}")
                })?;
                *highest = number;
                self.granted += 1;
            }
            count += 1;
        }
        let before = self.leases.insert(row.lease, (row.node, row.job, count));
        ensure(before.is_none(), || {
            format!("lease {} granted twice", row.lease)
        })
    }

    fn attempt(&mut self, row: &AttemptRow) -> Held {
        let (job, index) = (row.attempt.task.job, row.attempt.task.index);
        let Some(account) = self.jobs.get_mut(&job) else {
            return Err(format!("{} is of no job", row.attempt));
        };
        match row.state {
            AttemptState::Leased => {
                self.returned += 1;
                self.back.insert((job, index), row.attempt.number);
                return Ok(());
            }
            AttemptState::Lost => self.lost += 1,
            AttemptState::Evicted | AttemptState::Checkpointed => self.evicted += 1,
            AttemptState::Fetching
            | AttemptState::Running
            | AttemptState::Paused
            | AttemptState::Finished
            | AttemptState::Failed
            | AttemptState::Cancelled => {}
        }
        if let Some((number, lease)) = account.live.get(&index).copied()
            && number == row.attempt.number
        {
            account.live.remove(&index);
            if let Some(entry) = self.leases.get_mut(&lease) {
                entry.2 -= 1;
            }
        }
        if row.task_over == Some(TaskState::Done) {
            let attempt = row.attempt;
            ensure(account.done.insert(index), || {
                format!("{attempt}: counted twice")
            })?;
            account.count_done += 1;
            let live = account.live.get(&index);
            ensure(live.is_none(), || {
                format!("{attempt} is done, {live:?} runs on")
            })?;
            ensure(!account.over, || {
                format!("{attempt} is done after its job was over")
            })?;
        }
        Ok(())
    }

    fn job(&mut self, row: &JobRow) -> Held {
        let Some(account) = self.jobs.get_mut(&row.job) else {
            return Err(format!("job {} has no account", row.job));
        };
        account.over = row.state.is_over();
        if !account.over {
            return Ok(());
        }
        let (id, live) = (row.job, account.live.len());
        ensure(live == 0, || {
            format!("job {id} is over and {live} tasks run")
        })?;
        let sum = account.count_done + row.failed.len() + row.cancelled.len();
        let total = u64::from(account.total);
        ensure(sum == total, || {
            format!("job {id} is over with {sum} of {total} tasks")
        })
    }

    /// Compares a bundle that leaves with the lease that was stored for it.
    pub(crate) fn sent(&self, bundle: &Bundle) -> Held {
        let stored = self.leases.get(&bundle.lease).copied();
        let expected = (bundle.node, bundle.job, bundle.tasks.len());
        // Tasks may have been cancelled in the same batch.
        let fits =
            stored.is_none_or(|s| (s.0, s.1) == (expected.0, expected.1) && s.2 <= expected.2);
        ensure(fits, || {
            format!("bundle {expected:?} left, stored is {stored:?}")
        })?;
        for (index, _) in &bundle.tasks {
            let task = TaskId::new(bundle.job, *index);
            let over = stored.is_none_or(|stored| stored.2 < expected.2);
            let told = bundle.saved.get(index).copied();
            // One more may have been stored in the same batch.
            let times = self.saved.get(&task).map(|saved| saved.0);
            ensure(over || told <= times, || {
                format!("{task} leaves as saved {told:?} times, stored are {times:?}")
            })?;
        }
        Ok(())
    }

    /// What the server says after a restart must be what was stored.
    pub(crate) fn done(&self, job: JobId) -> Option<(u64, usize)> {
        let account = self.jobs.get(&job)?;
        Some((account.count_done, account.live.len()))
    }
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(text()) }
}
