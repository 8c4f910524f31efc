//! Where groups are looked for, and what ours are called.

use std::fs;
use std::path::PathBuf;

/// Where to look for groups, and what to call ours.
#[derive(Debug, Clone)]
pub struct DetectOptions {
    /// Where the kernel's group file systems are mounted.
    pub root: PathBuf,
    /// Name of the parent group. Agents that divide one PC between them (a pool on one PC)
    /// share one name.
    pub parent_name: String,
    /// Name of the group in the parent that holds the tasks of one agent: what freezes and
    /// bounds them as one, without a hand on the tasks of another. None where they lie in the
    /// parent itself.
    pub domain: Option<String>,
    /// Text in the form of `/proc/self/cgroup`: where this process is.
    pub own: String,
    /// Whether a plain user's systemd may be asked to put this process where its groups may be
    /// written.
    pub ask_systemd: bool,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/sys/fs/cgroup"),
            parent_name: "gleaner.slice".to_owned(),
            domain: None,
            own: own_groups(),
            ask_systemd: true,
        }
    }
}

pub(super) fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}
