//! The tasks as the benchmark steers them: in our engine, or as a peer's daemon would run them.
//! All of them live as long as the benchmark and are frozen outside their segments.

use super::Stop;
use super::leftovers;
use super::plan::{Kind, Rule};
use super::proc;
use super::work::{Lowered, NAME, Record, TOUCHED_BYTES, task_args};
use crate::{BenchError, Doing as _};
use gleaner_engine::{
    Allowance, AttemptSpec, Control, Engine as _, EngineEvent, InputFile, Saving,
};
use gleaner_engine_process::cgroup::Backend;
use gleaner_engine_process::priority::{Place, Stand};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, own_processors};
use gleaner_harvest::places::spread;
use gleaner_harvest::thresholds::IO_PRESENT;
use gleaner_model::{AttemptId, Bytes, Cpus, Digest, JobId, LeaseId, Limits, TaskId};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a task to start, freeze, thaw or end. A busy PC keeps idle tasks waiting.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Time between two beats to the shims; they freeze their tasks when three are missing.
const BEAT: Duration = Duration::from_millis(500);
/// What a beat says of the lease: a benchmark that was killed leaves nothing for longer.
const LEASE_MS: u64 = 10_000;
/// How long the engine may take to let go of its shims and groups.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);
/// All tasks are one bundle: one shim.
const BUNDLE: LeaseId = LeaseId(1);

