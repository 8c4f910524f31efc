//! Processor time: the owner's is all that was used less ours.
//!
//! The kernel counts what was used in ticks of 10 ms, and the time of control groups exactly; over
//! the second that is looked at, the difference is good to about a hundredth.

use crate::board::Board;
use crate::moment::Moment;
use crate::own::{OwnTime, PROCESSORS_MAX};
use gleaner_model::Load;
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks that a word spans: a second.
const LOOKS: usize = 6;

/// A tick of `/proc/stat`: `USER_HZ` is 100 on every platform of Linux.
const TICK: Duration = Duration::from_millis(10);

/// Ticks of one processor since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ticks {
    busy: u64,
    /// Of the busy ones, those of programs with a lowered priority, as ours have.
    low: u64,
    stolen: u64,
    total: u64,
}

impl Ticks {
    fn since(self, old: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(old.busy),
            low: self.low.saturating_sub(old.low),
            stolen: self.stolen.saturating_sub(old.stolen),
            total: self.total.saturating_sub(old.total),
        }
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
struct Look {
    all: Ticks,
    each: Vec<Ticks>,
    /// Time of tasks; and of each processor, where the kernel tells.
    tasks: Duration,
    tasks_each: Vec<Duration>,
    /// Time of the agent itself.
    agent: Duration,
}

/// Looks at processor time.
#[derive(Debug)]
pub(super) struct Meter {
    stat: PathBuf,
    own: OwnTime,
    looks: VecDeque<Look>,
}

impl Meter {
    pub(super) fn new(proc: &Path, own: &OwnTime) -> Self {
        Self {
            stat: proc.join("stat"),
            own: own.clone(),
            looks: VecDeque::new(),
        }
    }

    pub(super) fn look(&mut self, board: &Board) {
        match self.take() {
            Ok(look) => {
                if self.looks.len() >= LOOKS {
                    self.looks.pop_front();
                }
                self.looks.push_back(look);
                if let (Some(old), Some(new)) = (self.looks.front(), self.looks.back())
                    && let Some(load) = between(old, new)
                {
                    board.load.seen(load, Moment::now());
                    board.load.describe(&format!(
                        "owner {} %, tasks {} %",
                        load.owner / 10,
                        load.tasks / 10
                    ));
                }
            }
            Err(why) => {
                self.looks.clear();
                board.load.failed(&why, None);
            }
        }
    }

    fn take(&self) -> Result<Look, String> {
        let text = fs::read_to_string(&self.stat)
            .map_err(|error| format!("{}: {error}", self.stat.display()))?;
        let (all, each) =
            parse(&text).ok_or_else(|| format!("{}: not understood", self.stat.display()))?;
        let unknown = "the processor time of tasks is not known";
        let tasks = self.own.read().ok_or(unknown)?;
        let tasks_each = self.own.by_processor();
        let agent = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Look {
            all,
            each,
            tasks,
            tasks_each,
            agent: Duration::new(
                agent.tv_sec.try_into().unwrap_or_default(),
                agent.tv_nsec.try_into().unwrap_or_default(),
            ),
        })
    }
}

/// All processors together, then each.
fn parse(text: &str) -> Option<(Ticks, Vec<Ticks>)> {
    let mut rows = text
        .lines()
        .take_while(|line| line.starts_with("cpu"))
        .take(PROCESSORS_MAX + 1);
    let all = ticks(rows.next()?)?;
    Some((all, rows.filter_map(ticks).collect()))
}

/// A row: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
fn ticks(row: &str) -> Option<Ticks> {
    let mut fields = row.split_whitespace().skip(1).map(str::parse::<u64>);
    let mut next = || fields.next().transpose().ok().flatten();
    let (user, low, system) = (next()?, next()?, next()?);
    let (idle, waiting) = (next()?, next()?);
    let interrupts = next().unwrap_or(0) + next().unwrap_or(0);
    let stolen = next().unwrap_or(0);
    let busy = user + low + system + interrupts;
    Some(Ticks {
        busy,
        low,
        stolen,
        total: busy + idle + waiting + stolen,
    })
}

/// What was used between two looks; nothing where no time passed.
fn between(old: &Look, new: &Look) -> Option<Load> {
    let all = new.all.since(old.all);
    if all.total == 0 {
        return None;
    }
    let tasks = in_ticks(new.tasks.saturating_sub(old.tasks));
    let agent = in_ticks(new.agent.saturating_sub(old.agent));
    let owner = all.busy.saturating_sub(tasks + agent);
    Some(Load {
        owner: thousandths(owner, all.total),
        tasks: thousandths(tasks, all.total),
        stolen: thousandths(all.stolen, all.total),
        busiest: busiest(old, new, tasks),
    })
}

