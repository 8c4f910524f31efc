//! The agent's side of the engine: which attempt is in which bundle, and what became of it.
//!
//! It owns the engine's directory, one [`link::Link`] a bundle and the list of attempts. It
//! never clones or limits anything itself: the agent has many threads, and whatever can go
//! wrong with a task goes wrong in its shim. It must not know what an attempt is for.

pub(crate) mod adopt;
mod below;
mod config;
mod device;
mod discard;
pub(crate) mod link;
mod new;
pub(crate) mod nursery;
mod save;
pub(crate) mod spare;
mod steer;
pub(crate) mod uids;

use crate::bundle::{self, Bay, Bundle, GuestNeeds, private_dir};
use crate::cage::UIDS_OF_BUNDLE;
use crate::cgroup::{Backend, Claim, DetectOptions};
use crate::collect;
use crate::message::{FromShim, Share, ToShim, buffer};
use crate::probe::{ProbeOptions, probe};
pub use config::{ProcessConfig, TRIAL_BEAT, TRIAL_LEASE_MS, domain_name};
use discard::Rubbish;
use gleaner_engine::{
    Adopted, AfterSave, Allowance, AttemptSpec, Capability, CollectedFile, Control, Ending, Engine,
    EngineError, EngineEvent, Events, Saves,
};
use gleaner_model::{AttemptId, CheckpointKind, JobId, LeaseId, Reason, Usage};
use link::Link;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use steer::Order;

/// How long a shim without attempts is kept for the next task of its bundle.
const KEEP_IDLE: Duration = Duration::from_secs(5);

/// Attempts that one shim is given; then the job gets another, so that its journal stays small.
const GIVEN_MAX: u32 = 4096;

/// Room for the bundles of one millisecond, in bits.
const FRESH_SHIFT: u32 = 16;

/// How long a shim may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What is taken for a lease before the first beat.
const FIRST_LEASE: Duration = Duration::from_secs(30);

/// Runs attempts as confined processes. Cheap to share: all clones are one engine.
#[derive(Clone)]
pub struct ProcessEngine {
    pub(crate) inner: Arc<Inner>,
    /// Lets the spare shim go when nobody has the engine any more; none in a handle of a moment.
    pub(crate) _keeper: Option<Arc<spare::Keeper>>,
}

impl fmt::Debug for ProcessEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessEngine")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    config: ProcessConfig,
    executable: PathBuf,
    nursery: nursery::Nursery,
    /// Ids that bundles are given blocks of; none where we are a plain user.
    uids: Option<Range<u32>>,
    /// What our groups' names begin with (others are not ours to sweep), and where they lie.
    tag: String,
    domain: String,
    backend: Backend,
    /// While it is held nobody takes the agent's part of the groups for a dead one's.
    _claim: Option<Claim>,
    /// What each attempt may have now.
    share: Mutex<Share>,
    /// What guests in cages made from now on need.
    needs: Mutex<GuestNeeds>,
    /// What all shims are to be told.
    steer: mpsc::Sender<Order>,
    /// Asks for a spare shim.
    spares: mpsc::Sender<()>,
    events: Events,
    state: Mutex<State>,
    questions: Mutex<BTreeMap<u64, mpsc::Sender<Option<Usage>>>>,
    next_question: AtomicU64,
    /// Names of bundles of one attempt; far above every lease, and never one of an earlier agent.
    next_fresh: AtomicU64,
    rubbish: mpsc::Sender<Rubbish>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<LeaseId, Linked>,
    /// Shims that were told to quit, or died, until nothing of them is left: their names, ids
    /// and directories are nobody else's so long.
    leaving: Vec<Arc<Link>>,
    /// The shim that was made ahead; among the links too.
    spare: Option<spare::Spare>,
    /// Nobody has the engine any more: none is made.
    no_spares: bool,
    attempts: BTreeMap<AttemptId, Entry>,
}

impl State {
    /// Whether a bundle of this name still has a shim, attempts or a directory.
    fn is_taken(&self, lease: LeaseId) -> bool {
        let attempt = |entry: &Entry| entry.bundle.lease == lease;
        self.links.contains_key(&lease)
            || self.leaving.iter().any(|link| link.bundle.lease == lease)
            || self.attempts.values().any(attempt)
    }

    /// Gives a shim nothing more to do; the caller tells it to quit.
    fn let_go(&mut self, lease: LeaseId) -> Option<Arc<Link>> {
        let link = self.links.remove(&lease)?.link;
        self.leaving.push(Arc::clone(&link));
        Some(link)
    }
}

