//! Saving guests: the engine asks by a file in the cage's scratch, the guest's host end answers
//! by another, and a thread waits in between. Only QEMU can; a kernel that is a program has its
//! memory in many processes, and nobody can write those down.

use crate::guests::Guests;
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
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Longest save. Memory is written as fast as the disk takes it, at idle priority.
const SAVE_MAX: Duration = Duration::from_secs(300);

/// Between two looks for the answer.
const LOOK: Duration = Duration::from_millis(50);

/// What a saved guest is called among what an attempt leaves.
const NAME: &str = "guest";

/// The base image is part of it, so that no task loses what was saved of it by going where
/// another distribution's files are; and so is the version of the frames, which process 1 of a
/// saved guest goes on with.
fn text(machine: &Machine, manifest: &Manifest) -> String {
    format!("{machine} base {} frames {VERSION}", manifest.base())
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
        if Moves::of(spec) == Moves::Never {
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
            .map_err(|error| EngineError::io("wait for a save", error))
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
                .map_err(|error| EngineError::io("open the saved guest", error))?
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
