//! What every engine promises, so that the agent need not know how one works.
//!
//! An engine contains attempts. The agent hands it an [`AttemptSpec`], hears [`EngineEvent`]s,
//! steers with [`Control`], takes the output files with [`Engine::collect`] and lets go with
//! [`Engine::discard`]. An engine never talks to the server and never chooses what to run.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;

use gleaner_model::{
    AttemptId, Bytes, CheckpointKind, Cpus, Digest, GuestPrice, LeaseId, LimitRecord, Limits,
    Reason, Span, Time, Usage,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that the attempt finds in its scratch directory when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Path relative to scratch; may have directories, never leaves scratch.
    pub name: String,
    /// The blob on this PC; it need not be reachable by the attempt's uid.
    pub source: PathBuf,
    /// What the blob must hash to. The engine checks it before every start.
    pub digest: Digest,
    /// Permission bits in the sandbox.
    pub mode: u32,
}

/// The root file system of an attempt: one read-only file, as `gleaner image import` makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// The blob on this PC; it need not be reachable by the attempt's uid.
    pub source: PathBuf,
    /// What the blob must hash to. The engine checks it before it is used.
    pub digest: Digest,
}

/// Everything an engine needs to run one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSpec {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its bundle: same job, user and image. Attempts of one bundle may share namespaces that
    /// hold nothing of a task (user, net, ipc, uts); never pid, mount, limits or scratch.
    pub bundle: LeaseId,
    /// Program and arguments, placeholders filled in. A first word without a slash is looked
    /// up in the sandbox's PATH; with one, it is a path in the sandbox, relative to scratch.
    pub command: Vec<String>,
    /// Whether clocks, chance and the bits of NaNs shall be the same in every run. Only where the
    /// program is WebAssembly; other engines hand the PC's own on and ignore it.
    #[serde(default)]
    pub deterministic: bool,
    /// Environment besides PATH, HOME, TMPDIR and LANG.
    pub env: BTreeMap<String, String>,
    /// Name in scratch of the file that is standard input; `/dev/null` where absent.
    pub stdin: Option<String>,
    /// Its root; the userland of the host or of the guest where absent. The same for all
    /// attempts of a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFile>,
    /// Files put into scratch.
    pub inputs: Vec<InputFile>,
    /// Globs of the files that come home, relative to scratch. [`literal`] makes one of a name.
    pub outputs: Vec<String>,
    /// What it may use.
    pub limits: Limits,
    /// How it is saved, and what it goes on from.
    #[serde(default)]
    pub saving: Saving,
}

impl AttemptSpec {
    /// One that has nothing but a command, under the usual limits.
    #[must_use]
    pub fn bare(attempt: AttemptId, bundle: LeaseId, command: Vec<String>) -> Self {
        Self {
            attempt,
            bundle,
            command,
            deterministic: false,
            env: BTreeMap::new(),
            stdin: None,
            image: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            limits: Limits::default(),
            saving: Saving::default(),
        }
    }
}

/// A glob that this name alone matches.
#[must_use]
pub fn literal(name: &str) -> String {
    let mut glob = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => glob.extend(['[', c, ']']),
            plain => glob.push(plain),
        }
    }
    glob
}

/// How an attempt is saved, and what it goes on from; the default is neither.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saving {
    /// Globs of the files by which the program saves itself, relative to scratch.
    pub files: Vec<String>,
    /// How often the agent will ask to save it while it runs ([`Engine::save`]); none for never.
    /// An engine that saves whole guests shows those of such attempts the pool's processor type.
    pub every: Option<Span>,
    /// The saved guest that this attempt goes on from. Saved *files* need nothing of an engine:
    /// they come as `inputs`.
    pub restore: Option<Restore>,
    /// Which attempt it goes on from, whatever was saved of it; for the record only.
    pub from: Option<AttemptId>,
    /// How often its task was saved before; for the record only.
    pub before: u32,
}

/// A saved guest to go on from.
///
/// The agent has compared `machine` with what [`Engine::saves`] says, so it fits; an engine that
/// finds it does not work all the same ends the attempt with [`Reason::Unrestored`], and the task
/// begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Type of machine and of processor that it was saved on.
    pub machine: String,
    /// Its files, as [`Engine::saved`] named them; digests are checked like those of inputs.
    pub files: Vec<InputFile>,
}

/// How an engine saves attempts while they run. Files that a program saves itself by are taken
/// at its end on every engine; this is about the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Saves {
    /// Not at all.
    #[default]
    Nothing,
    /// Copies of the files of its [`Saving`], made while the program stands still for a moment.
    Files,
    /// The whole guest.
    Guest {
        /// Type of machine and of processor, equal on every node that can restore it: a text
        /// that nobody but the engine understands.
        machine: String,
    },
}

/// What follows a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterSave {
    /// The attempt goes on.
    GoOn,
    /// It ends as `cancelled` as soon as it is saved, and its memory is free. Only asked of
    /// engines that save whole guests.
    End,
}

