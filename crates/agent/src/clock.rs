//! The agent's clock: wall time that never runs backwards, whatever is done to the PC's.

use gleaner_model::{Span, Time};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time at start, and how long ago that was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Time,
    since: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            base: Time { ms: millis(base) },
            since: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        let ms = millis(self.since.elapsed());
        self.base + Span { ms }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
