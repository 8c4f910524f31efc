//! What the engine is told when it is made.

use crate::cgroup::{DetectOptions, PART};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the engine works on this PC.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The engine's own directory. Nothing on the way to it need be open to anybody else.
    pub dir: PathBuf,
    /// The `gleaner` binary, which is run again as shim; the running program by default.
    pub executable: Option<PathBuf>,
    /// User ids for tasks when we are root; chosen from what nobody uses by default.
    pub uid_range: Option<Range<u32>>,
    /// Name of the group that all tasks of this PC are in.
    pub group_parent: String,
    /// Name of the group within it that holds the tasks of one agent: what freezes, bounds and
    /// counts them as one. Engines that are given one name, as [`domain_name`] makes it, share
    /// it, and are dropped together, since the last one with nothing in it removes it. A group
    /// of the engine's own by default.
    pub domain: Option<String>,
    /// Time between the agent's calls of [`gleaner_engine::Engine::beat`].
    pub beat: Duration,
    /// Directories of the host, besides its userland, that tasks may read.
    pub read_only: Vec<PathBuf>,
    /// A program of the host's that tasks may run, shown at [`crate::PROGRAM_PATH`] wherever it
    /// lies here.
    pub program: Option<PathBuf>,
    /// What guests are made of, shown at [`crate::GUEST_DIR`]. Its cages hold guests' kernels;
    /// see [`crate::GuestNeeds`].
    pub guest: Option<PathBuf>,
    /// Whether each attempt gets a shim and namespaces that no other ever has.
    pub fresh: bool,
    /// Whether a shim is made ahead where there is none, once something has run: the first task of
    /// the next job then waits for no program, namespaces and root of its own.
    pub spare: bool,
    /// Whether attempts outlive whoever began them, for another to adopt. Those of a trial do not:
    /// nobody would, and they would be there until their lease is over.
    pub outlives: bool,
}

/// Time between the beats of a trial, in which a small task is run to find out whether any would.
pub const TRIAL_BEAT: Duration = Duration::from_millis(500);

/// How long a trial's cage goes on without a beat, in milliseconds: longer than a thread at normal
/// priority waits between two on a PC that is very busy. Where whoever tries is gone it ends at once.
pub const TRIAL_LEASE_MS: u64 = 10_000;

impl ProcessConfig {
    /// The usual settings, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            executable: None,
            uid_range: None,
            group_parent: DetectOptions::default().parent_name,
            domain: None,
            beat: Duration::from_secs(1),
            read_only: Vec::new(),
            program: None,
            guest: None,
            fresh: false,
            spare: false,
            outlives: true,
        }
    }

    /// The same for a trial: in a directory beside the engine's, which is the caller's to remove,
    /// and a group of its own. Nothing of it outlives whoever tries.
    #[must_use]
    pub fn of_trial(&self) -> Self {
        Self {
            dir: self.dir.with_extension("trial"),
            domain: None,
            beat: TRIAL_BEAT,
            outlives: false,
            ..self.clone()
        }
    }
}

/// A name for the group of those who belong to this directory: no two have the same.
#[must_use]
pub fn domain_name(dir: &Path) -> String {
    format!("{PART}{}", hash(dir))
}

/// What the names of the groups of an engine's tasks begin with.
pub(super) fn tag(dir: &Path) -> String {
    format!("t{}", hash(dir))
}

fn hash(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let digest = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
    digest.as_str().split_at(8).0.to_owned()
}
