//! What is done to running attempts, and to all attempts of the engine at once. What one write to a group can do is done by
//! the caller's thread; what every shim must be told goes through a thread of its own, since a
//! shim may be slow and the caller must not be.

use super::{Inner, Link, Linked};
use crate::message::{Share, ToShim};
use gleaner_engine::{Allowance, Control, EngineError};
use gleaner_model::AttemptId;
use std::sync::{Arc, PoisonError, Weak, mpsc};
use std::thread;
use std::time::Duration;

/// The rate of a plain disk, in bytes a second: shares of an unbounded rate are shares of this.
/// A faster disk gives tasks less than it could while its owner waits for it, never more.
const DISK_RATE: u64 = 100 << 20;

/// For every shim.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Hold(bool),
    /// What no group could be bounded to: thousandths of processors and of the disk's rate.
    Allow {
        permille: u32,
        disk: u64,
    },
}

/// Starts the thread that tells the shims. It ends with the engine.
pub(super) fn listen(inner: &Arc<Inner>, orders: mpsc::Receiver<Order>) {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    thread::spawn(move || {
        for order in orders {
            let Some(inner) = inner.upgrade() else { return };
            let message = match order {
                Order::Hold(on) => Some(ToShim::Hold { on }),
                Order::Allow { permille, disk } => inner.divide(permille, disk).map(ToShim::Share),
            };
            if let Some(message) = message {
                inner.tell_all(&message);
            }
        }
    });
}

impl Inner {
    pub(super) fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        let Some(link) = self.link_of(attempt)? else {
            return Ok(());
        };
        let sent = link.send(&ToShim::Control { attempt, control });
        sent.map_err(|error| EngineError::io("steer an attempt", error))
    }

    pub(super) fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        if let Ok(Some(link)) = self.link_of(attempt) {
            // One that does not take it is found out by its silence.
            let _hangs = link.send(&ToShim::Place { attempt, cpu });
        }
    }

    pub(super) fn hold(&self, on: bool) {
        match self.backend.hold(on) {
            Ok(true) => {}
            Ok(false) => self.order(Order::Hold(on)),
            Err(error) => {
                tracing::error!(%error, on, "the group of all tasks does not obey");
                self.order(Order::Hold(on));
            }
        }
    }

    pub(super) fn allow(&self, allowance: &Allowance) {
        let rest = self.backend.allow_cpus(allowance.cpus.milli);
        self.backend
            .allow_memory(allowance.memory.map(|bytes| bytes.0));
        let disk = u64::from(allowance.io_permille.clamp(1, 1000));
        let permille = rest.permille;
        self.order(Order::Allow { permille, disk });
    }

    fn order(&self, order: Order) {
        let _ended = self.steer.send(order);
    }

    /// What each attempt gets of it; none where that is what it has.
    fn divide(&self, permille: u32, disk: u64) -> Option<Share> {
        let live = {
            let state = self.state();
            let live = state.attempts.values();
            live.filter(|entry| entry.ended.is_none()).count()
        };
        let live = u64::try_from(live).unwrap_or(u64::MAX).max(1);
        let share = Share {
            permille,
            disk_rate: (disk < 1000).then(|| DISK_RATE * disk / 1000 / live),
        };
        let mut last = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *last != share;
        *last = share;
        changed.then_some(share)
    }

    fn tell_all(&self, message: &ToShim) {
        let links: Vec<Arc<Link>> = {
            let state = self.state();
            let links = state.links.values();
            links.map(|linked| Arc::clone(&linked.link)).collect()
        };
        for link in links {
            // One that does not take it is found out by its silence.
            let _hangs = link.send(message);
        }
    }

    /// The first word to a shim: what an earlier agent told it no longer holds.
    pub(super) fn greet(&self, link: &Link, adopted: bool) {
        let share = *self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if adopted || share != Share::default() {
            let _hangs = link.send(&ToShim::Share(share));
        }
        if adopted {
            let _hangs = link.send(&ToShim::Hold { on: false });
        }
    }

    /// Lets go of shims that have had nothing to do for a while.
    pub(super) fn retire_idle(&self, keep: Duration) {
        let retired: Vec<_> = {
            let mut state = self.state();
            let idle = |linked: &Linked| linked.idle_since.is_some_and(|at| at.elapsed() >= keep);
            let links = state.links.iter().filter(|(_, linked)| idle(linked));
            let leases: Vec<_> = links.map(|(lease, _)| *lease).collect();
            let gone = leases.into_iter().filter_map(|lease| state.let_go(lease));
            gone.collect()
        };
        for link in retired {
            let _gone = link.send(&ToShim::Quit);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.backend.remove_domain();
    }
}
