//! How far guests are whose tasks have not begun, and what events and orders do to that. Values
//! only; what is done about it is said in [`crate::ahead`].

use gleaner_engine::{AttemptSpec, Control, EngineEvent};
use gleaner_model::{AttemptId, Time};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How far a guest is whose task has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its cage is to run, or runs.
    Booting { caged: bool },
    /// Its cage is to run, and its task is to begin as soon as it does.
    Wanted,
    /// It has booted and is to be frozen; its task may have been asked for meanwhile.
    Freezing { wanted: bool },
    /// It is frozen, since then.
    Ready { since: Time },
    /// Its task begins: it is to be thawed.
    Thawing,
    /// Its task has begun, as far as we know.
    Begun,
    /// It ended before its task could begin.
    Failed,
    /// Nobody wants it any more.
    Dropped,
    /// Its task is to begin, and it is of no use: another one is booted when it is gone.
    Again,
}

impl State {
    /// Whether its task was started and is the guest's own.
    pub(crate) const fn has_begun(&self) -> bool {
        matches!(
            self,
            Self::Wanted | Self::Thawing | Self::Begun | Self::Freezing { wanted: true }
        )
    }
}

/// One guest and what it was booted for.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) spec: AttemptSpec,
    pub(crate) state: State,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<BTreeMap<AttemptId, Waiting>>);

/// What follows from an event of a cage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// It is somebody's who is to hear of it.
    Told,
    /// Nobody outside hears of it.
    Nothing,
    /// Nobody hears of it, and the cage is to be thawed.
    Thaw,
    /// The task is to begin; then it is told.
    Begin,
    /// It is told unless its guest was lost before the task could begin.
    Ended,
}

impl Ahead {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, attempt: AttemptId) -> Option<State> {
        let all = self.all();
        all.get(&attempt).map(|waiting| waiting.state.clone())
    }

    /// Takes note of what is asked of an attempt. One that is to stand still while its guest is
    /// being frozen, and has begun, stays so.
    pub(crate) fn asked(&self, attempt: AttemptId, control: Control) {
        let mut all = self.all();
        let one = all.get_mut(&attempt);
        let frozen = one.filter(|one| one.state == State::Freezing { wanted: true });
        if let (Some(waiting), Control::Pause) = (frozen, control) {
            waiting.state = State::Begun;
        }
    }

    /// An attempt is about to be discarded: its guest is not wanted any more. One whose task has
    /// begun is a guest as any other.
    pub(crate) fn discards(&self, attempt: AttemptId) {
        let mut all = self.all();
        match all.get_mut(&attempt) {
            Some(waiting) if waiting.state.has_begun() => drop(all.remove(&attempt)),
            // It stays until it is gone: its attempt may be wanted again before.
            Some(waiting) => waiting.state = State::Dropped,
            None => {}
        }
    }

    /// Takes note of an event of a cage.
    pub(crate) fn heard(&self, event: &EngineEvent) -> Follows {
        let mut all = self.all();
        let attempt = event.attempt();
        let Some(waiting) = all.get_mut(&attempt) else {
            return Follows::Told;
        };
        match (event, &mut waiting.state) {
            (EngineEvent::Ended { .. }, state) if state.has_begun() => return Follows::Ended,
            (EngineEvent::Ended { .. }, State::Dropped | State::Again) => {}
            (EngineEvent::Ended { .. }, state) => *state = State::Failed,
            (EngineEvent::Started { .. }, State::Booting { caged }) => *caged = true,
            (EngineEvent::Started { .. }, state @ State::Wanted) => {
                *state = State::Begun;
                return Follows::Begin;
            }
            (EngineEvent::Paused { .. }, state @ State::Freezing { wanted: true }) => {
                *state = State::Thawing;
                return Follows::Thaw;
            }
            (EngineEvent::Paused { .. }, state @ State::Freezing { wanted: false }) => {
                *state = State::Ready { since: now() };
            }
            (EngineEvent::Resumed { .. }, state @ State::Thawing) => *state = State::Begun,
            (_, State::Thawing | State::Begun) => return Follows::Told,
            _ => {}
        }
        Follows::Nothing
    }
}

pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    Time { ms }
}

#[cfg(test)]
mod tests;
