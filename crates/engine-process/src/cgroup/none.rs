//! Where no control group can be had: a task is the tree of processes below its init.
//!
//! The init is process 1 of a PID namespace, so whatever a task forks, daemonises or orphans
//! stays below it, and the kernel kills all of it with the init. Limits are per-process ones
//! that the sandbox sets before it starts the program ([`resource_limits`]); the rest is
//! watched through `/proc` and marked as degraded.

use super::{Ask, Counters, FREEZE_WAIT, files};
use gleaner_model::Limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Why there is no control group, and where processes are seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) reason: String,
    pub(crate) proc: PathBuf,
}

/// One task's tree of processes.
#[derive(Debug)]
pub(crate) struct Tree {
    proc: PathBuf,
    /// Process 1 of the task's PID namespace; 0 until it is added.
    init: AtomicI32,
}

/// What `/proc/PID/stat` says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    threads: u64,
    major_faults: u64,
    cpu_ticks: u64,
}

impl Stat {
    /// Fields are counted after the command, which may hold blanks and brackets (proc(5)).
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            major_faults: number(9)? + number(10)?,
            // Own and waited-for children's: a process is counted once, here or by its parent.
            cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
            threads: number(17)?,
        })
    }
}

impl Tree {
    pub(crate) const fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            init: AtomicI32::new(0),
        }
    }

    pub(crate) fn add(&self, pid: i32) {
        // The first is the init; what comes later is below it.
        let _kept = self
            .init
            .compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn stat(&self, pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?)
    }

    /// The init and all below it.
    fn members(&self) -> BTreeMap<i32, Stat> {
        let init = self.init.load(Ordering::SeqCst);
        let mut found = BTreeMap::new();
        let Some(first) = (init > 0).then(|| self.stat(init)).flatten() else {
            return found;
        };
        let all: BTreeMap<i32, Stat> = fs::read_dir(&self.proc)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, self.stat(pid)?)))
            .collect();
        found.insert(init, first);
        let mut edge = BTreeSet::from([init]);
        while !edge.is_empty() {
            edge = all
                .iter()
                .filter(|(pid, stat)| edge.contains(&stat.parent) && !found.contains_key(*pid))
                .map(|(pid, _)| *pid)
                .collect();
            found.extend(edge.iter().filter_map(|pid| Some((*pid, *all.get(pid)?))));
        }
        found
    }

    /// Ids of its processes.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.members().into_keys().collect()
    }

    pub(crate) fn counters(&self) -> Counters {
        let members = self.members();
        let memory: u64 = members.keys().map(|pid| self.memory(*pid)).sum();
        let (read_bytes, written_bytes) = members
            .keys()
            .map(|pid| self.io(*pid))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let ticks = ticks_per_second();
        let threads = members.values().map(|stat| stat.threads).sum();
        Counters {
            cpu_us: Some(
                members.values().map(|stat| stat.cpu_ticks).sum::<u64>() * 1_000_000 / ticks,
            ),
            memory_now: Some(memory),
            page_faults: members.values().map(|stat| stat.major_faults).sum(),
            read_bytes,
            written_bytes,
            processes_now: Some(threads),
            ..Counters::default()
        }
    }

    /// Anonymous and shared memory; pages of files are the kernel's to take back.
    fn memory(&self, pid: i32) -> u64 {
        let text = files::read(&self.proc.join(pid.to_string()).join("status")).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .map(|kib| kib << 10)
            .sum()
    }

    fn io(&self, pid: i32) -> (u64, u64) {
        let text = files::read(&self.proc.join(pid.to_string()).join("io")).unwrap_or_default();
        (
            files::keyed(&text, "read_bytes:").unwrap_or(0),
            files::keyed(&text, "write_bytes:").unwrap_or(0),
        )
    }

    /// Every process in it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.members().into_keys().collect()
    }

    /// Asks every member to stop or to go on.
    pub(crate) fn signal_all(&self, on: bool) -> io::Result<()> {
        let number = if on { libc::SIGSTOP } else { libc::SIGCONT };
        self.pids()
            .into_iter()
            .try_for_each(|pid| signal(pid, number))
    }

    /// Stops or continues every member; says whether all are, within a bounded time. A stop that
    /// took longer is to be asked for again ([`Tree::press`]): unlike a group's freezer it knows
    /// nothing of a process that was forked meanwhile.
    pub(crate) fn freeze(&self, on: bool) -> io::Result<bool> {
        if !on {
            // One that was asked to stop and had no processor to do so looks as if it ran, and
            // would stop later: going on takes that back.
            self.signal_all(false)?;
        }
        let end = Instant::now() + FREEZE_WAIT;
        loop {
            let (left, asleep) = self.press(on)?;
            if left == 0 {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(left == asleep);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Signals the members that do not do what was asked; says how many those were, and how many of
    /// them wait in the kernel for a child that has stopped. That is what vfork(2) makes of a parent
    /// until its child is another program: it does nothing, and stops before it goes on.
    pub(crate) fn press(&self, stop: bool) -> io::Result<(usize, usize)> {
        let number = if stop { libc::SIGSTOP } else { libc::SIGCONT };
        let stopped = |stat: &Stat| matches!(stat.state, 'T' | 't');
        let members = self.members();
        let (mut left, mut asleep) = (0, 0);
        for (pid, stat) in &members {
            if stopped(stat) == stop || matches!(stat.state, 'Z' | 'X') {
                continue;
            }
            left += 1;
            let waits = || {
                members
                    .values()
                    .any(|child| child.parent == *pid && stopped(child))
            };
            asleep += usize::from(stop && stat.state == 'D' && waits());
            signal(*pid, number)?;
        }
        Ok((left, asleep))
    }

    /// Kills the init, and with it the whole PID namespace.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        let init = self.init.load(Ordering::SeqCst);
        if init <= 0 {
            return Ok(true);
        }
        let end = Instant::now() + super::KILL_WAIT;
        loop {
            let alive: Vec<i32> = self
                .members()
                .into_iter()
                .filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X'))
                .map(|(pid, _)| pid)
                .collect();
            if alive.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            for pid in alive {
                signal(pid, libc::SIGKILL)?;
            }
            files::short_wait();
        }
    }

    pub(crate) fn populated(&self) -> bool {
        self.members()
            .values()
            .any(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    pub(crate) fn apply(ask: &Ask<'_>) -> Vec<&'static str> {
        let mut missing = vec!["memory", "processes", "cpus"];
        if ask.limits.disk_io.is_some() {
            missing.push("disk_io");
        }
        missing
    }
}

/// Most processes whose time is added up at a time.
const BELOW_MAX: usize = 10_000;

/// Processor time of this process, of all below it, and of those of them that have ended: where
/// no group counts it, that of all tasks and of what watches them. None where the kernel does
/// not list children (`/proc/PID/task/TID/children`, proc(5)).
#[must_use]
pub fn time_below() -> Option<Duration> {
    let proc = proc_root();
    let tree = Tree::new(proc.into());
    let mut edge = vec![i32::try_from(std::process::id()).ok()?];
    let (mut ticks, mut seen) = (0, 0);
    while let Some(pid) = edge.pop().filter(|_| seen < BELOW_MAX) {
        seen += 1;
        // One that has just ended is in its parent's figures by now, or at the next look.
        ticks += tree.stat(pid).map_or(0, |stat| stat.cpu_ticks);
        let Ok(threads) = fs::read_dir(proc.join(pid.to_string()).join("task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children"));
            let children = match children {
                Ok(children) => children,
                Err(error) if seen == 1 && error.kind() == io::ErrorKind::NotFound => return None,
                Err(_) => continue,
            };
            edge.extend(
                children
                    .split_whitespace()
                    .filter_map(|word| word.parse::<i32>().ok()),
            );
        }
    }
    Some(Duration::from_millis(ticks * 1000 / ticks_per_second()))
}

/// The unit of times in `/proc/PID/stat`.
fn ticks_per_second() -> u64 {
    // SAFETY: sysconf(3) takes one integer and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

/// Sends a signal; one to a process that has just gone is fine.
pub(crate) fn signal(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, number) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// A resource for `setrlimit` and its value.
pub type ResourceLimit = (libc::__rlimit_resource_t, u64);

/// Room that a program's text, libraries and thread stacks take in its address space without
/// ever being memory, and the 4 GiB with guards on both sides in which a memory of WebAssembly
/// grows: where that does not fit, each of its accesses is checked by code.
const ADDRESS_SPACE_EXTRA_BYTES: u64 = 8 << 30;

/// What the sandbox sets with `setrlimit` on the program where a group cannot hold it.
///
/// They hold for each process by itself, so they are a net under the watching, not a limit.
#[must_use]
pub fn resource_limits(limits: &Limits) -> Vec<ResourceLimit> {
    let mut all = vec![
        (
            libc::RLIMIT_AS,
            limits.memory.0.saturating_add(ADDRESS_SPACE_EXTRA_BYTES),
        ),
        // Twice, so that it is the watching that ends a task and says why.
        (libc::RLIMIT_DATA, limits.memory.0.saturating_mul(2)),
        (libc::RLIMIT_NPROC, u64::from(limits.processes)),
        (libc::RLIMIT_FSIZE, limits.disk.0),
    ];
    if let Some(time) = limits.cpu_time {
        all.push((libc::RLIMIT_CPU, time.ms.div_ceil(1000).max(1)));
    }
    all
}

/// Where processes are seen.
pub(crate) fn proc_root() -> &'static Path {
    Path::new("/proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let text = "12 (a) b (c) S 7 12 12 0 -1 4194560 100 0 3 4 10 20 30 40 20 0 5 0 99 1 1";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                state: 'S',
                parent: 7,
                threads: 5,
                major_faults: 7,
                cpu_ticks: 100
            })
        );
        assert_eq!(Stat::parse("12 (cut"), None);
    }

    #[test]
    fn this_process_is_a_tree() {
        let tree = Tree::new(proc_root().into());
        assert!(!tree.populated(), "nothing was added");
        tree.add(i32::try_from(std::process::id()).unwrap());
        assert!(tree.populated());
        assert!(tree.counters().memory_now > Some(0));
        assert!(tree.counters().processes_now >= Some(1));
    }

    #[test]
    fn time_below_counts_children_that_have_ended() {
        let before = time_below().unwrap();
        let spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let ended = std::process::Command::new("sh").args(["-c", spin]).status();
        assert!(ended.unwrap().success());
        assert!(time_below().unwrap() > before);
    }

    #[test]
    fn resource_limits_follow_the_limits() {
        let all = resource_limits(&Limits::default());
        assert!(all.contains(&(libc::RLIMIT_NPROC, 256)));
        assert!(!all.iter().any(|(what, _)| *what == libc::RLIMIT_CPU));
    }
}
