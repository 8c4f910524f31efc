//! An attempt's life on a node: leased, fetched, run, paused, collected, reported, forgotten.
//!
//! [`Book`] owns the truth about every attempt that this node holds, and nothing else. It must
//! not know how blobs travel, how an engine contains a program or how messages reach the server:
//! the agent (or a simulator) turns what it sees into [`Event`]s, hands them to [`Book::step`]
//! with the time, and carries out the [`Action`]s that come back, in their order.
//!
//! # How to drive it
//! 1. At start: one [`Event::Adopted`] for each attempt that an engine still holds.
//! 2. Before a hello: send [`Book::inventory`]. At the server's welcome: [`Event::LinkUp`]; when
//!    the connection breaks: [`Event::LinkDown`]; for each beat sent: [`Event::Beaten`].
//! 3. Messages of the server: [`Event::Granted`], [`Event::Revoked`], [`Event::Acknowledged`],
//!    [`Event::Wished`].
//! 4. Actions and what answers them (later, or at once; in any order between attempts):
//!
//! | action | what to do | answered by |
//! |---|---|---|
//! | [`Action::Fetch`] | get the attempt's blobs | [`Event::Fetched`] or [`Event::FetchFailed`] |
//! | [`Action::Start`] | start it in its engine | [`Event::Started`], then [`Event::Ended`]; or only the latter |
//! | [`Action::Pause`], [`Action::Resume`] | freeze, thaw | [`Event::Paused`], [`Event::Resumed`] |
//! | [`Action::Save`] | save it, bring that to the server | [`Event::Saved`] |
//! | [`Action::Stop`] | end it | [`Event::Ended`] |
//! | [`Action::Collect`] | take its outputs, make its report and keep it | [`Event::Collected`] |
//! | [`Action::Report`] | send the kept report | [`Event::Acknowledged`], from the server |
//! | [`Action::Tell`], [`Action::Decline`] | send, once | nothing |
//! | [`Action::Forget`] | drop all that is kept of it, in the engine too | nothing |
//!
//! 5. At [`Book::wake_at`]: [`Event::Tick`].
//!
//! An answer for an attempt that the book no longer holds is ignored, so nothing need be taken
//! back when an attempt is revoked. Same events, same times: same actions.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod book;
mod bundle;
mod entry;
#[cfg(test)]
mod tests;

pub use book::Book;
pub use gleaner_model::Verdict;

use alloc::vec::Vec;
#[cfg(doc)]
use gleaner_model::CHECKPOINT_EXIT_CODE;
use gleaner_model::{AttemptId, AttemptState, Bytes, Cpus, LeaseId, Reason, Span};

/// Most attempts that a node holds at once, whatever their state. A server grants a few bundles
/// of at most 256 tasks; what a confused one sends beyond this is declined, so that memory stays
/// bounded (a kept report is up to about 8 KiB: 32 MiB in all).
pub const HELD_MAX: usize = 4096;

/// How many tasks of a bundle are fetched beyond those that may run: enough that a start never
/// waits for a blob, few enough that a node does not fill its disk with inputs.
pub const FETCH_AHEAD: u32 = 4;

/// A state is told to the server only when it has lasted this long, in milliseconds: short tasks
/// end first, and then their end says it all.
pub const TELL_DELAY_MS: u64 = 250;

/// A report without an answer is sent again after this many milliseconds. A server that commits
/// in groups answers within one; a lost answer is rare, since the link is ordered.
pub const RESEND_MS: u64 = 30_000;

/// Time that a stopped program has between SIGTERM and SIGKILL, in milliseconds. Short: whoever
/// stops it (the owner, a user's cancel) waits for the PC to be free.
pub const STOP_GRACE_MS: u32 = 3000;

/// The same for a program that saves itself and is given back, in milliseconds: half a minute
/// writes gigabytes to a slow disk. Not where the owner needs the PC: nothing runs there then.
pub const SAVE_GRACE_MS: u32 = 30_000;

/// How long a whole guest that is given back may take to be saved, in milliseconds; then it is
/// stopped, and its task goes on from what was saved before.
pub const SAVE_WHOLE_MS: u64 = 60_000;

/// An engine that has not ended an attempt this many milliseconds after its stop is asked again.
pub const STOP_AGAIN_MS: u64 = 10_000;

/// What the node offers to all tasks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Bytes,
}

