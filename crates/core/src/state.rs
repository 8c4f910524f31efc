//! The state of a pool, and its one entry: [`State::step`].
//!
//! A step handles one event: handlers change jobs, nodes and users, and note which nodes have
//! room and which jobs have new work; then the grants are made; then what is to be stored and
//! sent goes out, rows first. No step looks at all jobs or all nodes, save those that say so.

use crate::attempt::Lease;
use crate::job::Job;
use crate::needs::Needs;
use crate::node::Node;
use crate::row::Row;
use crate::user::{Turn, User};
use crate::view::{JobView, NodeView, TaskView, UserView};
use crate::{Action, Event};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;
use gleaner_model::{JobId, LeaseId, NodeId, NodeState, Span, TaskId, Time, UserId};

/// How long a node may be silent before its leases are over. Nodes renew every 10 s, so that two
/// beats may be lost.
pub const LEASE: Span = Span::seconds(30);

/// Most tasks in one bundle: one message and one row stay small.
pub const MAX_BUNDLE: u32 = 256;

/// How long a task that failed on one node waits for another that is busy. Then any node will
/// do: a second failure is better than a wait for somebody else's task of a day.
pub const SHUN_MAX: Span = Span::seconds(30);

/// Everything the brain knows.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) now: Time,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) users: BTreeMap<UserId, User>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) needs: Needs,
    /// Users with ready tasks, by turn.
    pub(crate) queue: BTreeSet<Turn>,
    /// Nodes that take work and have processors free.
    pub(crate) idle: BTreeSet<NodeId>,
    /// When to look whether a node is still there; never later than its deadline.
    pub(crate) alarms: BTreeSet<(Time, NodeId)>,
    /// Jobs with tasks that shun a node, and since when, where a tick has seen it.
    pub(crate) troubled: BTreeMap<JobId, Option<Time>>,
    pub(crate) last_job: u64,
    pub(crate) last_lease: u64,
    /// When turns were last recomputed.
    pub(crate) refreshed: Time,
    /// Counts up when there is new work for somebody.
    pub(crate) work: u64,
    /// Its value when idle nodes were last offered everything.
    pub(crate) swept: u64,
    /// Of this step: rows, other actions, jobs to store, jobs that changed.
    pub(crate) rows: Vec<Row>,
    /// Of this step: leases whose last attempt ended. Their rows follow those of the attempts.
    pub(crate) over: Vec<LeaseId>,
    pub(crate) out: Vec<Action>,
    pub(crate) unsaved: BTreeSet<JobId>,
    pub(crate) changed: Vec<JobId>,
    /// Of this step: nodes that have room, jobs that have new work, a queue that got shorter.
    pub(crate) fill: BTreeSet<NodeId>,
    pub(crate) wake: BTreeSet<JobId>,
    pub(crate) refill: Option<(NodeId, JobId)>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// An empty pool.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            now: Time { ms: 0 },
            jobs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            users: BTreeMap::new(),
            leases: BTreeMap::new(),
            needs: Needs::new(),
            queue: BTreeSet::new(),
            idle: BTreeSet::new(),
            alarms: BTreeSet::new(),
            troubled: BTreeMap::new(),
            last_job: 0,
            last_lease: 0,
            refreshed: Time { ms: 0 },
            work: 1,
            swept: 0,
            rows: Vec::new(),
            over: Vec::new(),
            out: Vec::new(),
            unsaved: BTreeSet::new(),
            changed: Vec::new(),
            fill: BTreeSet::new(),
            wake: BTreeSet::new(),
            refill: None,
        }
    }

    /// Handles one event at `now`; a `now` before an earlier one is taken as that one.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.step_into(now, event, &mut actions);
        actions
    }

    /// As [`State::step`], but adds the actions to those of earlier steps of the same batch.
    pub fn step_into(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        match event {
            Event::Submit(job) => self.on_submit(job),
            Event::Cancel(target) => self.on_cancel(target),
            Event::PauseJob(job) => self.on_pause(job),
            Event::ResumeJob(job) => self.on_resume(job),
            Event::Retry(target) => self.on_retry(target),
            Event::Delete(job) => self.on_delete(job),
            Event::Hello(hello) => self.on_hello(hello),
            Event::Offer(offer) => self.on_offer(offer),
            Event::Beat(report) => self.on_beat(report),
            Event::Gone(node) => self.on_gone(node),
            Event::Wish(node, wish) => self.on_wish(node, wish),
            Event::Progress(node, attempt, state) => self.on_progress(node, attempt, state),
            Event::Saved(node, attempt, saved) => self.on_saved(node, attempt, saved),
            Event::Ended(end) => self.on_ended(end),
            Event::Merged { job, failed } => self.on_merged(job, failed),
            Event::Tick => self.on_tick(),
        }
        self.dispatch();
        self.flush(actions);
    }

    fn on_tick(&mut self) {
        self.expire();
        self.end_shunning();
        self.keep_shares();
        self.sweep();
    }

    /// Hands out what the step collected: rows first.
    pub(crate) fn flush(&mut self, actions: &mut Vec<Action>) {
        self.rows.extend(self.over.drain(..).map(Row::LeaseOver));
        while let Some(job) = self.unsaved.pop_first() {
            if let Some(job) = self.jobs.get(&job) {
                self.rows.push(Row::Job(job.row()));
            }
        }
        actions.extend(self.rows.drain(..).map(Action::Write));
        actions.append(&mut self.out);
        let changed = self.changed.drain(..);
        actions.extend(changed.map(|job| Action::Changed { job }));
    }

    /// All jobs, by id.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobView> {
        self.jobs.values().map(Job::view).collect()
    }

    /// How many jobs are not over.
    #[must_use]
    pub fn open_jobs(&self) -> u64 {
        let needs = self.needs.entries.values();
        needs.map(|entry| u64::from(entry.jobs)).sum()
    }

    /// One job.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<JobView> {
        self.jobs.get(&job).map(Job::view)
    }

    /// Whether there is such a job and nothing of it is left to do.
    #[must_use]
    pub fn is_over(&self, job: JobId) -> bool {
        let job = self.jobs.get(&job);
        job.is_some_and(|job| job.state.is_over())
    }

    /// Whether there is such a job.
    #[must_use]
    pub fn has_job(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// The highest job id ever used.
    #[must_use]
    pub const fn last_job(&self) -> JobId {
        JobId(self.last_job)
    }

    /// The jobs below an id, newest first. Deleted ones cost nothing.
    pub fn jobs_before(&self, id: JobId) -> impl Iterator<Item = JobView> {
        self.jobs.range(..id).rev().map(|(_, job)| job.view())
    }

    /// One task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<TaskView> {
        let job = self.jobs.get(&id.job)?;
        let trouble = job.trouble.get(&id.index);
        let running = self
            .run_of(id)
            .map(|(run, node)| (id.attempt(run.number), node, run.state));
        (id.index < job.total()).then(|| TaskView {
            id,
            state: job.task_state(id.index),
            running,
            failures: trouble.map_or(0, |trouble| trouble.failures),
            evictions: trouble.map_or(0, |trouble| trouble.evictions),
            losses: trouble.map_or(0, |trouble| trouble.losses(job.since(id.index))),
            checkpoint: job
                .checkpoints
                .get(&id.index)
                .map(|kept| (kept.count, id.attempt(kept.number))),
            reason: trouble.and_then(|trouble| trouble.reason.clone()),
        })
    }

    /// All known nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.nodes.values().map(Node::view).collect()
    }

    /// The nodes above a number, by number; all of them above 0.
    pub fn nodes_after(&self, id: NodeId) -> impl Iterator<Item = NodeView> {
        let above = (Bound::Excluded(id), Bound::Unbounded);
        self.nodes.range(above).map(|(_, node)| node.view())
    }

    /// How many nodes are in each state, and how many are connected, whatever their state. No
    /// node is copied for it: a pool may have very many.
    #[must_use]
    pub fn count_nodes(&self) -> (BTreeMap<NodeState, u64>, u64) {
        let (mut states, mut connected) = (BTreeMap::new(), 0);
        for node in self.nodes.values() {
            *states.entry(node.state()).or_default() += 1;
            connected += u64::from(node.connected);
        }
        (states, connected)
    }

    /// One node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeView> {
        self.nodes.get(&node).map(Node::view)
    }

    /// All users that ever used anything, by id.
    #[must_use]
    pub fn users(&self) -> Vec<UserView> {
        self.users.values().map(User::view).collect()
    }
}
