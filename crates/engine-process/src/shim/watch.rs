//! Limits that have to be looked at: disk, output, time, and what the group says of itself.
//!
//! How often is a matter of how near a limit is: a short task is never looked at, a quiet one
//! four times a second, one that fills the disk a hundred times.

use super::marks::number;
use super::run::Run;
use super::scratch::measure;
use super::unlinked;
use crate::cgroup::{Group, GroupEvents, GroupUsage};
use gleaner_model::{LimitKind, Reason, Time};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// First look after the start, and the longest and shortest time between looks.
const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(10);

/// A look at a large tree may take this share of the shim's time at most: one part in 16.
const LOOK_SHARE: u32 = 16;

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
    faults: u64,
    faults_at: Instant,
    faults_frozen: Option<Instant>,
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
            faults: 0,
            faults_at: now,
            faults_frozen: None,
        }
    }
}

const fn over(limit: LimitKind) -> Reason {
    Reason::Limit { limit }
}

impl Run {
    /// Looks at everything that is due.
    pub(crate) fn look(&mut self, now: Instant, at: Time) -> Found {
        let figures = self.group.as_ref().map(Group::figures);
        let (passed, _) = self.look_at_group(figures, at);
        let time = self.look_at_time(now, at);
        let (space, room) = self.look_at_space(at, self.unlinked_bytes());
        let took = now.elapsed();
        let watch = &mut self.watch;
        watch.interval = (watch.interval * 2).min(LONGEST);
        let until_full = Duration::from_millis(room / (WRITE_RATE / 1000));
        let pause = watch.interval.min(until_full).max(SHORTEST);
        watch.next = now + took + pause.max(took * LOOK_SHARE);
        match passed.or(time).or(space) {
            Some(reason) => Found::End(reason),
            None => self.look_at_faults(now, at),
        }
    }

    /// A last look, when nothing runs any more. Also gives the group's last figures.
    pub(crate) fn watch_at_end(&mut self) -> (Option<Reason>, GroupUsage) {
        let at = super::now();
        let figures = self.group.as_ref().map(Group::last_figures);
        let (passed, usage) = self.look_at_group(figures, at);
        // No process is left that could hold an unlinked file.
        let (space, _) = self.look_at_space(at, 0);
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

    /// Also says how many bytes may be written before a limit could be passed.
    fn look_at_space(&mut self, at: Time, unlinked: u64) -> (Option<Reason>, u64) {
        let limits = &self.spec.limits;
        let streams = self.streams.iter().flatten();
        let streamed: u64 = streams
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum();
        let Some(scratch) = &self.scratch else {
            return (None, 0);
        };
        // A tree that cannot be measured cannot be bounded either.
        let found = measure(scratch.as_fd(), self.outputs.as_ref());
        let used = found.as_ref().map_or(u64::MAX, |found| found.bytes);
        let used = used.saturating_sub(self.input_bytes);
        let used = used.saturating_add(unlinked);
        let output = streamed + found.as_ref().map_or(0, |found| found.outputs);
        let (disk_max, output_max) = (limits.disk.0, limits.output.0);
        self.marks.see(LimitKind::Disk, number(used));
        self.marks.see(LimitKind::Output, number(output));
        let room = disk_max
            .saturating_sub(used)
            .min(output_max.saturating_sub(output));
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
        (passed.map(over), room)
    }

    /// Disk space of files that have no name any more but are still in use.
    fn unlinked_bytes(&self) -> u64 {
        let (Some(group), Some(scratch)) = (&self.group, &self.scratch) else {
            return 0;
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
