//! An engine without processes. What runs in it outlives an agent, as shims do.
//!
//! Programs: `true`, `exit N`, `print TEXT`, `wait` (until it is stopped or [`FakeEngine::end`]),
//! `write NAME BYTES`, `cat` (all inputs, by name, to stdout), `missing` (its output is), `hang` (its
//! start does not come back before [`FakeEngine::go_on`]), `break` (the engine does).

use gleaner_engine::{
    Adopted, AfterSave, AttemptSpec, Capability, CollectedFile, Control, Ending, Engine,
    EngineError, EngineEvent, Events, Saves,
};
use gleaner_model::{AttemptId, CheckpointKind, Reason, Time, Usage};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct FakeEngine {
    dir: tempfile::TempDir,
    state: Mutex<State>,
    /// What was asked of all attempts at once.
    held: Mutex<Option<bool>>,
    hangs: Mutex<bool>,
    goes_on: Condvar,
    kind: gleaner_model::Engine,
    /// Whether its trial may end.
    tried: (Mutex<bool>, Condvar),
    /// How many probes still find something missing.
    faults: Mutex<u32>,
    /// Whether it does things ahead.
    prepares: bool,
    /// What it can save.
    saves: Saves,
    /// Another engine of the same agent.
    beside: Option<Arc<FakeEngine>>,
}

