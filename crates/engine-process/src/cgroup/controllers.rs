//! The names of the controllers that tasks' groups use, as the kernel gives them.

/// Of version 1, a hierarchy each.
pub(super) const V1: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "blkio", "freezer"];

/// Of version 2. Each is switched on by itself: one that the kernel lacks makes a joint write fail
/// as a whole.
pub(super) const V2: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Whole processors for all tasks of an agent, of either version; not needed for a group of its own.
pub(super) const CPUSET: &str = "cpuset";

/// Name of the version 2 tree beside the controllers, as systemd's hybrid layout has it.
pub(super) const UNIFIED: &str = "unified";