/// What to do with a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Freeze all its processes; memory stays.
    Pause,
    /// Let them run again.
    Resume,
    /// At most this share of its CPUs, in thousandths.
    Slow {
        /// Thousandths of `limits.cpus`.
        permille: u32,
    },
    /// SIGTERM, and SIGKILL to everything left after `grace_ms`. It ends as `cancelled`, or with
    /// exit code 85 where it saves itself ([`Saving`]) and has done so in time.
    Stop {
        /// Milliseconds between the two.
        grace_ms: u32,
    },
}

/// How an attempt ended: the engine's half of its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// When the program started; none where it never did.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Time,
    /// Wall seconds of the program, pauses included.
    pub wall_seconds: f64,
    /// Of that, frozen.
    pub paused_seconds: f64,
    /// What it used.
    pub usage: Usage,
    /// Every limit: value, peak, time, action.
    pub limits: Vec<LimitRecord>,
    /// System calls refused, by name.
    pub refused_calls: BTreeMap<String, u64>,
    /// What could not be enforced as it should, in words.
    pub degraded: Vec<String>,
}

impl Ending {
    /// One of which nothing more is known: the attempt never ran, or nobody saw its end.
    #[must_use]
    pub fn bare(reason: Reason, ended: Time) -> Self {
        Self {
            reason,
            started: None,
            ended,
            wall_seconds: 0.0,
            paused_seconds: 0.0,
            usage: Usage::default(),
            limits: Vec::new(),
            refused_calls: BTreeMap::new(),
            degraded: Vec::new(),
        }
    }
}

/// What an engine reports. Events of one attempt come in order; `Ended` is the last.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineEvent {
    /// The program runs.
    Started {
        /// Which attempt.
        attempt: AttemptId,
        /// Since when.
        at: Time,
    },
    /// All its processes are frozen.
    Paused {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// They run again.
    Resumed {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The answer to [`Engine::save`]: exactly one, unless the attempt ends first.
    Saved {
        /// Which attempt.
        attempt: AttemptId,
        /// What [`Engine::saved`] gives now, or why there is nothing, in words.
        outcome: Result<CheckpointKind, String>,
    },
    /// Nothing of it runs any more. Its scratch stays until [`Engine::discard`].
    Ended {
        /// Which attempt.
        attempt: AttemptId,
        /// How.
        ending: Box<Ending>,
    },
}

impl EngineEvent {
    /// Which attempt it is about.
    #[must_use]
    pub const fn attempt(&self) -> AttemptId {
        match self {
            Self::Started { attempt, .. }
            | Self::Paused { attempt }
            | Self::Resumed { attempt }
            | Self::Saved { attempt, .. }
            | Self::Ended { attempt, .. } => *attempt,
        }
    }
}

/// Where events go. Called from the engine's own threads; must not block.
pub type Events = Arc<dyn Fn(EngineEvent) + Send + Sync>;

/// A file that comes home, opened by the engine so that no link can be followed out of scratch.
#[derive(Debug)]
pub struct CollectedFile {
    /// Path relative to scratch; `stdout` and `stderr` are the streams.
    pub name: String,
    /// The file, at its start.
    pub file: File,
    /// Its size in bytes when opened.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// An attempt that outlived its agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What was asked of it.
    pub spec: AttemptSpec,
    /// When the program started.
    pub started: Option<Time>,
    /// How it ended, if it has.
    pub ending: Option<Box<Ending>>,
}

/// What this PC can do for one engine, for the node's inventory and `gleaner doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// A short name: `user namespaces`, `memory limit`, `idle priority`.
    pub name: String,
    /// How well it works.
    pub level: Level,
    /// What was found, in words.
    pub found: String,
    /// What to do about it where the level is not `Good`.
    pub fix: Option<String>,
}

/// How well a capability works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As designed.
    Good,
    /// Enforced by weaker means; attempts are marked.
    Degraded,
    /// Absent: the engine refuses work.
    Missing,
}

/// What all attempts of an engine together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Processors; those of the whole PC mean no bound.
    pub cpus: Cpus,
    /// Thousandths of the disk rate that a task may have; 1000 means only its own limit.
    pub io_permille: u16,
    /// Memory at which the kernel begins to take pages back from tasks instead of from the
    /// owner's programs; none where there is enough for all.
    pub memory: Option<Bytes>,
}

/// An engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such attempt here.
    #[error("attempt {0} is not on this engine")]
    Unknown(AttemptId),
    /// A declared output is missing or is not a regular file inside scratch.
    #[error("output {name:?} {problem}")]
    Output {
        /// The output as declared, or the offending path.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It cannot be done on this engine, or not now.
    #[error("{0}")]
    Unsupported(String),
    /// The PC would not do it.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the PC said.
        source: std::io::Error,
    },
}

