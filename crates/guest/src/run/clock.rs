//! When the guest has to be told how late it is: its clock goes on by itself, but not where it was
//! frozen, or while the PC slept, and it does not hear of a clock of the PC that was set. Values in,
//! values out.

use std::time::{Duration, Instant, SystemTime};

/// A look that comes so late was kept by a freeze. A counter of the guest's may have run over
/// meanwhile: the shortest, of 24 bits at 3.6 MHz, does within 4.7 s.
const FROZEN: Duration = Duration::from_secs(4);

/// The PC's clocks drift apart by less than this between two looks, in milliseconds.
const APART_MS: u64 = 1000;

/// The PC's clocks at the last look.
#[derive(Debug)]
pub(super) struct Clock {
    /// The one that only goes on, and not while the PC sleeps.
    steady: Instant,
    /// That of dates, in milliseconds since 1970.
    ms: u64,
}

impl Clock {
    pub(super) const fn new(steady: Instant, ms: u64) -> Self {
        Self { steady, ms }
    }

    /// The PC's clocks now; what to tell the guest, if it cannot know.
    pub(super) fn looked(&mut self, steady: Instant, ms: u64) -> Option<u64> {
        let passed = steady.saturating_duration_since(self.steady);
        let due = self.ms.saturating_add(super::ms(passed));
        *self = Self { steady, ms };
        (passed >= FROZEN || ms.abs_diff(due) >= APART_MS).then_some(ms)
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, super::ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_after_a_freeze_a_sleep_and_a_jump() {
        let begun = Instant::now();
        let mut clock = Clock::new(begun, 1_000_000);
        let mut at = Duration::ZERO;
        for (what, passed_ms, ms, told) in [
            ("nothing happens", 1000, 1_001_000, false),
            ("a busy second", 2500, 1_003_500, false),
            ("it drifts a little", 1000, 1_004_700, false),
            ("frozen for an hour", 3_600_000, 4_604_700, true),
            ("and on", 1000, 4_605_700, false),
            ("the PC slept, and nothing passed", 10, 9_000_000, true),
            ("somebody set the clock back", 1000, 1_000_000, true),
            ("and on from there", 1000, 1_001_000, false),
        ] {
            at += Duration::from_millis(passed_ms);
            let tells = clock.looked(begun + at, ms);
            assert_eq!(tells, told.then_some(ms), "{what}");
        }
    }
}
