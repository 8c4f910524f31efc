//! What a back end can do, in words for the node's inventory and `gleaner doctor`.

use super::{Backend, IdleMeans, Kind};
use gleaner_engine::{Capability, Level};

/// A limit, the controller that holds it, and the words for its absence.
struct Row {
    name: &'static str,
    limit: &'static str,
    v2: &'static str,
    v1: &'static str,
    without: &'static str,
}

const ROWS: [Row; 4] = [
    Row {
        name: "memory limit",
        limit: "memory",
        v2: "memory",
        v1: "memory",
        without: "memory is watched, not held by the kernel: it may be passed for a moment",
    },
    Row {
        name: "process limit",
        limit: "processes",
        v2: "pids",
        v1: "pids",
        without: "processes are limited by a resource limit, not by a group",
    },
    Row {
        name: "cpu limit",
        limit: "cpus",
        v2: "cpu",
        v1: "cpu",
        without: "cpus are not held: a task may use every idle CPU",
    },
    Row {
        name: "disk bandwidth",
        limit: "disk_io",
        v2: "io",
        v1: "blkio",
        without: "disk_io is watched, not held by the kernel: a task that is ahead stands still",
    },
];

/// The words that an attempt's record has for a limit that could not be enforced.
pub(super) fn not_enforced(limit: &str) -> &'static str {
    ROWS.iter()
        .find(|row| row.limit == limit)
        .map_or("a limit is not enforced", |row| row.without)
}

impl Backend {
    /// What works and what does not, with the fix for what does not.
    #[must_use]
    pub fn describe(&self) -> Vec<Capability> {
        let mut all = vec![self.describe_groups()];
        all.extend(ROWS.iter().map(|row| self.describe_row(row)));
        all.push(self.describe_freeze());
        all.push(self.describe_idle());
        all
    }

    fn describe_groups(&self) -> Capability {
        let (level, found, fix) = match &self.inner {
            Kind::V2(tree) => (
                Level::Good,
                format!("version 2, tasks in {}", tree.parent.display()),
                None,
            ),
            Kind::V1(tree) => {
                let names: Vec<_> = tree.parents.keys().copied().collect();
                (
                    Level::Good,
                    format!("version 1: {}", names.join(", ")),
                    None,
                )
            }
            Kind::None(watch) => (
                Level::Degraded,
                format!("none usable: {}", watch.reason),
                Some(
                    "run the agent as a service: sudo systemctl enable --now gleaner-agent; \
                     as plain user, log in to a session with systemd: systemctl --user status"
                        .to_owned(),
                ),
            ),
        };
        capability("control groups", level, found, fix)
    }

    fn has(&self, row: &Row) -> bool {
        match &self.inner {
            Kind::V2(tree) => tree.has(row.v2),
            Kind::V1(tree) => tree.has(row.v1),
            Kind::None(_) => false,
        }
    }

    fn describe_row(&self, row: &Row) -> Capability {
        if self.has(row) {
            return capability(row.name, Level::Good, "held by the kernel".into(), None);
        }
        let fix = match &self.inner {
            Kind::V2(_) => format!(
                "hand the {0} controller down: sudo systemctl edit user@.service, add \
                 [Service] and Delegate=cpu memory pids io, then log in again; as root: \
                 echo +{0} | sudo tee /sys/fs/cgroup/cgroup.subtree_control",
                row.v2
            ),
            Kind::V1(_) => format!(
                "mount the controller: sudo mkdir -p /sys/fs/cgroup/{0} && \
                 sudo mount -t cgroup -o {0} cgroup /sys/fs/cgroup/{0}",
                row.v1
            ),
            Kind::None(_) => "get control groups first, see above".to_owned(),
        };
        capability(row.name, Level::Degraded, row.without.to_owned(), Some(fix))
    }

    fn describe_freeze(&self) -> Capability {
        let (level, found, fix) = match &self.inner {
            Kind::V2(_) => (Level::Good, "cgroup.freeze", None),
            Kind::V1(tree) if tree.has("unified") => {
                (Level::Good, "cgroup.freeze in the version 2 tree", None)
            }
            Kind::V1(tree) if tree.has("freezer") => (Level::Good, "freezer controller", None),
            Kind::V1(_) | Kind::None(_) => (
                Level::Degraded,
                "by a signal to each process",
                Some("get control groups with a freezer, see above".to_owned()),
            ),
        };
        capability("freeze", level, found.to_owned(), fix)
    }

    fn describe_idle(&self) -> Capability {
        let place = self
            .cpu_parent()
            .map_or_else(String::new, |dir| format!(" on {}", dir.display()));
        let (level, found, fix) = match self.idle() {
            IdleMeans::CpuIdle => (Level::Good, format!("cpu.idle{place}"), None),
            IdleMeans::Weight => (
                Level::Degraded,
                format!("smallest weight{place}"),
                Some("a kernel from 5.15 on has cpu.idle: sudo apt full-upgrade".to_owned()),
            ),
            IdleMeans::None => (
                Level::Degraded,
                "no cpu controller; the session's nice value is used".to_owned(),
                Some(
                    "run the agent as a service: sudo systemctl enable --now gleaner-agent".into(),
                ),
            ),
        };
        capability("idle priority", level, found, fix)
    }
}

pub(crate) fn capability(
    name: &str,
    level: Level,
    found: String,
    fix: Option<String>,
) -> Capability {
    Capability {
        name: name.to_owned(),
        level,
        found,
        fix,
    }
}
