//! The words of gleaner: ids, units, job files, states, limits and records.
//!
//! Every crate speaks through these types. Nothing here does I/O, reads a clock or draws a
//! random number; the crate is `no_std` so that the compiler proves it.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod checkpoint;
mod digest;
mod ids;
mod interval;
mod limits;
mod record;
mod sample;
mod spec;
mod state;
mod sweep;
mod template;
mod units;
mod usage_histogram;
mod words;

pub use checkpoint::{
    CHECKPOINT_BYTES_MAX, CHECKPOINT_EVERY_MIN, CHECKPOINT_EXIT_CODE, CHECKPOINT_FILES_MAX,
    Checkpoint, CheckpointKind,
};
pub use digest::{BlobRef, Digest, ParseDigestError};
pub use ids::{AttemptId, JobId, LeaseId, NodeId, ParseIdError, TaskId, UserId};
pub use interval::IntervalSet;
pub use limits::{LimitKind, Limits};
pub use record::{AttemptRecord, LimitRecord, OutputFile, Usage};
pub use sample::{Attention, Heat, Load, Memory, Power, Pressure, Sample, Sessions, Signal};
pub use spec::{
    Collect, Concat, Engine, EngineChoice, FileEntry, GuestPrice, JobHead, JobSpec, LimitSpec,
    MAX_TASKS, Merge, MergeCommand, Require, Retry, SpecError, Submission, TaskSpec, Verify,
};
pub use state::{AttemptState, JobState, NodeState, Policy, Reason, TaskState, Verdict};
pub use sweep::{Axis, Records, Scalar, Split, Sweep, SweepMode};
pub use template::{Placeholder, Template, TemplateError, verbatim};
pub use units::{Bytes, Cpus, Rate, Span, Time, UnitError};
pub use usage_histogram::{
    BUSY_ABOVE_PERMILLE, GAP_BINS, GAP_FIRST_MS, Gaps, HourUse, USAGE_FORMAT, UsageError,
    UsageHistogram, WEEK_HOURS,
};
