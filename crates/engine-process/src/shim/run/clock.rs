//! The clock of one program, which stands still while it is frozen.

use std::time::{Duration, Instant};

/// When a program started, and how long of that it was frozen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunClock {
    started: Instant,
    frozen_since: Option<Instant>,
    frozen: Duration,
}

impl RunClock {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            started: now,
            frozen_since: None,
            frozen: Duration::ZERO,
        }
    }

    pub(crate) fn freeze(&mut self, now: Instant) {
        self.frozen_since.get_or_insert(now);
    }

    pub(crate) fn thaw(&mut self, now: Instant) {
        if let Some(since) = self.frozen_since.take() {
            self.frozen += now.saturating_duration_since(since);
        }
    }

    pub(crate) fn paused(&self, now: Instant) -> Duration {
        let open = self
            .frozen_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.frozen + open
    }

    pub(crate) fn wall(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Time that counts against the limit.
    pub(crate) fn active(&self, now: Instant) -> Duration {
        self.wall(now).saturating_sub(self.paused(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut clock = RunClock::new(start);
        clock.freeze(after(2));
        clock.freeze(after(3));
        assert_eq!(clock.active(after(5)), Duration::from_secs(2));
        clock.thaw(after(6));
        clock.thaw(after(7));
        clock.freeze(after(8));
        assert_eq!(clock.paused(after(10)), Duration::from_secs(6));
        assert_eq!(clock.active(after(10)), Duration::from_secs(4));
        assert_eq!(clock.wall(after(10)), Duration::from_secs(10));
    }
}
