//! The suite that every engine passes: the same programs, the same results, the same refusals.
//!
//! An engine's tests make a [`Bench`] and put every one of [`all_cases`] through it. A case panics
//! where the engine breaks its promise. Programs are scripts for the sandbox's `/bin/sh` with
//! what every userland has, so a case needs nothing of the engine's own.
#![expect(
    clippy::unwrap_used,
    reason = "a test bench panics where a promise is broken"
)]

mod cases;
pub mod harness;
mod places;
mod saves;

pub use cases::CASES;
pub use places::is_held;

use crate::{
    AttemptSpec, CollectedFile, Ending, Engine, EngineError, EngineEvent, Events, InputFile,
};
use gleaner_model::{
    AttemptId, CheckpointKind, Digest, JobId, LeaseId, LimitKind, LimitRecord, Reason, TaskId,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a case fails.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Time between beats; an engine under test is set up for this.
pub const BEAT: Duration = Duration::from_millis(500);

/// One promise.
pub type Case = fn(&Bench);

/// Every promise, by name: [`CASES`], and what is about placed and saved attempts.
pub fn all_cases() -> impl Iterator<Item = &'static (&'static str, Case)> {
    CASES.iter().chain(places::CASES).chain(saves::CASES)
}

/// An engine under test and what it said so far.
pub struct Bench {
    engine: Box<dyn Engine>,
    heard: Arc<Mutex<BTreeMap<AttemptId, Vec<EngineEvent>>>>,
    dir: PathBuf,
    next: AtomicU64,
    _beats: mpsc::Sender<()>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// A bench around the engine that `make` gives, with `dir` for blobs. It beats by itself.
    ///
    /// # Panics
    /// Where no thread can be had.
    pub fn new<E>(dir: PathBuf, make: impl FnOnce(Events) -> E) -> Self
    where
        E: Engine + Clone + 'static,
    {
        let heard: Arc<Mutex<BTreeMap<AttemptId, Vec<EngineEvent>>>> = Arc::default();
        let sink = Arc::clone(&heard);
        let engine = make(Arc::new(move |event| {
            let mut heard = sink.lock().unwrap_or_else(PoisonError::into_inner);
            heard.entry(event.attempt()).or_default().push(event);
        }));
        let (beats, dropped) = mpsc::channel::<()>();
        let beating = engine.clone();
        std::thread::spawn(move || {
            while dropped.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                beating.beat(30_000);
            }
        });
        Self {
            engine: Box::new(engine),
            heard,
            dir,
            next: AtomicU64::new(1),
            _beats: beats,
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// A spec for an attempt that nobody has used, in a bundle of its own.
    #[must_use]
    pub fn spec(&self, command: &[&str]) -> AttemptSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let attempt = TaskId::new(JobId(number), 0).attempt(1);
        let command = command.iter().map(|&word| word.to_owned()).collect();
        AttemptSpec::bare(attempt, LeaseId(number), command)
    }

