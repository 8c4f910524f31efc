//! Whether guests run here, found out by running one.
//!
//! A device or a program that is there proves nothing: a guest must boot and run a program. The
//! outcome is remembered until the PC boots again or the image changes.

use crate::image::{Image, ImageError};
use crate::{VmConfig, VmEngine};
use gleaner_engine::{AttemptSpec, Capability, Engine as _, EngineEvent, Level, Saving};
use gleaner_engine_process::ProcessConfig;
use gleaner_model::{Bytes, JobId, LeaseId, Limits, Reason, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a guest may take to boot and run `true`. It does in two seconds on a PC that has
/// nothing else to do, but guests run at idle priority.
const WAIT: Duration = Duration::from_secs(60);

/// Time between beats while we wait.
const BEAT: Duration = Duration::from_millis(500);

/// Memory and disk of the trial.
const TRIAL_BYTES: Bytes = Bytes(32 << 20);

/// What came of the trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A guest ran a program.
    Works {
        /// From the start of the cage to the program's end, in milliseconds.
        took_ms: u64,
    },
    /// None did.
    Fails {
        /// Why, as a sentence.
        why: String,
    },
}

/// Whether an earlier outcome will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// Since the PC booted, of the same image.
    Believed,
    /// Try again.
    Ignored,
}

/// An outcome and when it stops being true.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    boot: String,
    image: String,
    outcome: Outcome,
}

/// Runs a guest of this image, unless it is known from earlier since the PC booted. Takes a
/// directory beside the engine's; what was found lies beside the image, for all agents of a PC.
#[must_use]
pub fn outcome(config: &VmConfig, image: &Image, earlier: Remembered) -> Outcome {
    let (cache, boot) = (cache(&config.image), boot());
    let image = image.manifest.digest();
    if earlier == Remembered::Believed
        && let Some(known) = recall(&cache, &boot, &image)
    {
        return known;
    }
    let dir = config.process.dir.with_extension("trial");
    let outcome = trial(VmConfig {
        process: ProcessConfig {
            dir: dir.clone(),
            beat: BEAT,
            ..config.process.clone()
        },
        ..config.clone()
    });
    let _left_for_later = fs::remove_dir_all(dir);
    if outcome == late() {
        // A PC that is busy now is no reason for all the time until it boots again.
        return outcome;
    }
    let remembered = Known {
        boot,
        image,
        outcome: outcome.clone(),
    };
    let written = serde_json::to_vec(&remembered)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&cache, text));
    if let Err(error) = written {
        tracing::warn!(%error, "the outcome of the guest's trial is not remembered");
    }
    outcome
}

/// What is known of guests without running one, for the image in `dir`.
#[must_use]
pub fn remembered(dir: &Path, has_groups: bool) -> Vec<Capability> {
    let image = Image::open(dir);
    let mut rows = rows(&image, has_groups);
    if let Ok(image) = &image {
        let known = recall(&cache(dir), &boot(), &image.manifest.digest());
        let not_yet = || Outcome::Fails {
            why: "not tried since this PC booted".to_owned(),
        };
        rows.push(trial_row(&known.unwrap_or_else(not_yet)));
    }
    rows
}

