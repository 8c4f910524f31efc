//! The owner's side of an agent: a socket and a page on which the person at the PC sees what
//! runs for whom, stops it at once, and sets limits; and what they can look up later.
//!
//! It works without the server. It owns the history, the owner's limits and the recorder; it
//! must not know how a verdict is reached or carried out. In: the watch's status, and what the
//! dispatch loop notes of attempts. Out: orders for the watch, and answers.

mod bell;
mod client;
mod desk;
pub(crate) mod guests;
mod hours;
mod ledger;
mod limits;
mod overview;
mod page;
mod peer;
mod protocol;
mod record;
mod socket;
#[cfg(test)]
mod tests;
mod wall;

pub use client::{Agent, AskError};
pub use limits::NodeSettings;
pub use protocol::{
    Answer, Ask, CpuView, DiskView, Entry, LimitsView, MemoryView, Mode, NetworkView, Offered,
    Overview, Pause, Refusal, RunningView, SignalView, Slot, Today, Totals, Why, Work,
};

pub(crate) use bell::{Around, open};
pub(crate) use desk::Desk;

use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Serves owners until `stop`; ends when everything is on the disk. The sockets are there when
/// this returns. Where they cannot be had, tasks run all the same: a pause set before holds.
pub(crate) fn serve(
    desk: Desk,
    home: &Path,
    stop: &CancellationToken,
    page: bool,
) -> JoinHandle<()> {
    let desk = Arc::new(desk);
    match socket::bind(home) {
        Ok(bound) => {
            for bound in bound {
                tokio::spawn(socket::serve(bound, Arc::clone(&desk), stop.clone()));
            }
        }
        Err(error) => tracing::error!(
            target: "gleaner::owner", %error, home = %home.display(),
            "there is no socket for the owner; their commands will not find this agent"
        ),
    }
    if page {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            if let Err(refusal) = desk.open_page().await {
                tracing::error!(target: "gleaner::owner", "{}", refusal.sentence);
            }
        });
    }
    tokio::spawn(desk.keep())
}
