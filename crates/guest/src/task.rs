//! What the guest is asked to do, and what it says became of it. Data only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Name of the task's description on the scratch disk, beside [`WORK`].
pub const TASK_FILE: &str = "task.json";

/// The task's scratch directory on the scratch disk.
pub const WORK: &str = "work";

/// Directory of the cage's scratch that becomes the guest's scratch disk.
pub const DISK_DIR: &str = "disk";

/// Where the outputs lie when the guest has ended, in the cage's scratch.
pub const OUT_DIR: &str = "out";

/// Where the [`Record`] lies then.
pub const RECORD_FILE: &str = "record.json";

/// How the host end exits where the PC has no room for the [`Record`].
pub const NO_ROOM: u8 = 28;

/// Beginnings of what is said of a guest that was no more, or might as well not have been; what
/// else an attempt fails by says nothing of what ran it.
pub const DIED: &str = "the guest's kernel ended by itself";
/// See [`DIED`].
pub const SILENT: &str = "the guest was silent";

/// Where a [`Record`] of what was used so far lies while the guest runs: all that is known of one
/// that is ended from outside.
pub const NOTED_FILE: &str = "noted.json";

/// What runs a guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// QEMU on the processor's own virtualisation.
    Kvm,
    /// User-mode Linux: the kernel is a program that traces the guest's.
    Uml,
    /// QEMU that translates each instruction.
    Tcg,
}

impl Accelerator {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Kvm, Self::Uml, Self::Tcg];

    /// As it is written in settings and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Uml => "uml",
            Self::Tcg => "tcg",
        }
    }
}

/// The machine that a guest sees. One that was saved goes on only on an equal one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What runs it.
    pub accelerator: Accelerator,
    /// QEMU's type of machine, with its version; empty where there is no QEMU.
    pub kind: String,
    /// QEMU's model of the processor; likewise.
    pub cpu: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, cpu, .. } = self;
        let name = self.accelerator.name();
        if kind.is_empty() {
            return f.write_str(name);
        }
        write!(f, "{name} {kind} {cpu}")
    }
}

/// A saved guest that is to go on, in the cage's scratch.
pub const RESTORE_FILE: &str = "guest.restore";

/// Whoever writes this asks that the guest be saved: a number as text, another each time.
pub const SAVE_FILE: &str = "save.request";

/// What came of it: a [`Saved`] as JSON.
pub const ANSWER_FILE: &str = "save.answer";

/// The saved guest.
pub const SAVED_FILE: &str = "guest.saved";

/// A guest that was booted ahead of its task has come as far as it can: its host end writes this
/// into the cage's scratch.
pub const READY_FILE: &str = "guest.ready";

/// Whoever writes this there lets the program of such a guest begin.
pub const BEGIN_FILE: &str = "guest.begin";

/// What came of a request to save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Which request.
    pub number: u64,
    /// Why nothing was saved; none where [`SAVED_FILE`] is new.
    pub error: Option<String>,
}

/// The program of such a guest has begun: until its host end writes this, nothing of the task ran.
pub const BEGUN_FILE: &str = "guest.begun";

/// A task for a guest. Written by the engine, read by both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTask {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Standard input, a name in scratch; nothing where absent.
    pub stdin: Option<String>,
    /// Globs of the files that come home.
    pub outputs: Vec<String>,
    /// Most bytes of them.
    pub output_bytes: u64,
    /// Most memory of the program, in bytes.
    pub memory_bytes: u64,
    /// Room in scratch, in bytes.
    pub disk_bytes: u64,
    /// Most processes and threads.
    pub processes: u32,
    /// Number of input files, for the disk's table of files.
    pub inputs: u64,
    /// What it runs on.
    pub machine: Machine,
    /// Digest of the base image.
    pub base: String,
    /// The guest's memory in MiB.
    pub guest_mib: u64,
    /// Longest silence of a guest that boots, is asked for something, or has ended its program,
    /// in seconds in which its host end ran: time frozen does not count.
    pub silence_seconds: u32,
    /// The guest boots ahead of its task: its program waits for [`BEGIN_FILE`].
    #[serde(default)]
    pub waits: bool,
}

/// What became of a task, in the guest's words.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// How it ended.
    pub end: End,
    /// Milliseconds from the guest's start to the program's.
    pub boot_ms: u64,
    /// Most memory at once, in bytes.
    pub memory_peak: u64,
    /// Most processes at once.
    pub processes_peak: u32,
    /// Most room taken in scratch, in bytes.
    pub disk_peak: u64,
    /// Bytes of all outputs together.
    pub outputs_bytes: u64,
    /// Bytes read and written by the program.
    pub read_bytes: u64,
    /// See `read_bytes`.
    pub written_bytes: u64,
    /// Major page faults.
    pub page_faults: u64,
    /// A fork failed, in milliseconds since 1970 by the host's clock.
    pub processes_at: Option<u64>,
    /// Scratch was full, likewise.
    pub disk_at: Option<u64>,
    /// Memory was at its limit, likewise.
    pub memory_at: Option<u64>,
    /// The outputs were too much, likewise.
    pub output_at: Option<u64>,
    /// What could not be had, in words.
    pub degraded: Vec<String>,
}

impl Record {
    /// Whether this says noticeably more than what was told before. Peaks and sums only grow, so
    /// each is told a few hundred times at most, however long the task.
    #[must_use]
    pub fn is_news_to(&self, told: &Self) -> bool {
        let figures = |record: &Self| {
            [
                record.memory_peak,
                record.processes_peak.into(),
                record.disk_peak,
                record.read_bytes,
                record.written_bytes,
                record.page_faults,
            ]
        };
        let grown = |(now, then): (u64, u64)| now > then + then / NEWS_SHARE;
        figures(self).into_iter().zip(figures(told)).any(grown)
    }
}

/// Growth by more than this part is news.
const NEWS_SHARE: u64 = 16;

/// How a task ended in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum End {
    /// The guest never said.
    #[default]
    Unknown,
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It used more memory than it may.
    Memory,
    /// Its outputs are larger than they may be.
    Output,
    /// There is no such program.
    NoProgram(String),
    /// It could not be run; why.
    Failed(String),
    /// It could not go on from what was saved; why.
    Unrestored(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_and_not_every_byte_of_it() {
        let mut told = Record::default();
        let mut times = 0;
        for bytes in 0..1_000_000 {
            let now = Record {
                written_bytes: bytes,
                ..Record::default()
            };
            if now.is_news_to(&told) {
                (told, times) = (now, times + 1);
            }
        }
        assert!((100..400).contains(&times), "{times}");
        assert!(told.written_bytes > 900_000, "{told:?}");
        let first = Record {
            page_faults: 1,
            ..told.clone()
        };
        assert!(first.is_news_to(&told) && !told.is_news_to(&first));
    }
}
