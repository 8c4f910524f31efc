//! Processor time of our own tasks, which is no load of the owner's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most processors that are told apart: more than any PC has.
pub(crate) const PROCESSORS_MAX: usize = 1024;

/// Processor time that all our tasks together have used since some fixed point; it only grows.
pub type AskTime = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// How the processor time of our tasks is known, so that the owner's load is all the rest.
///
/// Several agents that divide one PC between them share one sensing domain: they name the one
/// parent group of all their tasks, or one closure that sums over all of them.
#[derive(Clone)]
pub enum OwnTime {
    /// Nothing of ours runs.
    Nothing,
    /// Directories of control groups; each counts with all that is below it. Version 2 is read
    /// from `cpu.stat`, version 1 from `cpuacct.usage`.
    Groups(Vec<PathBuf>),
    /// Asked every 200 ms from a thread of the sources; must answer at once. `None` where it
    /// cannot be known now.
    Ask(AskTime),
}

impl OwnTime {
    /// Processor time that all our tasks have used since some fixed point; none where it cannot
    /// be known now.
    #[must_use]
    pub fn read(&self) -> Option<Duration> {
        match self {
            Self::Nothing => Some(Duration::ZERO),
            Self::Groups(groups) => Some(time_of(groups)),
            Self::Ask(ask) => ask(),
        }
    }

    /// The same on each processor; empty where that is not known.
    pub(crate) fn by_processor(&self) -> Vec<Duration> {
        match self {
            Self::Groups(groups) => each_of(groups),
            Self::Nothing | Self::Ask(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for OwnTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Groups(groups) => f.debug_tuple("Groups").field(groups).finish(),
            Self::Ask(_) => f.write_str("Ask"),
        }
    }
}

/// Time of groups, each with all that is below it; one that is not there has used none.
fn time_of(groups: &[PathBuf]) -> Duration {
    groups.iter().map(|group| time_of_group(group)).sum()
}

fn time_of_group(group: &Path) -> Duration {
    if let Ok(text) = fs::read_to_string(group.join("cpu.stat"))
        && let Some(usage) = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
    {
        return Duration::from_micros(usage);
    }
    let text = fs::read_to_string(group.join("cpuacct.usage")).unwrap_or_default();
    Duration::from_nanos(text.trim().parse().unwrap_or_default())
}

/// Time of groups on each processor; version 1 tells, version 2 does not.
fn each_of(groups: &[PathBuf]) -> Vec<Duration> {
    let mut sums: Vec<Duration> = Vec::new();
    for group in groups {
        let text = fs::read_to_string(group.join("cpuacct.usage_percpu")).unwrap_or_default();
        let times = text.split_whitespace().take(PROCESSORS_MAX);
        for (number, time) in times.enumerate() {
            if sums.len() <= number {
                sums.push(Duration::ZERO);
            }
            sums[number] += Duration::from_nanos(time.parse().unwrap_or_default());
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("v1"), root.path().join("v2"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        fs::write(one.join("cpuacct.usage"), "2000000000\n").unwrap();
        fs::write(one.join("cpuacct.usage_percpu"), "1500000000 500000000 \n").unwrap();
        fs::write(two.join("cpu.stat"), "usage_usec 3000000\nuser_usec 1\n").unwrap();
        let gone = root.path().join("gone");
        assert_eq!(time_of(&[one.clone(), two, gone]), Duration::from_secs(5));
        let each = [Duration::from_millis(1500), Duration::from_millis(500)];
        assert_eq!(each_of(&[one]), each);
    }
}
