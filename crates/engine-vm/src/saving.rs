//! Saving guests: the engine asks by a file in the cage's scratch, the guest's host end answers
//! by another, and a thread waits in between. Only QEMU can; a kernel that is a program has its
//! memory in many processes, and nobody can write those down.

use crate::engine::{Guests, io_error};
use crate::image::Manifest;
use crate::machine::{self, Moves};
use gleaner_engine::{
    AfterSave, AttemptSpec, CollectedFile, Control, Engine as _, EngineError, EngineEvent, Saves,
};
use gleaner_engine_process::Cages;
use gleaner_guest::message::VERSION;
use gleaner_guest::task::{
    ANSWER_FILE, Accelerator, GuestTask, Machine, SAVE_FILE, SAVED_FILE, Saved,
};
use gleaner_model::{AttemptId, CheckpointKind};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Longest save. Memory is written as fast as the disk takes it, at idle priority.
const SAVE_MAX: Duration = Duration::from_secs(300);

/// Between two looks for the answer.
const LOOK: Duration = Duration::from_millis(50);

/// What a saved guest is called among what an attempt leaves.
const NAME: &str = "guest";

/// Digits of a base image's digest that tell it from all others.
const BASE_DIGITS: usize = 16;

/// The file of the base image in the manifest.
const BASE: &str = "base.img";

/// What is known of the attempts' states, for saves.
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

    fn has_ended(&self, attempt: AttemptId) -> bool {
        self.all().get(&attempt).is_some_and(|state| state.ended)
    }

    /// Begins a save; whether the attempt is paused. None where one is under way.
    fn begin(&self, attempt: AttemptId) -> Option<bool> {
        let mut all = self.all();
        let state = all.entry(attempt).or_default();
        let free = !std::mem::replace(&mut state.saving, true);
        if free && state.paused {
            state.hidden = [1, 0];
        }
        free.then_some(state.paused)
    }

    fn finish(&self, attempt: AttemptId, pauses: bool) {
        if let Some(state) = self.all().get_mut(&attempt) {
            state.saving = false;
            if pauses {
                state.hidden = [0, 1];
            }
        }
    }
}

/// Whether the attempt may have to go on elsewhere.
pub(crate) const fn moves(spec: &AttemptSpec) -> Moves {
    match (&spec.saving.every, &spec.saving.restore) {
        (None, None) => Moves::Never,
        _ => Moves::Perhaps,
    }
}

/// What tells the file that the guest's root lies on from all others: the task's own image or the
/// base image.
pub(crate) fn base(spec: &AttemptSpec, manifest: &Manifest) -> String {
    match &spec.image {
        Some(image) => image.digest.to_string(),
        None => own_base(manifest),
    }
}

fn own_base(manifest: &Manifest) -> String {
    let digest = manifest.files.get(BASE).map_or("", String::as_str);
    digest.chars().take(BASE_DIGITS).collect()
}

/// The base image is part of it, so that no task loses what was saved of it by going where
/// another distribution's files are; and so is the version of the frames, which process 1 of a
/// saved guest goes on with.
fn text(machine: &Machine, manifest: &Manifest) -> String {
    format!("{machine} base {} frames {VERSION}", own_base(manifest))
}

fn unsupported<T>(why: &str) -> Result<T, EngineError> {
    Err(EngineError::Unsupported(why.to_owned()))
}

impl Guests {
    /// What guests here can go on from.
    pub(crate) fn what_saves(&self) -> Saves {
        let guest = || {
            let manifest = Manifest::read(&self.config.image).ok()?;
            let accelerator = self.accelerator(&manifest);
            let machine = machine::machine(&manifest, accelerator, Moves::Perhaps).ok()?;
            let machine = text(&machine, &manifest);
            (accelerator != Accelerator::Uml).then_some(Saves::Guest { machine })
        };
        guest().unwrap_or_default()
    }

