//! Why nobody used a CPU although tasks were there to use it, from the kernel's scheduler events
//! and the counters of the tasks' groups. Tells whether it was the tasks, their bounds or the
//! kernel that left idle CPU time unharvested. Pure but for [`held_back_s`].

use super::trace::{Line, Whose, parse, whose};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Idle CPU seconds by what the tasks without a CPU did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spare {
    /// A task could have run: it stood in the queue of another CPU, or its own bound held it.
    pub queued_s: f64,
    /// No task could: one slept, and none stood in a queue.
    pub asleep_s: f64,
}

/// What a task's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Runs,
    Waits,
    Sleeps,
}

/// Sums up a trace. CPUs and tasks count from the first event that tells of them.
pub(crate) fn spare(text: &str) -> Spare {
    let mut sum = Spare::default();
    let mut tasks: BTreeMap<u32, Doing> = BTreeMap::new();
    let mut idle: BTreeMap<u32, bool> = BTreeMap::new();
    let mut last_s = None;
    for (cpu, at_s, line) in text.lines().filter_map(parse) {
        let passed_s = last_s.map_or(0.0, |last: f64| (at_s - last).max(0.0));
        last_s = Some(at_s);
        let nobody = idle.values().filter(|idle| **idle).map(|_| passed_s);
        let idle_s: f64 = nobody.sum();
        let any = |doing: Doing| tasks.values().any(|one| *one == doing);
        if any(Doing::Waits) {
            sum.queued_s += idle_s;
        } else if any(Doing::Sleeps) {
            sum.asleep_s += idle_s;
        }
        match line {
            Line::Switch {
                prev,
                runnable,
                next,
            } => {
                if whose(prev.0) == Whose::Task {
                    let left = if runnable {
                        Doing::Waits
                    } else {
                        Doing::Sleeps
                    };
                    tasks.insert(prev.1, left);
                }
                if whose(next.0) == Whose::Task {
                    tasks.insert(next.1, Doing::Runs);
                }
                // Process 0 is what a CPU runs that has nothing to run.
                idle.insert(cpu, next.1 == 0);
            }
            Line::Wake { who, .. } if whose(who.0) == Whose::Task => {
                // Who is woken on the way to sleep runs on.
                let known = tasks.entry(who.1).or_insert(Doing::Waits);
                if *known == Doing::Sleeps {
                    *known = Doing::Waits;
                }
            }
            Line::Wake { .. } | Line::Migrate { .. } => {}
        }
    }
    sum
}

/// Seconds for which the groups below this one were held back by a bound on their CPU time, each
/// CPU counted by itself; none where the kernel does not tell.
pub(crate) fn held_back_s(parent: &Path) -> Option<f64> {
    let stat = fs::read_to_string(parent.join("cpu.stat"));
    let own = stat.ok().and_then(|text| throttled_s(&text));
    let below = fs::read_dir(parent).into_iter().flatten().flatten();
    let below = below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| held_back_s(&entry.path()));
    // A group without a bound has no such line in version 2: that is no time.
    below.chain(own).reduce(|sum, one| sum + one)
}

/// What `cpu.stat` of either version says.
fn throttled_s(text: &str) -> Option<f64> {
    let number = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.trim().parse::<f64>().ok()
    };
    let version_1 = number("throttled_time ").map(|ns| ns / 1e9);
    version_1.or_else(|| number("throttled_usec ").map(|us| us / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two CPUs, two tasks: 20 and 21. CPU 0 has 20, then the owner, then nothing while 20 waits
    /// on CPU 1 behind 21; at last 20 sleeps and CPU 0 stays idle.
    const TRACE: &str = "
 <...>-9   [000] d..2.  1.000: sched_switch: prev_comm=x prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=gleaner-task next_pid=20 next_prio=120
 <...>-9   [001] d..2.  1.000: sched_switch: prev_comm=x prev_pid=8 prev_prio=120 prev_state=S ==> next_comm=gleaner-task next_pid=21 next_prio=120
 <...>-20  [000] d..2.  1.100: sched_switch: prev_comm=gleaner-task prev_pid=20 prev_prio=120 prev_state=R ==> next_comm=gleaner-owner next_pid=31 next_prio=120
 <...>-9   [001] d..2.  1.150: sched_migrate_task: comm=gleaner-task pid=20 prio=120 orig_cpu=0 dest_cpu=1
 <...>-31  [000] d..2.  1.200: sched_switch: prev_comm=gleaner-owner prev_pid=31 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
 <...>-21  [001] d..2.  1.250: sched_switch: prev_comm=gleaner-task prev_pid=21 prev_prio=120 prev_state=R ==> next_comm=gleaner-task next_pid=20 next_prio=120
 <idle>-0  [000] d..2.  1.300: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=gleaner-task next_pid=21 next_prio=120
 <...>-20  [001] d..2.  1.400: sched_switch: prev_comm=gleaner-task prev_pid=20 prev_prio=120 prev_state=D ==> next_comm=swapper/1 next_pid=0 next_prio=120
 <...>-21  [000] d..2.  1.430: sched_wakeup: comm=gleaner-task pid=20 prio=120 target_cpu=001
 <idle>-0  [001] d..2.  1.440: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=gleaner-task next_pid=20 next_prio=120
";

    #[test]
    fn idle_time_is_told_apart_by_what_the_tasks_did() {
        let sum = spare(TRACE);
        // From 1.2 to 1.3 one of them waits while CPU 0 is idle, and from its waking to its start.
        assert!((sum.queued_s - 0.11).abs() < 1e-9, "{sum:?}");
        assert!((sum.asleep_s - 0.03).abs() < 1e-9, "{sum:?}");
        assert_eq!(spare("# nothing\n"), Spare::default());
    }

    #[test]
    fn bounds_are_summed_over_groups_of_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let group = |name: &str, text: &str| {
            let at = dir.path().join(name);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("cpu.stat"), text).unwrap();
        };
        assert_eq!(held_back_s(dir.path()), None);
        group(
            "a",
            "nr_periods 4\nnr_throttled 2\nthrottled_time 1500000000\n",
        );
        group("b/c", "usage_usec 5\nthrottled_usec 250000\n");
        let sum = held_back_s(dir.path()).unwrap();
        assert!((sum - 1.75).abs() < 1e-9, "{sum}");
    }
}