fn cache(image: &Path) -> PathBuf {
    image.with_extension("trial.json")
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What an earlier trial found, if it still holds. An empty boot id is nobody's.
fn recall(cache: &Path, boot: &str, image: &str) -> Option<Outcome> {
    let known: Known = serde_json::from_slice(&fs::read(cache).ok()?).ok()?;
    (known.boot == boot && known.image == image && !boot.is_empty()).then_some(known.outcome)
}

fn trial(config: VmConfig) -> Outcome {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let events = Arc::new(move |event| {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let _nobody_waits = told.send(event);
    });
    let fails = |why: String| Outcome::Fails { why };
    let engine = match VmEngine::new(config, events) {
        Ok(engine) => engine,
        Err(error) => return fails(error.to_string()),
    };
    let spec = AttemptSpec {
        attempt: TaskId::new(JobId(0), 0).attempt(1),
        bundle: LeaseId(0),
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        stdin: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        limits: Limits {
            memory: TRIAL_BYTES,
            disk: TRIAL_BYTES,
            ..Limits::default()
        },
        saving: Saving::default(),
    };
    let (begun, attempt) = (Instant::now(), spec.attempt);
    if let Err(error) = engine.start(spec) {
        return fails(error.to_string());
    }
    let reason = loop {
        engine.beat(30_000);
        match heard.recv_timeout(BEAT) {
            Ok(EngineEvent::Ended { ending, .. }) => break Some(ending.reason),
            _ if begun.elapsed() > WAIT => break None,
            _ => {}
        }
    };
    engine.discard(attempt);
    match reason {
        Some(Reason::Exit { code: 0 }) => Outcome::Works {
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Some(other) => fails(other.to_string()),
        None => late(),
    }
}

fn late() -> Outcome {
    let seconds = WAIT.as_secs();
    Outcome::Fails {
        why: format!("no guest booted within {seconds} s; is this PC very busy?"),
    }
}

/// The outcome as a row.
#[must_use]
pub fn trial_row(outcome: &Outcome) -> Capability {
    let name = "guest trial".to_owned();
    match outcome {
        Outcome::Works { took_ms } => Capability {
            name,
            level: Level::Good,
            found: format!("booted and ran a program in {took_ms} ms"),
            fix: None,
        },
        Outcome::Fails { why } => Capability {
            name,
            level: Level::Missing,
            found: why.clone(),
            fix: Some("gleaner image guest".to_owned()),
        },
    }
}

/// A kernel that is stopped by signals takes that for its end.
const NO_GROUPS: &str = "guests are paused by their control group, and there is none here";

/// What `gleaner doctor` shows of the parts of a guest.
#[must_use]
pub fn rows(image: &Result<Image, ImageError>, has_groups: bool) -> Vec<Capability> {
    let row = |name: &str, level, found: String, fix: Option<&str>| Capability {
        name: name.to_owned(),
        level,
        found,
        fix: fix.map(str::to_owned),
    };
    let image = match image {
        Ok(image) => {
            let short: String = image.manifest.digest().chars().take(12).collect();
            let (kernel, packages) = (&image.manifest.kernel, image.manifest.packages.len());
            let found = format!("{short}: user-mode Linux {kernel}, {packages} packages");
            row("guest image", Level::Good, found, None)
        }
        Err(why) => row(
            "guest image",
            Level::Missing,
            why.to_string(),
            Some("gleaner image guest"),
        ),
    };
    let pause = if has_groups {
        let found = "by the group's freezer".to_owned();
        row("pausing guests", Level::Good, found, None)
    } else {
        let fix = "run the agent as a service, or let it have a control group of its own";
        row(
            "pausing guests",
            Level::Missing,
            NO_GROUPS.to_owned(),
            Some(fix),
        )
    };
    vec![image, pause]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_holds_for_one_boot_and_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("probe.json");
        let outcome = Outcome::Works { took_ms: 1500 };
        let known = Known {
            boot: "a".to_owned(),
            image: "x".to_owned(),
            outcome: outcome.clone(),
        };
        fs::write(&cache, serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(recall(&cache, "a", "x"), Some(outcome));
        assert_eq!(recall(&cache, "b", "x"), None);
        assert_eq!(recall(&cache, "a", "y"), None);
        fs::write(&cache, "{").unwrap();
        assert_eq!(recall(&cache, "a", "x"), None);
    }

    #[test]
    fn what_is_missing_comes_with_a_fix() {
        let none = Err(ImageError::Altered("x".to_owned()));
        for row in rows(&none, false) {
            assert_eq!(row.level, Level::Missing);
            assert!(row.fix.is_some(), "{row:?}");
        }
    }
}
