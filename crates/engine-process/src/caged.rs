//! For engines whose tasks do not run in a cage themselves but on something that does: a guest's
//! kernel, a runtime of WebAssembly. To the cage that runner is the program of an ordinary
//! attempt, so shims, limits, freezers, streams and leases are those of every process.
//!
//! [`Caged`] is such an engine but for what its [`Runner`] says: how a task becomes the attempt
//! that holds the runner, and what an ending of that attempt means for the task. Tasks lie on
//! disk while their attempts last, since the cage knows its own half only and a new agent must
//! find the other. It must not know what a runner is.

use crate::host::{Inner, ProcessConfig, ProcessEngine};
use gleaner_engine::{
    Adopted, AfterSave, Allowance, AttemptSpec, Capability, CollectedFile, Control, Ending, Engine,
    EngineError, EngineEvent, Events, Saves,
};
use gleaner_model::{AttemptId, GuestPrice, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

/// Largest file of a runner's that is read, in bytes: what it says of a task is a few numbers and
/// sentences.
const RECORD_MAX_BYTES: u64 = 64 << 10;

/// What a runner is told of a task lies beside the task, under this ending.
const TOLD: &str = "told";

/// The same of the task itself.
const TASK: &str = "json";

/// What runs a task inside a cage, and how it does.
pub trait Runner: fmt::Debug + Send + Sync + Sized + 'static {
    /// How the engine works on this PC.
    type Config;

    /// The engine's name.
    const KIND: gleaner_model::Engine;

    /// The runner of these settings, and how its cages are made. `events` is who hears of
    /// attempts.
    fn new(config: Self::Config, events: &Events) -> (Self, ProcessConfig);

    /// As [`Engine::probe`].
    fn probe(&self, cages: &Cages) -> Vec<Capability>;

    /// The attempt that holds the runner of this task.
    ///
    /// # Errors
    /// Where there cannot be one.
    fn cage(&self, cages: &Cages, spec: &AttemptSpec) -> Result<AttemptSpec, EngineError>;

    /// The task's ending, from that of its cage and what the runner wrote down.
    fn ending(&self, cages: &Cages, spec: &AttemptSpec, cage: &Ending) -> Ending;

    /// As [`Engine::collect`].
    ///
    /// # Errors
    /// The same.
    fn collect(&self, cages: &Cages, spec: &AttemptSpec)
    -> Result<Vec<CollectedFile>, EngineError>;

    /// As [`Engine::saves`].
    fn saves(&self, cages: &Cages) -> Saves;

    /// As [`Engine::guest_price`].
    fn guest_price(&self) -> Option<GuestPrice> {
        None
    }

    /// As [`Engine::save`].
    ///
    /// # Errors
    /// The same.
    fn save(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
        then: AfterSave,
    ) -> Result<(), EngineError>;

    /// As [`Engine::saved`].
    ///
    /// # Errors
    /// The same.
    fn saved(&self, cages: &Cages, spec: &AttemptSpec) -> Result<Vec<CollectedFile>, EngineError>;

    /// As [`Engine::prepares`].
    fn prepares(&self) -> bool {
        false
    }

    /// As [`Engine::prepare`].
    ///
    /// # Errors
    /// The same.
    fn prepare(self: &Arc<Self>, _cages: &Cages, _spec: &AttemptSpec) -> Result<(), EngineError> {
        Ok(())
    }

    /// As [`Engine::is_prepared`].
    fn is_prepared(&self, _attempt: AttemptId) -> bool {
        false
    }

    /// Lets an attempt begin that was prepared; says whether it was.
    ///
    /// # Errors
    /// As [`Engine::start`].
    fn begin(self: &Arc<Self>, _cages: &Cages, _spec: &AttemptSpec) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Lets go of what it can do without: memory is wanted.
    fn reclaim(&self, _cages: &Cages) {}

    /// Takes note of an event of a cage; says whether it is one of the task's too. There are no
    /// cages any more where the engine is about to go.
    fn heard(self: &Arc<Self>, _cages: Option<&Cages>, _event: &EngineEvent) -> bool {
        true
    }

    /// Takes note of an order to an attempt that is about to be given.
    fn steered(&self, _attempt: AttemptId, _control: Control) {}

    /// Whether what an earlier agent left in this cage is a task's. What is not is discarded.
    fn found(&self, _cages: &Cages, _cage: &Adopted) -> bool {
        true
    }

    /// Takes note of an attempt that had ended before this agent came.
    fn found_ended(&self, _attempt: AttemptId) {}

    /// An attempt is about to be discarded.
    fn discards(&self, _attempt: AttemptId) {}

    /// Lets go of an attempt's state.
    fn discarded(&self, _cages: &Cages, _attempt: AttemptId) {}
}