/// Our engine with tasks of each kind.
#[derive(Debug)]
pub(crate) struct Ours {
    engine: ProcessEngine,
    events: Mutex<Receiver<EngineEvent>>,
    tasks: BTreeMap<Kind, Vec<AttemptId>>,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Ours {
    /// An engine in `dir` with a group of its own beside that of an agent.
    pub(crate) fn new(program: &Path, dir: &Path) -> Result<Self, BenchError> {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let sink = Arc::new(move |event| {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            // The benchmark may have ended before its last shim.
            let _ended = sender.send(event);
        });
        let config = ProcessConfig {
            executable: Some(program.to_path_buf()),
            group_parent: leftovers::own_name(),
            ..ProcessConfig::new(dir.join("engine"))
        };
        let engine = ProcessEngine::new(config, sink)
            .map_err(|problem| BenchError::Broken(problem.to_string()))?;
        leftovers::sweep_groups(engine.backend());
        let (stop, stopped) = channel();
        let beaten = engine.clone();
        let thread = std::thread::spawn(move || {
            while stopped
                .recv_timeout(BEAT)
                .is_err_and(|end| end == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                beaten.beat(LEASE_MS);
            }
        });
        Ok(Self {
            engine,
            events: Mutex::new(events),
            tasks: BTreeMap::new(),
            beat: Some((stop, thread)),
        })
    }

    pub(crate) fn backend(&self) -> &Backend {
        self.engine.backend()
    }

    /// Starts a task of this kind for each CPU and freezes them.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        program: &Path,
        stop: &Stop,
    ) -> Result<(), BenchError> {
        let bytes = fs::read(program).doing("read the program")?;
        let input = InputFile {
            name: NAME.to_owned(),
            source: program.to_path_buf(),
            digest: Digest(*blake3::hash(&bytes).as_bytes()),
            mode: 0o755,
        };
        let mut attempts = Vec::new();
        for _ in 0..proc::cpus() {
            let number = self.tasks.values().map(Vec::len).sum::<usize>() + attempts.len();
            let mut command = vec![format!("./{NAME}")];
            command.extend(task_args(kind, Lowered::No));
            let attempt = AttemptId {
                task: TaskId::new(JobId(1), u32::try_from(number).unwrap_or(0)),
                number: 1,
            };
            attempts.push(attempt);
            let spec = AttemptSpec {
                attempt,
                bundle: BUNDLE,
                command,
                deterministic: false,
                env: BTreeMap::new(),
                stdin: None,
                image: None,
                inputs: vec![input.clone()],
                outputs: Vec::new(),
                limits: Limits {
                    memory: Bytes(1 << 30),
                    ..Limits::default()
                },
                saving: Saving::default(),
            };
            self.engine.start(spec).map_err(broken)?;
        }
        self.tasks.insert(kind, attempts);
        self.until(&[kind], stop, |event| {
            let EngineEvent::Started { attempt, .. } = event else {
                return None;
            };
            Some(*attempt)
        })?;
        self.place(kind);
        // Its memory is touched and its first record written before it is frozen.
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut outputs = self.outputs(kind)?;
        while outputs.iter_mut().any(|file| Record::read(file).is_none()) {
            stop.check()?;
            if Instant::now() > deadline {
                return Err(BenchError::Broken(format!("no {kind} task gets on")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pause(&[kind], stop)
    }

    /// Gives each task of a kind a processor, as an agent does with tasks that fill the PC. Those
    /// that mostly wait for a disk do not, and an agent would soon have let them go.
    fn place(&self, kind: Kind) {
        if kind == Kind::Disk {
            return;
        }
        let asked = self.of(&[kind]).into_iter();
        let asked = asked.map(|attempt| (attempt, Cpus::ONE)).collect();
        for (attempt, cpu) in spread(&own_processors(), &asked, &BTreeMap::new()) {
            self.engine.place(attempt, Some(cpu));
        }
    }

    /// Where the tasks tell their progress.
    pub(crate) fn outputs(&self, kind: Kind) -> Result<Vec<File>, BenchError> {
        let attempts = self.tasks.get(&kind).into_iter().flatten();
        attempts
            .map(|attempt| {
                let [stdout, _] = self.engine.streams(*attempt).map_err(broken)?;
                Ok(stdout)
            })
            .collect()
    }

    /// Freezes all tasks of these kinds and waits until they are.
    pub(crate) fn pause(&self, kinds: &[Kind], stop: &Stop) -> Result<(), BenchError> {
        self.steer(kinds, Control::Pause)?;
        self.until(kinds, stop, |event| {
            let EngineEvent::Paused { attempt } = event else {
                return None;
            };
            Some(*attempt)
        })
    }

    /// Freezes everything at once, as for an owner who has just come, or takes that back.
    pub(crate) fn hold(&self, on: bool) {
        self.engine.hold(on);
    }

    /// Bounds the tasks' disk rate as an agent does while its owner is at the PC, or not at all.
    /// The bound acts within the part of a segment that is not counted.
    pub(crate) fn allow(&self, owner_near: bool) {
        self.engine.allow(&Allowance {
            cpus: Cpus {
                milli: u32::try_from(proc::cpus() * 1000).unwrap_or(u32::MAX),
            },
            io_permille: if owner_near { IO_PRESENT } else { 1000 },
            memory: None,
        });
    }

    /// Lets them run again.
    pub(crate) fn resume(&self, kinds: &[Kind], stop: &Stop) -> Result<(), BenchError> {
        self.steer(kinds, Control::Resume)?;
        self.until(kinds, stop, |event| {
            let EngineEvent::Resumed { attempt } = event else {
                return None;
            };
            Some(*attempt)
        })
    }

    fn of(&self, kinds: &[Kind]) -> BTreeSet<AttemptId> {
        let kinds = kinds.iter().filter_map(|kind| self.tasks.get(kind));
        kinds.flatten().copied().collect()
    }

    fn steer(&self, kinds: &[Kind], control: Control) -> Result<(), BenchError> {
        let mut attempts = self.of(kinds).into_iter();
        attempts.try_for_each(|attempt| self.engine.control(attempt, control).map_err(broken))
    }

    /// Waits until `wanted` was heard of every task of these kinds.
    fn until(
        &self,
        kinds: &[Kind],
        stop: &Stop,
        wanted: fn(&EngineEvent) -> Option<AttemptId>,
    ) -> Result<(), BenchError> {
        let mut missing = self.of(kinds);
        let deadline = Instant::now() + ANSWER_WITHIN;
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while !missing.is_empty() {
            stop.check()?;
            let Ok(event) = events.recv_timeout(Duration::from_millis(100)) else {
                if Instant::now() > deadline {
                    return Err(BenchError::Broken("a task does not answer".to_owned()));
                }
                continue;
            };
            if let EngineEvent::Ended { attempt, ending } = &event {
                let reason = &ending.reason;
                return Err(BenchError::Broken(format!(
                    "task {attempt} ended: {reason}"
                )));
            }
            if let Some(attempt) = wanted(&event) {
                missing.remove(&attempt);
            }
        }
        Ok(())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for attempt in self.of(Kind::ALL) {
            self.engine.discard(attempt);
        }
        // The shim goes some seconds after its last task, and its groups with it.
        let backend = self.engine.backend().clone();
        let end = Instant::now() + CLEAN_WITHIN;
        while backend.remove_parent().is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some((stop, thread)) = self.beat.take() {
            drop(stop);
            let _ended = thread.join();
        }
    }
}

fn broken(error: gleaner_engine::EngineError) -> BenchError {
    BenchError::Broken(error.to_string())
}

/// Tasks as the peers' daemons run them: no sandbox, a session of their own.
#[derive(Debug)]
pub(crate) struct Peers {
    dir: PathBuf,
    tasks: BTreeMap<(Kind, Manner), Vec<Peer>>,
    // After the tasks, so that it is removed when they are gone.
    place: Place,
}

/// How a peer lowers its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Manner {
    Nice19,
    SchedIdle,
}

impl Manner {
    /// What a rule needs; none where it needs no processes of its own.
    pub(crate) const fn of(rule: Rule) -> Option<Self> {
        match rule {
            Rule::Nice19 => Some(Self::Nice19),
            // BOINC's tasks are SCHED_IDLE and its rule comes on top.
            Rule::SchedIdle | Rule::Boinc => Some(Self::SchedIdle),
            // HTCondor's never run beside an owner.
            Rule::Gleaner | Rule::Condor => None,
        }
    }

    const fn lowered(self) -> Lowered {
        match self {
            Self::Nice19 => Lowered::Nice19,
            Self::SchedIdle => Lowered::SchedIdle,
        }
    }
}

#[derive(Debug)]
struct Peer {
    child: Child,
    output: PathBuf,
}

impl Peer {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Peers {
    /// None yet; their files go to `dir`.
    pub(crate) fn new(dir: &Path, program: &Path) -> Result<Self, BenchError> {
        let dir = dir.join("peers");
        fs::create_dir_all(&dir).doing("make a directory for peers")?;
        symlink(program, dir.join(NAME)).doing("name a peer's task")?;
        Ok(Self {
            dir,
            tasks: BTreeMap::new(),
            place: Place::new(Stand::Daemon),
        })
    }

    /// Starts a task for each CPU and stops them.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        manner: Manner,
        backend: &Backend,
        stop: &Stop,
    ) -> Result<(), BenchError> {
        if self.tasks.contains_key(&(kind, manner)) {
            return Ok(());
        }
        let needed = (TOUCHED_BYTES * proc::cpus()) as u64;
        if kind == Kind::Memory && proc::available_bytes() < 2 * needed {
            return Err(BenchError::Broken(format!(
                "{} more memory-touching tasks do not fit into memory; choose --rules gleaner",
                proc::cpus()
            )));
        }
        let mut peers = Vec::new();
        for number in 0..proc::cpus() {
            let output = self.dir.join(format!("{kind}-{manner:?}-{number}"));
            let child = Command::new(self.dir.join(NAME))
                .args(task_args(kind, manner.lowered()))
                .current_dir(&self.dir)
                .stdin(Stdio::null())
                .stdout(File::create(&output).doing("make a peer's output")?)
                .stderr(Stdio::null())
                .spawn()
                .doing("start a peer's task")?;
            peers.push(Peer { child, output });
        }
        let pids: Vec<i32> = peers
            .iter()
            .map(|peer| peer.pid().as_raw_nonzero().get())
            .collect();
        self.place.put(backend, &pids);
        self.tasks.insert((kind, manner), peers);
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut outputs = self.outputs(kind, manner)?;
        while outputs.iter_mut().any(|file| Record::read(file).is_none()) {
            stop.check()?;
            if Instant::now() > deadline {
                return Err(BenchError::Broken(format!(
                    "no {kind} task of a peer gets on"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pause(kind, manner)
    }

    pub(crate) fn outputs(&self, kind: Kind, manner: Manner) -> Result<Vec<File>, BenchError> {
        let peers = self.tasks.get(&(kind, manner)).into_iter().flatten();
        peers
            .map(|peer| File::open(&peer.output).doing("open a peer's output"))
            .collect()
    }

    pub(crate) fn resume(&self, kind: Kind, manner: Manner) -> Result<(), BenchError> {
        self.signal(kind, manner, Signal::CONT)
    }

    /// Stops them and waits until they have stopped.
    pub(crate) fn pause(&self, kind: Kind, manner: Manner) -> Result<(), BenchError> {
        self.signal(kind, manner, Signal::STOP)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut peers = self.tasks.get(&(kind, manner)).into_iter().flatten();
        let stopped = peers.all(|peer| {
            let pid = peer.pid().as_raw_nonzero().get();
            while !proc::is_stopped(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            proc::is_stopped(pid)
        });
        match stopped {
            true => Ok(()),
            false => Err(BenchError::Broken("a peer's task does not stop".to_owned())),
        }
    }

    fn signal(&self, kind: Kind, manner: Manner, signal: Signal) -> Result<(), BenchError> {
        let mut peers = self.tasks.get(&(kind, manner)).into_iter().flatten();
        peers.try_for_each(|peer| kill_process(peer.pid(), signal).doing("steer a peer's task"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for peer in self.tasks.values_mut().flatten() {
            let _gone = peer.child.kill();
            let _reaped = peer.child.wait();
        }
    }
}
