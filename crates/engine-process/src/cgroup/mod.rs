//! Groups of processes: limits, freezing, killing and counting a task as a whole.
//!
//! It owns one parent group a PC (at idle priority as a whole, see [`crate::priority`]) and one
//! child of it for each attempt. Three back ends do the same through what the kernel has:
//! control groups version 2, version 1, or none (a watched tree of processes). It must not know
//! what a task is, what runs in a group, or what is done about a limit: limits come in as
//! [`Limits`], figures go out as [`GroupUsage`] and [`GroupEvents`]. The agent and the launcher
//! stay outside the groups, so nothing of theirs is ever charged to a task.

mod claim;
mod controllers;
mod describe;
mod detect;
mod device;
mod domain;
mod files;
mod group;
mod none;
mod options;
mod pool;
#[cfg(test)]
mod tests;
mod told;
mod v1;
mod v2;

pub(crate) use claim::{Claim, PART};
pub(crate) use describe::capability;
use device::Device;
pub(crate) use files::own_path;
use group::Inner;
pub use group::{Group, join};
pub use none::{ResourceLimit, resource_limits, time_below};
pub use options::DetectOptions;
pub use pool::GroupPool;

use gleaner_model::Limits;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The kernel's own default period of CPU bandwidth control, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// In less than that a limit on processors means nothing.
pub(crate) const CPU_PERIOD: Duration = Duration::from_micros(CPU_PERIOD_US);

/// The kernel refuses a smaller CPU quota, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// How long a freeze may take before the caller is told "not yet". With many more runnable
/// tasks than CPUs each must be scheduled once: 16 ms is usual, 160 ms was seen under load.
const FREEZE_WAIT: Duration = Duration::from_millis(500);

/// How long killed processes may take to go. Large address spaces take a while to tear down.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How the parent group is kept behind the owner's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdleMeans {
    /// `cpu.idle`: runs only when nothing else wants the CPU.
    CpuIdle,
    /// The smallest weight there is: well below one percent of a contended CPU.
    Weight,
    /// Not by a group; the autogroup's nice value has to do.
    None,
}

/// What is asked of a group.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The attempt's limits.
    pub limits: &'a Limits,
    /// Its scratch directory: `disk_io` holds on the disk under it.
    pub scratch: &'a Path,
    /// Processes of ours in the group (the sandbox's init), not counted against the task.
    pub own_processes: u32,
}

impl Ask<'_> {
    fn processes(&self) -> u64 {
        u64::from(self.limits.processes) + u64::from(self.own_processes)
    }

    /// Microseconds of CPU a period at `permille` of the limit; none where that is every CPU.
    fn quota_us(&self, permille: u32) -> Option<u64> {
        quota_us(self.limits.cpus.milli, permille, detect::online_cpus())
    }
}

fn quota_us(cpus_milli: u32, permille: u32, online: u64) -> Option<u64> {
    let permille = u64::from(permille.min(1000));
    // A task may be allowed more than there is; a share of it is a share of what there is.
    let milli = match permille {
        1000 => u64::from(cpus_milli),
        _ => u64::from(cpus_milli).min(online * 1000) * permille / 1000,
    };
    (milli < online * 1000).then(|| (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US))
}

/// What a group has used since it was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// CPU time of all its processes, dead ones too, in microseconds.
    pub cpu_us: u64,
    /// Memory now, page cache apart, in bytes.
    pub memory_now: u64,
    /// Most memory at once in bytes, page cache apart as well as can be told.
    ///
    /// The kernel's peak includes page cache. Kept is the larger of what was seen at calls of
    /// [`Group::usage`] and the peak less the cache that is there now; the whole peak after an
    /// out-of-memory kill, when no cache was left to take.
    pub memory_peak: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
    /// Processes and threads now.
    pub processes_now: u32,
    /// Most processes and threads at once; where the kernel has no peak, as seen at calls.
    pub processes_peak: u32,
    /// Major page faults.
    pub page_faults: u64,
}

/// Limits that a group ran into since it was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupEvents {
    /// Processes that the kernel killed for want of memory within the limit.
    pub oom_kills: u64,
    /// Forks that failed.
    pub pids_max_hits: u64,
    /// Time held back by the CPU limit, in microseconds.
    pub throttled_us: u64,
}

/// The kernel's figures of a group, as they stand. Absent ones are none or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    cpu_us: Option<u64>,
    throttled_us: u64,
    memory_now: Option<u64>,
    memory_peak: Option<u64>,
    cache_now: u64,
    page_faults: u64,
    oom_kills: u64,
    read_bytes: u64,
    written_bytes: u64,
    processes_now: Option<u64>,
    processes_peak: Option<u64>,
    pids_max_hits: u64,
}

