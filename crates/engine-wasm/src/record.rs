//! What a runner is asked to do and what it says of it: the two files between an engine and the
//! runner in its cage. Values only.

use gleaner_model::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Directory of scratch that is the program's; everything else there is the runner's.
pub(crate) const WORK: &str = "work";

/// The runner's task, in scratch.
pub(crate) const TASK_FILE: &str = "task.json";

/// How it ended, in scratch.
pub(crate) const RECORD_FILE: &str = "record.json";

/// The module's code in scratch: given, or made there before the program begins.
pub(crate) const CODE_FILE: &str = "code";

/// What shows that the code was made before the program began, in scratch.
pub(crate) const MARK_FILE: &str = "code.mark";

/// What that is shown with; gone before the program begins.
pub(crate) const SEAL_FILE: &str = "seal";

/// A program and its bounds, as the runner in a cage reads it. Not in its own environment or
/// arguments: names such as `LD_PRELOAD` mean something to the runner itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunnerTask {
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) memory_bytes: u64,
    pub(crate) time_ms: u64,
    pub(crate) deterministic: bool,
    /// The module's digest, where its code is given or to be left for others.
    #[serde(default)]
    pub(crate) module: Option<Digest>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It ended by itself, or `_start` returned.
    Exit(i32),
    /// It did what no program may. The number is that of the signal that a native program gets
    /// for the same: 6 for `unreachable`, to which `abort` compiles, 8 for a division by zero,
    /// 11 for memory or stack out of bounds, 31 for a call of the host that makes no sense, 4
    /// for anything else.
    Trap {
        /// The signal's number.
        signal: i32,
    },
    /// It asked for more memory than it may have.
    Memory,
    /// Its time was over.
    Time,
    /// There is no such file.
    NoProgram,
    /// It could not be run: why, and what to do about it.
    Failed(String),
}

/// Where a program's code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Origin {
    /// This attempt compiled it for itself.
    #[default]
    Compiled,
    /// This attempt compiled it, and left it for the next one.
    Left,
    /// An attempt before this one did.
    Kept,
}

/// A program's end, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How it ended.
    pub end: End,
    /// The most memory that it had or asked for, in bytes: linear memory and tables.
    pub memory_peak: u64,
    /// How long it took to get its code, in milliseconds: to compile it, or to load it.
    pub compile_ms: u64,
    /// Where that came from.
    #[serde(default)]
    pub code: Origin,
}

impl Record {
    /// A program that never ran.
    pub(crate) const fn of(end: End) -> Self {
        Self {
            end,
            memory_peak: 0,
            compile_ms: 0,
            code: Origin::Compiled,
        }
    }
}
