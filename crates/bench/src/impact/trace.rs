//! Who held the CPU while an owner's thread waited for it, from the kernel's scheduler events.
//!
//! That time does not depend on how busy the PC is otherwise: on a shared machine it tells what
//! timing cannot. An own instance of the tracer is made and removed again (Linux: "ftrace -
//! Function Tracer", instances); where there is none, the sum of run delays has to do.

use super::leftovers;
use crate::{BenchError, Doing as _};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the owner's process is called.
pub(crate) const OWNER: &str = "gleaner-owner";
/// Kibibytes of trace a CPU: some hundred thousand events, seconds of a busy PC.
const BUFFER_KIB: u32 = 16 << 10;
const EVENTS: [&str; 4] = [
    "sched_switch",
    "sched_wakeup",
    "sched_wakeup_new",
    "sched_migrate_task",
];

/// What owner threads waited for while they were runnable.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Seconds in which a task held the CPU.
    pub tasks_s: f64,
    /// The longest of those waits, in seconds.
    pub longest_task_s: f64,
    /// Seconds in which another thread of the owner held it.
    pub owner_s: f64,
    /// Seconds in which anything else did, an idle CPU waking up among them.
    pub others_s: f64,
}

/// An instance of the tracer.
#[derive(Debug)]
pub(crate) struct Tracer {
    instance: PathBuf,
    mounted: Option<PathBuf>,
}

impl Tracer {
    /// An instance of our own; an error says why there is none. `dir` is where the tracer's file
    /// system is mounted if it is not already.
    pub(crate) fn new(dir: &Path) -> Result<Self, BenchError> {
        let mut mounted = None;
        let known = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(PathBuf::from);
        let root = known
            .into_iter()
            .find(|root| root.join("instances").is_dir());
        let root = match root {
            Some(root) => root,
            None => {
                let at = dir.join(leftovers::TRACER);
                fs::create_dir_all(&at).doing("make a directory for the tracer")?;
                mount("tracefs", &at, "tracefs", MountFlags::empty(), None)
                    .doing("mount the tracer")?;
                mounted = Some(at.clone());
                at
            }
        };
        let instances = root.join("instances");
        leftovers::sweep_tracers(&instances);
        let instance = instances.join(leftovers::own_name());
        let tracer = Self { instance, mounted };
        fs::create_dir(&tracer.instance).doing("make an instance of the tracer")?;
        tracer.set("tracing_on", "0")?;
        tracer.set("buffer_size_kb", &BUFFER_KIB.to_string())?;
        tracer.set("trace_clock", "mono")?;
        for event in EVENTS {
            tracer.set(&format!("events/sched/{event}/enable"), "1")?;
        }
        Ok(tracer)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), BenchError> {
        fs::write(self.instance.join(file), value).doing(format!("set the tracer's {file}"))
    }

    /// Begins to listen.
    pub(crate) fn start(&self) -> Result<(), BenchError> {
        self.set("trace", "")?;
        self.set("tracing_on", "1")
    }

    /// Ends listening.
    pub(crate) fn stop(&self) -> Result<(), BenchError> {
        self.set("tracing_on", "0")
    }

    /// When a task had a CPU last, in seconds of the monotonic clock.
    pub(crate) fn last_of_tasks(&self) -> Result<Option<f64>, BenchError> {
        Ok(last_of_tasks(&self.heard()?))
    }

    /// What was heard, a line an event.
    pub(crate) fn heard(&self) -> Result<String, BenchError> {
        let bytes = fs::read(self.instance.join("trace")).doing("read the trace")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _off = self.set("tracing_on", "0");
        let _gone = fs::remove_dir(&self.instance);
        if let Some(at) = &self.mounted {
            let _unmounted = unmount(at, UnmountFlags::DETACH);
        }
    }
}

/// Whose thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Task,
    Owner,
    Other,
}

pub(super) fn whose(comm: &str) -> Whose {
    match comm {
        super::work::NAME => Whose::Task,
        OWNER => Whose::Owner,
        _ => Whose::Other,
    }
}

