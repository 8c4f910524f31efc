//! Everything that can happen to a pool, one closed enum.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, AttemptState, Bytes, Cpus, Digest, Engine, EngineChoice, GuestPrice, JobId, NodeId,
    NodeState, Reason, Retry, TaskId, Time, UserId,
};

/// Something happened. The driver hands events to `State::step` one by one.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A user submits a job that is already split: `count` tasks.
    Submit(NewJob),
    /// A user calls a job or a task back.
    Cancel(Target),
    /// No new attempt of the job starts until it is resumed.
    PauseJob(JobId),
    /// The job goes on.
    ResumeJob(JobId),
    /// Failed and cancelled tasks get a fresh set of tries.
    Retry(Target),
    /// A job that is over is forgotten, with all that was kept of it.
    Delete(JobId),
    /// A node (re)connects and says what it is and what it holds.
    Hello(NodeHello),
    /// What a node offers changed; what it holds did not. Not durable, as a hello is not.
    Offer(NodeOffer),
    /// A node lives: all its leases are renewed.
    Beat(NodeReport),
    /// A node's newest connection ended (the driver drops the end of an older one). Its leases
    /// run on until they are over.
    Gone(NodeId),
    /// An admin wants something of a node.
    Wish(NodeId, NodeWish),
    /// An attempt changed state without ending (fetching, running, paused); not durable.
    Progress(NodeId, AttemptId, AttemptState),
    /// A running attempt was saved. May come twice, or late.
    Saved(NodeId, AttemptId, Saved),
    /// An attempt ended. May come twice, late, or for a lease that is over.
    Ended(AttemptEnd),
    /// The server merged the results of a job (`collect.merge.concat`), or could not.
    Merged {
        /// Which job.
        job: JobId,
        /// Why not, in words for the user.
        failed: Option<String>,
    },
    /// Time passed. Comes at least each second.
    Tick,
}

/// A job, or one task of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All its tasks.
    Job(JobId),
    /// One task.
    Task(TaskId),
}

/// What every task of a job asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Bytes,
    /// Scratch.
    pub disk: Bytes,
    /// Engine, or that several will do.
    pub engine: EngineChoice,
    /// Architecture; any where absent.
    pub arch: Option<String>,
    /// Labels that the node must carry.
    pub labels: BTreeMap<String, String>,
    /// Whether it must be able to save whole guests.
    pub saves: bool,
    /// Whether tasks bring a root of their own.
    pub image: bool,
}

/// What happens after the last task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeKind {
    /// Nothing.
    None,
    /// The server concatenates: [`crate::Action::Merge`].
    Concat,
    /// One more task, with index `count`, `waiting` until all others are done.
    Command,
}

/// A job as the brain sees it: numbers, not contents.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Whose share it uses.
    pub user: UserId,
    /// Shown in listings.
    pub name: String,
    /// Higher goes first within the user's share.
    pub priority: i32,
    /// Tasks, the merge command not counted; at least 1.
    pub count: u32,
    /// What every task asks of a node.
    pub need: Need,
    /// How often to try.
    pub retry: Retry,
    /// What happens after the last task.
    pub merge: MergeKind,
    /// The submission, for the server; opaque here, stored once.
    pub body: Vec<u8>,
}

/// An attempt that a node holds when it says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its state there; one that is over has a report still to come.
    pub state: AttemptState,
}

/// What a node says of itself when it connects.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeHello {
    /// Its number, given by the server before.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Processors that tasks may use.
    pub cpus: Cpus,
    /// Memory that tasks may use.
    pub memory: Bytes,
    /// Disk that tasks may use.
    pub disk: Bytes,
    /// Machine architecture.
    pub arch: String,
    /// Engines that work there.
    pub engines: Vec<Engine>,
    /// Whether these run tasks that bring a root of their own.
    pub images: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Machine of the guests that it saves and restores whole; none where it cannot.
    pub machine: Option<String>,
    /// What its guests make dear.
    pub guests: GuestPrice,
    /// Why its self-test forbids work, if it does.
    pub refused: Option<String>,
    /// What it holds. A task leased to it that is not here was never received, and goes back.
    pub held: Vec<Held>,
}

/// What a node offers from now on; takes the place of what its hello said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOffer {
    /// Which node.
    pub node: NodeId,
    /// Processors that tasks may use.
    pub cpus: Cpus,
    /// Memory that tasks may use.
    pub memory: Bytes,
    /// Disk that tasks may use.
    pub disk: Bytes,
    /// Engines that work there.
    pub engines: Vec<Engine>,
    /// Whether these run tasks that bring a root of their own.
    pub images: bool,
    /// Machine of the guests that it saves and restores whole; none where it cannot.
    pub machine: Option<String>,
    /// What its guests make dear.
    pub guests: GuestPrice,
    /// Why its self-test forbids work, if it does.
    pub refused: Option<String>,
}

impl NodeHello {
    /// The part of it that may change while the node is connected.
    #[must_use]
    pub fn offer(&self) -> NodeOffer {
        NodeOffer {
            node: self.node,
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            engines: self.engines.clone(),
            images: self.images,
            machine: self.machine.clone(),
            guests: self.guests,
            refused: self.refused.clone(),
        }
    }

    /// Puts an offer in the place of that part. Named field by field, so that none is forgotten.
    pub(crate) fn take(&mut self, offer: NodeOffer) {
        let NodeOffer {
            node: _,
            cpus,
            memory,
            disk,
            engines,
            images,
            machine,
            guests,
            refused,
        } = offer;
        (self.cpus, self.memory, self.disk) = (cpus, memory, disk);
        (self.engines, self.images) = (engines, images);
        (self.machine, self.guests, self.refused) = (machine, guests, refused);
    }
}

/// What a node says at each beat.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeId,
    /// `Online`, `Paused` or `Refused`, as the node sees itself.
    pub state: NodeState,
    /// Why, in words.
    pub reason: String,
}

/// What an admin wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeWish {
    /// Freeze attempts, take none.
    Pause,
    /// Take work again.
    Resume,
    /// Let attempts end, take none.
    Drain,
    /// Give attempts back now, take none.
    Evict,
}

/// A node reports the end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// Who reports.
    pub node: NodeId,
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why it ended.
    pub reason: Reason,
    /// CPU seconds used: charged to the user.
    pub cpu_seconds: f64,
    /// Wall seconds without pauses: sizes bundles.
    pub busy_seconds: f64,
    /// What it, or the guest that it ran in, asked of its node's kernel; none where nobody knows what
    /// that says of the program.
    pub kernel: Option<KernelUse>,
    /// The whole record, for the server; opaque here, stored with the attempt.
    pub record: Vec<u8>,
    /// What it was saved as, where the task can go on from there.
    pub saved: Option<Saved>,
}

/// Who asked a node's kernel for something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AskedBy {
    /// The program itself.
    #[default]
    Program,
    /// The guest whose kernel the program asked, with the guest's boot.
    Guest,
}

/// What an attempt asked of its node's kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KernelUse {
    /// Who asked.
    pub asked_by: AskedBy,
    /// Of its CPU time, seconds in the kernel.
    pub system_seconds: f64,
    /// Page faults, those counted for which nothing was read.
    pub faults: u64,
}

/// What an attempt was saved as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// When; tells one of an attempt from the next.
    pub taken: Time,
    /// Of all that was saved: two with the same are the same.
    pub content: Digest,
    /// The machine that it needs; none where any node will do.
    pub machine: Option<String>,
    /// Blobs that must stay while the task may go on from it.
    pub blobs: Vec<Digest>,
    /// The whole of it, for the server; opaque here.
    pub record: Vec<u8>,
}
