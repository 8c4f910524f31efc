//! Time that cannot be turned back: what has passed while the PC was awake and its clock sane.
//!
//! The wall clock jumps when somebody sets it and when the PC wakes. Judgements about how long
//! something lasted are made on [`Mono`]; only what names a wall time (the end of a pause) is
//! compared with the wall clock.

use crate::thresholds::{BEATS_JUMP, BEATS_MISSED};
use gleaner_model::{Span, Time};

/// Where [`Mono`] begins: ages of up to a century lie before it.
const BEGIN_MS: u64 = 100 * 366 * 86_400_000;

/// Milliseconds of time that passed, since some beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mono(u64);

impl Mono {
    pub(crate) const fn since(self, earlier: Self) -> Span {
        Span {
            ms: self.0.saturating_sub(earlier.0),
        }
    }
    pub(crate) const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.ms))
    }
    pub(crate) const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.ms))
    }
}

/// The two clocks.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    pub(crate) wall: Time,
    pub(crate) mono: Mono,
    beat: Span,
}

impl Clock {
    pub(crate) const fn new(wall: Time, beat: Span) -> Self {
        Self {
            wall,
            mono: Mono(BEGIN_MS),
            beat,
        }
    }

    pub(crate) const fn set_beat(&mut self, beat: Span) {
        self.beat = beat;
    }

    /// How long a source may be silent.
    pub(crate) const fn patience(&self) -> Span {
        Span {
            ms: self.beat.ms.saturating_mul(BEATS_MISSED),
        }
    }

    /// The wall clock says `now`; returns how much time passed. A clock set back lets none pass,
    /// a long leap forward a little: nobody looked, so nobody knows.
    pub(crate) fn advance(&mut self, now: Time) -> Span {
        let most = self.beat.ms.saturating_mul(BEATS_JUMP);
        let passed = Span {
            ms: now.since(self.wall).ms.min(most),
        };
        self.wall = now;
        self.mono = self.mono.plus(passed);
        passed
    }

    /// The wall time of a moment to come.
    pub(crate) fn wall_at(&self, moment: Mono) -> Time {
        self.wall + moment.since(self.mono)
    }
}
