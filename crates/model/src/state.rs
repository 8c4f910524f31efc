//! States of jobs, tasks, attempts and nodes, and why an attempt ended.

use crate::limits::LimitKind;
use crate::words::words;
use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

words!(
    /// State of a job.
    JobState {
        /// Nothing runs and nothing has ended yet.
        Waiting = "waiting",
        /// Some task runs or has ended.
        Running = "running",
        /// Its user paused it: running attempts end as they would, no new one starts.
        Paused = "paused",
        /// All tasks are done and the merge is stored.
        Done = "done",
        /// A task failed for good.
        Failed = "failed",
        /// Its user cancelled it.
        Cancelled = "cancelled",
    }
);

words!(
    /// State of a task.
    TaskState {
        /// Held by a dependency or a pause.
        Waiting = "waiting",
        /// Could be matched.
        Ready = "ready",
        /// An attempt of it is on a node.
        Running = "running",
        /// Its result is stored.
        Done = "done",
        /// No attempt is left.
        Failed = "failed",
        /// Cancelled by its user.
        Cancelled = "cancelled",
    }
);

words!(
    /// State of an attempt.
    AttemptState {
        /// Granted to a node.
        Leased = "leased",
        /// The node gets its blobs.
        Fetching = "fetching",
        /// The program runs.
        Running = "running",
        /// The program is frozen.
        Paused = "paused",
        /// Ended with exit code 0 and its outputs.
        Finished = "finished",
        /// Ended otherwise.
        Failed = "failed",
        /// Its node went away.
        Lost = "lost",
        /// Given back because its node needed itself.
        Evicted = "evicted",
        /// Cancelled by its user.
        Cancelled = "cancelled",
        /// Saved itself and ended; the task goes on from there.
        Checkpointed = "checkpointed",
    }
);

words!(
    /// State of a node.
    NodeState {
        /// Takes work.
        Online = "online",
        /// Keeps its attempts frozen and takes none.
        Paused = "paused",
        /// Ends its attempts and takes none.
        Draining = "draining",
        /// Not heard of for a lease's length.
        Offline = "offline",
        /// Its own self-test forbids work.
        Refused = "refused",
        /// Gave wrong results.
        Quarantined = "quarantined",
    }
);

words!(
    /// When a node works.
    Policy {
        /// Always, in every fragment that the owner leaves (NDDE).
        Continuous = "continuous",
        /// When the screen is locked or blank, or nobody touched the PC for a while (SETI@home).
        Screensaver = "screensaver",
        /// When nobody touched the PC for a quarter of an hour and its programs rest (Condor).
        IdleAfter = "idle-after",
        /// In the night, when nobody is logged in (I-Cluster).
        Night = "night",
    }
);

words!(
    /// What a node can bear at the moment, as its owner's load, policy and self-test say.
    Verdict {
        /// Work.
        Run = "run",
        /// Freeze attempts, start none; memory stays.
        Pause = "pause",
        /// Give all attempts back, start none.
        Evict = "evict",
    }
);

impl JobState {
    /// Whether nothing more will happen by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl TaskState {
    /// Whether nothing more will happen by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl AttemptState {
    /// Whether the attempt has ended.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::Finished
                | Self::Failed
                | Self::Lost
                | Self::Evicted
                | Self::Cancelled
                | Self::Checkpointed
        )
    }
}

/// Why an attempt ended, in a form that programs can match on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reason {
    /// The program ended by itself.
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the program.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// It passed a limit whose action is to end.
    Limit {
        /// Which one.
        limit: LimitKind,
    },
    /// An input or the program did not have its digest.
    Integrity {
        /// Which file, and what was found.
        detail: String,
    },
    /// The node has no such program. Not counted as a failure.
    NoProgram {
        /// The program that was looked for.
        program: String,
    },
    /// A declared output is missing, or is not a regular file inside the scratch directory.
    Output {
        /// Which one, and why.
        detail: String,
    },
    /// A blob could not be got or sent.
    Fetch {
        /// Which one, and why.
        detail: String,
    },
    /// The engine could not contain or start the attempt: gleaner's or the node's fault.
    Engine {
        /// What went wrong and what to do.
        detail: String,
    },
    /// The user or the server called it back.
    Cancelled,
    /// The node needed itself.
    Evicted {
        /// What for.
        detail: String,
    },
    /// The node or its shim went away.
    Lost {
        /// What was seen.
        detail: String,
    },
    /// The program saved itself and ended; the task goes on from there. Not counted as a failure.
    Checkpointed {
        /// How it said so.
        detail: String,
    },
    /// What it should go on from does not fit this node, or is damaged: the task begins anew.
    /// Not counted as a failure.
    Unrestored {
        /// What does not fit.
        detail: String,
    },
}

impl Reason {
    /// Whether the attempt did what was asked of it.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exit { code: 0 })
    }

    /// The state that an attempt with this reason ends in.
    #[must_use]
    pub const fn state(&self) -> AttemptState {
        match self {
            Self::Exit { code: 0 } => AttemptState::Finished,
            Self::Cancelled => AttemptState::Cancelled,
            Self::Evicted { .. } => AttemptState::Evicted,
            Self::Lost { .. } => AttemptState::Lost,
            Self::Checkpointed { .. } => AttemptState::Checkpointed,
            Self::Exit { .. }
            | Self::Signal { .. }
            | Self::Limit { .. }
            | Self::Integrity { .. }
            | Self::NoProgram { .. }
            | Self::Output { .. }
            | Self::Fetch { .. }
            | Self::Engine { .. }
            | Self::Unrestored { .. } => AttemptState::Failed,
        }
    }

    /// Whether it uses up one of the job's `retry.attempts`.
    #[must_use]
    pub const fn counts_as_failure(&self) -> bool {
        matches!(self.state(), AttemptState::Failed)
            && !matches!(self, Self::NoProgram { .. } | Self::Unrestored { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exit code {code}"),
            Self::Signal { signal } => write!(f, "ended by signal {signal}"),
            Self::Limit { limit } => write!(f, "limit {limit} passed"),
            Self::Integrity { detail } => write!(f, "integrity: {detail}"),
            Self::NoProgram { program } => write!(f, "no-program: {program} is not on the node"),
            Self::Output { detail } => write!(f, "output: {detail}"),
            Self::Fetch { detail } => write!(f, "transfer: {detail}"),
            Self::Engine { detail } => write!(f, "engine: {detail}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Evicted { detail } => write!(f, "evicted: {detail}"),
            Self::Lost { detail } => write!(f, "lost: {detail}"),
            Self::Checkpointed { detail } => write!(f, "checkpointed: {detail}"),
            Self::Unrestored { detail } => write!(f, "not restored: {detail}"),
        }
    }
}
