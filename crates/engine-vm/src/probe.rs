//! Whether guests run here, and by what, found out by running them.
//!
//! A device or a program that is there proves nothing: a guest must boot and run a program. Each
//! accelerator is tried in turn, the best first, until one does. What came of each is remembered
//! until the PC boots again or the image changes.

use crate::image::{Image, ImageError, Manifest};
use crate::machine::{self, Moves};
use crate::{Accelerator, VmConfig, VmEngine};
use gleaner_engine::{
    AttemptSpec, Capability, Control, Engine as _, EngineEvent, Events, Level, Saving,
};
use gleaner_engine_process::ProcessConfig;
use gleaner_model::{Bytes, JobId, LeaseId, Limits, Reason, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
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

/// Time between beats while we wait.
const BEAT: Duration = Duration::from_millis(500);

/// How long the trial's cage goes on without a beat, in milliseconds: longer than a thread at normal
/// priority waits between two on a PC that is very busy. Where we are gone it ends at once.
const LEASE_MS: u64 = 10_000;

/// Memory and disk of the trial.
const TRIAL_BYTES: Bytes = Bytes(32 << 20);

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A guest ran a program.
    Works {
        /// From the start of the cage to the program's end, in milliseconds.
        took_ms: u64,
    },
    /// There is nothing to try with.
    Absent {
        /// What is missing, as a sentence.
        why: String,
    },
    /// None did.
    Fails {
        /// Why, as a sentence.
        why: String,
    },
}

/// One accelerator and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was tried.
    pub accelerator: Accelerator,
    /// What came of it.
    pub outcome: Outcome,
}

/// Whether an earlier outcome will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// Since the PC booted, of the same image.
    Believed,
    /// Try again.
    Ignored,
}

/// Outcomes and when they stop being true.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    boot: String,
    image: String,
    trials: Vec<Trial>,
}

/// The accelerator to use, if any works.
#[must_use]
pub fn chosen(trials: &[Trial]) -> Option<Accelerator> {
    let works = |trial: &&Trial| matches!(trial.outcome, Outcome::Works { .. });
    let works = trials.iter().filter(works).map(|trial| trial.accelerator);
    works.min()
}