#[derive(Default)]
struct State {
    events: Option<Events>,
    attempts: BTreeMap<AttemptId, Run>,
    starts: Vec<AttemptId>,
    beats: u32,
    /// The processors that attempts were given, and taken, in order.
    placed: Vec<(AttemptId, Option<u32>)>,
    reclaims: u32,
    /// In the order in which they ended.
    ended: Vec<AttemptId>,
    /// What is prepared and was not started.
    prepared: Vec<AttemptId>,
    /// What is being saved, until the test says that it is.
    saving: Vec<AttemptId>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Run {
    spec: AttemptSpec,
    ending: Option<Box<Ending>>,
}

impl FakeEngine {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            state: Mutex::default(),
            held: Mutex::default(),
            hangs: Mutex::default(),
            goes_on: Condvar::new(),
            kind: gleaner_model::Engine::Process,
            tried: (Mutex::new(true), Condvar::new()),
            faults: Mutex::new(0),
            prepares: false,
            saves: Saves::Nothing,
            beside: None,
        }
    }

    /// One that saves the file `state` of its programs while they run.
    pub(super) fn that_saves() -> Self {
        Self {
            saves: Saves::Files,
            ..Self::new()
        }
    }

    /// What is being saved.
    pub(super) fn saving(&self) -> Vec<AttemptId> {
        self.state.lock().unwrap().saving.clone()
    }

    /// What is being saved is saved.
    pub(super) fn save_ends(&self, attempt: AttemptId) {
        fs::write(self.path(attempt, "state"), "so far").unwrap();
        self.state
            .lock()
            .unwrap()
            .saving
            .retain(|other| *other != attempt);
        let outcome = Ok(CheckpointKind::Files);
        self.tell(EngineEvent::Saved { attempt, outcome });
    }

    /// One that does things ahead.
    pub(super) fn that_prepares() -> Self {
        Self {
            prepares: true,
            ..Self::new()
        }
    }

    /// What is prepared and was not started.
    pub(super) fn prepared(&self) -> Vec<AttemptId> {
        self.state.lock().unwrap().prepared.clone()
    }

    /// An engine, and one more that works only once it was told to.
    pub(crate) fn with_late(kind: gleaner_model::Engine) -> (Arc<Self>, Arc<Self>) {
        let late = Arc::new(Self {
            kind,
            tried: (Mutex::new(false), Condvar::new()),
            ..Self::new()
        });
        let first = Self {
            beside: Some(Arc::clone(&late)),
            ..Self::new()
        };
        (Arc::new(first), late)
    }

    /// Its trial ends, and well.
    pub(crate) fn pass(&self) {
        *self.tried.0.lock().unwrap() = true;
        self.tried.1.notify_all();
    }

    /// The next probes find that something is missing.
    pub(crate) fn fail_probes(&self, count: u32) {
        *self.faults.lock().unwrap() = count;
    }

    /// All the engines of an agent that has this one.
    pub(crate) fn all(self: Arc<Self>) -> Vec<Arc<dyn Engine>> {
        let beside = self.beside.clone().map(|engine| engine as Arc<dyn Engine>);
        [self as Arc<dyn Engine>]
            .into_iter()
            .chain(beside)
            .collect()
    }

    /// The agent that hears from now on.
    pub(super) fn hear(&self, events: Events) {
        self.state.lock().unwrap().events = Some(events);
    }

    /// The agent is gone; what happens now, it will find out when it adopts.
    pub(super) fn deafen(&self) {
        self.state.lock().unwrap().events = None;
    }

    /// A `wait` ends well.
    pub(super) fn end(&self, attempt: AttemptId) {
        self.finish(attempt, Reason::Exit { code: 0 });
    }

    pub(super) fn held(&self) -> Option<bool> {
        *self.held.lock().unwrap()
    }

    /// From now on it does not come back from a hold.
    pub(super) fn hang(&self) {
        *self.hangs.lock().unwrap() = true;
    }

    fn wait(&self) {
        let hangs = self.hangs.lock().unwrap();
        drop(self.goes_on.wait_while(hangs, |hangs| *hangs).unwrap());
    }

    pub(super) fn go_on(&self) {
        *self.hangs.lock().unwrap() = false;
        self.goes_on.notify_all();
    }

    pub(super) fn starts(&self) -> Vec<AttemptId> {
        self.state.lock().unwrap().starts.clone()
    }

    pub(super) fn holds(&self) -> usize {
        self.state.lock().unwrap().attempts.len()
    }

    pub(super) fn beats(&self) -> u32 {
        self.state.lock().unwrap().beats
    }

    /// Who was placed where, in this order.
    pub(super) fn placed(&self) -> Vec<(AttemptId, Option<u32>)> {
        self.state.lock().unwrap().placed.clone()
    }

    /// What has ended, in this order.
    pub(super) fn ended(&self) -> Vec<AttemptId> {
        self.state.lock().unwrap().ended.clone()
    }

    /// How often memory was asked back.
    pub(super) fn reclaims(&self) -> u32 {
        self.state.lock().unwrap().reclaims
    }

    /// Adds to what a running attempt has printed.
    pub(super) fn print(&self, attempt: AttemptId, text: &str) {
        let path = self.path(attempt, "stdout");
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn path(&self, attempt: AttemptId, name: &str) -> PathBuf {
        self.dir.path().join(attempt.to_string()).join(name)
    }

    fn tell(&self, event: EngineEvent) {
        let events = self.state.lock().unwrap().events.clone();
        if let Some(events) = events {
            events(event);
        }
    }

    fn finish(&self, attempt: AttemptId, reason: Reason) {
        let ending = Box::new(Ending {
            reason,
            started: Some(Time { ms: 1000 }),
            ended: Time { ms: 3500 },
            wall_seconds: 2.5,
            paused_seconds: 0.5,
            usage: Usage {
                cpu_seconds: 1.25,
                ..Usage::default()
            },
            limits: Vec::new(),
            refused_calls: BTreeMap::new(),
            degraded: Vec::new(),
        });
        let mut state = self.state.lock().unwrap();
        match state.attempts.get_mut(&attempt) {
            Some(run) if run.ending.is_none() => run.ending = Some(ending.clone()),
            _ => return,
        }
        state.ended.push(attempt);
        drop(state);
        self.tell(EngineEvent::Ended { attempt, ending });
    }

    fn run(&self, spec: &AttemptSpec) -> Result<Option<Reason>, String> {
        let attempt = spec.attempt;
        for input in &spec.inputs {
            let content = fs::read(&input.source).map_err(|error| error.to_string())?;
            if blake3::hash(&content).as_bytes() != &input.digest.0 {
                let detail = format!("{} is not what it should be", input.name);
                return Ok(Some(Reason::Integrity { detail }));
            }
        }
        let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
        let code = match words[..] {
            ["true"] => 0,
            ["exit", code] => code.parse().unwrap(),
            ["print", text] => {
                self.print(attempt, text);
                0
            }
            ["write", name, bytes] => {
                let content = vec![b'x'; bytes.parse().unwrap()];
                fs::write(self.path(attempt, name), content).unwrap();
                0
            }
            ["cat"] => {
                let mut inputs = spec.inputs.clone();
                inputs.sort_by(|a, b| a.name.cmp(&b.name));
                for input in inputs {
                    let content = fs::read_to_string(&input.source).unwrap();
                    self.print(attempt, &format!("{}={content};", input.name));
                }
                0
            }
            ["wait"] => return Ok(None),
            ["missing"] => 0,
            ["hang"] => {
                self.hang();
                self.wait();
                0
            }
            ["break"] => panic!("told to"),
            _ => 127,
        };
        Ok(Some(Reason::Exit { code }))
    }
}

