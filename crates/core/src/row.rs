//! What is durable, as the brain writes it and as it comes back after a restart.
//!
//! A task has no row until something happens to it. A lease is one row a bundle; an ended attempt
//! is one row. Everything else is derived.

use crate::cost::JobCost;
use crate::event::{NewJob, Saved};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, AttemptState, IntervalSet, JobId, JobState, LeaseId, NodeId, TaskId, TaskState,
    Time, UserId,
};

/// One change to the durable state: insert or replace by key, or delete.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A new job; written once, with its body.
    NewJob(JobId, Time, NewJob),
    /// The changing part of a job.
    Job(JobRow),
    /// A job is deleted, and with it every row that names it. Its id is not used again.
    JobGone(JobId),
    /// A lease is granted.
    Lease(LeaseRow),
    /// All attempts of a lease ended.
    LeaseOver(LeaseId),
    /// An attempt ended.
    Attempt(AttemptRow),
    /// Forget the ended attempts of these tasks for counting (a user's retry): attempts with a
    /// number up to the given one no longer count as failures or losses.
    Forgiven(JobId, Vec<(u32, u32)>),
    /// A task was saved, in place of what was saved of it before.
    Checkpoint(CheckpointRow),
    /// What was saved of a task is of no more use.
    CheckpointOver(TaskId),
    /// A node's wish changed.
    Node(NodeRow),
    /// A user's use.
    User(UserRow),
}

/// The changing part of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Which job.
    pub job: JobId,
    /// Its state.
    pub state: JobState,
    /// Why it is so, in words, where there is something to say.
    pub reason: String,
    /// Paused by its user.
    pub paused: bool,
    /// When its first attempt started.
    pub started: Option<Time>,
    /// When it was over.
    pub ended: Option<Time>,
    /// Tasks that failed for good.
    pub failed: IntervalSet,
    /// Tasks that were cancelled.
    pub cancelled: IntervalSet,
    /// Whether the server's merge is stored.
    pub merged: bool,
    /// Attempt numbers up to this one were used before the job was last over. They count no more,
    /// and later attempts get higher ones: the history of a job that is over need not be loaded.
    pub base: u32,
    /// What was seen of its attempts, where it leaves the engine open.
    pub cost: JobCost,
}

/// A granted lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Which lease.
    pub lease: LeaseId,
    /// Whose.
    pub node: NodeId,
    /// Of which job.
    pub job: JobId,
    /// Which tasks.
    pub tasks: IntervalSet,
    /// Attempt numbers that are not 1.
    pub numbers: BTreeMap<u32, u32>,
    /// Most of the job's tasks at once on this node.
    pub width: u32,
}

/// An ended attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// Which attempt.
    pub attempt: AttemptId,
    /// On which node.
    pub node: NodeId,
    /// How it ended. `leased` where a lost attempt came back with its node: the row before it is
    /// void, and the attempt has not ended.
    pub state: AttemptState,
    /// When the server learnt of it.
    pub at: Time,
    /// Whether it counts against its limit: a failure against `retry.attempts`, an eviction
    /// against `max_evictions`, a loss against the limit for poison.
    pub counts: bool,
    /// Whether the node lacked the program.
    pub no_program: bool,
    /// The task's state if this ended the task.
    pub task_over: Option<TaskState>,
    /// The whole record; opaque here. Empty where none came (a lost attempt).
    pub record: Vec<u8>,
}

/// What was saved of a task last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Which attempt was saved.
    pub attempt: AttemptId,
    /// What it was saved as. In a snapshot without blobs and record.
    pub saved: Saved,
    /// How often the task was saved so far.
    pub count: u32,
    /// How often in a row its program ended to be started again and had changed nothing.
    pub stalls: u32,
    /// The attempt that saved something new last. Losses of earlier ones count no more: what was
    /// done since is not lost, so the task is not what takes its nodes down.
    pub progress: u32,
}

/// An ended attempt as it comes back: without its record.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedRow {
    /// Which attempt.
    pub attempt: AttemptId,
    /// On which node.
    pub node: NodeId,
    /// How it ended.
    pub state: AttemptState,
    /// Whether it counts against its limit; false once it is forgiven.
    pub counts: bool,
    /// Whether the node lacked the program.
    pub no_program: bool,
    /// The task's state if this ended the task.
    pub task_over: Option<TaskState>,
}

/// What an admin wants of a node, kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Which node.
    pub node: NodeId,
    /// Paused by an admin.
    pub paused: bool,
    /// Draining.
    pub draining: bool,
}

/// A user's decayed use of CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRow {
    /// Which user.
    pub user: UserId,
    /// CPU seconds, decayed to `at`.
    pub used: f64,
    /// When it was decayed to.
    pub at: Time,
}

/// Everything durable, as the brain needs it at a restart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Jobs in order of id, with empty bodies.
    pub jobs: Vec<(JobId, Time, NewJob, JobRow)>,
    /// Leases not over.
    pub leases: Vec<LeaseRow>,
    /// Ended attempts of jobs that are not over, forgiven ones marked by `counts: false`.
    pub ended: Vec<EndedRow>,
    /// What was saved of tasks of jobs that are not over, by task.
    pub checkpoints: Vec<CheckpointRow>,
    /// What admins want of nodes.
    pub nodes: Vec<NodeRow>,
    /// Users' use.
    pub users: Vec<UserRow>,
    /// The highest job id ever used, by a job that is there or was.
    pub last_job: u64,
    /// The highest lease id ever used.
    pub last_lease: u64,
    /// The latest time in any row: the brain's clock never starts before it.
    pub latest: Time,
}