/// Runs guests of this image, on the best accelerator first, until one works; what is known from
/// earlier since the PC booted is not tried again. Takes a directory beside the engine's; what
/// was found lies beside the image, for all agents of a PC.
#[must_use]
pub fn trials(config: &VmConfig, image: &Image, earlier: Remembered) -> Vec<Trial> {
    let cache = cache(&config.image);
    let mut known = Known {
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
            if lasts(&trial.outcome) {
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

/// A PC that is busy now is no reason for all the time until it boots again; what is not
/// installed now may be in a moment, and costs nothing to look for.
fn lasts(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Works { .. } => true,
        Outcome::Absent { .. } => false,
        Outcome::Fails { why } => !why.contains(BUSY),
    }
}

fn remember(cache: &Path, known: &Known) {
    let written = serde_json::to_vec(known)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(cache, text));
    if let Err(error) = written {
        tracing::warn!(%error, "the outcome of the guest's trial is not remembered");
    }
}

/// What is known of an image without running a guest.
pub(crate) fn recalled(dir: &Path, manifest: &Manifest) -> Vec<Trial> {
    recall(&cache(dir), &boot(), &manifest.digest())
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

fn cache(image: &Path) -> PathBuf {
    image.with_extension("trial.json")
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What earlier trials found, as far as it still holds. An empty boot id is nobody's.
fn recall(cache: &Path, boot: &str, image: &str) -> Vec<Trial> {
    let known: Known = fs::read(cache)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let holds = known.boot == boot && known.image == image && !boot.is_empty();
    if holds { known.trials } else { Vec::new() }
}

fn try_one(config: &VmConfig, image: &Image, accelerator: Accelerator) -> Outcome {
    if let Err(why) = machine::machine(&image.manifest, accelerator, Moves::Never) {
        return Outcome::Absent { why };
    }
    let dir = config.process.dir.with_extension("trial");
    let outcome = run(VmConfig {
        process: ProcessConfig {
            dir: dir.clone(),
            domain: None,
            beat: BEAT,
            outlives: false,
            ..config.process.clone()
        },
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
    AttemptSpec {
        attempt: TaskId::new(JobId(0), 0).attempt(1),
        bundle: LeaseId(0),
        command: vec!["true".to_owned()],
        deterministic: false,
        env: BTreeMap::new(),
        stdin: None,
        image: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        limits: Limits {
            memory: TRIAL_BYTES,
            disk: TRIAL_BYTES,
            ..Limits::default()
        },
        saving: Saving::default(),
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
        engine.beat(LEASE_MS);
        match heard.recv_timeout(BEAT) {
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

/// What a sentence about a PC without time for us says.
const BUSY: &str = "is this PC very busy?";

/// What to do where nothing works.
const MAKE: &str = "gleaner image guest";

fn row(name: &str, level: Level, found: String, fix: Option<&str>) -> Capability {
    Capability {
        name: name.to_owned(),
        level,
        found,
        fix: fix.map(str::to_owned),
    }
}

/// The outcomes as rows: whether guests run, and whether the processor helps.
#[must_use]
pub fn trial_rows(trials: &[Trial]) -> Vec<Capability> {
    let find = |accelerator| {
        let trial = trials.iter().find(|trial| trial.accelerator == accelerator);
        trial.map(|trial| &trial.outcome)
    };
    let best = chosen(trials).and_then(|best| Some((best, find(best)?)));
    let trial = match best {
        Some((best, Outcome::Works { took_ms })) => {
            let by = by(best);
            let found = format!("booted {by} and ran a program in {took_ms} ms");
            row("guest trial", Level::Good, found, None)
        }
        _ if trials.is_empty() => {
            let found = "not tried since this PC booted".to_owned();
            row("guest trial", Level::Missing, found, Some(MAKE))
        }
        _ => row("guest trial", Level::Missing, reasons(trials), Some(MAKE)),
    };
    vec![trial, virtualisation(find(Accelerator::Kvm))]
}

const fn by(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "on the processor's virtualisation",
        Accelerator::Uml => "on user-mode Linux",
        Accelerator::Tcg => "on QEMU's translation, the slowest there is,",
    }
}

fn reasons(trials: &[Trial]) -> String {
    let why = |trial: &Trial| match &trial.outcome {
        Outcome::Works { .. } => None,
        Outcome::Absent { why } | Outcome::Fails { why } => {
            Some(format!("{}: {why}", trial.accelerator.name()))
        }
    };
    let all: Vec<String> = trials.iter().filter_map(why).collect();
    all.join("; ")
}

/// Guests run without it too.
fn virtualisation(kvm: Option<&Outcome>) -> Capability {
    const NAME: &str = "virtualisation";
    const TURN_ON: &str = "turn on VT-x or AMD-V in the PC's firmware, and load kvm_intel or \
                           kvm_amd; inside a virtual machine, allow nested virtualisation";
    match kvm {
        Some(Outcome::Works { took_ms }) => {
            let found = format!("a guest boots on /dev/kvm, and ran a program in {took_ms} ms");
            row(NAME, Level::Good, found, None)
        }
        Some(Outcome::Fails { why }) => {
            let found = format!("present, but a guest does not boot on it: {why}");
            let fix = "where this is a virtual machine, let its host offer nested \
                       virtualisation that works; then `gleaner image guest`. Until then guests \
                       run without it";
            row(NAME, Level::Degraded, found, Some(fix))
        }
        Some(Outcome::Absent { why }) => {
            let fix = if Path::new("/dev/kvm").exists() {
                "install qemu-system-x86 and linux-image-cloud-amd64; let the agent's user into \
                 the group kvm"
            } else {
                TURN_ON
            };
            let found = format!("not used: {why}");
            row(NAME, Level::Degraded, found, Some(fix))
        }
        None if Path::new("/dev/kvm").exists() => {
            let found = "present; no guest was tried on it since this PC booted".to_owned();
            row(NAME, Level::Degraded, found, Some(MAKE))
        }
        None => {
            let found = "none: /dev/kvm is absent; guests run without it".to_owned();
            row(NAME, Level::Degraded, found, Some(TURN_ON))
        }
    }
}

/// A kernel that is stopped by signals takes that for its end.
const NO_GROUPS: &str = "guests are paused by their control group, and there is none here";

/// What `gleaner doctor` shows of the parts of a guest.
#[must_use]
pub fn rows(image: &Result<Image, ImageError>, has_groups: bool) -> Vec<Capability> {
    let image = match image {
        Ok(image) => {
            let short: String = image.manifest.digest().chars().take(12).collect();
            let kernels = image.manifest.kernels_text();
            let packages = image.manifest.packages.len();
            let found = format!("{short}: {kernels}, {packages} packages");
            row("guest image", Level::Good, found, None)
        }
        Err(ImageError::NotBuilt(dir)) => {
            let found = format!("no guest image was built yet in {}", dir.display());
            row("guest image", Level::Missing, found, Some(MAKE))
        }
        Err(why) => row("guest image", Level::Missing, why.to_string(), Some(MAKE)),
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

    fn trial(accelerator: Accelerator, outcome: Outcome) -> Trial {
        Trial {
            accelerator,
            outcome,
        }
    }

    fn fails(why: &str) -> Outcome {
        Outcome::Fails {
            why: why.to_owned(),
        }
    }

    #[test]
    fn an_outcome_holds_for_one_boot_and_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("probe.json");
        let trials = vec![trial(Accelerator::Uml, Outcome::Works { took_ms: 1500 })];
        let known = Known {
            boot: "a".to_owned(),
            image: "x".to_owned(),
            trials: trials.clone(),
        };
        remember(&cache, &known);
        assert_eq!(recall(&cache, "a", "x"), trials);
        assert_eq!(recall(&cache, "b", "x"), []);
        assert_eq!(recall(&cache, "a", "y"), []);
        fs::write(&cache, "{").unwrap();
        assert_eq!(recall(&cache, "a", "x"), []);
    }

    #[test]
    fn what_is_missing_comes_with_a_fix() {
        let none = Err(ImageError::Altered("x".to_owned()));
        for row in rows(&none, false) {
            assert_eq!(row.level, Level::Missing);
            assert!(row.fix.is_some(), "{row:?}");
        }
    }

    #[test]
    fn the_best_that_works_is_chosen_and_the_rest_is_told() {
        let hangs = trial(Accelerator::Kvm, fails("the guest was silent for 10 s"));
        let works = trial(Accelerator::Uml, Outcome::Works { took_ms: 1 });
        assert_eq!(
            chosen(&[hangs.clone(), works.clone()]),
            Some(Accelerator::Uml)
        );
        assert_eq!(chosen(std::slice::from_ref(&hangs)), None);
        let rows = trial_rows(&[hangs.clone(), works]);
        let levels: Vec<Level> = rows.iter().map(|row| row.level).collect();
        assert_eq!(levels, [Level::Good, Level::Degraded]);
        assert!(
            rows[1]
                .found
                .contains("does not boot on it: the guest was silent"),
            "{rows:?}"
        );
        assert!(rows[1].fix.is_some());
        assert_eq!(trial_rows(&[hangs])[0].level, Level::Missing);
        assert_eq!(trial_rows(&[])[0].level, Level::Missing);
        assert_eq!(one(Accelerator::Tcg), [Accelerator::Tcg]);
    }

    #[test]
    fn a_busy_pc_and_a_package_that_is_not_there_are_asked_again() {
        assert!(lasts(&fails("silent")));
        assert!(!lasts(&fails(&format!("late; {BUSY}"))));
        let why = "install it".to_owned();
        assert!(!lasts(&Outcome::Absent { why }));
    }
}
