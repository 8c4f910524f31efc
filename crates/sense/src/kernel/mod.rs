//! What the kernel counts: processor time, memory, pressure, and how long the PC slept.
//!
//! One thread, a look every 200 ms, none of which can hang; pressure beyond a limit wakes it.

pub(crate) mod delay;
mod groups;
mod load;
mod memory;
mod pressure;
mod trigger;
mod week;

use crate::board::Board;
use crate::event::SenseEvent;
use crate::moment::{Moment, awake};
use crate::own::OwnTime;
use crate::thread::{Stop, timespec};
use rustix::event::{PollFd, PollFlags, poll};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often processor time is looked at: what the owner starts should be seen before the owner
/// wonders.
const TICK: Duration = Duration::from_millis(200);

/// Ticks after which memory and pressure are looked at.
const TICKS_A_LOOK: u32 = 5;

/// How much further the clock that counts sleep may be than the one that does not before the PC
/// is said to have slept.
const SLEPT: Duration = Duration::from_millis(500);

/// Where to look.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    proc: PathBuf,
    /// Where control groups of version 2 are mounted.
    groups: Option<PathBuf>,
    own: OwnTime,
}

impl Sources {
    pub(crate) const fn new(proc: PathBuf, groups: Option<PathBuf>, own: OwnTime) -> Self {
        Self { proc, groups, own }
    }

    /// The owner's groups, where the PC keeps ours apart from them.
    fn owners(&self) -> Vec<PathBuf> {
        match (&self.groups, &self.own) {
            (Some(root), OwnTime::Groups(own)) => groups::of_owner(root, own),
            _ => Vec::new(),
        }
    }
}

/// Looks until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, sources: &Sources) {
    let mut load = load::Meter::new(&sources.proc, &sources.own);
    let mut memory = memory::Meter::new(&sources.proc);
    let mut pressure = pressure::Meter::new(&sources.proc);
    pressure.watch(&sources.owners());
    let mut asleep = slept();
    let mut next = Instant::now();
    for tick in 0_u32.. {
        load.look(board);
        if tick % TICKS_A_LOOK == 0 {
            memory.look(board);
            for event in pressure.look(board) {
                board.emit(event);
            }
            board
                .minute_of_week
                .store(week::minute_now(), Ordering::Relaxed);
        }
        // Groups come and go with sessions.
        if tick % (TICKS_A_LOOK * 10) == TICKS_A_LOOK * 10 - 1 {
            pressure.watch(&sources.owners());
        }
        let slept = slept();
        if woke(asleep, slept) {
            board.asleep.store(false, Ordering::SeqCst);
            board.emit(SenseEvent::Sleeping(false));
        }
        asleep = slept;
        let sleeps = board.asleep.load(Ordering::SeqCst);
        board.sleeping.seen(sleeps, Moment::now());
        board
            .sleeping
            .describe(if sleeps { "about to sleep" } else { "awake" });
        next = (next + TICK).max(Instant::now());
        if !wait(stop, board, &mut pressure, next) {
            return;
        }
    }
}

/// Whether the PC slept between two looks at how long it has slept in all. On PCs without a
/// session manager nothing else tells.
fn woke(before: Duration, now: Duration) -> bool {
    now > before + SLEPT
}

/// Time the PC has slept since boot.
fn slept() -> Duration {
    let awake = awake();
    Moment::now().since_boot().saturating_sub(awake)
}

/// Waits for the next tick and tells of pressure meanwhile; false at the stop.
fn wait(stop: &Stop, board: &Board, pressure: &mut pressure::Meter, until: Instant) -> bool {
    loop {
        if stop.stopped() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let stop_fd = stop.fd();
        let mut fds = vec![PollFd::new(&stop_fd, PollFlags::IN)];
        fds.extend(
            pressure
                .triggers()
                .iter()
                .map(|trigger| PollFd::new(trigger.fd(), PollFlags::PRI)),
        );
        if poll(&mut fds, Some(&timespec(left))).is_err() {
            continue;
        }
        let answers: Vec<PollFlags> = fds[1..].iter().map(PollFd::revents).collect();
        for event in pressure.fired(&answers) {
            board.emit(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sleep_moves_the_clocks_apart() {
        let before = slept();
        assert!(
            !woke(before, slept()),
            "the two clocks are read one after the other"
        );
        let second = Duration::from_secs(1);
        assert!(woke(before, before + second));
        assert!(!woke(before + second, before), "nothing runs backwards");
    }
}
