//! The engine: tasks in, guests in cages, endings out.

use crate::image::{Image, ImageError, Manifest, Program};
use crate::machine;
use crate::probe::{self, Remembered};
use crate::saving::{self, Known};
use crate::translate;
use gleaner_engine::{
    Adopted, AfterSave, Allowance, AttemptSpec, Capability, CollectedFile, Control, Ending, Engine,
    EngineError, EngineEvent, Events, Saves,
};
use gleaner_engine_process::{ProcessConfig, ProcessEngine};
use gleaner_guest::task::{Accelerator, GuestTask, OUT_DIR, RECORD_FILE, Record};
use gleaner_model::{AttemptId, GuestPrice, Usage};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Largest record that a guest's host end writes, in bytes.
const RECORD_MAX_BYTES: u64 = 64 << 10;

/// A busy PC boots a guest in half a minute, since guests run at idle priority.
const SILENCE: Duration = Duration::from_secs(180);

/// How the engine works on this PC.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// How cages are made. Its directory must be the engine's own.
    pub process: ProcessConfig,
    /// The directory of what guests are made of.
    pub image: PathBuf,
    /// The guest's program, of which an image is built where there is none; without it only an
    /// image that is there already will do.
    pub program: Option<Program>,
    /// How long a guest may be silent while it boots or is asked for something; pauses do not
    /// count.
    pub silence: Duration,
    /// What runs the guests; by default the best that a trial has shown to work.
    pub accelerator: Option<Accelerator>,
}

impl VmConfig {
    /// The usual settings.
    #[must_use]
    pub const fn new(process: ProcessConfig, image: PathBuf) -> Self {
        Self {
            process,
            image,
            program: None,
            silence: SILENCE,
            accelerator: None,
        }
    }
}

/// Runs attempts in guests. Cheap to share: all clones are one engine.
#[derive(Clone)]
pub struct VmEngine {
    inner: Arc<OnceLock<ProcessEngine>>,
    cages: ProcessEngine,
    pub(crate) config: VmConfig,
    tasks: PathBuf,
    pub(crate) known: Arc<Known>,
    pub(crate) events: Events,
    /// What the last trial chose.
    chosen: Arc<Mutex<Option<Accelerator>>>,
}

impl fmt::Debug for VmEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("VmEngine");
        text.field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn io_error(doing: &str, source: impl Into<io::Error>) -> EngineError {
    EngineError::Io {
        doing: doing.to_owned(),
        source: source.into(),
    }
}

fn no_machine(why: impl fmt::Display) -> EngineError {
    io_error(
        "choose what runs the guest",
        io::Error::other(why.to_string()),
    )
}

impl VmEngine {
    /// An engine in `config.process.dir`. Events are called from its own threads.
    ///
    /// # Errors
    /// As [`ProcessEngine::new`].
    pub fn new(config: VmConfig, events: Events) -> Result<Self, EngineError> {
        let tasks = config.process.dir.join("tasks");
        fs::create_dir_all(&tasks).map_err(|error| io_error("make the tasks' directory", error))?;
        let inner: Arc<OnceLock<ProcessEngine>> = Arc::default();
        let (weak, of_tasks) = (Arc::downgrade(&inner), tasks.clone());
        let (known, told) = (Arc::<Known>::default(), Arc::clone(&events));
        let heard = Arc::clone(&known);
        let translated: Events = Arc::new(move |event| {
            if heard.heard(&event) {
                told(translate(&weak, &of_tasks, event));
            }
        });
        let process = ProcessConfig {
            guest: Some(config.image.clone()),
            ..config.process.clone()
        };
        let cages = ProcessEngine::new(process, translated)?;
        let cages = inner.get_or_init(|| cages).clone();
        Ok(Self {
            inner,
            cages,
            chosen: Arc::new(Mutex::new(config.accelerator)),
            config,
            tasks,
            known,
            events,
        })
    }

    /// The engine of the cages around the guests.
    #[must_use]
    pub fn cages(&self) -> &ProcessEngine {
        self.inner.get().unwrap_or(&self.cages)
    }