struct Linked {
    link: Arc<Link>,
    /// Whose attempts it runs; none of an adopted one, which gets no new ones but its lease's.
    job: Option<JobId>,
    idle_since: Option<Instant>,
    /// Attempts that it was given so far.
    given: u32,
    /// Bays that an attempt had and nobody has now.
    free: Vec<Bay>,
    /// The first bay that nobody has had.
    next: Bay,
    discarded: File,
}

impl Linked {
    fn bay(&mut self) -> Bay {
        self.idle_since = None;
        self.given += 1;
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// One attempt that has not been discarded.
struct Entry {
    bundle: Arc<Bundle>,
    bay: Bay,
    /// Somebody may read the streams still when it is discarded.
    shown: bool,
    outputs: Vec<String>,
    /// Patterns of the files by which it saves itself.
    saves: Vec<String>,
    output_max: u64,
    ended: Option<Usage>,
    /// The agent has no more use for it; it goes when it has ended.
    unwanted: bool,
}

impl ProcessEngine {
    /// An engine in `config.dir`. Events are called from its own threads.
    ///
    /// # Errors
    /// Where the directory cannot be made, this program cannot be found on disk, or root has no
    /// user ids to give to tasks.
    pub fn new(config: ProcessConfig, events: Events) -> Result<Self, EngineError> {
        let dir = &config.dir;
        private_dir(&dir.join("bundles"))
            .map_err(|error| EngineError::io("make the engine's directory", error))?;
        let dir = dir
            .canonicalize()
            .map_err(|error| EngineError::io("find the engine's directory", error))?;
        let executable = match &config.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .map_err(|error| EngineError::io("find this program", error))?,
        };
        let uids =
            if rustix::process::geteuid().is_root() {
                let range = config.uid_range.clone().or_else(uids::default_range);
                let range =
                    range.filter(|range| range.start > 0 && range.len() >= UIDS_OF_BUNDLE as usize);
                let none = "no user ids are free for tasks; name at least 65 with --uid-range";
                Some(range.ok_or_else(|| {
                    EngineError::io("choose user ids", std::io::Error::other(none))
                })?)
            } else {
                None
            };
        let tag = config::tag(&dir);
        let domain = config.domain.clone();
        let domain = domain.unwrap_or_else(|| domain_name(&dir));
        let options = DetectOptions {
            parent_name: config.group_parent.clone(),
            domain: Some(domain.clone()),
            ..DetectOptions::default()
        };
        let (rubbish, removed) = mpsc::channel::<Rubbish>();
        let (backend, claim) = Backend::settle(&options);
        // An agent that was killed may have left everything held.
        if let Err(error) = backend.hold(false) {
            tracing::warn!(%error, "tasks of an earlier agent stay frozen");
        }
        let (steer, orders) = mpsc::channel::<Order>();
        let (spares, wanted) = mpsc::channel();
        let inner = Inner {
            config: ProcessConfig { dir, ..config },
            executable,
            nursery: nursery::Nursery::default(),
            uids,
            tag,
            domain,
            backend,
            _claim: claim,
            share: Mutex::default(),
            needs: Mutex::default(),
            steer,
            spares,
            events,
            state: Mutex::default(),
            questions: Mutex::default(),
            next_question: AtomicU64::new(0),
            next_fresh: AtomicU64::new(crate::log::now().ms << FRESH_SHIFT),
            rubbish,
        };
        let inner = Arc::new(inner);
        discard::remove_in_background(&inner, removed);
        steer::listen(&inner, orders);
        let keeper = spare::Keeper::new(&inner, wanted);
        Ok(Self {
            inner,
            _keeper: Some(Arc::new(keeper)),
        })
    }

    /// How groups of tasks are made here, for the self-test of idle priority.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    /// What guests need of cages that are made from now on.
    pub fn set_guest_needs(&self, needs: GuestNeeds) {
        *self.inner.needs() = needs;
    }
}

impl Inner {
    /// Nothing panics while it holds the lock, so what is behind it is always whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn needs(&self) -> MutexGuard<'_, GuestNeeds> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundles(&self) -> PathBuf {
        self.config.dir.join("bundles")
    }

    fn group_prefix(&self, lease: LeaseId) -> String {
        format!("{}-{lease}", self.tag)
    }

