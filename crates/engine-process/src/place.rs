//! Holds all threads of an attempt to one processor, or lets them run on all again.
//!
//! By the affinity of each thread (sched_setaffinity(2)) and not by a processor set of its group:
//! it needs no controller, and works the same without groups and as a plain user. What is forked
//! later inherits it. A program may change its own and be where it likes: placing serves the
//! owner, it limits nothing. Must not know who is placed or why.

use crate::cgroup::Group;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;

/// Times that an attempt's threads are gone through: each later one only meets what was forked
/// during the one before. What forks faster stays where it is.
const PASSES: u32 = 8;

/// The processors that this program may run on, by number, in order; where it has not been bound
/// to some, all that are online.
#[must_use]
pub fn own_processors() -> Vec<u32> {
    let own = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| own.is_set(*cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

/// Moves every thread of the group to this processor; to all of our own where there is none.
///
/// A thread that cannot be moved, because it has just ended or the processor is gone, is left
/// where it is.
pub(crate) fn place(group: &Group, cpu: Option<u32>) {
    let mut to = CpuSet::new();
    match cpu.and_then(|cpu| usize::try_from(cpu).ok()) {
        Some(cpu) if cpu < CpuSet::MAX_CPU => to.set(cpu),
        Some(_) => return,
        None => match sched_getaffinity(None) {
            Ok(own) => to = own,
            Err(_) => return,
        },
    }
    for _ in 0..PASSES {
        let processes = group.members();
        let threads = processes.into_iter().flat_map(threads);
        // Every one is moved, so this must not stop at the first.
        let moved = threads.filter(|thread| moved(*thread, &to)).count();
        if moved == 0 {
            return;
        }
    }
}

fn threads(process: i32) -> Vec<Pid> {
    let entries = fs::read_dir(format!("/proc/{process}/task"));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Moves a thread; says whether it was anywhere else before. What the kernel keeps from it for
/// another reason does not count.
fn moved(thread: Pid, to: &CpuSet) -> bool {
    let now = || sched_getaffinity(Some(thread)).ok();
    let before = now();
    if before.as_ref().is_none_or(|before| before == to) {
        return false;
    }
    sched_setaffinity(Some(thread), to).is_ok() && now() != before
}