    /// What guests are made of, built where it is missing and can be.
    fn image(&self) -> Result<Image, ImageError> {
        let dir = &self.config.image;
        match &self.config.program {
            Some(program) => Image::open_or_build(dir, program),
            None => Image::open(dir),
        }
    }

    /// What runs the next guest: as set, as tried, or as an agent before us had tried.
    pub(crate) fn accelerator(&self, manifest: &Manifest) -> Accelerator {
        let chosen = *self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = || probe::chosen(&probe::recalled(&self.config.image, manifest));
        chosen.or_else(earlier).unwrap_or(Accelerator::Uml)
    }

    pub(crate) fn task_file(&self, attempt: AttemptId) -> PathBuf {
        task_file(&self.tasks, attempt)
    }

    pub(crate) fn task(&self, attempt: AttemptId) -> Result<AttemptSpec, EngineError> {
        read_task(&self.tasks, attempt).map_err(|_| EngineError::Unknown(attempt))
    }
}

impl VmEngine {
    /// What its guest was asked to do.
    pub(crate) fn guest_task(&self, attempt: AttemptId) -> Result<GuestTask, EngineError> {
        read_guest_task(&self.tasks, attempt).ok_or(EngineError::Unknown(attempt))
    }
}

fn task_file(tasks: &Path, attempt: AttemptId) -> PathBuf {
    tasks.join(format!("{attempt}.json"))
}

fn read_task(tasks: &Path, attempt: AttemptId) -> io::Result<AttemptSpec> {
    Ok(serde_json::from_slice(&fs::read(task_file(
        tasks, attempt,
    ))?)?)
}