/// The cages of an engine, and the tasks that are in them. Clones are one.
#[derive(Debug, Clone)]
pub struct Cages {
    engine: ProcessEngine,
    tasks: PathBuf,
}

impl Cages {
    /// The engine that makes them. Its attempts are the runners, under the tasks' ids.
    #[must_use]
    pub const fn engine(&self) -> &ProcessEngine {
        &self.engine
    }

    /// Starts the cage of a task, and writes the task down before. The runner says what it is.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start(
        &self,
        spec: &AttemptSpec,
        cage: impl FnOnce() -> Result<AttemptSpec, EngineError>,
    ) -> Result<(), EngineError> {
        write(&self.file(spec.attempt, TASK), spec)?;
        self.engine.start(cage()?)
    }

    /// The task of an attempt.
    ///
    /// # Errors
    /// Where there is no such attempt.
    pub fn task(&self, attempt: AttemptId) -> Result<AttemptSpec, EngineError> {
        read(&self.file(attempt, TASK)).ok_or(EngineError::Unknown(attempt))
    }

    /// A file beside the task, with an ending that the runner chose. The runner removes it in
    /// [`Runner::discarded`]; where no agent came so far, the next one does.
    #[must_use]
    pub fn file(&self, attempt: AttemptId, ending: &str) -> PathBuf {
        self.tasks.join(format!("{attempt}.{ending}"))
    }

    /// Writes down what the runner is told of the task: where it lies and what stands in it, to
    /// be an input of the cage.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn tell(
        &self,
        attempt: AttemptId,
        told: &impl Serialize,
    ) -> Result<(PathBuf, Vec<u8>), EngineError> {
        let file = self.file(attempt, TOLD);
        let text = write(&file, told)?;
        Ok((file, text))
    }

    /// What the runner was told of the task, if it was.
    #[must_use]
    pub fn told<T: DeserializeOwned>(&self, attempt: AttemptId) -> Option<T> {
        read(&self.file(attempt, TOLD))
    }

    /// What the runner wrote into a file of scratch, if it is there and makes sense.
    #[must_use]
    pub fn said<T: DeserializeOwned>(&self, attempt: AttemptId, name: &str) -> Option<T> {
        let file = self.engine.open_in_scratch(attempt, name).ok()?;
        let mut text = Vec::new();
        file.take(RECORD_MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Removes what lies beside and for an attempt.
    fn forget(&self, attempt: AttemptId) {
        for ending in [TASK, TOLD] {
            let _gone_already = fs::remove_file(self.file(attempt, ending));
        }
    }

    /// Removes the files of tasks that `keep` does not want.
    fn sweep(&self, keep: &dyn Fn(&str) -> bool) {
        let entries = fs::read_dir(&self.tasks).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if !keep(&name) {
                let _gone_already = fs::remove_file(&path);
            }
        }
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn write(file: &Path, value: &impl Serialize) -> Result<Vec<u8>, EngineError> {
    let cannot = |error: io::Error| EngineError::io("write down the task", error);
    let text = serde_json::to_vec(value).map_err(|error| cannot(error.into()))?;
    fs::write(file, &text).map_err(cannot)?;
    Ok(text)
}

/// Runs attempts by a runner in a cage. Cheap to share: all clones are one engine.
pub struct Caged<R> {
    runner: Arc<R>,
    cages: Cages,
}

impl<R> Clone for Caged<R> {
    fn clone(&self) -> Self {
        Self {
            runner: Arc::clone(&self.runner),
            cages: self.cages.clone(),
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for Caged<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Caged");
        text.field("runner", &self.runner).finish_non_exhaustive()
    }
}

impl<R: Runner> Caged<R> {
    /// An engine in the directory of its cages. Events are called from its own threads.
    ///
    /// # Errors
    /// As [`ProcessEngine::new`].
    pub fn new(config: R::Config, events: Events) -> Result<Self, EngineError> {
        let (runner, process) = R::new(config, &events);
        let runner = Arc::new(runner);
        let tasks = process.dir.join("tasks");
        fs::create_dir_all(&tasks)
            .map_err(|error| EngineError::io("make the tasks' directory", error))?;
        // The cages keep their listener, so it must not keep them.
        let cages: Arc<OnceLock<Weak<Inner>>> = Arc::default();
        let (known, of, at) = (Arc::clone(&cages), Arc::clone(&runner), tasks.clone());
        let listener: Events = Arc::new(move |event| {
            let inner = known.get().and_then(Weak::upgrade);
            let cages = inner.map(|inner| Cages {
                engine: ProcessEngine {
                    inner,
                    _keeper: None,
                },
                tasks: at.clone(),
            });
            if of.heard(cages.as_ref(), &event) {
                events(translate(&*of, cages.as_ref(), event));
            }
        });
        let engine = ProcessEngine::new(process, listener)?;
        let _first = cages.set(Arc::downgrade(&engine.inner));
        Ok(Self {
            runner,
            cages: Cages { engine, tasks },
        })
    }

    /// The cages around the runners.
    #[must_use]
    pub const fn cages(&self) -> &Cages {
        &self.cages
    }
}

/// An event of the cage as one of the task's.
fn translate<R: Runner>(runner: &R, cages: Option<&Cages>, event: EngineEvent) -> EngineEvent {
    match event {
        EngineEvent::Ended { attempt, ending } => EngineEvent::Ended {
            attempt,
            ending: match cages {
                Some(cages) => Box::new(ending_of(runner, cages, attempt, &ending)),
                None => ending,
            },
        },
        other @ (EngineEvent::Started { .. }
        | EngineEvent::Paused { .. }
        | EngineEvent::Resumed { .. }
        | EngineEvent::Saved { .. }) => other,
    }
}

fn ending_of<R: Runner>(runner: &R, cages: &Cages, attempt: AttemptId, ending: &Ending) -> Ending {
    match cages.task(attempt) {
        Ok(spec) => runner.ending(cages, &spec, ending),
        Err(_) => ending.clone(),
    }
}

impl<R: Runner> Engine for Caged<R> {
    fn kind(&self) -> gleaner_model::Engine {
        R::KIND
    }

    fn probe(&self) -> Vec<Capability> {
        self.runner.probe(&self.cages)
    }

    fn prepares(&self) -> bool {
        self.runner.prepares()
    }

    fn prepare(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        self.runner.prepare(&self.cages, &spec)
    }

    fn is_prepared(&self, attempt: AttemptId) -> bool {
        self.runner.is_prepared(attempt)
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        if self.runner.begin(&self.cages, &spec)? {
            return Ok(());
        }
        let cage = || self.runner.cage(&self.cages, &spec);
        self.cages.start(&spec, cage)
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        self.runner.steered(attempt, control);
        self.cages.engine.control(attempt, control)
    }

    fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        self.cages.engine.place(attempt, cpu);
    }

    fn beat(&self, lease_left_ms: u64) {
        self.cages.engine.beat(lease_left_ms);
    }

    fn hold(&self, on: bool) {
        self.cages.engine.hold(on);
    }

    fn allow(&self, allowance: &Allowance) {
        self.cages.engine.allow(allowance);
    }

    fn reclaim(&self) -> u64 {
        self.runner.reclaim(&self.cages);
        self.cages.engine.reclaim()
    }

    fn memory_now(&self) -> Option<u64> {
        self.cages.engine.memory_now()
    }

    fn group(&self) -> Option<String> {
        self.cages.engine.group()
    }

    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError> {
        self.cages.engine.usage(attempt)
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        self.cages.engine.streams(attempt)
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let spec = self.cages.task(attempt)?;
        self.runner.collect(&self.cages, &spec)
    }

    fn saves(&self) -> Saves {
        self.runner.saves(&self.cages)
    }

    fn guest_price(&self) -> Option<GuestPrice> {
        self.runner.guest_price()
    }

    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        let spec = self.cages.task(attempt)?;
        self.runner.save(&self.cages, &spec, then)
    }

    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let spec = self.cages.task(attempt)?;
        self.runner.saved(&self.cages, &spec)
    }

    fn discard(&self, attempt: AttemptId) {
        self.runner.discards(attempt);
        self.cages.engine.discard(attempt);
        self.runner.discarded(&self.cages, attempt);
        self.cages.forget(attempt);
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        let mut adopted = self.cages.engine.adopt()?;
        adopted.retain(|one| {
            let is_task = self.runner.found(&self.cages, one);
            if !is_task {
                self.cages.engine.discard(one.spec.attempt);
            }
            is_task
        });
        for one in &mut adopted {
            let attempt = one.spec.attempt;
            if let Some(ending) = &mut one.ending {
                **ending = ending_of(&*self.runner, &self.cages, attempt, ending);
                self.runner.found_ended(attempt);
            }
            if let Ok(spec) = self.cages.task(attempt) {
                one.spec = spec;
            }
        }
        let ours: BTreeSet<String> = adopted
            .iter()
            .map(|one| one.spec.attempt.to_string())
            .collect();
        self.cages.sweep(&|name| ours.contains(name));
        Ok(adopted)
    }
}