impl EngineError {
    /// The PC would not do it.
    pub fn io(doing: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// Contains attempts. Calls return at once or after a bounded, short time.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Which engine this is.
    fn kind(&self) -> gleaner_model::Engine;

    /// What this PC can do, found out by trying.
    fn probe(&self) -> Vec<Capability>;

    /// Whether [`Engine::prepare`] saves a later start any time.
    fn prepares(&self) -> bool {
        false
    }

    /// Does ahead of [`Engine::start`] what takes long, for an attempt that is likely to be the
    /// next: whatever it holds until then is memory, and counted in [`Engine::memory_now`]. No
    /// event comes of it. The attempt is started with an equal spec, or discarded.
    ///
    /// # Errors
    /// As [`Engine::start`]; a start is possible all the same.
    fn prepare(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let _nothing_to_do = spec;
        Ok(())
    }

    /// Whether all is done for this attempt that [`Engine::prepare`] was to do.
    fn is_prepared(&self, _attempt: AttemptId) -> bool {
        false
    }

    /// Begins an attempt. Whatever goes wrong later comes as [`EngineEvent::Ended`].
    ///
    /// # Errors
    /// Where not even a shim can be had.
    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError>;

    /// Steers an attempt; a no-op on one that has ended.
    ///
    /// # Errors
    /// Where it is unknown or its shim does not answer.
    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError>;

    /// Has an attempt run on this processor of the PC only, or on all of them again. Not waited
    /// for and never refused: where it cannot be done (the processor is gone, the attempt has
    /// ended, the engine has no way to) everything goes on as before. What runs may move itself,
    /// and whoever takes an attempt over finds it on all.
    fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        let _unsupported = (attempt, cpu);
    }

    /// Tells every shim that the agent lives and when the attempt's lease ends (milliseconds
    /// from now). A shim that misses three beats freezes its attempts until the next one, and
    /// ends them when the lease is over.
    fn beat(&self, lease_left_ms: u64);

    /// Freezes everything that the engine runs, or takes that back; the quick way, for an owner
    /// who has just come. Written when it returns, within a millisecond or so, and not waited
    /// for. It lies above [`Control::Pause`] and knows no attempt: no event follows, and clocks
    /// go on, so the caller pauses each attempt as well, and lets go of all before it resumes
    /// each. An engine without a way to do so at once does nothing.
    fn hold(&self, on: bool) {
        let _unsupported = on;
    }

    /// Bounds what all its attempts together may use, now and in the future. Like
    /// [`Engine::hold`], it is written when it returns and not waited for.
    fn allow(&self, allowance: &Allowance) {
        let _unsupported = allowance;
    }

    /// Takes back memory that tasks can do without (page cache, cold pages). May take seconds;
    /// says how many bytes came free.
    fn reclaim(&self) -> u64 {
        0
    }

    /// Memory that tasks hold now and that is not the kernel's to take back, in bytes; none
    /// where it cannot be told.
    fn memory_now(&self) -> Option<u64> {
        None
    }

    /// The group of the kernel's that all its tasks lie in, where there is one. Engines of one
    /// group hold, bound and count its tasks as one: what [`Engine::memory_now`] and
    /// [`Engine::reclaim`] of one of them say is true of all.
    fn group(&self) -> Option<String> {
        None
    }

    /// What an attempt has used so far.
    ///
    /// # Errors
    /// Where it is unknown or its shim does not answer.
    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError>;

    /// The stream files so far, for live logs: stdout and stderr, opened for reading.
    ///
    /// # Errors
    /// Where it is unknown.
    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError>;

    /// The outputs of an ended attempt, `stdout` and `stderr` among them.
    ///
    /// # Errors
    /// Where an output is missing, leaves scratch or is not a regular file, or all of them
    /// together are larger than `limits.output`.
    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError>;

    /// How attempts can be saved while they run, found out by trying; may change once the
    /// engine's probe is through.
    fn saves(&self) -> Saves {
        Saves::Nothing
    }

    /// What guests of this engine make dear, against a process; none where it has no guests. May
    /// change once the engine's probe is through.
    fn guest_price(&self) -> Option<GuestPrice> {
        None
    }

    /// Begins to save an attempt and returns at once; [`EngineEvent::Saved`] answers. Nothing of
    /// it runs while it is saved, its time counts as paused, and it may be frozen meanwhile. A
    /// save that takes longer than the engine's own bound fails; the attempt goes on.
    ///
    /// # Errors
    /// Where the engine cannot, or another save of the attempt is not through.
    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        let _unsupported = (attempt, then);
        Err(EngineError::Unsupported(format!(
            "engine {} cannot save a running attempt",
            self.kind()
        )))
    }

    /// What is saved, opened as [`Engine::collect`] opens outputs. While the attempt runs: what
    /// the last [`Engine::save`] made, until the next. Once it has ended: what a save with
    /// [`AfterSave::End`] made, else the files of its [`Saving`] as the program left them. Files (not
    /// guests) are together at most `limits.output`.
    ///
    /// # Errors
    /// As [`Engine::collect`].
    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        Err(EngineError::Unknown(attempt))
    }

    /// Lets go of an ended attempt: scratch, record and shim are removed.
    fn discard(&self, attempt: AttemptId);

    /// Takes over what an earlier agent left here, and sweeps away what nobody can adopt.
    ///
    /// # Errors
    /// Where the engine's directory cannot be read.
    fn adopt(&self) -> Result<Vec<Adopted>, EngineError>;
}
