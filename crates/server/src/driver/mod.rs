//! The one writer: events in, one commit a batch, and only then replies, dispatches and acks out.
//!
//! Owns the brain's state and what the server counts beside it ([`side`]). One thread of its own;
//! everybody else talks to it through [`Handle`]. When a commit fails nothing of its batch was
//! answered: the state is dropped and rebuilt from the store, new work is refused with the
//! reason, and a probe commit tries again and again until the store takes rows.

mod batch;
pub(crate) mod changes;
mod handle;
mod run;
mod side;
#[cfg(test)]
mod tests;

pub(crate) use changes::Watch;
pub(crate) use handle::{Connect, Connected, FromNode, Handle, Link, Message, Outgoing};
pub(crate) use run::DriverThread;
pub(crate) use side::{NodeSide, View};

use crate::ServerError;
use crate::error::Trouble;
use changes::Changes;
use gleaner_model::JobId;
use gleaner_store::{Loaded, Store};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;

/// Messages that wait for the driver. A full queue makes senders wait: agents and users slow
/// down, nothing is dropped.
const QUEUE_MESSAGES: usize = 1024;

/// What the driver starts from.
pub(crate) struct DriverParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) loaded: Loaded,
}

/// What the driver tells everybody without being asked.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) changes: Changes,
    pub(crate) counters: Counters,
    trouble: RwLock<Option<Trouble>>,
}

/// Counts since the start, for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) links_cut: AtomicU64,
}

impl Board {
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let trouble = self.trouble.read().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Starts the driver's thread. Jobs whose merge is due come out of the receiver.
pub(crate) fn start(
    parts: DriverParts,
) -> Result<(DriverThread, Handle, mpsc::UnboundedReceiver<JobId>), ServerError> {
    let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
    // A job's merge is asked for once a life of the server: no more entries than jobs.
    let (merges, due) = mpsc::unbounded_channel();
    let board = Arc::new(Board::default());
    let (reports, reported) = handle::reports(QUEUE_MESSAGES);
    let handle = Handle::new(sender.clone(), reports, Arc::clone(&board));
    let thread = run::spawn(parts, (sender, queue, reported), board, merges)?;
    Ok((thread, handle, due))
}
