//! Holds an attempt to a disk rate, and to its share of everything, while it runs.
//!
//! Where the kernel holds a group to a rate (version 2) there is nothing to do. Version 1 lets
//! pass what is written by way of the page cache, and without groups nothing is held at all:
//! there the bytes of each process are counted (`/proc/PID/io`, proc(5)), and an attempt that is
//! ahead of its rate stands still until it no longer is. Unlike a pause this is its own doing,
//! so its clock goes on.

use super::Run;
use super::marks::number;
use crate::cgroup::Group;
use crate::message::Share;
use gleaner_model::{LimitKind, Time};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between looks. What a program can write meanwhile it has to wait for afterwards.
const LOOK: Duration = Duration::from_millis(20);

/// A look may take this share of the shim's time at most: one part in 16.
const LOOK_SHARE: u32 = 16;

/// An attempt stands still this long at a time at most, so that a rate that is raised is felt.
const STAND_MAX: Duration = Duration::from_millis(250);

/// What was not used of a rate is kept for so long: reading a file at once is no offence.
const SAVED: Duration = Duration::from_millis(100);

/// How fast an attempt may read and write, and how fast it does.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Thousandths of its processors that the agent allows it by itself, and all attempts.
    own_permille: u32,
    share: Share,
    /// Bytes a second that are watched here; none where there is nothing to watch.
    rate: Option<u64>,
    /// What the group was last told, so that equal words are not said again.
    told: (u32, Option<u64>),
    /// Bytes it may still move; below zero it is ahead.
    credit: f64,
    at: Instant,
    next: Instant,
    seen: BTreeMap<i32, u64>,
    /// Whether it stands still for its rate.
    pub(crate) stands: bool,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            own_permille: 1000,
            share: Share::default(),
            rate: None,
            told: (1000, None),
            credit: 0.0,
            at: now,
            next: now,
            seen: BTreeMap::new(),
            stands: false,
        }
    }
}

impl Run {
    /// What each attempt may have changes.
    pub(crate) fn take_share(&mut self, share: Share, scratch: &Path) {
        self.pace.share = share;
        self.share_processors();
        let own = self.spec.limits.disk_io.map(|rate| rate.0);
        let rate = match (own, share.disk_rate) {
            (Some(own), Some(shared)) => Some(own.min(shared)),
            (own, shared) => own.or(shared),
        };
        let Some(group) = &self.group else { return };
        // Its own limit was set with the others, before it started.
        let known = self.pace.told.1 == rate && self.pace.rate == rate;
        if !known {
            self.pace.told.1 = rate;
            let held = group.disk_rate(scratch, rate);
            self.pace.rate = rate.filter(|_| !held);
            (self.pace.at, self.pace.next) = (Instant::now(), Instant::now());
            self.pace.credit = 0.0;
            self.pace.seen.clear();
        }
        if self.pace.rate.is_none() {
            self.go_on();
        }
    }

    /// The agent slows this one alone.
    pub(crate) fn slow(&mut self, permille: u32) {
        self.pace.own_permille = permille;
        self.share_processors();
    }

    fn share_processors(&mut self) {
        let permille = self.pace.own_permille.min(self.pace.share.permille);
        if self.pace.told.0 == permille {
            return;
        }
        let milli = self.spec.limits.cpus.milli;
        let group = self.group.as_ref();
        let held = group.is_some_and(|group| group.slow(milli, permille));
        if held {
            self.pace.told.0 = permille;
        }
        let cannot = "slow: this PC cannot hold a task to a share of its processors";
        if !held && permille < 1000 && !self.degraded.iter().any(|word| word == cannot) {
            self.degraded.push(cannot.to_owned());
        }
    }

    /// When [`Run::keep_pace`] is due; none where nothing is watched or it is frozen anyway.
    pub(crate) fn pace_at(&self) -> Option<Instant> {
        let runs = self.clock.is_some() && self.frozen.is_empty() && self.forced.is_none();
        (runs && self.pace.rate.is_some()).then_some(self.pace.next)
    }

    /// Counts what was read and written, and stops or lets go.
    pub(crate) fn keep_pace(&mut self, now: Instant, at: Time) {
        let due = self.pace_at().is_some_and(|next| now >= next);
        let (Some(rate), Some(group), true) = (self.pace.rate, &self.group, due) else {
            return;
        };
        let moved = moved(group, &mut self.pace.seen);
        let passed = now.saturating_duration_since(self.pace.at).as_secs_f64();
        let rate = number(rate.max(1));
        self.pace.at = now;
        let credit = self.pace.credit + passed * rate - number(moved);
        self.pace.credit = credit.min(rate * SAVED.as_secs_f64());
        if passed > 0.0 {
            let seen = number(moved) / passed.max(LOOK.as_secs_f64());
            self.marks.see(LimitKind::DiskIo, seen);
        }
        let took = now.elapsed() * LOOK_SHARE;
        if self.pace.credit >= 0.0 {
            self.pace.next = now + LOOK.max(took);
            self.go_on();
            return;
        }
        if self.spec.limits.disk_io.is_some() {
            self.marks.pass(LimitKind::DiskIo, "slowed", at);
        }
        let owed = Duration::from_secs_f64((-self.pace.credit / rate).min(STAND_MAX.as_secs_f64()));
        self.pace.next = now + owed.max(Duration::from_millis(1));
        if !self.pace.stands {
            self.pace.stands = group.ask_freeze(true).is_ok();
        }
    }

    fn go_on(&mut self) {
        if !std::mem::take(&mut self.pace.stands) || !self.frozen.is_empty() {
            return;
        }
        if let Some(group) = &self.group {
            let _absent = group.ask_freeze(false);
        }
    }
}

/// Bytes that the group's processes have read from and written to disks since the last call.
/// What one did that began and ended between two calls is lost; it had not much time.
fn moved(group: &Group, seen: &mut BTreeMap<i32, u64>) -> u64 {
    let before = std::mem::take(seen);
    let mut moved = 0;
    for pid in group.members() {
        let bytes = bytes_of(pid).unwrap_or(0);
        moved += bytes.saturating_sub(before.get(&pid).copied().unwrap_or(0));
        seen.insert(pid, bytes);
    }
    moved
}

fn bytes_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    // What was written and then thrown away before it reached a disk cost nobody anything.
    let written = of("write_bytes:")?.saturating_sub(of("cancelled_write_bytes:").unwrap_or(0));
    Some(of("read_bytes:")?.saturating_add(written))
}
