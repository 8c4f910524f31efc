//! The mean of a quantity over the last moment, whatever the rhythm of its samples.

use crate::clock::Mono;
use crate::thresholds::LOAD_WINDOW;

/// Parts that a window is kept in; samples that come faster share one.
const PARTS: usize = 16;

/// A mean over at least [`LOAD_WINDOW`], or over the last sample where that covers more.
#[derive(Debug, Clone)]
pub(crate) struct Mean {
    /// Milliseconds, and the sum of value times milliseconds; newest first.
    parts: [(u64, u64); PARTS],
    at: Option<Mono>,
}

impl Mean {
    pub(crate) const fn new() -> Self {
        Self {
            parts: [(0, 0); PARTS],
            at: None,
        }
    }

    /// A sample that tells of the time since the one before.
    pub(crate) fn take(&mut self, value: u16, now: Mono) {
        let window = LOAD_WINDOW.ms;
        let covers = self.at.map_or(window, |at| now.since(at).ms).min(window);
        self.at = Some(now);
        let share = window / PARTS as u64 + 1;
        if self.parts[0].0 >= share {
            self.parts.rotate_right(1);
            self.parts[0] = (0, 0);
        }
        self.parts[0].0 += covers;
        self.parts[0].1 += covers * u64::from(value);
    }

    /// The mean; none before the first sample.
    pub(crate) fn value(&self) -> Option<u16> {
        let (mut covered, mut sum) = (0, 0_u64);
        for (covers, part) in self.parts {
            if covered >= LOAD_WINDOW.ms {
                break;
            }
            covered += covers;
            sum += part;
        }
        let mean = sum.checked_div(covered)?;
        Some(u16::try_from(mean).unwrap_or(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use gleaner_model::{Span, Time};

    #[test]
    fn it_is_over_a_second_or_over_the_last_sample() {
        let mut clock = Clock::new(Time { ms: 0 }, Span::seconds(10));
        let mut mean = Mean::new();
        assert_eq!(mean.value(), None);
        for (ms, value, expected) in [
            (0, 400, 400),
            (100, 1000, 454),
            (5000, 200, 200),
            (5500, 1000, 466),
            (6000, 1000, 1000),
            (6000, 0, 1000),
            (6500, 0, 500),
        ] {
            clock.advance(Time { ms });
            mean.take(value, clock.mono);
            assert_eq!(mean.value(), Some(expected), "at {ms} ms");
        }
        // A thousand samples a second are a second, too.
        for ms in 7000..9000 {
            clock.advance(Time { ms });
            mean.take(if ms % 2 == 0 { 1000 } else { 0 }, clock.mono);
        }
        let found = mean.value().unwrap();
        assert!((480..520).contains(&found), "{found}");
    }
}