    fn listen<'a>(
        self: &Arc<Self>,
        link: Arc<Link>,
        adopted: bool,
        state: &'a mut State,
    ) -> Result<&'a mut Linked, EngineError> {
        let discarded = bundle::open_lines(&link.bundle.discarded());
        let discarded =
            discarded.map_err(|error| EngineError::io("open a bundle's list", error))?;
        self.greet(&link, adopted);
        let linked = Linked {
            link: Arc::clone(&link),
            job: None,
            idle_since: None,
            given: 0,
            free: Vec::new(),
            next: 0,
            discarded,
        };
        let lease = link.bundle.lease;
        let inner = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = buffer();
            while let Some(message) = link.receive(&mut buffer) {
                inner.heard(message);
            }
            inner.lost(&link);
        });
        state.links.insert(lease, linked);
        let found = state.links.get_mut(&lease);
        found.ok_or_else(|| EngineError::io("find a bundle", std::io::ErrorKind::NotFound))
    }

    fn heard(&self, message: FromShim) {
        match message {
            FromShim::Started { attempt, at } => {
                (self.events)(EngineEvent::Started { attempt, at });
            }
            FromShim::Paused { attempt } => (self.events)(EngineEvent::Paused { attempt }),
            FromShim::Resumed { attempt } => (self.events)(EngineEvent::Resumed { attempt }),
            FromShim::Saved { attempt, error } => {
                let outcome = error.map_or(Ok(CheckpointKind::Files), Err);
                (self.events)(EngineEvent::Saved { attempt, outcome });
            }
            FromShim::Ended { attempt, ending } => self.ended(attempt, ending),
            FromShim::Usage { ask, usage } => {
                let mut questions = self
                    .questions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(asker) = questions.remove(&ask) {
                    let _gave_up = asker.send(usage);
                }
            }
            FromShim::Running(_) => {}
        }
    }

    fn ended(&self, attempt: AttemptId, ending: Box<Ending>) {
        let unwanted = {
            let mut state = self.state();
            self.want_spare(&state);
            let entry = state.attempts.get_mut(&attempt);
            entry.is_some_and(|entry| {
                entry.ended = Some(ending.usage);
                entry.unwanted
            })
        };
        (self.events)(EngineEvent::Ended { attempt, ending });
        if unwanted {
            self.discard(attempt);
        }
    }

    /// The shim is gone: what it had not ended is lost, its groups are swept.
    fn lost(&self, link: &Arc<Link>) {
        let lease = link.bundle.lease;
        let orphans: Vec<AttemptId> = {
            let mut state = self.state();
            state.let_go(lease);
            let ours = |entry: &Entry| entry.bundle.lease == lease && entry.ended.is_none();
            let all = state.attempts.iter().filter(|(_, entry)| ours(entry));
            all.map(|(attempt, _)| *attempt).collect()
        };
        let prefix = format!("{}-", link.bundle.group_prefix);
        self.backend.sweep_stale(&|name| !name.starts_with(&prefix));
        let mut past = match orphans.is_empty() {
            true => BTreeMap::new(),
            false => bundle::past(&link.bundle),
        };
        for attempt in orphans {
            // It may have written the result and died before it could say so.
            let ending = past.remove(&attempt).and_then(|past| past.ending);
            let ending = ending.unwrap_or_else(|| {
                adopt::lost_ending(
                    "the shim that ran it was killed or could not start; see shim.log",
                )
            });
            self.ended(attempt, Box::new(ending));
        }
        let mut state = self.state();
        state.leaving.retain(|left| !Arc::ptr_eq(left, link));
        self.remove_if_unused(&state, &link.bundle);
    }

    /// The link of an attempt that runs; none where it has ended.
    fn link_of(&self, attempt: AttemptId) -> Result<Option<Arc<Link>>, EngineError> {
        let state = self.state();
        let entry = state
            .attempts
            .get(&attempt)
            .ok_or(EngineError::Unknown(attempt))?;
        if entry.ended.is_some() {
            return Ok(None);
        }
        let linked = state.links.get(&entry.bundle.lease);
        Ok(linked.map(|linked| Arc::clone(&linked.link)))
    }

    /// Directory of the streams, for somebody who may read them for long.
    fn show(&self, attempt: AttemptId) -> Result<PathBuf, EngineError> {
        let mut state = self.state();
        let entry = state
            .attempts
            .get_mut(&attempt)
            .ok_or(EngineError::Unknown(attempt))?;
        entry.shown = true;
        Ok(entry.bundle.run(entry.bay))
    }
}

impl Engine for ProcessEngine {
    fn kind(&self) -> gleaner_model::Engine {
        gleaner_model::Engine::Process
    }

