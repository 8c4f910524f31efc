//! The state of a pool, and its one entry: [`State::step`].

use crate::row::Snapshot;
use crate::view::{Explanation, JobView, NodeView, TaskView, UserView};
use crate::{Action, Event};
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{JobId, NodeId, Span, TaskId, Time};

/// How long a node may be silent before its leases are over. Nodes renew every 10 s, so that two
/// beats may be lost.
pub const LEASE: Span = Span::seconds(30);

/// Most tasks in one bundle: one message and one row stay small.
pub const MAX_BUNDLE: u32 = 256;

/// Everything the brain knows.
#[derive(Debug, Clone, Default)]
pub struct State {
    now: Time,
}

impl State {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The pool as the store has it. Every lease gets a fresh [`LEASE`]; the actions are those
    /// that were due when the server died (a merge, say).
    #[must_use]
    pub fn restore(snapshot: Snapshot, now: Time) -> (Self, Vec<Action>) {
        let now = now.max(snapshot.latest);
        (Self { now }, Vec::new())
    }

    /// Handles one event at `now`; a `now` before an earlier one is taken as that one.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        drop(event);
        Vec::new()
    }

    /// Every invariant; the text says which one does not hold.
    ///
    /// # Errors
    /// The first broken invariant: a bug in this crate.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// All jobs, by id.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobView> {
        Vec::new()
    }

    /// One job.
    #[must_use]
    pub fn job(&self, _job: JobId) -> Option<JobView> {
        None
    }

    /// One task.
    #[must_use]
    pub fn task(&self, _task: TaskId) -> Option<TaskView> {
        None
    }

    /// All known nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        Vec::new()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, _node: NodeId) -> Option<NodeView> {
        None
    }

    /// All users that ever used anything, by id.
    #[must_use]
    pub fn users(&self) -> Vec<UserView> {
        Vec::new()
    }

    /// Why tasks of this job wait; none where there is no such job.
    #[must_use]
    pub fn explain(&self, _job: JobId) -> Option<Explanation> {
        None
    }
}
