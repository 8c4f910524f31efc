//! Guests that are booted ahead of their tasks, so that the next start does not wait for a boot.
//!
//! Such a guest is the next attempt's own: its cage, disk and memory were nobody's before, so
//! there is nothing of an earlier task to be removed or to be looked for. It boots beside what
//! runs, up to the point where its program would begin; then its cage is frozen, and costs memory
//! only. Whoever starts the attempt thaws it. Until then nobody outside hears of it, and whatever
//! becomes of it, its attempt can be started: at worst by a boot.
//!
//! The states are [`State`]'s. They are moved by the engine's calls, by the cage's events and by
//! one thread a guest that waits for it to have booted.

mod again;

use crate::guests::Guests;
use crate::waiting::{Follows, State, Waiting, now};
use gleaner_engine::{Adopted, AttemptSpec, Control, Engine as _, EngineError, EngineEvent};
use gleaner_engine_process::Cages;
use gleaner_guest::task::{BEGIN_FILE, BEGUN_FILE, READY_FILE};
use gleaner_model::{AttemptId, Reason};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Between two looks whether a guest has booted, or is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Endings of files beside the task: one stands there while the task has not begun, the other
/// says how long its guest was frozen before it did, in milliseconds.
const AHEAD: &str = "ahead";
const FROZEN: &str = "frozen";

impl Guests {
    /// Whether a guest has booted for this attempt and waits, frozen, for its task to begin.
    pub(crate) fn waits(&self, attempt: AttemptId) -> bool {
        matches!(self.ahead.state(attempt), Some(State::Ready { .. }))
    }

