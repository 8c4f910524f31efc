//! The agent's clock: wall time that never runs backwards, whatever is done to the PC's, and that
//! goes on while the PC sleeps, so that a lease or an owner's pause is not longer for a night.
//!
//! Where somebody sets the PC's clock the two drift apart. Whoever names a time means the one on
//! the wall: see [`Clock::of_wall`].

use gleaner_model::{Span, Time};
use rustix::time::{ClockId, clock_gettime};
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time at start, and how long the PC had been up then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Time,
    start_ms: u64,
    /// What a test says the time is, in milliseconds since the start.
    #[cfg(test)]
    set: Option<&'static AtomicU64>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            base: on_the_wall(),
            start_ms: up_ms(),
            #[cfg(test)]
            set: None,
        }
    }

    /// A clock that stands still until a test moves it on.
    #[cfg(test)]
    pub(crate) fn set_by(ms: &'static AtomicU64) -> Self {
        Self {
            set: Some(ms),
            ..Self::start()
        }
    }

    /// The clock of an agent whose PC's clock was set back by so much since it began.
    #[cfg(test)]
    pub(crate) fn ahead_by(span: Span) -> Self {
        let clock = Self::start();
        Self {
            base: clock.base + span,
            ..clock
        }
    }

    /// When on this clock the clock on the wall will say that, or said it.
    pub(crate) fn of_wall(&self, time: Time) -> Time {
        #[cfg(test)]
        if self.set.is_some() {
            return time;
        }
        carried(time, on_the_wall(), self.now())
    }

    pub(crate) fn now(&self) -> Time {
        #[cfg(test)]
        if let Some(set) = self.set {
            let ms = set.load(Ordering::SeqCst);
            return self.base + Span { ms };
        }
        let ms = up_ms().saturating_sub(self.start_ms);
        self.base + Span { ms }
    }
}

/// What the PC's clock says, which may be set at any time.
fn on_the_wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time {
        ms: millis(since.unwrap_or_default()),
    }
}

/// A time by one clock on another, given what both say now.
fn carried(time: Time, there: Time, here: Time) -> Time {
    match time >= there {
        true => here + time.since(there),
        false => here - there.since(time),
    }
}

/// How long the PC has been up, its sleep included (CLOCK_BOOTTIME of clock_gettime(2)).
fn up_ms() -> u64 {
    let up = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(up.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(up.tv_nsec).unwrap_or(0);
    millis(Duration::new(seconds, nanos))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_wall_clock_and_only_goes_on() {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = Clock::start();
        let first = clock.now();
        assert!(first.ms >= millis(wall));
        assert!((0..100).map(|_| clock.now()).is_sorted());
    }

    #[test]
    fn a_time_on_the_wall_keeps_its_distance_whatever_the_clock_was_set_to() {
        let at = |ms| Time { ms };
        for (what, there, here) in [
            ("nobody set it", 50_000, 50_000),
            ("it was set back", 50_000, 90_000),
            ("it was set forward", 90_000, 50_000),
        ] {
            for (time, expected) in [(there + 7, here + 7), (there - 7, here - 7)] {
                assert_eq!(
                    carried(at(time), at(there), at(here)),
                    at(expected),
                    "{what}"
                );
            }
        }
        assert_eq!(carried(at(0), at(50), at(20)), at(0), "before all time");
    }
}
