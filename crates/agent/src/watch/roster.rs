//! The attempts that engines hold, for whoever looks at them from outside the dispatch loop.

use super::heard::Heard;
use gleaner_engine::Engine;
use gleaner_harvest::places::Standing;
use gleaner_model::{AttemptId, AttemptState, Limits, Time};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// One attempt in an engine.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) state: AttemptState,
    pub(crate) since: Time,
    /// The job's name and its user; empty where an earlier agent started it.
    pub(crate) name: String,
    pub(crate) user: String,
}

/// The list. Cheap to clone: all clones are one list.
#[derive(Debug, Clone)]
pub(crate) struct Roster {
    held: Arc<Mutex<BTreeMap<AttemptId, Held>>>,
    heard: mpsc::Sender<Heard>,
}

impl Roster {
    pub(super) fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self {
            held: Arc::default(),
            heard,
        }
    }

    /// Nothing panics while it holds the lock, so what is behind it is always whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine has it now. The first one wakes the watch.
    pub(crate) fn add(&self, attempt: AttemptId, held: Held) {
        let first = {
            let mut all = self.lock();
            let first = all.is_empty();
            all.insert(attempt, held);
            first
        };
        if first {
            self.tell(true);
        }
    }

    pub(crate) fn set(&self, attempt: AttemptId, state: AttemptState) {
        if let Some(held) = self.lock().get_mut(&attempt) {
            held.state = state;
        }
    }

    /// Nothing of it runs any more. The last one lets the watch rest.
    pub(crate) fn remove(&self, attempt: AttemptId) {
        let last = {
            let mut all = self.lock();
            all.remove(&attempt).is_some() && all.is_empty()
        };
        if last {
            self.tell(false);
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<AttemptId, Held> {
        self.lock().clone()
    }

    /// The same as far as places go; hardly more than a look each.
    pub(crate) fn standing(&self) -> BTreeMap<AttemptId, Standing> {
        let standing = |held: &Held| Standing {
            cpus: held.limits.cpus,
            runs: held.state == AttemptState::Running,
            since: held.since,
        };
        let all = self.lock();
        let all = all.iter();
        all.map(|(attempt, held)| (*attempt, standing(held)))
            .collect()
    }

    pub(crate) fn engine(&self, attempt: AttemptId) -> Option<Arc<dyn Engine>> {
        self.lock()
            .get(&attempt)
            .map(|held| Arc::clone(&held.engine))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn tell(&self, holding: bool) {
        if self.heard.send(Heard::Holding(holding)).is_err() {
            tracing::trace!(target: "gleaner::watch", "stopped");
        }
    }
}
