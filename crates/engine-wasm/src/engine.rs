//! The engine: tasks in, runners in cages, endings out.

use crate::record::{RECORD_FILE, Record, WORK};
use crate::{probe, translate};
use gleaner_engine::{
    Adopted, AfterSave, Allowance, AttemptSpec, Capability, CollectedFile, Control, Ending, Engine,
    EngineError, EngineEvent, Events, Saves,
};
use gleaner_engine_process::{ProcessConfig, ProcessEngine};
use gleaner_model::{AttemptId, Usage};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

/// Largest record that a runner writes, in bytes.
const RECORD_MAX_BYTES: u64 = 64 << 10;

/// How the engine works on this PC.
#[derive(Debug, Clone)]
pub struct WasmConfig {
    /// How cages are made. Its directory must be the engine's own.
    pub process: ProcessConfig,
    /// The program that answers [`crate::is_wasm_call`]: `gleaner`.
    pub runner: PathBuf,
}

/// Runs attempts whose program is WebAssembly. Cheap to share: all clones are one engine.
#[derive(Debug, Clone)]
pub struct WasmEngine {
    /// For the listener of events, which the cages' engine keeps: it must not keep them too.
    inner: Arc<OnceLock<ProcessEngine>>,
    cages: ProcessEngine,
    config: WasmConfig,
    tasks: PathBuf,
}

fn io_error(doing: &str, source: impl Into<io::Error>) -> EngineError {
    EngineError::Io {
        doing: doing.to_owned(),
        source: source.into(),
    }
}

impl WasmEngine {
    /// An engine in `config.process.dir`. Events are called from its own threads.
    ///
    /// # Errors
    /// As [`ProcessEngine::new`].
    pub fn new(config: WasmConfig, events: Events) -> Result<Self, EngineError> {
        let tasks = config.process.dir.join("tasks");
        fs::create_dir_all(&tasks).map_err(|error| io_error("make the tasks' directory", error))?;
        let inner: Arc<OnceLock<ProcessEngine>> = Arc::default();
        let (weak, of_tasks) = (Arc::downgrade(&inner), tasks.clone());
        let translated: Events = Arc::new(move |event| events(translate(&weak, &of_tasks, event)));
        let process = ProcessConfig {
            program: Some(config.runner.clone()),
            ..config.process.clone()
        };
        let cages = ProcessEngine::new(process, translated)?;
        let cages = inner.get_or_init(|| cages).clone();
        Ok(Self {
            inner,
            cages,
            config,
            tasks,
        })
    }

    /// The engine of the cages around the runners.
    #[must_use]
    pub fn cages(&self) -> &ProcessEngine {
        self.inner.get().unwrap_or(&self.cages)
    }

    fn task_file(&self, attempt: AttemptId) -> PathBuf {
        task_file(&self.tasks, attempt)
    }

    /// What the runner reads of a task; it goes into the cage as an input.
    fn runner_file(&self, attempt: AttemptId) -> PathBuf {
        self.task_file(attempt).with_extension("runner")
    }

    fn task(&self, attempt: AttemptId) -> Result<AttemptSpec, EngineError> {
        read_task(&self.tasks, attempt).map_err(|_| EngineError::Unknown(attempt))
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

/// An event of the cage as one of the program's.
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

/// The program's ending, from the cage's and what the runner wrote down.
fn ending_of(cages: &ProcessEngine, tasks: &Path, attempt: AttemptId, ending: &Ending) -> Ending {
    let Ok(spec) = read_task(tasks, attempt) else {
        return ending.clone();
    };
    translate::ending(&spec, ending, record(cages, attempt).as_ref())
}

fn record(cages: &ProcessEngine, attempt: AttemptId) -> Option<Record> {
    let file = cages.open_in_scratch(attempt, RECORD_FILE).ok()?;
    let mut text = Vec::new();
    file.take(RECORD_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Size of the input that is the program; 0 where none is.
fn module_bytes(spec: &AttemptSpec) -> u64 {
    let name = |name: &str| {
        name.trim_start_matches("/scratch/")
            .trim_start_matches("./")
            .to_owned()
    };
    let program = spec.command.first().map(|word| name(word));
    let input = spec
        .inputs
        .iter()
        .find(|input| Some(name(&input.name)) == program);
    let found = input.and_then(|input| fs::metadata(&input.source).ok());
    found.map_or(0, |found| found.len())
}

impl Engine for WasmEngine {
    fn kind(&self) -> gleaner_model::Engine {
        gleaner_model::Engine::Wasm
    }

    fn probe(&self) -> Vec<Capability> {
        vec![probe::trial(&self.config)]
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        let cannot = |error| io_error("write down the task", error);
        let text = serde_json::to_vec(&spec).map_err(|error| cannot(error.into()))?;
        fs::write(self.task_file(attempt), text).map_err(cannot)?;
        let file = self.runner_file(attempt);
        let text = serde_json::to_vec(&translate::runner_task(&spec));
        let text = text.map_err(|error| cannot(error.into()))?;
        fs::write(&file, &text).map_err(cannot)?;
        let cage = translate::cage(&spec, &file, &text, module_bytes(&spec));
        self.cages().start(cage)
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
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
        let max = spec.limits.output.0;
        self.cages()
            .collect_below(attempt, WORK, &spec.outputs, max)
    }

    fn saves(&self) -> Saves {
        self.cages().saves()
    }

    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        self.cages().save(attempt, then)
    }

    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let mut files = self.cages().saved(attempt)?;
        for file in &mut files {
            file.name = translate::of_the_program(&file.name).to_owned();
        }
        Ok(files)
    }

    fn discard(&self, attempt: AttemptId) {
        self.cages().discard(attempt);
        for file in [self.task_file(attempt), self.runner_file(attempt)] {
            let _gone_already = fs::remove_file(file);
        }
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        let mut adopted = self.cages().adopt()?;
        for one in &mut adopted {
            let attempt = one.spec.attempt;
            if let Some(ending) = &mut one.ending {
                **ending = ending_of(self.cages(), &self.tasks, attempt, ending);
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
    let entries = fs::read_dir(tasks).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !kept.contains(&*name) {
            let _gone_already = fs::remove_file(&path);
        }
    }
}
