//! A bundle on disk: what its shim is told, and where its files lie.
//!
//! ```text
//! DIR/bundles/LEASE/bundle.json     what the shim needs to know
//!                   socket          where a new agent finds the shim
//!                   shim.log        the shim's last words
//!                   cages/ATTEMPT/  scratch, owned by the task's user id
//!                   runs/ATTEMPT/   spec.json, stdout, stderr, result.json
//! ```
//! Nothing here is reachable by a task: DIR belongs to the agent alone, and a cage is shown its
//! own scratch directory only.

use gleaner_engine::{AttemptSpec, Ending};
use gleaner_model::{AttemptId, LeaseId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a shim is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) lease: LeaseId,
    /// The first of the host's user ids for this bundle; none for a plain user's own.
    pub(crate) uid_first: Option<u32>,
    /// Time between the agent's beats, in milliseconds.
    pub(crate) beat_ms: u64,
    /// How long the lease is taken to last until the first beat says, in milliseconds.
    pub(crate) lease_left_ms: u64,
    /// Further directories of the host that tasks may read.
    pub(crate) read_only: Vec<PathBuf>,
    /// The parent of all groups of tasks, and what this bundle's begin with.
    pub(crate) group_parent: String,
    pub(crate) group_prefix: String,
}

impl Bundle {
    pub(crate) fn cages(&self) -> PathBuf {
        self.dir.join("cages")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    pub(crate) fn scratch(&self, attempt: AttemptId) -> PathBuf {
        self.cages().join(attempt.to_string())
    }

    pub(crate) fn run(&self, attempt: AttemptId) -> PathBuf {
        self.runs().join(attempt.to_string())
    }

    pub(crate) fn file(dir: &Path) -> PathBuf {
        dir.join("bundle.json")
    }
}

/// Writes JSON by one call to the kernel: a reader finds the whole, or, where we are killed on
/// the way, something that is not JSON and is taken for nothing.
pub(crate) fn write_once<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    fs::write(path, serde_json::to_vec(value)?)
}

/// Writes JSON so that a reader finds the whole or nothing, whenever we are killed.
pub(crate) fn write_whole<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(value)?)?;
    fs::rename(part, path)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// What was asked of the attempt in this directory.
pub(crate) fn spec(run: &Path) -> io::Result<AttemptSpec> {
    read(&run.join("spec.json"))
}

/// How the attempt in this directory ended.
pub(crate) fn result(run: &Path) -> io::Result<Ending> {
    read(&run.join("result.json"))
}
