//! A user: what it used, what it holds, what waits, and its place in the queue.
//!
//! In the manner of HTCondor's effective user priority ("User Priorities and Negotiation" in its
//! manual): a user's *average* is the processors it used, decayed with a half-life of one day;
//! its *turn* is `processors taken now × max(average, 0.5) / share`, the lowest first. Two users
//! who always have work thus hold processors in inverse proportion to their averages, and end up
//! with equal ones. Ties go to the user who used less, then to the lower id. All shares are 1.

use crate::needs::NeedId;
use crate::row::UserRow;
use crate::view::UserView;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use gleaner_model::{Cpus, JobId, Span, Time, UserId};

/// After this long, half of a use is forgotten.
pub const HALF_LIFE: Span = Span::seconds(24 * 3600);

/// Averages below this count as this, in processors: a user's first job need not be starved or
/// favoured for its history of seconds. HTCondor's floor.
const LEAST_AVERAGE: f64 = 0.5;

/// Most CPU seconds that one attempt can be charged: a year of a thousand processors.
const MOST_CHARGE: f64 = 3.2e10;

/// A user's place in the queue; the lowest goes first. Non-negative floats order by their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    key: u64,
    used: u64,
    pub(crate) user: UserId,
}

/// Jobs of one user and one need that have ready tasks: the highest priority, then the lowest id.
pub(crate) type Waiting = BTreeSet<(Reverse<i32>, JobId)>;

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: UserId,
    /// CPU seconds, decayed to `at`.
    pub(crate) used: f64,
    pub(crate) at: Time,
    /// Thousandths of processors taken now.
    pub(crate) running: u64,
    /// Jobs with ready tasks. Hundreds of jobs that ask the same of a node are one entry.
    pub(crate) waiting: BTreeMap<NeedId, Waiting>,
    /// Its place in the queue, while it has ready tasks.
    pub(crate) turn: Option<Turn>,
    pub(crate) saved: Time,
    pub(crate) unsaved: bool,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "thousandths of processors and milliseconds stay far below 2^53"
)]
impl User {
    pub(crate) const fn new(id: UserId, now: Time) -> Self {
        Self {
            id,
            used: 0.0,
            at: now,
            running: 0,
            waiting: BTreeMap::new(),
            turn: None,
            saved: now,
            unsaved: false,
        }
    }

    pub(crate) const fn restored(row: &UserRow) -> Self {
        let mut user = Self::new(row.user, row.at);
        user.used = row.used;
        user
    }

    pub(crate) fn decay(&mut self, now: Time) {
        let passed = now.since(self.at).ms;
        if passed > 0 {
            self.used *= libm::exp2(-(passed as f64) / HALF_LIFE.ms as f64);
            self.at = now;
        }
    }

    pub(crate) fn charge(&mut self, now: Time, seconds: f64) {
        if seconds.is_finite() && seconds > 0.0 {
            self.decay(now);
            self.used += seconds.min(MOST_CHARGE);
            self.unsaved = true;
        }
    }

    /// Decayed average, in processors: what a steady use would have to be.
    fn average(&self) -> f64 {
        self.used * core::f64::consts::LN_2 / HALF_LIFE.as_seconds()
    }

    /// Its turn if it held `less` thousandths of processors less.
    pub(crate) fn turn_without(&self, less: u64) -> Turn {
        let running = self.running.saturating_sub(less) as f64 / 1000.0;
        Turn {
            key: (running * self.average().max(LEAST_AVERAGE)).to_bits(),
            used: self.used.to_bits(),
            user: self.id,
        }
    }

    pub(crate) fn view(&self) -> UserView {
        UserView {
            id: self.id,
            used: self.used,
            average: self.average(),
            running: Cpus {
                milli: u32::try_from(self.running).unwrap_or(u32::MAX),
            },
            waiting: self.turn.is_some(),
        }
    }
}
