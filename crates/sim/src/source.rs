//! Where it comes from what an owner does with a PC: fits, or a recording.

use crate::chance::Chance;
use crate::generator::Generator;
use crate::replay::Replay;
use crate::usage::Usage;

/// Where an owner's usage comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Fits.
    Habits(Box<Generator>),
    /// A recording.
    Recorded(Replay),
}

impl Source {
    /// What the owner does from now on, and until when.
    pub(crate) fn next(&mut self, now: u64, chance: &mut Chance) -> (Usage, u64) {
        match self {
            Self::Habits(generator) => generator.next(now, chance),
            Self::Recorded(replay) => replay.next(now, chance),
        }
    }

    /// The minute of the week at this PC.
    pub(crate) fn minute_of_week(&self, now: u64) -> u16 {
        let local = match self {
            Self::Habits(_) => now,
            Self::Recorded(replay) => replay.local(now),
        };
        minute_of_week(local)
    }
}

/// Minutes since Monday 00:00; the first Monday after 1970-01-01 was the fifth day.
fn minute_of_week(local_ms: u64) -> u16 {
    const WEEK: u64 = 7 * 24 * 60;
    let minute = (local_ms / 60_000 + 3 * 24 * 60) % WEEK;
    u16::try_from(minute).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-01-05 was a Monday, 1970-01-01 a Thursday.
        assert_eq!(minute_of_week(1_767_571_200_000), 0);
        assert_eq!(minute_of_week(0), 3 * 24 * 60);
        assert_eq!(minute_of_week(1_767_571_200_000 - 1), 10_079);
    }
}
