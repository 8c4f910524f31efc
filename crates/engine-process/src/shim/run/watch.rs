//! Limits that have to be looked at: disk, output, time, and what the group says of itself.
//!
//! How often is a matter of how near a limit is: a short task is never looked at, a quiet one
//! four times a second, one that fills the disk a hundred times.

use super::Run;
use super::marks::number;
use super::unlinked::{self, Held};
use crate::cgroup::{Group, GroupEvents, GroupUsage};
use crate::log;
use crate::shim::scratch::measure;
use gleaner_model::{LimitKind, Reason, Time};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// First look after the start, and the longest and shortest time between looks.
const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(10);

/// A look at a large tree may take this share of the shim's time at most: one part in 16, and one
/// in four while the disk loses more than the task may still write.
const LOOK_SHARE: u32 = 16;
const LOOK_SHARE_LOSING: u32 = 4;

/// Bytes a second that a program is taken to write at most, to tell when to look again.
const WRITE_RATE: u64 = 2 << 30;

/// How long a task may fault too much before it is frozen, and frozen before it goes elsewhere.
const FAULTS_PATIENCE: Duration = Duration::from_secs(1);
const FAULTS_FROZEN: Duration = Duration::from_secs(10);

/// When to look next, and what was seen last.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) next: Instant,
    interval: Duration,
    space: Space,
    faults: u64,
    faults_at: Instant,
    faults_frozen: Option<Instant>,
}

/// What the last look at the disk saw, and when the next is due.
#[derive(Debug)]
struct Space {
    due: Instant,
    due_losing: Instant,
    /// Bytes that may be written before a limit is passed.
    room: u64,
    /// Bytes free on the disk, whoever takes them.
    free: u64,
    /// When all that the task holds was to be seen last: what it used, and what was free.
    known: Option<(u64, u64)>,
}

impl Space {
    const fn new(now: Instant) -> Self {
        Self {
            due: now,
            due_losing: now,
            room: 0,
            free: 0,
            known: None,
        }
    }

    /// What the task may use, at most, where it holds files that cannot be seen: what it used
    /// when all was to be seen, and all that the disk has lost since.
    fn suspect(&mut self, used: u64, held: Held, free: u64) -> u64 {
        match self.known {
            Some((used_then, free_then)) if held.under_way => {
                used.max(used_then.saturating_add(free_then.saturating_sub(free)))
            }
            _ => {
                self.known = Some((used, free));
                used
            }
        }
    }
}

/// What a look led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Fine,
    /// A limit whose action is to end.
    End(Reason),
    /// To be frozen for its page faults.
    FreezeForFaults,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next: now + FIRST,
            interval: FIRST,
            space: Space::new(now),
            faults: 0,
            faults_at: now,
            faults_frozen: None,
        }
    }
}

const fn over(limit: LimitKind) -> Reason {
    Reason::Limit { limit }
}

