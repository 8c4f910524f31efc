//! What an attempt may use, and what happens when it asks for more.

use crate::words::words;
use crate::{Bytes, Cpus, Rate, Span};
use serde::{Deserialize, Serialize};

words!(
    /// The limits of a job file, by their names there.
    LimitKind {
        /// CPU bandwidth: slowed.
        Cpus = "cpus",
        /// Anonymous and dirty memory: ended. Reclaimable page cache never ends a task.
        Memory = "memory",
        /// Scratch and /tmp: writes fail with ENOSPC.
        Disk = "disk",
        /// Bytes a second to and from disk: slowed.
        DiskIo = "disk_io",
        /// Major faults a second: paused, then evicted.
        PageFaults = "page_faults",
        /// Wall time without pauses: ended.
        Time = "time",
        /// CPU time: ended.
        CpuTime = "cpu_time",
        /// Processes and threads: fork fails.
        Processes = "processes",
        /// Output files, stdout and stderr together: ended.
        Output = "output",
        /// Loopback only.
        Network = "network",
        /// Bytes a second over the network: slowed.
        NetIo = "net_io",
    }
);

/// The limits of one attempt, every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU bandwidth.
    pub cpus: Cpus,
    /// Memory, page cache apart.
    pub memory: Bytes,
    /// Scratch and /tmp together.
    pub disk: Bytes,
    /// Wall time without pauses.
    pub time: Span,
    /// Processes and threads.
    pub processes: u32,
    /// Output files, stdout and stderr together.
    pub output: Bytes,
    /// CPU time over all processes; none means unlimited.
    pub cpu_time: Option<Span>,
    /// Disk bandwidth; none means unlimited.
    pub disk_io: Option<Rate>,
    /// Major faults a second; none means unlimited.
    pub page_faults: Option<u32>,
    /// Network bandwidth; none means unlimited.
    pub net_io: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpus: Cpus::ONE,
            memory: Bytes(2 << 30),
            disk: Bytes(2 << 30),
            time: Span::seconds(24 * 3600),
            processes: 256,
            output: Bytes(1 << 30),
            cpu_time: None,
            disk_io: None,
            page_faults: None,
            net_io: None,
        }
    }
}
