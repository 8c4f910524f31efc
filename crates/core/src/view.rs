//! What the server may read: plain copies, made on demand.
//!
//! Nothing here changes the state, and nothing here is kept.

use crate::{MergeKind, Need, NodeWish};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, AttemptState, Bytes, Cpus, Engine, JobId, JobState, NodeId, NodeState, Reason,
    TaskId, TaskState, Time, UserId,
};

/// How many tasks of a job are in each state; the merge command is one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Held by a dependency or a pause.
    pub waiting: u64,
    /// Could be matched.
    pub ready: u64,
    /// On a node.
    pub running: u64,
    /// Result stored.
    pub done: u64,
    /// No attempt left.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl TaskCounts {
    /// The count of one state.
    #[must_use]
    pub const fn of(&self, state: TaskState) -> u64 {
        match state {
            TaskState::Waiting => self.waiting,
            TaskState::Ready => self.ready,
            TaskState::Running => self.running,
            TaskState::Done => self.done,
            TaskState::Failed => self.failed,
            TaskState::Cancelled => self.cancelled,
        }
    }

    /// All tasks.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.waiting + self.ready + self.running + self.done + self.failed + self.cancelled
    }
}

/// A job, as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Whose share it uses.
    pub user: UserId,
    /// Higher goes first within the user's share.
    pub priority: i32,
    /// Its state.
    pub state: JobState,
    /// Why, where there is something to say.
    pub reason: String,
    /// Paused by its user.
    pub paused: bool,
    /// When it was submitted.
    pub created: Time,
    /// When its first attempt was granted.
    pub started: Option<Time>,
    /// When it was over.
    pub ended: Option<Time>,
    /// Tasks, the merge command not counted.
    pub count: u32,
    /// Tasks by state, the merge command counted.
    pub counts: TaskCounts,
    /// What every task asks of a node.
    pub need: Need,
    /// What happens after the last task.
    pub merge: MergeKind,
    /// Whether the server's merge is stored.
    pub merged: bool,
    /// How often its tasks that are not over were saved.
    pub checkpoints: u64,
}

/// A task, as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Its attempt on a node, where there is one.
    pub running: Option<(AttemptId, NodeId, AttemptState)>,
    /// Failed attempts that count.
    pub failures: u32,
    /// Evictions that count.
    pub evictions: u32,
    /// Nodes that were lost while they ran it, since it last saved something new.
    pub losses: u32,
    /// How often it was saved, and the attempt that was saved last; none where it has ended or
    /// was never saved.
    pub checkpoint: Option<(u32, AttemptId)>,
    /// Why its last attempt ended, where that is known and was no success.
    pub reason: Option<Reason>,
}

/// A node, as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty until its first hello after a restart of the server.
    pub name: String,
    /// Its state.
    pub state: NodeState,
    /// Why, in words.
    pub reason: String,
    /// What its admin wants; none means work.
    pub wish: Option<NodeWish>,
    /// Whether its connection is up.
    pub connected: bool,
    /// Processors for tasks.
    pub cpus: Cpus,
    /// Of these, taken by attempts.
    pub cpus_used: Cpus,
    /// Memory for tasks.
    pub memory: Bytes,
    /// Of this, promised to attempts.
    pub memory_used: Bytes,
    /// Disk for tasks.
    pub disk: Bytes,
    /// Machine architecture.
    pub arch: String,
    /// Engines that work there.
    pub engines: Vec<Engine>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Machine of the guests that it saves whole; none where it cannot.
    pub machine: Option<String>,
    /// Attempts that run there at once.
    pub running: u32,
    /// Attempts leased to it, those that still queue there included.
    pub leased: u32,
    /// When it was last heard of.
    pub heard: Option<Time>,
}

/// A user, as the fair share sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct UserView {
    /// Which user.
    pub id: UserId,
    /// Decayed use, in CPU seconds.
    pub used: f64,
    /// Decayed average, in processors.
    pub average: f64,
    /// Processors taken now.
    pub running: Cpus,
    /// Whether a job of this user has tasks that could be matched.
    pub waiting: bool,
}

/// What can keep a task waiting, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The job is over.
    JobOver,
    /// The job is paused.
    Paused,
    /// The merge command waits for the other tasks, or the server merges.
    Dependency,
    /// No node is known.
    NoNodes,
    /// Paused, draining, refused or offline.
    NodeState,
    /// The node lacks the engine.
    Engine,
    /// The node's agent takes no images.
    Image,
    /// The job is to be saved while it runs, and the node's engine cannot.
    Checkpoint,
    /// Another architecture.
    Arch,
    /// A label is missing or different.
    Labels,
    /// Fewer processors in all.
    Cpus,
    /// Less memory in all.
    Memory,
    /// Less disk in all.
    Disk,
    /// The node said that it lacks the program.
    NoProgram,
    /// The task failed there, and another node would do.
    TriedElsewhere,
    /// It would do, but has no room now.
    Busy,
    /// It would do, but another user or job goes first.
    FairShare,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: &'static [Self] = &[
        Self::JobOver,
        Self::Paused,
        Self::Dependency,
        Self::NoNodes,
        Self::NodeState,
        Self::Engine,
        Self::Image,
        Self::Checkpoint,
        Self::Arch,
        Self::Labels,
        Self::Cpus,
        Self::Memory,
        Self::Disk,
        Self::NoProgram,
        Self::TriedElsewhere,
        Self::Busy,
        Self::FairShare,
    ];

    /// The word that users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobOver => "job-over",
            Self::Paused => "paused",
            Self::Dependency => "dependency",
            Self::NoNodes => "no-nodes",
            Self::NodeState => "node-state",
            Self::Engine => "engine",
            Self::Image => "image",
            Self::Checkpoint => "checkpoint",
            Self::Arch => "arch",
            Self::Labels => "labels",
            Self::Cpus => "cpus",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::NoProgram => "no-program",
            Self::TriedElsewhere => "tried-elsewhere",
            Self::Busy => "busy",
            Self::FairShare => "fair-share",
        }
    }
}

/// Why tasks of a job wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Which job.
    pub job: JobId,
    /// The first rule that keeps a task waiting; none where none waits.
    pub rule: Option<Rule>,
    /// How many tasks wait.
    pub waiting: u64,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many of them fail the rule.
    pub failing: u32,
    /// How many nodes fail each rule about nodes, each rule asked for itself.
    pub counts: Vec<(Rule, u32)>,
    /// A sentence that says why, and what to do.
    pub text: String,
    /// Why its tasks run in what they run in, where the job leaves the engine open.
    pub engine: Option<String>,
}
