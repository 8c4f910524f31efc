//! Everything the brain can ask for, one closed enum.

#[cfg(doc)]
use crate::CheckpointRow;
use crate::event::NodeWish;
use crate::row::Row;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{AttemptId, Engine, JobId, LeaseId, NodeId, Time};

/// Something must happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this durable before any other action of the batch leaves.
    Write(Row),
    /// Tell whoever sent the event.
    Reply(Reply),
    /// Send a bundle to a node.
    Dispatch(Bundle),
    /// Tell a node to stop these attempts and forget them; no report is wanted.
    Revoke {
        /// Which node.
        node: NodeId,
        /// Which attempts.
        attempts: Vec<AttemptId>,
    },
    /// Tell a node that these ends are durable; it may forget them.
    Acknowledge {
        /// Which node.
        node: NodeId,
        /// Which attempts.
        attempts: Vec<AttemptId>,
    },
    /// Tell a node whether what it saved of a running attempt is durable.
    Kept {
        /// Which node.
        node: NodeId,
        /// Which attempt.
        attempt: AttemptId,
        /// When it was saved.
        taken: Time,
        /// Whether it is; if not, it is of no use any more.
        kept: bool,
    },
    /// Tell a node what its admin wants; also at each hello, where it may be to resume.
    Wish {
        /// Which node.
        node: NodeId,
        /// What.
        wish: NodeWish,
    },
    /// Concatenate the results of a job, then send [`crate::Event::Merged`].
    Merge {
        /// Which job.
        job: JobId,
    },
    /// A job changed in a way that somebody may wait for (its state or its counts).
    Changed {
        /// Which job.
        job: JobId,
    },
}

/// Tasks of one job that a node may run under one lease.
///
/// A further bundle of the same job may come while an earlier one still has tasks: that is how a
/// node never waits between short tasks. Its tasks queue behind the earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Who may run them.
    pub node: NodeId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Of which job.
    pub job: JobId,
    /// Index and attempt number of each task, in the order to run them.
    pub tasks: Vec<(u32, u32)>,
    /// What shall contain them, where their job leaves it open.
    pub engine: Option<Engine>,
    /// Which of them were saved, and how often: they go on from their stored [`CheckpointRow`].
    pub saved: BTreeMap<u32, u32>,
    /// Most tasks of this job that may run at once on this node, all its bundles of the job
    /// together; the latest bundle's width holds.
    pub width: u32,
}

/// The answer to a user's event.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The job has this id.
    Submitted(JobId),
    /// Done; how many tasks (or nodes) it touched.
    Accepted(u64),
    /// Not done, and why.
    Refused(Refusal),
}

/// Why a user's event was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("no job {0}; `gleaner jobs` lists them")]
    NoJob(JobId),
    /// No such task.
    #[error("job {0} has no task {1}; its tasks are 0 to {2}")]
    NoTask(JobId, u32, u32),
    /// No such node.
    #[error("no node {0}; `gleaner nodes` lists them")]
    NoNode(NodeId),
    /// The job's state does not allow it.
    #[error("{0}")]
    State(String),
}
