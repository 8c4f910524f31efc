//! The server's brain: `State::step(now, event) -> actions`.
//!
//! Pure: no clock, no random source, no file, no socket; the compiler proves it (`no_std`). The
//! server's driver and the simulator drive the same code. Events come in with the time at which
//! they are handled; what must happen goes out as [`Action`]s. Every [`Action::Write`] of a batch
//! is durable before any other action of that batch leaves the driver.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod attempt;
mod book;
mod check;
mod checkpoint;
mod collect;
mod cost;
mod dispatch;
mod event;
mod explain;
mod job;
mod lease;
mod matching;
mod needs;
mod node;
mod presence;
mod restore;
mod row;
mod share;
mod state;
mod submit;
mod suit;
mod user;
mod verify;
mod view;

pub use action::{Action, Bundle, Refusal, Reply};
pub use attempt::{POISON_LOSSES, POISON_NODES};
pub use book::{Book, fresh_job_row};
pub use checkpoint::{CHECKPOINTS_MAX, STALLS_MAX};
pub use cost::{BOUNDS, Bound, Figure, JobCost, MEASURED_SECONDS, REMEMBERED_SECONDS};
pub use event::{
    AskedBy, AttemptEnd, Event, Held, KernelUse, MergeKind, Need, NewJob, NodeHello, NodeOffer,
    NodeReport, NodeWish, Saved, Target,
};
pub use row::{
    AttemptRow, CheckpointRow, EndedRow, JobRow, LeaseRow, NodeRow, Row, Snapshot, UserRow,
};
pub use state::{LEASE, MAX_BUNDLE, SHUN_MAX, State};
pub use user::HALF_LIFE;
pub use view::{Explanation, JobView, NodeView, Rule, TaskCounts, TaskView, UserView};