fn read_guest_task(tasks: &Path, attempt: AttemptId) -> Option<GuestTask> {
    let text = fs::read(task_file(tasks, attempt).with_extension("guest")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// An event of the cage as one of the guest's.
fn translate(
    cages: &Weak<OnceLock<ProcessEngine>>,
    tasks: &Path,
    event: EngineEvent,
) -> EngineEvent {
    match event {
        EngineEvent::Ended { attempt, ending } => {
            let cages = cages.upgrade();
            let cages = cages.as_deref().and_then(OnceLock::get);
            let ending = cages.map_or_else(
                || (*ending).clone(),
                |cages| ending_of(cages, tasks, attempt, &ending),
            );
            EngineEvent::Ended {
                attempt,
                ending: Box::new(ending),
            }
        }
        other @ (EngineEvent::Started { .. }
        | EngineEvent::Paused { .. }
        | EngineEvent::Resumed { .. }
        | EngineEvent::Saved { .. }) => other,
    }
}

/// The guest's ending, from the cage's and what the guest's host end wrote down.
fn ending_of(cages: &ProcessEngine, tasks: &Path, attempt: AttemptId, ending: &Ending) -> Ending {
    let Ok(spec) = read_task(tasks, attempt) else {
        return ending.clone();
    };
    let guest = read_guest_task(tasks, attempt);
    let accelerator = guest.map(|task| task.machine.accelerator);
    let record = record(cages, attempt);
    translate::ending(&spec, accelerator, ending, record.as_ref())
}

fn record(cages: &ProcessEngine, attempt: AttemptId) -> Option<Record> {
    let file = cages.open_in_scratch(attempt, RECORD_FILE).ok()?;
    let mut text = Vec::new();
    file.take(RECORD_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Engine for VmEngine {
    fn kind(&self) -> gleaner_model::Engine {
        gleaner_model::Engine::Vm
    }

    fn probe(&self) -> Vec<Capability> {
        let image = self.image();
        let has_groups = self.cages().backend().has_groups();
        let mut rows = probe::rows(&image, has_groups);
        if let (Ok(image), true) = (&image, has_groups) {
            let trials = probe::trials(&self.config, image, Remembered::Believed);
            if let Some(best) = probe::chosen(&trials) {
                *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(best);
            }
            rows.extend(probe::trial_rows(&trials));
        }
        rows
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        let cannot = |error| io_error("write down the task", error);
        let text = serde_json::to_vec(&spec).map_err(|error| cannot(error.into()))?;
        fs::write(self.task_file(attempt), text).map_err(cannot)?;
        // What the guest reads of it lies beside, and goes onto its disk as an input.
        let guest_file = self.task_file(attempt).with_extension("guest");
        let manifest = Manifest::read(&self.config.image).map_err(no_machine)?;
        let accelerator = self.accelerator(&manifest);
        let moves = saving::moves(&spec);
        let machine = machine::machine(&manifest, accelerator, moves).map_err(no_machine)?;
        self.cages().set_guest_needs(translate::needs(accelerator));
        let guest = GuestTask {
            base: saving::base(&spec, &manifest),
            ..translate::guest_task(&spec, &machine, self.config.silence)
        };
        let text = serde_json::to_vec(&guest);
        let text = text.map_err(|error| cannot(error.into()))?;
        fs::write(&guest_file, &text).map_err(cannot)?;
        self.cages()
            .start(translate::cage(&spec, accelerator, &guest_file, &text))
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        self.known.asked(attempt, control);
        self.cages().control(attempt, control)
    }

    fn beat(&self, lease_left_ms: u64) {
        self.cages().beat(lease_left_ms);
    }

    fn hold(&self, on: bool) {
        self.cages().hold(on);
    }

    fn allow(&self, allowance: &Allowance) {
        self.cages().allow(allowance);
    }

    fn reclaim(&self) -> u64 {
        self.cages().reclaim()
    }

    fn memory_now(&self) -> Option<u64> {
        self.cages().memory_now()
    }

    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError> {
        self.cages().usage(attempt)
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        self.cages().streams(attempt)
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let spec = self.task(attempt)?;
        let has_outputs = self.cages().open_in_scratch(attempt, RECORD_FILE).is_ok();
        // A guest that ended before it could tell has no directory of outputs.
        let directory = if has_outputs { OUT_DIR } else { "." };
        let max = spec.limits.output.0;
        self.cages()
            .collect_below(attempt, directory, &spec.outputs, max)
    }

    fn saves(&self) -> Saves {
        self.what_saves()
    }

    fn guest_price(&self) -> Option<GuestPrice> {
        let manifest = Manifest::read(&self.config.image).ok()?;
        Some(match self.accelerator(&manifest) {
            Accelerator::Kvm => GuestPrice::Little,
            Accelerator::Uml => GuestPrice::Calls,
            Accelerator::Tcg => GuestPrice::Everything,
        })
    }

    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        self.begin_save(attempt, then)
    }

    /// Of an ended attempt: a guest's files cannot be read while it runs.
    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        if let Some(guest) = self.saved_guest(attempt) {
            return guest;
        }
        let spec = self.task(attempt)?;
        let max = spec.limits.output.0;
        let files = self
            .cages()
            .collect_below(attempt, OUT_DIR, &spec.saving.files, max)?;
        let stream = |file: &CollectedFile| matches!(file.name.as_str(), "stdout" | "stderr");
        Ok(files.into_iter().filter(|file| !stream(file)).collect())
    }

    fn discard(&self, attempt: AttemptId) {
        self.cages().discard(attempt);
        self.forget_save(attempt);
        for file in [
            self.task_file(attempt),
            self.task_file(attempt).with_extension("guest"),
        ] {
            let _gone_already = fs::remove_file(file);
        }
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        let mut adopted = self.cages().adopt()?;
        for one in &mut adopted {
            let attempt = one.spec.attempt;
            if let Some(ending) = &mut one.ending {
                **ending = ending_of(self.cages(), &self.tasks, attempt, ending);
                self.known.ended(attempt);
            }
            if let Ok(spec) = self.task(attempt) {
                one.spec = spec;
            }
        }
        sweep(&self.tasks, &adopted);
        Ok(adopted)
    }
}

/// Removes descriptions of tasks that nobody has any more.
fn sweep(tasks: &Path, adopted: &[Adopted]) {
    let kept: BTreeSet<String> = adopted
        .iter()
        .map(|one| one.spec.attempt.to_string())
        .collect();
    for path in fs::read_dir(tasks)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !kept.contains(&*name) {
            let _gone_already = fs::remove_file(&path);
        }
    }
}