/// A tree that cannot be measured cannot be bounded either.
fn unmeasured(error: &io::Error) -> Reason {
    let why = match Errno::from_io_error(error) {
        Some(Errno::NAMETOOLONG) => {
            "its directories lie too deep in each other: a path from the task's own directory \
             must be shorter than 4096 bytes"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Reason::Engine {
        detail: format!("what the task wrote cannot be measured, so no limit of disk holds: {why}"),
    }
}

impl Run {
    /// Looks at everything that is due.
    pub(crate) fn look(&mut self, now: Instant, at: Time) -> Found {
        let figures = self.group.as_ref().map(Group::figures);
        let (passed, _) = self.look_at_group(figures, at);
        let time = self.look_at_time(now, at);
        let space = self.look_at_space_if_due(now, at);
        let took = now.elapsed();
        let watch = &mut self.watch;
        watch.interval = (watch.interval * 2).min(LONGEST);
        let until_full = Duration::from_millis(watch.space.room / (WRITE_RATE / 1000));
        watch.next = now + took + watch.interval.min(until_full).max(SHORTEST);
        match passed.or(time).or(space) {
            Some(reason) => Found::End(reason),
            None => self.look_at_faults(now, at),
        }
    }

    /// A last look, when nothing runs any more. Also gives the group's last figures.
    pub(crate) fn watch_at_end(&mut self) -> (Option<Reason>, GroupUsage) {
        let at = log::now();
        let figures = self.group.as_ref().map(Group::last_figures);
        let (passed, usage) = self.look_at_group(figures, at);
        // No process is left that could hold an unlinked file.
        let space = self.look_at_space(at, Held::default());
        (passed.or(space), usage)
    }

    /// The moment at which the time limit is passed if nothing is frozen until then.
    pub(crate) fn time_is_up(&self, now: Instant) -> Option<Instant> {
        let clock = self.clock.as_ref().filter(|_| self.frozen.is_empty())?;
        let limit = Duration::from_millis(self.spec.limits.time.ms);
        now.checked_add(limit.saturating_sub(clock.active(now)))
    }

    fn look_at_time(&mut self, now: Instant, at: Time) -> Option<Reason> {
        let limit = Duration::from_millis(self.spec.limits.time.ms);
        let active = self.clock.as_ref()?.active(now);
        (active >= limit).then(|| {
            self.marks.pass(LimitKind::Time, "ended", at);
            over(LimitKind::Time)
        })
    }

    fn look_at_group(
        &mut self,
        figures: Option<(GroupUsage, GroupEvents)>,
        at: Time,
    ) -> (Option<Reason>, GroupUsage) {
        let Some((usage, events)) = figures else {
            return (None, GroupUsage::default());
        };
        let limits = &self.spec.limits;
        let marks = &mut self.marks;
        marks.see(LimitKind::Memory, number(usage.memory_peak));
        marks.see(
            LimitKind::Processes,
            f64::from(usage.processes_peak.saturating_sub(1)),
        );
        if events.pids_max_hits > 0 {
            marks.pass(LimitKind::Processes, "fork failed", at);
        }
        if events.throttled_us > 0 {
            marks.pass(LimitKind::Cpus, "slowed", at);
        }
        // Without a group nobody but us looks; one process alone is told by its own peak.
        let resident = self.exited.map_or(0, |exited| exited.resident_peak);
        let watched = usage.memory_now.max(resident);
        if !self.grouped && usage.processes_now > limits.processes {
            marks.pass(LimitKind::Processes, "fork failed", at);
        }
        if events.oom_kills > 0 || !self.grouped && watched > limits.memory.0 {
            marks.pass(LimitKind::Memory, "ended", at);
            return (Some(over(LimitKind::Memory)), usage);
        }
        let cpu_ms = usage.cpu_us / 1000;
        if limits.cpu_time.is_some_and(|limit| cpu_ms >= limit.ms) {
            marks.pass(LimitKind::CpuTime, "ended", at);
            return (Some(over(LimitKind::CpuTime)), usage);
        }
        (None, usage)
    }

    /// A large tree is seldom looked through, but never late where the disk fills up.
    fn look_at_space_if_due(&mut self, now: Instant, at: Time) -> Option<Reason> {
        let space = &self.watch.space;
        let losing = space.free.saturating_sub(self.free_bytes()) > space.room;
        let due = if losing { space.due_losing } else { space.due };
        if now < due {
            return None;
        }
        let begun = Instant::now();
        let held = self.unlinked();
        let passed = self.look_at_space(at, held);
        let took = begun.elapsed();
        let ended = begun + took;
        let space = &mut self.watch.space;
        space.due = ended + took * LOOK_SHARE;
        space.due_losing = ended + took * LOOK_SHARE_LOSING;
        passed
    }

    fn look_at_space(&mut self, at: Time, held: Held) -> Option<Reason> {
        let limits = &self.spec.limits;
        let streams = self.streams.iter().flatten();
        let streamed: u64 = streams
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum();
        let scratch = self.scratch.as_ref()?;
        let found = match measure(scratch.as_fd(), self.outputs.as_ref()) {
            Ok(found) => found,
            Err(error) => return Some(unmeasured(&error)),
        };
        let used = found.bytes.saturating_sub(self.input_bytes);
        let used = used.saturating_add(held.bytes);
        let free = self.free_bytes();
        let used = self.watch.space.suspect(used, held, free);
        let output = streamed + found.outputs;
        let (disk_max, output_max) = (limits.disk.0, limits.output.0);
        self.marks.see(LimitKind::Disk, number(used));
        self.marks.see(LimitKind::Output, number(output));
        let room = disk_max.saturating_sub(used);
        self.watch.space.room = room.min(output_max.saturating_sub(output));
        self.watch.space.free = free;
        let passed = if used > disk_max {
            Some(LimitKind::Disk)
        } else if output > output_max {
            Some(LimitKind::Output)
        } else {
            None
        };
        if let Some(limit) = passed {
            self.marks.pass(limit, "ended", at);
        }
        passed.map(over)
    }

    /// Bytes free on the disk that scratch lies on.
    fn free_bytes(&self) -> u64 {
        let scratch = self.scratch.as_ref();
        let disk = scratch.and_then(|scratch| rustix::fs::fstatvfs(scratch).ok());
        disk.map_or(0, |disk| disk.f_bfree.saturating_mul(disk.f_frsize))
    }

    /// Files that have no name any more but are still in use.
    fn unlinked(&self) -> Held {
        let (Some(group), Some(scratch)) = (&self.group, &self.scratch) else {
            return Held::default();
        };
        let device = rustix::fs::fstat(scratch).map(|stat| stat.st_dev);
        let device = device.unwrap_or_default();
        unlinked::held(&group.processes(), device)
    }

    fn look_at_faults(&mut self, now: Instant, at: Time) -> Found {
        let (Some(limit), Some(group)) = (self.spec.limits.page_faults, &self.group) else {
            return Found::Fine;
        };
        if let Some(since) = self.watch.faults_frozen {
            let detail = "it read its memory back from disk more often than page_faults allows";
            return if now.saturating_duration_since(since) < FAULTS_FROZEN {
                Found::Fine
            } else {
                Found::End(Reason::Evicted {
                    detail: detail.to_owned(),
                })
            };
        }
        let elapsed = now.saturating_duration_since(self.watch.faults_at);
        if elapsed < FAULTS_PATIENCE {
            return Found::Fine;
        }
        let faults = group.usage().page_faults;
        let rate = number(faults - self.watch.faults.min(faults)) / elapsed.as_secs_f64();
        self.marks.see(LimitKind::PageFaults, rate);
        (self.watch.faults, self.watch.faults_at) = (faults, now);
        if rate <= f64::from(limit) {
            return Found::Fine;
        }
        self.marks
            .pass(LimitKind::PageFaults, "paused, then evicted", at);
        self.watch.faults_frozen = Some(now);
        Found::FreezeForFaults
    }
}
