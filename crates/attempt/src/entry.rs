//! One attempt as the book sees it.

use gleaner_model::{AttemptState, Reason, Time};

/// Where an attempt is in its life. Only [`crate::Book`] moves it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Granted; waits in its bundle's queue.
    Leased,
    /// Its blobs are being fetched.
    Fetching,
    /// Could start.
    Ready,
    /// The engine was asked to start it.
    Starting,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Over; its report is being made.
    Ended(Reason),
    /// Its report waits for the server's acknowledgement.
    Collected(Reason),
}

impl Phase {
    /// Whether an engine has it: it uses processors and memory of the node.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused)
    }

    /// Whether no engine has seen it yet.
    pub(crate) const fn is_pending(&self) -> bool {
        matches!(self, Self::Leased | Self::Fetching | Self::Ready)
    }

    /// The word for it that the server and users know.
    pub(crate) const fn state(&self) -> AttemptState {
        match self {
            Self::Leased => AttemptState::Leased,
            Self::Fetching | Self::Ready | Self::Starting => AttemptState::Fetching,
            Self::Running => AttemptState::Running,
            Self::Paused => AttemptState::Paused,
            Self::Ended(reason) | Self::Collected(reason) => reason.state(),
        }
    }
}

/// Why a live attempt was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The server forgot it: no report.
    Revoked,
    /// The node needs itself: reported as evicted.
    Evicted(&'static str),
}

/// One attempt.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Key of its bundle.
    pub(crate) bundle: u64,
    pub(crate) phase: Phase,
    /// Its place among all that ever became live here; 0 for those of an earlier agent.
    pub(crate) begun: u64,
    /// Set while a stop is under way.
    pub(crate) stop: Option<Stop>,
    /// What the server was told last.
    pub(crate) told: AttemptState,
    /// A save was asked for and is not over.
    pub(crate) saving: bool,
    /// That save is its last: the engine ends it when it is through.
    pub(crate) last: bool,
    /// When it is to be saved next.
    pub(crate) save_due: Option<Time>,
    /// When the book must look at it again: to tell, to stop again, to send again; which of them
    /// follows from the phase.
    pub(crate) due: Option<Time>,
}

impl Entry {
    /// One of which the server was told nothing yet.
    pub(crate) const fn new(bundle: u64, phase: Phase) -> Self {
        Self {
            bundle,
            phase,
            begun: 0,
            stop: None,
            told: AttemptState::Leased,
            saving: false,
            last: false,
            save_due: None,
            due: None,
        }
    }
}
