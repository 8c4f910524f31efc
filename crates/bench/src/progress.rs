//! How far a benchmark is, and how it is told to stop. Knows the clock and nothing of terminals:
//! what it says goes to the caller.

use crate::BenchError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// All of them; 0 while that is not known.
    pub total: u32,
    /// Time left, once it can be told.
    pub left: Option<Duration>,
    /// What is being done.
    pub what: String,
}

/// Tells a running benchmark to stop; clones are one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops it.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), BenchError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(BenchError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Steps of a bar; finer ones would not be seen.
const TOTAL: u32 = 1000;

/// Share of the expected time after which the pace so far says more than the expectation.
const KNOWN_PACE: f64 = 0.05;

/// Knows how much of an expected time is done, and from the pace so far how long the rest takes.
/// All times in seconds.
#[derive(Debug)]
pub(crate) struct Pace {
    started: Instant,
    expected_s: f64,
    /// Steps that are done: what was expected of them, and when the last of them ended.
    done_s: f64,
    done_at_s: f64,
    /// What is expected of the step that runs.
    step_s: f64,
}

impl Pace {
    /// A benchmark that takes so many seconds on a quiet PC.
    pub(crate) fn new(expected_s: f64) -> Self {
        Self {
            started: Instant::now(),
            expected_s: expected_s.max(f64::MIN_POSITIVE),
            done_s: 0.0,
            done_at_s: 0.0,
            step_s: 0.0,
        }
    }

    /// The step before is done; one begins that is expected to take so long.
    pub(crate) fn begin(&mut self, expected_s: f64) {
        self.begin_at(expected_s, self.started.elapsed().as_secs_f64());
    }

    fn begin_at(&mut self, expected_s: f64, elapsed_s: f64) {
        self.done_s = (self.done_s + self.step_s).min(self.expected_s);
        self.done_at_s = elapsed_s;
        self.step_s = expected_s;
    }

    /// So much of what was expected need not be done.
    pub(crate) fn leave_out(&mut self, expected_s: f64) {
        let left = (self.expected_s - expected_s).max(self.done_s + self.step_s);
        self.expected_s = left.max(f64::MIN_POSITIVE);
    }

    /// What is being done now, and how long all of it still takes.
    pub(crate) fn now(&self, what: impl Into<String>) -> Progress {
        self.at(what.into(), self.started.elapsed().as_secs_f64())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a thousand"
    )]
    fn at(&self, what: String, elapsed_s: f64) -> Progress {
        let pace = match self.done_s / self.expected_s > KNOWN_PACE {
            true => self.done_at_s / self.done_s,
            false => 1.0,
        };
        let within = ((elapsed_s - self.done_at_s) / pace).clamp(0.0, self.step_s);
        let done_s = (self.done_s + within).min(self.expected_s);
        let left_s = (self.expected_s - done_s) * pace;
        Progress {
            done: (done_s / self.expected_s * f64::from(TOTAL)) as u32,
            total: TOTAL,
            left: Duration::try_from_secs_f64(left_s).ok(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_pace() {
        let mut pace = Pace::new(100.0);
        let at = |pace: &Pace, elapsed_s| {
            let now = pace.at(String::new(), elapsed_s);
            (now.done, now.left.unwrap().as_secs())
        };
        assert_eq!(at(&pace, 0.0), (0, 100));
        pace.begin_at(50.0, 0.0);
        assert_eq!(at(&pace, 10.0), (100, 90));
        // It takes longer than expected: no more than its share is done.
        assert_eq!(at(&pace, 80.0), (500, 50));
        pace.begin_at(30.0, 100.0);
        assert_eq!(at(&pace, 100.0), (500, 100), "twice as slow as expected");
        assert_eq!(at(&pace, 130.0), (650, 70));
        pace.leave_out(20.0);
        pace.begin_at(0.0, 160.0);
        assert_eq!(at(&pace, 160.0), (1000, 0));
    }

    #[test]
    fn who_is_told_to_stop_stops() {
        let stop = Stop::default();
        stop.check().unwrap();
        stop.clone().tell();
        assert!(matches!(stop.check(), Err(BenchError::Interrupted)));
    }
}
