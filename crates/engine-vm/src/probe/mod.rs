//! Whether guests run here, and by what, found out by running them.
//!
//! A device or a program that is there proves nothing: a guest must boot and run a program. Each
//! accelerator is tried in turn, the best first, until one does. What came of each is remembered
//! until the PC boots again or the image changes.

mod rows;

pub use crate::outcome::{Outcome, Trial, chosen};
pub use rows::{rows, trial_rows};

use crate::guests::{VmConfig, VmEngine};
use crate::image::Image;
use crate::machine::{self, Moves};
use crate::outcome::{BUSY, Kept, boot, cache, lasts, recall, recalled, remember};
use gleaner_engine::{AttemptSpec, Capability, Control, Engine as _, EngineEvent, Events};
use gleaner_engine_process::{TRIAL_BEAT, TRIAL_LEASE_MS};
use gleaner_guest::task::Accelerator;
use gleaner_model::{Bytes, JobId, LeaseId, Limits, Reason, TaskId};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a guest may take to boot and run `true`: of a second or two on a PC that has nothing
/// else to do, but guests run at idle priority.
const WAIT: Duration = Duration::from_secs(60);

/// The same where every instruction is translated: of five seconds.
const WAIT_TRANSLATED: Duration = Duration::from_secs(120);

/// A device that opens and then hangs is found out after this much silence in which there were
/// processors to be had: a boot takes half a second of it.
const HANGS: Duration = Duration::from_secs(10);

/// How long one that is ended may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Memory and disk of the trial.
const TRIAL_BYTES: Bytes = Bytes(32 << 20);

/// Whether an earlier outcome will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// Since the PC booted, of the same image.
    Believed,
    /// Try again.
    Ignored,
}

/// Runs guests of this image, on the best accelerator first, until one works; what is known from
/// earlier since the PC booted is not tried again. Takes a directory beside the engine's; what
/// was found lies beside the image, for all agents of a PC.
#[must_use]
pub fn trials(config: &VmConfig, image: &Image, earlier: Remembered) -> Vec<Trial> {
    let cache = cache(&config.image);
    let mut known = Kept {
        boot: boot(),
        image: image.manifest.digest(),
        trials: Vec::new(),
    };
    if earlier == Remembered::Believed {
        known.trials = recall(&cache, &known.boot, &known.image);
    }
    let wanted = config.accelerator.map_or(&Accelerator::ALL[..], one);
    let mut found = Vec::new();
    for &accelerator in wanted {
        let before = known
            .trials
            .iter()
            .find(|trial| trial.accelerator == accelerator)
            .cloned();
        let trial = before.unwrap_or_else(|| {
            let trial = Trial {
                accelerator,
                outcome: try_one(config, image, accelerator),
            };
            if lasts(&trial) {
                known.trials.push(trial.clone());
                remember(&cache, &known);
            }
            trial
        });
        let works = matches!(trial.outcome, Outcome::Works { .. });
        found.push(trial);
        if works {
            break;
        }
    }
    found
}

fn one(accelerator: Accelerator) -> &'static [Accelerator] {
    let all = Accelerator::ALL.chunks(1);
    let mut same = all.filter(|chunk| chunk.contains(&accelerator));
    same.next().unwrap_or_default()
}

/// What is known of guests without running one, for the image in `dir`.
#[must_use]
pub fn remembered(dir: &Path, has_groups: bool) -> Vec<Capability> {
    let image = Image::open(dir);
    let mut rows = rows(&image, has_groups);
    if let Ok(image) = &image {
        rows.extend(trial_rows(&recalled(dir, &image.manifest)));
    }
    rows
}

/// The same, with a trial where none is remembered and there is an image.
#[must_use]
pub fn found(config: &VmConfig, has_groups: bool) -> Vec<Capability> {
    let image = Image::open(&config.image);
    let mut rows = rows(&image, has_groups);
    if let (Ok(image), true) = (&image, has_groups) {
        rows.extend(trial_rows(&trials(config, image, Remembered::Believed)));
    }
    rows
}

fn try_one(config: &VmConfig, image: &Image, accelerator: Accelerator) -> Outcome {
    if let Err(why) = machine::machine(&image.manifest, accelerator, Moves::Never) {
        return Outcome::Absent { why };
    }
    let process = config.process.of_trial();
    let dir = process.dir.clone();
    let outcome = run(VmConfig {
        process,
        accelerator: Some(accelerator),
        silence: match accelerator {
            Accelerator::Kvm => HANGS.min(config.silence),
            Accelerator::Uml | Accelerator::Tcg => config.silence,
        },
        ..config.clone()
    });
    let _left_for_later = fs::remove_dir_all(dir);
    outcome
}

/// The task of a trial.
fn task() -> AttemptSpec {
    let attempt = TaskId::new(JobId(0), 0).attempt(1);
    AttemptSpec {
        limits: Limits {
            memory: TRIAL_BYTES,
            disk: TRIAL_BYTES,
            ..Limits::default()
        },
        ..AttemptSpec::bare(attempt, LeaseId(0), vec!["true".to_owned()])
    }
}

fn run(config: VmConfig) -> Outcome {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let events: Events = Arc::new(move |event| {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let _nobody_waits = told.send(event);
    });
    let wait = match config.accelerator {
        Some(Accelerator::Tcg) => WAIT_TRANSLATED,
        _ => WAIT,
    };
    let fails = |why: String| Outcome::Fails { why };
    let engine = match VmEngine::new(config, events) {
        Ok(engine) => engine,
        Err(error) => return fails(error.to_string()),
    };
    let spec = task();
    let (begun, attempt) = (Instant::now(), spec.attempt);
    if let Err(error) = engine.start(spec) {
        return fails(error.to_string());
    }
    let ended = |until: Duration| loop {
        engine.beat(TRIAL_LEASE_MS);
        match heard.recv_timeout(TRIAL_BEAT) {
            Ok(EngineEvent::Ended { ending, .. }) => break Some(ending.reason),
            _ if begun.elapsed() > until => break None,
            _ => {}
        }
    };
    let reason = ended(wait);
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if reason.is_none() {
        let _ends_with_its_lease = engine.control(attempt, Control::Stop { grace_ms: 0 });
        let _gone = ended(begun.elapsed() + GONE);
    }
    engine.discard(attempt);
    match reason {
        Some(Reason::Exit { code: 0 }) => Outcome::Works { took_ms },
        Some(Reason::Engine { detail }) => fails(detail),
        Some(other) => fails(other.to_string()),
        None => fails(format!(
            "no guest booted within {} s; {BUSY}",
            wait.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_that_is_wanted_is_the_only_one_tried() {
        assert_eq!(one(Accelerator::Tcg), [Accelerator::Tcg]);
    }
}
