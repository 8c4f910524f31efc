//! When attempts are saved, and what a save changes.

use super::{Book, ms};
use crate::entry::{Phase, Stop};
use crate::{Action, SAVE_WHOLE_MS, Saving, Verdict};
use alloc::vec::Vec;
use gleaner_model::{AttemptId, Time};

impl Book {
    /// How an attempt is saved.
    pub(super) fn saving_of(&self, attempt: AttemptId) -> Saving {
        let entry = self.attempts.get(&attempt);
        let bundle = entry.and_then(|entry| self.bundles.get(&entry.bundle));
        bundle.map(|bundle| bundle.saving).unwrap_or_default()
    }

    /// Sets the time of the next save.
    pub(super) fn save_later(&mut self, now: Time, attempt: AttemptId) {
        if let Some(every) = self.saving_of(attempt).every {
            self.set_save_due(attempt, Some(now + every));
        }
    }

    pub(super) fn save_those_due(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some((due, attempt)) = self.saves.first().copied() {
            if due > now {
                return;
            }
            self.set_save_due(attempt, None);
            let Some(entry) = self.attempts.get_mut(&attempt) else {
                continue;
            };
            if entry.stop.is_some() || entry.saving {
                continue;
            }
            if entry.phase == Phase::Running {
                entry.saving = true;
                out.push(Action::Save {
                    attempt,
                    last: false,
                });
            } else {
                // What stands still makes no progress worth a save.
                self.save_later(now, attempt);
            }
        }
    }

    /// Saves what runs and is saved now and then anyway. What stands still was saved as often as its job
    /// asks for, and has done little since.
    pub(super) fn save_all(&mut self, out: &mut Vec<Action>) {
        for attempt in self.those(|phase| *phase == Phase::Running) {
            let can_be = self.saving_of(attempt).every.is_some();
            let entry = self.attempts.get_mut(&attempt);
            let Some(entry) = entry.filter(|one| can_be && one.stop.is_none() && !one.saving)
            else {
                continue;
            };
            entry.saving = true;
            self.set_save_due(attempt, None);
            out.push(Action::Save {
                attempt,
                last: false,
            });
        }
    }

    /// Whether an attempt is being saved that is not being given back.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        let mut all = self.attempts.values();
        all.any(|entry| entry.saving && entry.stop.is_none())
    }

    /// A save is over. Its successor is due a whole period later, however long it took.
    pub(super) fn saved(
        &mut self,
        now: Time,
        attempt: AttemptId,
        well: bool,
        out: &mut Vec<Action>,
    ) {
        let whole = self.saving_of(attempt).whole && self.has_time();
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if !entry.saving || !entry.phase.is_live() {
            return;
        }
        entry.saving = false;
        match entry.stop {
            None => self.save_later(now, attempt),
            Some(Stop::Revoked) => {}
            Some(Stop::Evicted(_)) if whole && !entry.last => self.save_and_end(now, attempt, out),
            Some(Stop::Evicted(_)) if !well => self.stop(now, attempt, out),
            Some(Stop::Evicted(_)) => {}
        }
    }

    /// Gives a live attempt back: it is told to end, or saved first where only that saves it.
    pub(super) fn give_back(
        &mut self,
        now: Time,
        attempt: AttemptId,
        why: &'static str,
        out: &mut Vec<Action>,
    ) {
        let saving = self.saving_of(attempt);
        let farewell = self.has_time();
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if entry.stop.is_some() {
            return;
        }
        entry.stop = Some(Stop::Evicted(why));
        let runs = matches!(entry.phase, Phase::Running | Phase::Paused);
        let busy = entry.saving;
        self.set_save_due(attempt, None);
        if farewell && self.frozen && runs && (saving.itself || saving.whole) {
            // What stands still can neither save itself nor be saved.
            out.push(Action::Resume(attempt));
        }
        match farewell && saving.whole && runs {
            false => self.stop(now, attempt, out),
            // The save under way is of use too; the last one follows it.
            true if busy => self.set_due(attempt, Some(now + ms(SAVE_WHOLE_MS))),
            true => self.save_and_end(now, attempt, out),
        }
    }

    /// Whether what is given back has time to save itself, or to be saved. Where the owner needs
    /// the PC everything is held at once and nothing could run: what was saved before counts.
    pub(super) fn has_time(&self) -> bool {
        self.verdict == Verdict::Run
    }

    fn save_and_end(&mut self, now: Time, attempt: AttemptId, out: &mut Vec<Action>) {
        if let Some(entry) = self.attempts.get_mut(&attempt) {
            (entry.saving, entry.last) = (true, true);
        }
        self.set_due(attempt, Some(now + ms(SAVE_WHOLE_MS)));
        out.push(Action::Save {
            attempt,
            last: true,
        });
    }

    pub(super) fn set_save_due(&mut self, attempt: AttemptId, due: Option<Time>) {
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if let Some(old) = entry.save_due.take() {
            self.saves.remove(&(old, attempt));
        }
        if let Some(new) = due {
            self.saves.insert((new, attempt));
        }
        entry.save_due = due;
    }
}
