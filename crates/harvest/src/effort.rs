//! How much tasks may use, by what the owner measurably feels: down at once, up slowly.

use crate::clock::Mono;
use crate::thresholds::{
    ALLOWANCE_MIN_MILLI, CUT_APART, DEAF_FOR, DEAF_MAX, DELAY_MAX, FUTILE_AFTER, FUTILE_SHARE,
    GROW_EVERY, IO_CUT_APART, IO_GROW, IO_MIN, PROVEN_AFTER,
};
use gleaner_model::Span;

/// A quantity that halves at once and grows by steps.
#[derive(Debug, Clone)]
struct Level {
    full: u32,
    now: u32,
    least: u32,
    step: u32,
    /// When it last changed, or was told to stay.
    moved: Mono,
    cut: Option<Mono>,
}

impl Level {
    fn grow(&mut self, now: Mono) {
        let steps = now.since(self.moved).ms / GROW_EVERY.ms;
        if steps > 0 {
            let most = u64::from(self.full - self.now);
            let more = steps.saturating_mul(u64::from(self.step)).min(most);
            self.now += u32::try_from(more).unwrap_or(0);
            self.moved = self.moved.plus(Span {
                ms: steps * GROW_EVERY.ms,
            });
        }
    }

    /// Halves it, unless that was just done.
    fn halve(&mut self, now: Mono, apart: Span) {
        self.moved = now;
        if self.cut.is_none_or(|cut| now.since(cut) >= apart) {
            self.now = (self.now / 2).max(self.least);
            self.cut = Some(now);
        }
    }

    fn due(&self) -> Option<Mono> {
        (self.now < self.full).then(|| self.moved.plus(GROW_EVERY))
    }
}

/// Processors for tasks, by the delay that the owner's threads see.
#[derive(Debug, Clone)]
pub(crate) struct Effort {
    level: Level,
    /// The delay that began the present cut, in thousandths of wall time.
    cause: u16,
    /// Since when the level has been at its least without the delay falling.
    futile: Option<Mono>,
    deaf_until: Option<Mono>,
    deaf_for: Span,
    /// Since when the delay has been measured and within its limit.
    calm: Option<Mono>,
}

impl Effort {
    pub(crate) fn new(full_milli: u32, now: Mono) -> Self {
        Self {
            level: Level {
                full: full_milli,
                now: full_milli,
                least: ALLOWANCE_MIN_MILLI.min(full_milli),
                step: 1000,
                moved: now,
                cut: None,
            },
            cause: 0,
            futile: None,
            deaf_until: None,
            deaf_for: DEAF_FOR,
            calm: None,
        }
    }

    /// Time passed.
    pub(crate) fn grow(&mut self, now: Mono) {
        self.level.grow(now);
        if self.level.now == self.level.full {
            self.cause = 0;
        }
    }

    /// The owner's threads waited this share of the last moment.
    pub(crate) fn delayed(&mut self, delay: u16, now: Mono) {
        if self.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        if delay <= DELAY_MAX {
            self.calm.get_or_insert(now);
            self.relieved();
            return;
        }
        self.calm = None;
        let fallen = u32::from(delay) * 1000 < u32::from(self.cause) * FUTILE_SHARE;
        if fallen {
            self.relieved();
        }
        if self.cause == 0 {
            self.cause = delay;
        }
        self.level.halve(now, CUT_APART);
        if self.level.now > self.level.least {
            self.futile = None;
        } else if !fallen && now.since(*self.futile.get_or_insert(now)) >= FUTILE_AFTER {
            // The cut changed nothing: it is not our doing, and costs the harvest for nothing.
            self.futile = None;
            self.deaf_until = Some(now.plus(self.deaf_for));
            self.deaf_for = Span {
                ms: (self.deaf_for.ms * 2).min(DEAF_MAX.ms),
            };
        }
    }

    /// The cut helped.
    const fn relieved(&mut self) {
        if self.futile.take().is_some() {
            self.deaf_for = DEAF_FOR;
        }
    }

    /// Whether the owner's threads have not waited for a while although tasks ran.
    pub(crate) fn proven(&self, now: Mono) -> bool {
        let calm = self.calm.map(|since| now.since(since));
        calm.is_some_and(|long| long >= PROVEN_AFTER)
    }

    /// Thousandths of a processor that tasks may use.
    pub(crate) const fn milli(&self) -> u32 {
        self.level.now
    }

    /// The delay that the present cut is for.
    pub(crate) const fn cause(&self) -> u16 {
        self.cause
    }

    pub(crate) fn due(&self) -> impl Iterator<Item = Mono> {
        let proven = self.calm.map(|since| since.plus(PROVEN_AFTER));
        self.level.due().into_iter().chain(proven)
    }
}

/// Share of disk and network for tasks, by what somebody waits for disks.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    level: Level,
    cause: u16,
}

impl Share {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            level: Level {
                full: 1000,
                now: 1000,
                least: u32::from(IO_MIN),
                step: u32::from(IO_GROW),
                moved: now,
                cut: None,
            },
            cause: 0,
        }
    }

    pub(crate) fn grow(&mut self, now: Mono) {
        self.level.grow(now);
    }

    /// Somebody waited for a disk for this share of the last moment.
    pub(crate) fn pressed(&mut self, pressure: u16, now: Mono) {
        self.cause = pressure;
        self.level.halve(now, IO_CUT_APART);
    }

    pub(crate) fn permille(&self) -> u16 {
        u16::try_from(self.level.now).unwrap_or(IO_MIN)
    }

    pub(crate) const fn cause(&self) -> u16 {
        self.cause
    }

    pub(crate) fn due(&self) -> Option<Mono> {
        self.level.due()
    }
}