/// One line of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Line<'a> {
    Switch {
        prev: (&'a str, u32),
        runnable: bool,
        next: (&'a str, u32),
    },
    Wake {
        who: (&'a str, u32),
        cpu: u32,
    },
    Migrate {
        who: u32,
        to: u32,
    },
}

/// CPU, time in seconds, and what happened.
pub(super) fn parse(line: &str) -> Option<(u32, f64, Line<'_>)> {
    let (head, event) = EVENTS.iter().find_map(|event| {
        line.split_once(&format!(" {event}: "))
            .map(|(a, b)| (a, (*event, b)))
    })?;
    let cpu = head.split_once('[')?.1.split_once(']')?.0.parse().ok()?;
    let time = head
        .split_whitespace()
        .last()?
        .trim_end_matches(':')
        .parse()
        .ok()?;
    let (event, rest) = event;
    let line = match event {
        "sched_switch" => {
            let (prev, next) = rest.split_once(" ==> ")?;
            let (comm, prev) = prev.strip_prefix("prev_comm=")?.split_once(" prev_pid=")?;
            let state = prev.split_once("prev_state=")?.1;
            let (next_comm, next) = next.strip_prefix("next_comm=")?.split_once(" next_pid=")?;
            Line::Switch {
                prev: (comm, number(prev)?),
                runnable: state.starts_with('R'),
                next: (next_comm, number(next)?),
            }
        }
        "sched_migrate_task" => Line::Migrate {
            who: number(rest.split_once(" pid=")?.1)?,
            to: number(rest.split_once("dest_cpu=")?.1)?,
        },
        _ => {
            let (comm, rest) = rest.strip_prefix("comm=")?.split_once(" pid=")?;
            Line::Wake {
                who: (comm, number(rest)?),
                cpu: number(rest.split_once("target_cpu=")?.1)?,
            }
        }
    };
    Some((cpu, time, line))
}

fn number(text: &str) -> Option<u32> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A thread of the owner that waits.
struct Waiting {
    cpu: u32,
    since: f64,
    behind_task_s: f64,
}

/// Sums up a trace.
pub(crate) fn waits(text: &str) -> Waits {
    let mut sum = Waits::default();
    let mut waiting: BTreeMap<u32, Waiting> = BTreeMap::new();
    let mut running: BTreeMap<u32, (Whose, u32)> = BTreeMap::new();
    for (cpu, time, line) in text.lines().filter_map(parse) {
        if let Line::Switch { prev, .. } = line {
            running.insert(cpu, (whose(prev.0), prev.1));
            // Who has run was not waiting, whatever was heard of it meanwhile.
            waiting.remove(&prev.1);
        }
        for one in waiting.values_mut() {
            let holder = running.get(&one.cpu).map(|(whose, _)| *whose);
            settle(one, time, holder, &mut sum);
        }
        match line {
            Line::Switch {
                prev,
                runnable,
                next,
            } => {
                running.insert(cpu, (whose(next.0), next.1));
                if let Some(done) = waiting.remove(&next.1) {
                    sum.longest_task_s = sum.longest_task_s.max(done.behind_task_s);
                }
                if runnable && whose(prev.0) == Whose::Owner {
                    waiting.insert(prev.1, fresh(cpu, time));
                }
            }
            // A thread may be woken on its way to sleep: then it runs on, and waits for nobody.
            Line::Wake { who, .. } if running.values().any(|(_, pid)| *pid == who.1) => {}
            Line::Wake { who, cpu } if whose(who.0) == Whose::Owner => {
                waiting.entry(who.1).or_insert_with(|| fresh(cpu, time));
            }
            Line::Wake { .. } => {}
            Line::Migrate { who, to } => {
                if let Some(one) = waiting.get_mut(&who) {
                    one.cpu = to;
                }
            }
        }
    }
    sum
}

fn last_of_tasks(text: &str) -> Option<f64> {
    let left = |(_, time, line): (u32, f64, Line<'_>)| match line {
        Line::Switch { prev, .. } if whose(prev.0) == Whose::Task => Some(time),
        Line::Switch { .. } | Line::Wake { .. } | Line::Migrate { .. } => None,
    };
    text.lines().rev().filter_map(parse).find_map(left)
}

const fn fresh(cpu: u32, since: f64) -> Waiting {
    Waiting {
        cpu,
        since,
        behind_task_s: 0.0,
    }
}

/// Books what one waited since the last look on whoever held its CPU.
fn settle(one: &mut Waiting, now: f64, holder: Option<Whose>, sum: &mut Waits) {
    let waited = (now - one.since).max(0.0);
    one.since = now;
    match holder {
        Some(Whose::Task) => {
            sum.tasks_s += waited;
            one.behind_task_s += waited;
        }
        Some(Whose::Owner) => sum.owner_s += waited,
        Some(Whose::Other) | None => sum.others_s += waited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# tracer: nop
    gleaner-task-20  [001] d..2.  10.000000: sched_switch: prev_comm=a b prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=gleaner-task next_pid=20 next_prio=120
          <idle>-0   [000] dNh4.  10.001000: sched_wakeup: comm=gleaner-owner pid=31 prio=120 target_cpu=001
    gleaner-task-20  [001] d..2.  10.001300: sched_switch: prev_comm=gleaner-task prev_pid=20 prev_prio=120 prev_state=R+ ==> next_comm=gleaner-owner next_pid=31 next_prio=120
           <...>-31  [001] dN.2.  10.002000: sched_wakeup: comm=gleaner-owner pid=32 prio=120 target_cpu=001
           <...>-31  [001] d..2.  10.004000: sched_switch: prev_comm=gleaner-owner prev_pid=31 prev_prio=120 prev_state=R ==> next_comm=kworker/1:1 next_pid=50 next_prio=120
           <...>-50  [001] d..2.  10.005000: sched_switch: prev_comm=kworker/1:1 prev_pid=50 prev_prio=120 prev_state=I ==> next_comm=gleaner-owner next_pid=32 next_prio=120
           <...>-99  [000] d..2.  10.005500: sched_migrate_task: comm=gleaner-owner pid=31 prio=120 orig_cpu=1 dest_cpu=0
           <...>-99  [000] d..2.  10.006000: sched_switch: prev_comm=gleaner-task prev_pid=21 prev_prio=120 prev_state=R ==> next_comm=gleaner-owner next_pid=31 next_prio=120
";

    #[test]
    fn waiting_is_booked_on_whoever_held_the_cpu() {
        let sum = waits(TRACE);
        // 31 behind the task 0.3 ms; then, after its move, 0.5 ms behind the task on CPU 0.
        assert!((sum.tasks_s - 0.0008).abs() < 1e-9, "{sum:?}");
        assert!((sum.longest_task_s - 0.0005).abs() < 1e-9, "{sum:?}");
        // 32 behind 31 for 2 ms, and 31 behind 32 for half a millisecond.
        assert!((sum.owner_s - 0.0025).abs() < 1e-9, "{sum:?}");
        // Both behind the kernel's worker for a millisecond.
        assert!((sum.others_s - 0.002).abs() < 1e-9, "{sum:?}");
    }

    #[test]
    fn who_is_woken_while_running_does_not_wait() {
        let sum = waits(
            "<...>-9   [001] d..2.  10.000000: sched_switch: prev_comm=a prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=gleaner-owner next_pid=31 next_prio=120
<...>-8   [000] d..2.  10.001000: sched_wakeup: comm=gleaner-owner pid=31 prio=120 target_cpu=001
<...>-31  [001] d..2.  10.002000: sched_switch: prev_comm=gleaner-owner prev_pid=31 prev_prio=120 prev_state=S ==> next_comm=gleaner-task next_pid=20 next_prio=120
<...>-20  [001] d..2.  10.700000: sched_switch: prev_comm=gleaner-task prev_pid=20 prev_prio=120 prev_state=R ==> next_comm=gleaner-owner next_pid=31 next_prio=120
",
        );
        assert_eq!(sum, Waits::default(), "31 slept");
    }

    #[test]
    fn the_last_task_leaves_when_it_is_switched_out() {
        assert_eq!(last_of_tasks(TRACE), Some(10.006));
        assert_eq!(last_of_tasks(""), None);
    }

    #[test]
    fn other_lines_are_passed_over() {
        assert_eq!(
            waits("# nothing\nCPU:0 [LOST 12 EVENTS]\n"),
            Waits::default()
        );
        assert_eq!(
            parse("x [zz] 1.0: sched_wakeup: comm=a pid=1 target_cpu=0"),
            None
        );
    }

    #[test]
    fn an_instance_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        // Without the rights or the tracer there is a reason instead.
        match Tracer::new(dir.path()) {
            Ok(tracer) => {
                tracer.start().unwrap();
                tracer.stop().unwrap();
                assert!(waits(&tracer.heard().unwrap()).tasks_s >= 0.0);
                let instance = tracer.instance.clone();
                assert!(instance.is_dir());
                drop(tracer);
                assert!(!instance.exists());
            }
            Err(reason) => assert!(reason.to_string().contains("tracer"), "{reason}"),
        }
    }
}