    fn probe(&self) -> Vec<Capability> {
        let uids = self.inner.uids.as_ref();
        let options = ProbeOptions {
            scratch: self.inner.config.dir.clone(),
            uid_range: uids.map(|range| (range.start, range.end - 1)),
            self_test: None,
        };
        probe(&self.inner.backend, &options)
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        let (link, bay) = {
            let mut state = self.inner.state();
            if state.attempts.contains_key(&attempt) {
                return Ok(());
            }
            let (link, bay) = self.inner.link(&spec, &mut state)?;
            let entry = Entry {
                bundle: Arc::clone(&link.bundle),
                bay,
                shown: false,
                outputs: spec.outputs.clone(),
                saves: spec.saving.files.clone(),
                output_max: spec.limits.output.0,
                ended: None,
                unwanted: false,
            };
            state.attempts.insert(attempt, entry);
            (link, bay)
        };
        // A shim that has just died says so by its end, and the attempt is reported lost.
        let spec = Box::new(spec);
        if let Err(error) = link.send(&ToShim::Start { bay, spec }) {
            tracing::warn!(%attempt, %error, "a shim does not take orders");
            link.hang_up();
        }
        Ok(())
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        self.inner.control(attempt, control)
    }

    fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        self.inner.place(attempt, cpu);
    }

    fn beat(&self, lease_left_ms: u64) {
        self.inner.retire_idle(KEEP_IDLE);
        let links = self.inner.state();
        let links: Vec<_> = links
            .links
            .values()
            .map(|linked| Arc::clone(&linked.link))
            .collect();
        for link in links {
            // One that does not take it will freeze its attempts, as it should.
            let _hangs = link.send(&ToShim::Beat { lease_left_ms });
        }
    }

    fn hold(&self, on: bool) {
        self.inner.hold(on);
    }

    fn allow(&self, allowance: &Allowance) {
        self.inner.allow(allowance);
    }

    fn reclaim(&self) -> u64 {
        self.inner.backend.reclaim()
    }

    fn memory_now(&self) -> Option<u64> {
        self.inner.backend.memory_now()
    }

    fn group(&self) -> Option<String> {
        self.inner.backend.domain()
    }

    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError> {
        let ended = |usage: Option<Usage>| usage.ok_or(EngineError::Unknown(attempt));
        let Some(link) = self.inner.link_of(attempt)? else {
            return ended(
                self.inner
                    .state()
                    .attempts
                    .get(&attempt)
                    .and_then(|entry| entry.ended),
            );
        };
        let ask = self.inner.next_question.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = mpsc::channel();
        let questions = || {
            self.inner
                .questions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        questions().insert(ask, asker);
        let sent = link.send(&ToShim::Usage { attempt, ask });
        let answer = sent.and_then(|()| {
            let late = |_| std::io::ErrorKind::TimedOut.into();
            answer.recv_timeout(ANSWER_WAIT).map_err(late)
        });
        questions().remove(&ask);
        match answer.map_err(|error| EngineError::io("ask a shim", error))? {
            Some(usage) => Ok(usage),
            // It ended while we asked.
            None => ended(
                self.inner
                    .state()
                    .attempts
                    .get(&attempt)
                    .and_then(|entry| entry.ended),
            ),
        }
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        let run = self.inner.show(attempt)?;
        let open = |name: &str| {
            File::open(run.join(name)).map_err(|error| EngineError::io("open a stream", error))
        };
        Ok([open("stdout")?, open("stderr")?])
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let (scratch, run, outputs, max) = {
            let state = self.inner.state();
            let entry = state
                .attempts
                .get(&attempt)
                .ok_or(EngineError::Unknown(attempt))?;
            (
                entry.bundle.scratch(entry.bay),
                entry.bundle.run(entry.bay),
                entry.outputs.clone(),
                entry.output_max,
            )
        };
        collect::collect(&collect::Top::whole(&scratch), &run, &outputs, max)
    }

    fn saves(&self) -> Saves {
        Saves::Files
    }

    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        self.inner.save(attempt, then)
    }

    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        self.inner.saved(attempt)
    }

    fn discard(&self, attempt: AttemptId) {
        self.inner.discard(attempt);
        let running = self.inner.link_of(attempt);
        if let Ok(Some(link)) = running {
            let control = Control::Stop { grace_ms: 0 };
            let _gone = link.send(&ToShim::Control { attempt, control });
        }
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        adopt::adopt(&self.inner)
    }
}
