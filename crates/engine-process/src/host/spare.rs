//! A shim that is started before anybody needs it: the first task of a job waits for no program,
//! no namespaces and no root. It has run nothing, so whoever gets it has a fresh one all the same.
//!
//! One is made when an attempt has ended and there is none, and is kept until it is taken, too
//! old, or nobody has the engine any more. It costs a node that has had work two processes that
//! sleep; one that never had any keeps none. It must not know what attempts are for.

use super::link::Link;
use super::{FIRST_LEASE, Inner, Linked, State};
use crate::message::ToShim;
use gleaner_engine::{AttemptSpec, EngineError};
use gleaner_model::LeaseId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A spare older than this is not given to anybody: its root shows the host as it was when it was
/// made, with copies of some files of /etc.
const AGE_MAX: Duration = Duration::from_secs(600);

/// The shim that nobody has.
#[derive(Debug)]
pub(super) struct Spare {
    lease: LeaseId,
    made: Instant,
}

/// Lets go of the spare with the last handle of the engine. The engine itself lives on while
/// somebody listens to a shim.
#[derive(Debug)]
pub(crate) struct Keeper(Weak<Inner>);

impl Keeper {
    /// Starts the thread that makes spares. It ends with the engine.
    pub(super) fn new(inner: &Arc<Inner>, wanted: mpsc::Receiver<()>) -> Self {
        let weak = Arc::downgrade(inner);
        let kept = Weak::clone(&weak);
        thread::spawn(move || {
            while wanted.recv().is_ok() {
                // However often it was asked for, one will do.
                while wanted.try_recv().is_ok() {}
                let Some(inner) = weak.upgrade() else { return };
                if let Err(error) = inner.make_spare() {
                    // The next attempt meets the same trouble, and its user hears of it.
                    tracing::warn!(%error, "no shim could be made ahead");
                }
            }
        });
        Self(kept)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        let mut state = inner.state();
        state.no_spares = true;
        if let Some(spare) = state.spare.take() {
            dismiss(&spare, &mut state);
        }
    }
}

impl Inner {
    /// Asks for one where there is none. To be called when the PC has a moment.
    pub(super) fn want_spare(&self, state: &State) {
        if self.config.spare && state.spare.is_none() && !state.no_spares {
            let _ended = self.spares.send(());
        }
    }

    fn make_spare(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut state = self.state();
        if state.spare.is_some() || state.no_spares {
            return Ok(());
        }
        let lease = LeaseId(self.next_fresh.fetch_add(1, Ordering::Relaxed));
        let bundle = self.bundle(lease, None, &state)?;
        let link = Link::spawn(bundle, &self.executable, &self.nursery)?;
        self.listen(link, false, &mut state)?;
        let made = Instant::now();
        state.spare = Some(Spare { lease, made });
        Ok(())
    }

    /// The spare shim, where it is what the attempt needs.
    pub(super) fn take_spare<'s>(
        &self,
        spec: &AttemptSpec,
        state: &'s mut State,
    ) -> Option<&'s mut Linked> {
        // With an image comes another root.
        if spec.image.is_some() {
            return None;
        }
        let spare = state.spare.take()?;
        let needs = *self.needs();
        let fits = |linked: &Linked| linked.link.bundle.guest_needs == needs;
        let found = state.links.get(&spare.lease);
        if !found.is_some_and(|linked| spare.made.elapsed() < AGE_MAX && fits(linked)) {
            dismiss(&spare, state);
            return None;
        }
        let linked = state.links.get_mut(&spare.lease)?;
        // Nobody has beaten for it while the node was idle, and what it begins now is watched.
        let lease_left_ms = u64::try_from(FIRST_LEASE.as_millis()).unwrap_or(u64::MAX);
        let _gone = linked.link.send(&ToShim::Beat { lease_left_ms });
        Some(linked)
    }
}

/// Ends a spare that nobody will get.
fn dismiss(spare: &Spare, state: &mut State) {
    if let Some(link) = state.let_go(spare.lease) {
        let _gone = link.send(&ToShim::Quit);
    }
}