    pub(crate) fn begin_save(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
        then: AfterSave,
    ) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        if self.known.has_ended(attempt) {
            return Ok(());
        }
        let guest: Option<GuestTask> = cages.told(attempt);
        let guest = guest.ok_or(EngineError::Unknown(attempt))?;
        if guest.machine.accelerator == Accelerator::Uml {
            return unsupported(
                "a guest on user-mode Linux cannot be saved; where QEMU works it can",
            );
        }
        if moves(spec) == Moves::Never {
            return unsupported(
                "the guest of a job without `checkpoint` may depend on this PC's processor and \
                 cannot be saved",
            );
        }
        let manifest = Manifest::read(&self.config.image);
        let manifest = manifest.map_err(|error| EngineError::Unsupported(error.to_string()))?;
        let Some(paused) = self.known.begin(attempt) else {
            return unsupported("another save of the attempt is under way");
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let number = since.map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        });
        let asks = number.to_string();
        let asked = cages
            .engine()
            .write_in_scratch(attempt, SAVE_FILE, asks.as_bytes());
        if let Err(error) = asked {
            self.known.finish(attempt, false);
            return Err(error);
        }
        if paused {
            cages.engine().control(attempt, Control::Resume)?;
        }
        let (guests, cages) = (Arc::clone(self), cages.clone());
        let kind = CheckpointKind::Guest {
            machine: text(&guest.machine, &manifest),
        };
        let waits = move || guests.wait_for_save(&cages, (attempt, number), (then, paused), kind);
        thread::Builder::new()
            .name("save-guest".to_owned())
            .spawn(waits)
            .map(drop)
            .map_err(|error| io_error("wait for a save", error))
    }

    fn wait_for_save(
        &self,
        cages: &Cages,
        (attempt, number): (AttemptId, u64),
        (then, paused): (AfterSave, bool),
        kind: CheckpointKind,
    ) {
        let begun = Instant::now();
        let outcome = loop {
            if self.known.has_ended(attempt) {
                return;
            }
            match cages.said::<Saved>(attempt, ANSWER_FILE) {
                Some(saved) if saved.number == number => {
                    break saved.error.map_or(Ok(()), Err);
                }
                _ if begun.elapsed() > SAVE_MAX => {
                    break Err("the guest took too long to save".to_owned());
                }
                _ => thread::sleep(LOOK),
            }
        };
        let ends = then == AfterSave::End && outcome.is_ok();
        if ends && let Err(error) = fs::write(marker(cages, attempt), "") {
            tracing::warn!(%attempt, %error, "what was saved is not marked as the last");
        }
        let pauses = paused && !ends;
        self.known.finish(attempt, pauses);
        if pauses {
            let _it_has_ended = cages.engine().control(attempt, Control::Pause);
        }
        let outcome = outcome.map(|()| kind);
        (self.events)(EngineEvent::Saved { attempt, outcome });
        if ends {
            let _it_has_ended = cages
                .engine()
                .control(attempt, Control::Stop { grace_ms: 0 });
        }
    }

    /// The saved guest, where that is what there is to give; see [`gleaner_engine::Engine::saved`].
    pub(crate) fn saved_guest(
        &self,
        cages: &Cages,
        attempt: AttemptId,
    ) -> Option<Result<Vec<CollectedFile>, EngineError>> {
        let ended = self.known.has_ended(attempt);
        if ended && !marker(cages, attempt).exists() {
            return None;
        }
        let open = cages.engine().open_in_scratch(attempt, SAVED_FILE);
        Some(open.and_then(|file| {
            let data = file.metadata();
            let size = data
                .map_err(|error| io_error("open the saved guest", error))?
                .len();
            let name = NAME.to_owned();
            Ok(vec![CollectedFile {
                name,
                file,
                size,
                mode: 0o600,
            }])
        }))
    }

    pub(crate) fn forget_save(&self, cages: &Cages, attempt: AttemptId) {
        self.known.forget(attempt);
        let _there_is_none = fs::remove_file(marker(cages, attempt));
    }
}

/// Stands beside the task of an attempt that ended by being saved.
fn marker(cages: &Cages, attempt: AttemptId) -> PathBuf {
    cages.file(attempt, "whole")
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
