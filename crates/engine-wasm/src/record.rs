//! What a runner is asked to do and what it says of it: the two files between an engine and the
//! runner in its cage. Values only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Directory of scratch that is the program's; everything else there is the runner's.
pub(crate) const WORK: &str = "work";

/// The runner's task, in scratch.
pub(crate) const TASK_FILE: &str = "task.json";

/// How it ended, in scratch.
pub(crate) const RECORD_FILE: &str = "record.json";

/// A program and its bounds, as the runner in a cage reads it. Not in its own environment or
/// arguments: names such as `LD_PRELOAD` mean something to the runner itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunnerTask {
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) memory_bytes: u64,
    pub(crate) time_ms: u64,
    pub(crate) deterministic: bool,
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

/// A program's end, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How it ended.
    pub end: End,
    /// The most memory that it had or asked for, in bytes: linear memory and tables.
    pub memory_peak: u64,
    /// How long its code took to compile, in milliseconds.
    pub compile_ms: u64,
}

impl Record {
    /// A program that never ran.
    pub(crate) const fn of(end: End) -> Self {
        Self {
            end,
            memory_peak: 0,
            compile_ms: 0,
        }
    }
}