    /// A spec for a shell script.
    #[must_use]
    pub fn script(&self, script: &str) -> AttemptSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    /// An input with this content.
    ///
    /// # Panics
    /// Where the blob cannot be written.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "a test bench panics where it cannot go on"
    )]
    pub fn input(&self, name: &str, content: &[u8], mode: u32) -> InputFile {
        let digest = Digest(*blake3::hash(content).as_bytes());
        let source = self.dir.join(digest.to_string().replace(':', "-"));
        std::fs::write(&source, content).expect("write a blob");
        InputFile {
            name: name.to_owned(),
            source,
            digest,
            mode,
        }
    }

    fn events(&self, attempt: AttemptId) -> Vec<EngineEvent> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&attempt).cloned().unwrap_or_default()
    }

    /// Waits until an event of the attempt pleases `wanted`.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub fn wait<T>(&self, attempt: AttemptId, wanted: impl Fn(&EngineEvent) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let events = self.events(attempt);
            if let Some(found) = events.iter().find_map(&wanted) {
                return found;
            }
            assert!(Instant::now() < end, "{attempt} only said {events:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the answer to the save before which `before` others were answered.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub fn saved(&self, attempt: AttemptId, before: usize) -> Result<CheckpointKind, String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let mut answers = self
                .events(attempt)
                .into_iter()
                .filter_map(|event| match event {
                    EngineEvent::Saved { outcome, .. } => Some(outcome),
                    EngineEvent::Started { .. }
                    | EngineEvent::Paused { .. }
                    | EngineEvent::Resumed { .. }
                    | EngineEvent::Ended { .. } => None,
                });
            if let Some(answer) = answers.nth(before) {
                return answer;
            }
            assert!(Instant::now() < end, "{attempt} is never saved");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the program has written something to standard output.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub fn spoken(&self, attempt: AttemptId) {
        let end = Instant::now() + DEADLINE;
        let said = || {
            let stdout = self.engine.streams(attempt).map(|[stdout, _]| stdout);
            let data = stdout.ok().and_then(|stdout| stdout.metadata().ok());
            data.map_or(0, |data| data.len())
        };
        while said() == 0 {
            assert!(Instant::now() < end, "{attempt} never got ready");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of an attempt.
    pub fn ending(&self, attempt: AttemptId) -> Ending {
        self.wait(attempt, |event| match event {
            EngineEvent::Ended { ending, .. } => Some((**ending).clone()),
            EngineEvent::Started { .. }
            | EngineEvent::Paused { .. }
            | EngineEvent::Resumed { .. }
            | EngineEvent::Saved { .. } => None,
        })
    }

    /// Waits until the program runs.
    pub fn started(&self, attempt: AttemptId) {
        self.wait(attempt, |event| {
            assert!(
                !matches!(event, EngineEvent::Ended { .. }),
                "{attempt} never started: {event:?}"
            );
            matches!(event, EngineEvent::Started { .. }).then_some(())
        });
    }

    /// Starts an attempt.
    ///
    /// # Panics
    /// Where the engine refuses.
    #[expect(
        clippy::expect_used,
        reason = "a test bench panics where it cannot go on"
    )]
    pub fn start(&self, spec: &AttemptSpec) {
        self.engine.start(spec.clone()).expect("start an attempt");
    }

    /// Runs an attempt to its end and collects it; lets go of it.
    pub fn run(&self, spec: &AttemptSpec) -> (Ending, Result<Files, EngineError>) {
        self.start(spec);
        let ending = self.ending(spec.attempt);
        let files = self.engine.collect(spec.attempt).map(read_all);
        self.engine.discard(spec.attempt);
        (ending, files)
    }

    /// Runs a script that must end with exit code 0; what it wrote to standard output.
    ///
    /// # Panics
    /// Where it ends otherwise.
    pub fn stdout_of(&self, spec: &AttemptSpec) -> String {
        let (ending, files) = self.run(spec);
        let files = files.unwrap_or_default();
        let text = |name: &str| {
            let bytes = files.get(name).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        assert_eq!(
            ending.reason,
            Reason::Exit { code: 0 },
            "{:?} said {:?} and {:?}",
            spec.command,
            text("stdout"),
            text("stderr")
        );
        text("stdout")
    }
}

/// Collected files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

fn read_all(files: Vec<CollectedFile>) -> Files {
    let read = |mut file: CollectedFile| {
        let mut content = Vec::new();
        // A file that cannot be read shows as an empty one, which no case expects.
        let _unreadable = file.file.read_to_end(&mut content);
        (file.name, content)
    };
    files.into_iter().map(read).collect()
}

/// The record of one limit.
///
/// # Panics
/// Where the ending has none.
#[must_use]
pub fn record(ending: &Ending, limit: LimitKind) -> &LimitRecord {
    let found = ending.limits.iter().find(|record| record.limit == limit);
    assert!(
        found.is_some(),
        "no record of {limit} in {:?}",
        ending.limits
    );
    found.unwrap_or_else(|| unreachable!())
}
