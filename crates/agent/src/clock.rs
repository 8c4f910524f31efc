//! The agent's clock: wall time that never runs backwards, whatever is done to the PC's, and that
//! goes on while the PC sleeps, so that a lease or an owner's pause is not longer for a night.

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
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            base: Time { ms: millis(base) },
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
}
