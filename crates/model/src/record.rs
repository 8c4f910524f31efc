//! What is kept of an attempt when it ends.

use crate::{AttemptId, BlobRef, Engine, LimitKind, Reason, Time};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all its processes, in seconds.
    pub cpu_seconds: f64,
    /// Most memory at once, in bytes, page cache apart where the kernel tells.
    pub memory_peak: u64,
    /// Bytes read from files and disks.
    pub read_bytes: u64,
    /// Bytes written to files and disks.
    pub written_bytes: u64,
    /// Most processes and threads at once.
    pub processes_peak: u32,
    /// Major page faults.
    pub page_faults: u64,
    /// Of the CPU time, seconds in the kernel; like the next two of processes that were waited
    /// for, so known at the end. What asks much of the kernel is dear in a guest whose kernel is a
    /// program. No kernel counts system calls for who may not trace, and this is what they cost.
    #[serde(default)]
    pub system_seconds: f64,
    /// Page faults for which nothing was read: memory that was touched first.
    #[serde(default)]
    pub minor_faults: u64,
    /// How often it waited for something (voluntary context switches).
    #[serde(default)]
    pub waits: u64,
}

/// A limit that an attempt ran against, or how near it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitRecord<T = Time> {
    /// Which limit.
    pub limit: LimitKind,
    /// Its value: bytes, bytes a second, seconds, processors or a count.
    pub value: f64,
    /// The most that was seen, in the same unit.
    pub peak: f64,
    /// When it was first passed.
    pub at: Option<T>,
    /// What was done: `none`, `slowed`, `ended`, `enospc`, `fork failed`.
    pub action: String,
}

/// One file that came home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its path relative to the scratch directory. `stdout` and `stderr` are the streams.
    pub name: String,
    /// Digest and size.
    #[serde(flatten)]
    pub blob: BlobRef,
    /// Permission bits.
    pub mode: u32,
}

/// Everything that is kept of one ended attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord<T = Time> {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why it ended.
    pub reason: Reason,
    /// What it ran in; none where it never ran.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// When the program started; none where it never did.
    pub started: Option<T>,
    /// When it ended.
    pub ended: T,
    /// Wall time of the program in seconds, pauses included.
    pub wall_seconds: f64,
    /// Of that, seconds frozen.
    pub paused_seconds: f64,
    /// What it used.
    pub usage: Usage,
    /// Each limit: value, peak, when passed, what was done.
    pub limits: Vec<LimitRecord<T>>,
    /// System calls that the sandbox refused, by name, and how often.
    pub refused_calls: BTreeMap<String, u64>,
    /// What could not be enforced as it should, in words.
    pub degraded: Vec<String>,
    /// The files that came home.
    pub outputs: Vec<OutputFile>,
    /// Which attempt of the task it went on from; none where it began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_on_from: Option<AttemptId>,
    /// How often the task had been saved when this attempt ended, in all its attempts together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub checkpoints: u32,
}

impl<T> AttemptRecord<T> {
    /// The same record with its times said otherwise.
    pub fn map_times<U>(self, mut say: impl FnMut(T) -> U) -> AttemptRecord<U> {
        AttemptRecord {
            attempt: self.attempt,
            reason: self.reason,
            engine: self.engine,
            started: self.started.map(&mut say),
            ended: say(self.ended),
            wall_seconds: self.wall_seconds,
            paused_seconds: self.paused_seconds,
            usage: self.usage,
            limits: self
                .limits
                .into_iter()
                .map(|record| LimitRecord {
                    limit: record.limit,
                    value: record.value,
                    peak: record.peak,
                    at: record.at.map(&mut say),
                    action: record.action,
                })
                .collect(),
            refused_calls: self.refused_calls,
            degraded: self.degraded,
            outputs: self.outputs,
            went_on_from: self.went_on_from,
            checkpoints: self.checkpoints,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}
