//! What is known of each attempt's state, for saves: a guest that is paused has to run to be saved,
//! and nobody who did not ask for that is to hear of it. Values only.

use gleaner_engine::{Control, EngineEvent};
use gleaner_model::AttemptId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All attempts.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<BTreeMap<AttemptId, State>>);

#[derive(Debug, Default)]
struct State {
    paused: bool,
    saving: bool,
    ended: bool,
    /// Events that a save caused and nobody asked for: resumed, paused.
    hidden: [u32; 2],
}

impl Known {
    fn all(&self) -> MutexGuard<'_, BTreeMap<AttemptId, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an event; says whether it is to be told.
    pub(crate) fn heard(&self, event: &EngineEvent) -> bool {
        let mut all = self.all();
        let mut is_news = |attempt: &AttemptId, at: usize| {
            let state = all.entry(*attempt).or_default();
            let hidden = state.hidden.get_mut(at).filter(|left| **left > 0);
            hidden.map(|left| *left -= 1).is_none()
        };
        match event {
            EngineEvent::Resumed { attempt } => is_news(attempt, 0),
            EngineEvent::Paused { attempt } => is_news(attempt, 1),
            EngineEvent::Ended { attempt, .. } => {
                all.entry(*attempt).or_default().ended = true;
                true
            }
            EngineEvent::Started { .. } | EngineEvent::Saved { .. } => true,
        }
    }

    /// What was asked of an attempt last; its event may still be on its way.
    pub(crate) fn asked(&self, attempt: AttemptId, control: Control) {
        let paused = match control {
            Control::Pause => true,
            Control::Resume => false,
            Control::Slow { .. } | Control::Stop { .. } => return,
        };
        self.all().entry(attempt).or_default().paused = paused;
    }

    /// An attempt that had ended before we came.
    pub(crate) fn ended(&self, attempt: AttemptId) {
        self.all().entry(attempt).or_default().ended = true;
    }

    pub(crate) fn forget(&self, attempt: AttemptId) {
        self.all().remove(&attempt);
    }

    pub(crate) fn has_ended(&self, attempt: AttemptId) -> bool {
        self.all().get(&attempt).is_some_and(|state| state.ended)
    }

    /// Begins a save; whether the attempt is paused. None where one is under way.
    pub(crate) fn begin(&self, attempt: AttemptId) -> Option<bool> {
        let mut all = self.all();
        let state = all.entry(attempt).or_default();
        let free = !std::mem::replace(&mut state.saving, true);
        if free && state.paused {
            state.hidden = [1, 0];
        }
        free.then_some(state.paused)
    }

    pub(crate) fn finish(&self, attempt: AttemptId, pauses: bool) {
        if let Some(state) = self.all().get_mut(&attempt) {
            state.saving = false;
            if pauses {
                state.hidden = [0, 1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::{JobId, TaskId};

    #[test]
    fn what_a_save_does_to_a_paused_guest_is_not_told() {
        let known = Known::default();
        let attempt = TaskId::new(JobId(1), 2).attempt(1);
        known.asked(attempt, Control::Pause);
        assert_eq!(known.begin(attempt), Some(true));
        assert_eq!(known.begin(attempt), None, "one at a time");
        // The event of what was asked before comes late.
        assert!(known.heard(&EngineEvent::Paused { attempt }));
        assert!(!known.heard(&EngineEvent::Resumed { attempt }));
        known.finish(attempt, true);
        assert!(!known.heard(&EngineEvent::Paused { attempt }));
        known.asked(attempt, Control::Resume);
        assert!(known.heard(&EngineEvent::Resumed { attempt }));
        assert_eq!(known.begin(attempt), Some(false));
        known.ended(attempt);
        assert!(known.has_ended(attempt));
    }
}