/// How attempts of a job are saved; the default is not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saving {
    /// Its program saves itself: it ends with [`CHECKPOINT_EXIT_CODE`] when it has, and gets
    /// [`SAVE_GRACE_MS`] for that when it is given back.
    pub itself: bool,
    /// How often a running attempt is saved. It can be moved at any time then, so a node that is
    /// drained does not wait for its end.
    pub every: Option<Span>,
    /// The engine saves it whole: it is saved before it is given back, instead of being told.
    pub whole: bool,
}

/// Tasks of one job that this node may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Under which lease.
    pub lease: LeaseId,
    /// Processors that each task asks for.
    pub cpus: Cpus,
    /// Memory that each task asks for.
    pub memory: Bytes,
    /// Most of them that may run at once; 0 counts as 1.
    pub width: u32,
    /// How they are saved.
    pub saving: Saving,
    /// The attempts, in the order to run them.
    pub tasks: Vec<AttemptId>,
}

/// An attempt that outlived the agent that started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its bundle.
    pub lease: LeaseId,
    /// Processors it was granted.
    pub cpus: Cpus,
    /// Memory it was granted.
    pub memory: Bytes,
    /// How it is saved.
    pub saving: Saving,
    /// Why it has ended, if it has; its outputs are still to be collected.
    pub ended: Option<Reason>,
}

/// What the pool's admin wants of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Freeze attempts, start none.
    Pause,
    /// Work.
    Resume,
    /// Let running attempts end, give the others back, start none.
    Drain,
    /// Give all attempts back, start none.
    Evict,
}

/// Something happened on the node or came from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server grants a bundle. Attempts already held are not taken twice.
    Granted(Grant),
    /// The server wants these stopped and forgotten, without a report.
    Revoked(Vec<AttemptId>),
    /// The server has made these reports durable.
    Acknowledged(Vec<AttemptId>),
    /// The pool's admin wants something.
    Wished(Wish),
    /// The node's own judgement changed.
    Judged(Verdict),
    /// The node offers more or less than before. What runs goes on.
    Offered(Capacity),
    /// The owner needs memory: the youngest attempt goes back. Nothing happens while one is on
    /// its way.
    Shed,
    /// The server welcomed this node; leases last this long after a beat.
    LinkUp {
        /// Length of a lease.
        lease: Span,
    },
    /// The connection broke. Attempts go on, also past the lease; reports are kept.
    LinkDown,
    /// A beat left over a live link: leases are renewed.
    Beaten,
    /// All blobs of the attempt are here.
    Fetched(AttemptId),
    /// They cannot be had.
    FetchFailed(AttemptId, Reason),
    /// Its program runs.
    Started(AttemptId),
    /// Its processes are frozen.
    Paused(AttemptId),
    /// They run again.
    Resumed(AttemptId),
    /// What [`Action::Save`] asked is over, well or not; with `last`, only that it failed need be
    /// told, since the attempt's end follows.
    Saved {
        /// Which attempt.
        attempt: AttemptId,
        /// Whether it is saved.
        well: bool,
    },
    /// Nothing of it runs any more, or it could not be started.
    Ended(AttemptId, Reason),
    /// Its report is made and kept; the reason may have become worse (an output is missing).
    Collected(AttemptId, Reason),
    /// An engine still holds it from before this agent.
    Adopted(Adoption),
    /// The node is about to sleep, nobody knows for how long: what runs and can be moved is saved
    /// now, whenever it is due.
    SaveAll,
    /// Time passed; see [`Book::wake_at`].
    Tick,
}

/// Something must be done. The table in the crate's documentation says what answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Get the attempt's blobs, and keep them until it ends.
    Fetch(AttemptId),
    /// Start it.
    Start(AttemptId),
    /// Freeze it.
    Pause(AttemptId),
    /// Thaw it.
    Resume(AttemptId),
    /// Save it and bring that to the server.
    Save {
        /// Which attempt.
        attempt: AttemptId,
        /// It shall end as soon as it is saved; what was saved goes with its report.
        last: bool,
    },
    /// End it: SIGTERM, and SIGKILL after the grace. May come again.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// Milliseconds between the two.
        grace_ms: u32,
    },
    /// Take its outputs and make its report.
    Collect {
        /// Which attempt.
        attempt: AttemptId,
        /// Why it ended.
        reason: Reason,
        /// Whether an engine held it; if not, there is nothing to take.
        ran: bool,
    },
    /// Send the report made before.
    Report(AttemptId),
    /// Tell the server its state.
    Tell(AttemptId, AttemptState),
    /// Drop all that is kept of it.
    Forget(AttemptId),
    /// Report at once that this attempt is given back; it was never taken into the book.
    Decline(AttemptId, Reason),
}