    /// Boots a guest for this attempt, which is to begin later.
    pub(crate) fn boot_ahead(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
    ) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        self.forget_those_gone(cages);
        // Whoever goes on from a saved guest boots none, and an attempt has one cage.
        let known = self.ahead.state(attempt).is_some() || cages.engine().knows(attempt);
        if spec.saving.restore.is_some() || known {
            return Ok(());
        }
        let waiting = Waiting {
            spec: spec.clone(),
            state: State::Booting { caged: false },
        };
        self.ahead.all().insert(attempt, waiting);
        let booted = fs::write(cages.file(attempt, AHEAD), "")
            .map_err(|error| EngineError::io("write down what is booted ahead", error))
            .and_then(|()| self.launch(cages, spec, true));
        if let Err(error) = booted {
            self.ahead.all().remove(&attempt);
            let _none = fs::remove_file(cages.file(attempt, AHEAD));
            return Err(error);
        }
        let (guests, cages) = (Arc::clone(self), cages.clone());
        thread::Builder::new()
            .name("boot-guest".to_owned())
            .spawn(move || guests.wait_for_boot(&cages, attempt))
            .map(drop)
            .map_err(|error| EngineError::io("wait for a guest to boot", error))
    }

    /// Freezes the guest as soon as it has booted.
    fn wait_for_boot(&self, cages: &Cages, attempt: AttemptId) {
        while let Some(State::Booting { .. }) = self.ahead.state(attempt) {
            if cages.engine().open_in_scratch(attempt, READY_FILE).is_err() {
                thread::sleep(LOOK);
                continue;
            }
            let mut all = self.ahead.all();
            let Some(waiting) = all.get_mut(&attempt) else {
                return;
            };
            if matches!(waiting.state, State::Booting { .. }) {
                waiting.state = State::Freezing { wanted: false };
                // Under the lock, so that it comes before the thaw of a task that begins.
                if let Err(error) = cages.engine().control(attempt, Control::Pause) {
                    tracing::warn!(%attempt, %error, "a guest that waits is not frozen");
                }
            }
        }
    }

    /// Lets the task of a guest that was booted for it begin. Says whether there was one.
    pub(crate) fn begin_ahead(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
    ) -> Result<bool, EngineError> {
        let attempt = spec.attempt;
        self.forget_those_gone(cages);
        let mut all = self.ahead.all();
        let Some(waiting) = all.get_mut(&attempt) else {
            return Ok(false);
        };
        let lost = matches!(waiting.state, State::Failed | State::Dropped);
        if lost || waiting.spec != *spec {
            // What ailed it will be told of the one that is booted now.
            waiting.state = State::Again;
            drop(all);
            return self.start_again(cages, spec).map(|()| true);
        }
        let begins = match waiting.state {
            // There is no scratch to write into yet.
            State::Booting { caged: false } => None,
            State::Booting { .. } | State::Freezing { .. } | State::Ready { .. } => Some(0),
            State::Wanted
            | State::Thawing
            | State::Begun
            | State::Failed
            | State::Dropped
            | State::Again => {
                return Ok(true);
            }
        };
        if begins.is_some()
            && let Err(error) = let_begin(cages, attempt)
        {
            tracing::info!(%attempt, %error, "its guest is gone");
            waiting.state = State::Again;
            drop(all);
            return self.start_again(cages, spec).map(|()| true);
        }
        let mut frozen_ms = 0;
        match waiting.state {
            State::Booting { caged: false } => waiting.state = State::Wanted,
            State::Booting { .. } => waiting.state = State::Begun,
            State::Freezing { .. } => waiting.state = State::Freezing { wanted: true },
            State::Ready { since } => {
                waiting.state = State::Thawing;
                frozen_ms = now().since(since).ms;
                cages.engine().control(attempt, Control::Resume)?;
            }
            State::Wanted
            | State::Thawing
            | State::Begun
            | State::Failed
            | State::Dropped
            | State::Again => {}
        }
        drop(all);
        no_longer_ahead(cages, attempt, frozen_ms);
        if begins.is_some() {
            (self.events)(EngineEvent::Started { attempt, at: now() });
        }
        Ok(true)
    }

    /// Ends all that wait: their memory is wanted.
    pub(crate) fn drop_all_ahead(&self, cages: &Cages) {
        let mut dropped = Vec::new();
        for (attempt, waiting) in self.ahead.all().iter_mut() {
            if !waiting.state.has_begun() && waiting.state != State::Again {
                waiting.state = State::Dropped;
                dropped.push(*attempt);
            }
        }
        for attempt in dropped {
            cages.engine().discard(attempt);
        }
    }

    /// Takes note of an event of a cage; says whether it is the task's too.
    pub(crate) fn ahead_heard(
        self: &Arc<Self>,
        cages: Option<&Cages>,
        event: &EngineEvent,
    ) -> bool {
        let follows = self.ahead.heard(event);
        let Some(cages) = cages else {
            return matches!(follows, Follows::Told | Follows::Ended);
        };
        let attempt = event.attempt();
        match follows {
            Follows::Told => true,
            Follows::Nothing => false,
            Follows::Ended => !self.lost_before(cages, event),
            Follows::Thaw => {
                let _it_has_ended = cages.engine().control(attempt, Control::Resume);
                false
            }
            Follows::Begin => {
                if let Err(error) = let_begin(cages, attempt) {
                    tracing::warn!(%attempt, %error, "a task cannot begin in its guest");
                    let stop = Control::Stop { grace_ms: 0 };
                    let _it_has_ended = cages.engine().control(attempt, stop);
                }
                true
            }
        }
    }

    /// Whether a guest was lost between its attempt's start and the first instruction of the task;
    /// then the attempt gets another one.
    fn lost_before(self: &Arc<Self>, cages: &Cages, event: &EngineEvent) -> bool {
        let EngineEvent::Ended { attempt, ending } = event else {
            return false;
        };
        let killed = matches!(ending.reason, Reason::Signal { .. } | Reason::Lost { .. });
        let begun = || cages.engine().open_in_scratch(*attempt, BEGUN_FILE).is_ok();
        let mut all = self.ahead.all();
        let Some(waiting) = all.get_mut(attempt).filter(|_| killed && !begun()) else {
            all.remove(attempt);
            return false;
        };
        waiting.state = State::Again;
        let spec = waiting.spec.clone();
        drop(all);
        tracing::info!(%attempt, "its guest was lost before it began");
        self.start_again(cages, &spec).is_ok()
    }

    /// Whether what an earlier agent left is a guest whose task has begun. No other is of use: what
    /// starts next is chosen anew.
    pub(crate) fn has_begun(&self, cages: &Cages, adopted: &Adopted) -> bool {
        let attempt = adopted.spec.attempt;
        if !cages.file(attempt, AHEAD).exists() {
            return true;
        }
        let waiting = Waiting {
            spec: adopted.spec.clone(),
            state: State::Dropped,
        };
        self.ahead.all().insert(attempt, waiting);
        false
    }

    /// Forgets guests that nobody wanted, once nothing of them is left.
    fn forget_those_gone(&self, cages: &Cages) {
        let gone = |attempt: &AttemptId, waiting: &Waiting| {
            waiting.state == State::Dropped && !cages.engine().knows(*attempt)
        };
        self.ahead
            .all()
            .retain(|attempt, waiting| !gone(attempt, waiting));
    }
}

/// Lets the task of a guest that was booted ahead begin.
fn let_begin(cages: &Cages, attempt: AttemptId) -> Result<(), EngineError> {
    cages.engine().write_in_scratch(attempt, BEGIN_FILE, b"")
}

fn no_longer_ahead(cages: &Cages, attempt: AttemptId, frozen_ms: u64) {
    if let Err(error) = fs::write(frozen_file(cages, attempt), frozen_ms.to_string()) {
        tracing::warn!(%attempt, %error, "how long its guest waited is not written down");
    }
    let _gone_already = fs::remove_file(cages.file(attempt, AHEAD));
}

/// Removes what lies beside a task for this.
pub(crate) fn forget_files(cages: &Cages, attempt: AttemptId) {
    for ending in [AHEAD, FROZEN] {
        let _none = fs::remove_file(cages.file(attempt, ending));
    }
}

fn frozen_file(cages: &Cages, attempt: AttemptId) -> PathBuf {
    cages.file(attempt, FROZEN)
}

/// How long the attempt's guest was frozen before the task began, in milliseconds.
pub(crate) fn frozen_ms(cages: &Cages, attempt: AttemptId) -> u64 {
    let text = fs::read_to_string(frozen_file(cages, attempt)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
