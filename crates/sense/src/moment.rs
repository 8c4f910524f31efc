//! The clock of the sources: time since boot, suspended time included.
//!
//! Wall time jumps when somebody sets it, and the usual monotonic clock stands still while the PC
//! sleeps; an age must suffer from neither.

use gleaner_model::{Span, Time};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// A point in time since the PC was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment {
    since_boot: Duration,
}

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        Self {
            since_boot: clock(ClockId::Boottime),
        }
    }

    /// So long after boot.
    pub(crate) const fn at(since_boot: Duration) -> Self {
        Self { since_boot }
    }

    /// Time since boot.
    pub(crate) const fn since_boot(self) -> Duration {
        self.since_boot
    }

    /// How long ago `earlier` was, seen from here; zero where it is not earlier.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        self.since_boot.saturating_sub(earlier.since_boot)
    }

    /// So long before.
    pub(crate) const fn before(self, span: Duration) -> Self {
        Self {
            since_boot: self.since_boot.saturating_sub(span),
        }
    }

    /// The moment of a wall-clock time, such as a file's: never after `self`, which is now.
    pub(crate) fn of_wall(self, wall: SystemTime) -> Self {
        let ago = SystemTime::now().duration_since(wall).unwrap_or_default();
        self.before(ago)
    }

    /// The same point on the caller's clock, given that `self` is now and the caller calls now
    /// `now`.
    pub(crate) fn on_clock(self, now: Time, point: Self) -> Time {
        let ago = u64::try_from(self.since(point).as_millis()).unwrap_or(u64::MAX);
        Time {
            ms: now.ms.saturating_sub(ago),
        }
    }
}

/// Time the PC was awake since boot.
pub(crate) fn awake() -> Duration {
    clock(ClockId::Monotonic)
}

/// How long ago, in the words' unit.
pub(crate) fn span(duration: Duration) -> Span {
    Span {
        ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    }
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_now() {
        let now = Moment::now();
        let later = SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(now.of_wall(later), now);
        let ahead = Moment::at(now.since_boot() + Duration::from_secs(5));
        assert_eq!(now.on_clock(Time { ms: 70 }, ahead), Time { ms: 70 });
    }

    #[test]
    fn ages_are_kept_on_another_clock() {
        let now = Moment::at(Duration::from_secs(100));
        let point = Moment::at(Duration::from_secs(98));
        let there = now.on_clock(Time { ms: 5_000 }, point);
        assert_eq!(there, Time { ms: 3_000 });
    }
}