/// What a reused group's counters stood at when it was handed out. Stored with an attempt, so
/// that its usage stays right when another process takes the group over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Baseline(pub(crate) Counters);

/// The way groups are made on this PC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Backend {
    inner: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    V2(v2::Tree),
    V1(v1::Tree),
    None(none::Watch),
}

impl Backend {
    /// Which back end this is, for logs: `cgroup v2`, `cgroup v1` or `no cgroup`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.inner {
            Kind::V2(_) => "cgroup v2",
            Kind::V1(_) => "cgroup v1",
            Kind::None(_) => "no cgroup",
        }
    }

    /// Whether limits are enforced by the kernel on the group.
    #[must_use]
    pub const fn has_groups(&self) -> bool {
        !matches!(self.inner, Kind::None(_))
    }

    /// How the parent group is kept behind the owner's programs.
    #[must_use]
    pub const fn idle(&self) -> IdleMeans {
        match &self.inner {
            Kind::V2(tree) => tree.idle,
            Kind::V1(tree) => tree.idle,
            Kind::None(_) => IdleMeans::None,
        }
    }

    /// Whether the parent group is a direct child of the top, so that its priority is compared
    /// with everything else on the PC and not only with its neighbours.
    #[must_use]
    pub const fn at_top(&self) -> bool {
        match &self.inner {
            Kind::V2(tree) => tree.at_top,
            Kind::V1(tree) => tree.at_top,
            Kind::None(_) => false,
        }
    }

    /// Whether what another process of ours found out holds still: the groups that it made are
    /// there. To try each of them again costs a start more than all else about groups.
    pub(crate) fn stands(&self) -> bool {
        match &self.inner {
            Kind::V2(tree) => tree.parent.is_dir(),
            Kind::V1(tree) => {
                let mut dirs = tree.parents.values().chain(&tree.cpuset);
                dirs.all(|dir| dir.is_dir())
            }
            Kind::None(_) => true,
        }
    }

    /// Whether a task's memory is kept out of swap by the kernel.
    pub(crate) fn holds_swap(&self) -> bool {
        match &self.inner {
            Kind::V2(tree) => tree.parent.join("memory.swap.max").exists(),
            Kind::V1(tree) => tree
                .parents
                .get("memory")
                .is_some_and(|dir| dir.join("memory.memsw.limit_in_bytes").exists()),
            Kind::None(_) => false,
        }
    }

    /// The group of all tasks as the CPU scheduler sees it; names the place in caches and messages.
    #[must_use]
    pub fn cpu_parent(&self) -> Option<&Path> {
        match &self.inner {
            Kind::V2(tree) => Some(&tree.slice),
            Kind::V1(tree) => tree.slices.get("cpu").map(PathBuf::as_path),
            Kind::None(_) => None,
        }
    }

    /// The groups whose processor time is that of all tasks on this PC; empty where none counts
    /// it, see [`time_below`].
    #[must_use]
    pub fn accounts(&self) -> Vec<PathBuf> {
        let found = match &self.inner {
            Kind::V2(tree) => Some(&tree.slice),
            Kind::V1(tree) => tree
                .slices
                .get("cpuacct")
                .or_else(|| tree.slices.get("unified")),
            Kind::None(_) => None,
        };
        found.into_iter().cloned().collect()
    }

    /// The top of the hierarchy that the CPU scheduler goes by.
    pub(crate) fn cpu_top(&self) -> Option<PathBuf> {
        match &self.inner {
            Kind::V2(tree) => Some(tree.top.clone()),
            Kind::V1(tree) => Some(tree.root.join("cpu")),
            Kind::None(_) => None,
        }
    }

    /// What the line of that hierarchy in `/proc/PID/cgroup` is found by.
    pub(crate) const fn cpu_key(&self) -> &'static str {
        match self.inner {
            Kind::V2(_) | Kind::None(_) => "",
            Kind::V1(_) => "cpu",
        }
    }

    /// A new group, or the empty one of that name.
    ///
    /// # Errors
    /// Where a directory cannot be made; nothing is left behind then.
    pub fn create(&self, name: &str) -> io::Result<Group> {
        check_name(name)?;
        let inner = match &self.inner {
            Kind::V2(tree) => Inner::V2(tree.create(name)?),
            Kind::V1(tree) => Inner::V1(tree.create(name)?),
            Kind::None(watch) => Inner::None(none::Tree::new(watch.proc.clone())),
        };
        Ok(Group::new(name, inner, Baseline::default()))
    }

    /// A group that another process made, with the baseline that it was handed out at.
    ///
    /// Without control groups the caller adds the task's init again.
    ///
    /// # Errors
    /// Where there is no such group.
    pub fn open(&self, name: &str, base: Baseline) -> io::Result<Group> {
        check_name(name)?;
        let inner = match &self.inner {
            Kind::V2(tree) => Inner::V2(v2::Leaf::open(tree.parent.join(name))?),
            Kind::V1(tree) => {
                let leaf = tree.leaf(name);
                leaf.populated()?;
                Inner::V1(leaf)
            }
            Kind::None(watch) => Inner::None(none::Tree::new(watch.proc.clone())),
        };
        Ok(Group::new(name, inner, base))
    }

    /// Ends and removes every group below the parent that `keep` does not want; says how many.
    ///
    /// An agent that was killed leaves them behind. One that will not go is left for next time.
    /// With a group go those inside it: the part of an agent holds one for each of its tasks, and
    /// what is frozen in there would outlive every signal.
    pub fn sweep_stale(&self, keep: &dyn Fn(&str) -> bool) -> usize {
        let names = self.names();
        let stale = names.iter().filter(|name| !keep(name));
        stale
            .filter(|name| {
                self.inside(name).sweep_stale(&|_| false);
                // A group that stands in only some hierarchies has nothing to kill.
                let gone = match &self.inner {
                    Kind::V1(tree) => {
                        let leaf = tree.leaf(name);
                        let _absent = leaf.kill();
                        leaf.remove()
                    }
                    Kind::V2(_) | Kind::None(_) => {
                        self.open(name, Baseline::default()).and_then(|group| {
                            group.kill()?;
                            group.remove()
                        })
                    }
                };
                if let Err(error) = &gone {
                    tracing::warn!(group = %name, %error, "a stale group could not be removed");
                }
                gone.is_ok()
            })
            .count()
    }

    /// Names of the groups that tasks, or agents, have here.
    fn names(&self) -> Vec<String> {
        match &self.inner {
            Kind::V2(tree) => fs::read_dir(&tree.parent).map_or_else(|_| Vec::new(), group_names),
            Kind::V1(tree) => v1::Leaf::names(tree),
            Kind::None(_) => Vec::new(),
        }
    }

    /// The same, one level further down.
    fn inside(&self, name: &str) -> Self {
        let mut inner = self.clone();
        match &mut inner.inner {
            Kind::V2(tree) => tree.parent.push(name),
            Kind::V1(tree) => tree.parents.values_mut().for_each(|dir| dir.push(name)),
            Kind::None(_) => {}
        }
        inner
    }

    /// Removes the agent's part of the parent group if nothing is in it; one that is in use is
    /// left.
    pub fn remove_domain(&self) {
        match &self.inner {
            Kind::V2(tree) if tree.parent != tree.slice => {
                let _in_use = fs::remove_dir(&tree.parent);
            }
            Kind::V1(tree) if tree.parents != tree.slices => {
                for dir in tree.parents.values().chain(&tree.cpuset) {
                    let _in_use = fs::remove_dir(dir);
                }
            }
            Kind::V2(_) | Kind::V1(_) | Kind::None(_) => {}
        }
    }

    /// Removes the parent group, and what agents left empty in it, if nothing else is there.
    ///
    /// # Errors
    /// Where it is in use.
    pub fn remove_parent(&self) -> io::Result<()> {
        let remove = |dir: &Path| {
            for domain in fs::read_dir(dir).map_or_else(|_| Vec::new(), group_names) {
                let _in_use = fs::remove_dir(dir.join(domain));
            }
            files::remove_dir(dir)
        };
        match &self.inner {
            Kind::V2(tree) => remove(&tree.slice),
            Kind::V1(tree) => {
                tree.cpuset_slice().map_or(Ok(()), |dir| remove(&dir))?;
                tree.slices.values().try_for_each(|dir| remove(dir))
            }
            Kind::None(_) => Ok(()),
        }
    }
}

/// A group's name is one path component of our own making.
fn check_name(name: &str) -> io::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.chars().all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} cannot name a group; use letters, digits, '-' and '_'"),
        ));
    }
    Ok(())
}

fn group_names(entries: fs::ReadDir) -> Vec<String> {
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Kills process by process where the kernel cannot kill a group: signal all and thaw, so that
/// the signals act. What is left after the first pass forks faster than it is counted, so it is
/// frozen before the next.
fn kill_loop(procs: &Path, freeze: &mut dyn FnMut(bool) -> io::Result<()>) -> io::Result<bool> {
    let end = Instant::now() + KILL_WAIT;
    let mut pass = 0_u32;
    loop {
        // A killed process stays listed for a moment; only a bomb outlives several passes.
        if pass > 0 && pass.is_multiple_of(16) {
            let _unfrozen = freeze(true);
        }
        pass = pass.wrapping_add(1);
        let all = files::processes(procs)?;
        for pid in &all {
            none::signal(*pid, libc::SIGKILL)?;
        }
        let _unfrozen = freeze(false);
        if all.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        files::short_wait();
    }
}