impl Engine for FakeEngine {
    fn kind(&self) -> gleaner_model::Engine {
        self.kind
    }

    fn probe(&self) -> Vec<Capability> {
        let (tried, changed) = &self.tried;
        let waiting = changed.wait_while(tried.lock().unwrap(), |tried| !*tried);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        let mut faults = self.faults.lock().unwrap();
        if *faults == 0 {
            return Vec::new();
        }
        *faults -= 1;
        vec![Capability {
            name: "trial".to_owned(),
            level: gleaner_engine::Level::Missing,
            found: "too busy".to_owned(),
            fix: None,
        }]
    }

    fn prepares(&self) -> bool {
        self.prepares
    }

    fn prepare(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        self.state.lock().unwrap().prepared.push(spec.attempt);
        Ok(())
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        fs::create_dir(self.dir.path().join(attempt.to_string())).unwrap();
        for name in ["stdout", "stderr"] {
            File::create(self.path(attempt, name)).unwrap();
        }
        let mut state = self.state.lock().unwrap();
        state.prepared.retain(|other| *other != attempt);
        state.starts.push(attempt);
        let run = Run {
            spec: spec.clone(),
            ending: None,
        };
        assert!(
            state.attempts.insert(attempt, run).is_none(),
            "{attempt} started twice"
        );
        drop(state);
        self.tell(EngineEvent::Started {
            attempt,
            at: Time { ms: 1000 },
        });
        match self.run(&spec) {
            Ok(None) => {}
            Ok(Some(reason)) => self.finish(attempt, reason),
            Err(detail) => self.finish(attempt, Reason::Engine { detail }),
        }
        Ok(())
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        match control {
            Control::Pause => self.tell(EngineEvent::Paused { attempt }),
            Control::Resume => self.tell(EngineEvent::Resumed { attempt }),
            Control::Slow { .. } => {}
            Control::Stop { .. } => self.finish(attempt, Reason::Cancelled),
        }
        Ok(())
    }

    fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        self.state.lock().unwrap().placed.push((attempt, cpu));
    }

    fn beat(&self, lease_left_ms: u64) {
        assert!(lease_left_ms > 0);
        self.state.lock().unwrap().beats += 1;
    }

    fn hold(&self, on: bool) {
        self.wait();
        *self.held.lock().unwrap() = Some(on);
    }

    fn reclaim(&self) -> u64 {
        self.state.lock().unwrap().reclaims += 1;
        0
    }

    fn usage(&self, _attempt: AttemptId) -> Result<Usage, EngineError> {
        Ok(Usage::default())
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        let open =
            |name| File::open(self.path(attempt, name)).map_err(|_| EngineError::Unknown(attempt));
        Ok([open("stdout")?, open("stderr")?])
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let run = self.state.lock().unwrap().attempts.get(&attempt).cloned();
        let run = run.ok_or(EngineError::Unknown(attempt))?;
        let names = ["stdout", "stderr"].into_iter().map(str::to_owned);
        names
            .chain(run.spec.outputs)
            .map(|name| {
                let file = File::open(self.path(attempt, &name));
                let file = file.map_err(|_| EngineError::Output {
                    name: name.clone(),
                    problem: "is missing".to_owned(),
                })?;
                let size = file.metadata().unwrap().len();
                Ok(CollectedFile {
                    name,
                    file,
                    size,
                    mode: 0o644,
                })
            })
            .collect()
    }

    fn saves(&self) -> Saves {
        self.saves.clone()
    }

    fn save(&self, attempt: AttemptId, _then: AfterSave) -> Result<(), EngineError> {
        self.state.lock().unwrap().saving.push(attempt);
        Ok(())
    }

    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let file = File::open(self.path(attempt, "state"));
        let file = file.map_err(|_| EngineError::Unknown(attempt))?;
        Ok(vec![CollectedFile {
            name: "state".to_owned(),
            size: file.metadata().unwrap().len(),
            file,
            mode: 0o644,
        }])
    }

    fn discard(&self, attempt: AttemptId) {
        let mut state = self.state.lock().unwrap();
        state.prepared.retain(|other| *other != attempt);
        if state.attempts.remove(&attempt).is_none() && self.prepares {
            return;
        }
        drop(state);
        fs::remove_dir_all(self.dir.path().join(attempt.to_string())).unwrap();
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        let state = self.state.lock().unwrap();
        let adopted = state.attempts.values().map(|run| Adopted {
            spec: run.spec.clone(),
            started: Some(Time { ms: 1000 }),
            ending: run.ending.clone(),
        });
        Ok(adopted.collect())
    }
}