/// The owner's busiest processor. Where the kernel does not tell where our time was spent, it is
/// spread as the time of low priority is, which is nearly all ours.
fn busiest(old: &Look, new: &Look, tasks: u64) -> u16 {
    let each: Vec<Ticks> = new
        .each
        .iter()
        .zip(&old.each)
        .map(|(new, old)| new.since(*old))
        .collect();
    let low: u64 = each.iter().map(|one| one.low).sum();
    let busy: u64 = each.iter().map(|one| one.busy).sum();
    let mut most = 0;
    for (number, one) in each.iter().enumerate() {
        let told = new.tasks_each.get(number).map(|new| {
            let old = old.tasks_each.get(number).copied().unwrap_or_default();
            in_ticks(new.saturating_sub(old))
        });
        let ours = told.unwrap_or_else(|| match low {
            0 => tasks * one.busy / busy.max(1),
            _ => tasks * one.low / low,
        });
        if one.total > 0 {
            most = most.max(thousandths(one.busy.saturating_sub(ours), one.total));
        }
    }
    most
}

fn in_ticks(time: Duration) -> u64 {
    // Rounded: over a second half a tick is half a hundredth.
    let ticks = (time + TICK / 2).as_millis() / TICK.as_millis();
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn thousandths(part: u64, whole: u64) -> u16 {
    let share = part.saturating_mul(1000) / whole.max(1);
    u16::try_from(share.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PC of four processors as the kernel writes it, after so many ticks a processor.
    fn stat(user: [u64; 4], nice: [u64; 4], total: u64, steal: u64) -> String {
        let mut text = String::new();
        let row = |name: &str, user: u64, nice: u64, total: u64, steal: u64| {
            let idle = total - user - nice - steal;
            format!("{name} {user} {nice} 0 {idle} 0 0 0 {steal} 0 0\n")
        };
        let (all_user, all_nice) = (user.iter().sum(), nice.iter().sum());
        text += &row("cpu ", all_user, all_nice, total * 4, steal * 4);
        for cpu in 0..4 {
            text += &row(&format!("cpu{cpu}"), user[cpu], nice[cpu], total, steal);
        }
        text + "intr 1 2 3\nctxt 4\n"
    }

    fn look(text: &str, tasks_ms: u64, each_ms: &[u64]) -> Look {
        let (all, each) = parse(text).unwrap();
        Look {
            all,
            each,
            tasks: Duration::from_millis(tasks_ms),
            tasks_each: each_ms
                .iter()
                .map(|ms| Duration::from_millis(*ms))
                .collect(),
            agent: Duration::ZERO,
        }
    }

    fn since_start(text: &str, tasks_ms: u64, each_ms: &[u64]) -> Load {
        let zeros: Vec<u64> = each_ms.iter().map(|_| 0).collect();
        let start = look(&stat([0; 4], [0; 4], 0, 0), 0, &zeros);
        between(&start, &look(text, tasks_ms, each_ms)).unwrap()
    }

    #[test]
    fn the_owners_load_is_the_rest() {
        // Three processors full of tasks, one of the owner's half busy; one tick is 10 ms.
        let text = stat([50, 0, 0, 0], [0, 100, 100, 100], 100, 0);
        let load = since_start(&text, 3_000, &[]);
        let expected = Load {
            owner: 125,
            tasks: 750,
            stolen: 0,
            busiest: 500,
        };
        assert_eq!(load, expected);
    }

    #[test]
    fn tasks_at_normal_priority_are_told_apart_where_the_kernel_tells() {
        let text = stat([100, 100, 10, 0], [0; 4], 100, 0);
        let load = since_start(&text, 1_000, &[0, 1_000, 0, 0]);
        assert_eq!((load.owner, load.tasks, load.busiest), (275, 250, 1000));
        let load = since_start(&text, 2_000, &[1_000, 1_000, 0, 0]);
        assert_eq!((load.owner, load.busiest), (25, 100));
    }

    #[test]
    fn tasks_that_count_more_than_was_used_leave_the_owner_nothing() {
        let text = stat([10, 0, 0, 0], [0; 4], 100, 20);
        let load = since_start(&text, 9_000, &[]);
        assert_eq!((load.owner, load.tasks, load.stolen), (0, 1000, 200));
    }

    #[test]
    fn counters_that_run_backwards_count_nothing() {
        let old = look(&stat([90; 4], [0; 4], 100, 0), 5_000, &[]);
        let new = look(&stat([50; 4], [0; 4], 200, 0), 0, &[]);
        let load = between(&old, &new).unwrap();
        assert_eq!((load.owner, load.tasks), (0, 0));
        assert_eq!(between(&new, &new), None, "no time passed");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "cpu", "cpu  1 2 x 4 5", "intr 5"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}
