//! A reason with hysteresis: it comes after it was seen for a while, and goes after it was gone
//! for a while.

use crate::clock::Mono;
use crate::thresholds::{CALM_MAX, RELAPSE};
use gleaner_model::Span;

/// What is seen of a reason at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is there.
    There,
    /// Between its two thresholds: nothing changes, and nothing starts to.
    Between,
    /// It is gone.
    Gone,
}

impl Seen {
    /// There or gone, without anything between.
    pub(crate) const fn plain(there: bool) -> Self {
        if there { Self::There } else { Self::Gone }
    }
}

/// A reason with hysteresis.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    on: bool,
    /// Since when it is on.
    since: Option<Mono>,
    /// Since when it has been seen to change.
    changing: Option<Mono>,
    rise: Span,
    fall: Span,
    /// The first `fall`, where it doubles on each relapse.
    doubling: Option<Span>,
    fell: Option<Mono>,
}

impl Gate {
    /// A gate that is off.
    pub(crate) const fn new(rise: Span, fall: Span) -> Self {
        Self {
            on: false,
            since: None,
            changing: None,
            rise,
            fall,
            doubling: None,
            fell: None,
        }
    }

    /// The same, but each relapse doubles the calm that it takes to go off.
    pub(crate) const fn doubling(rise: Span, fall: Span) -> Self {
        Self {
            doubling: Some(fall),
            ..Self::new(rise, fall)
        }
    }

    pub(crate) const fn on(&self) -> bool {
        self.on
    }

    /// Takes what was seen. A reason that must last comes only with a fresh look; time alone lets
    /// it go.
    pub(crate) fn see(&mut self, seen: Seen, now: Mono, fresh: bool) {
        let changes = if self.on {
            seen == Seen::Gone
        } else {
            seen == Seen::There
        };
        if !changes {
            self.changing = None;
            return;
        }
        let since = *self.changing.get_or_insert(now);
        let long_enough = now.since(since) >= if self.on { self.fall } else { self.rise };
        if self.on && long_enough {
            self.on = false;
            self.changing = None;
            self.fell = Some(now);
        } else if !self.on && long_enough && (fresh || self.rise.ms == 0) {
            self.force(now);
        }
    }

    /// On at once.
    pub(crate) fn force(&mut self, now: Mono) {
        if !self.on
            && let Some(first) = self.doubling
        {
            let relapse = self.fell.is_some_and(|fell| now.since(fell) < RELAPSE);
            self.fall = if relapse {
                Span {
                    ms: (self.fall.ms * 2).min(CALM_MAX.ms),
                }
            } else {
                first
            };
        }
        if !self.on {
            self.since = Some(now);
        }
        self.on = true;
        self.changing = None;
    }

    /// How long it has been on and pressing.
    pub(crate) fn pressing_for(&self, now: Mono) -> Option<Span> {
        let pressing = self.on && self.changing.is_none();
        self.since
            .filter(|_| pressing)
            .map(|since| now.since(since))
    }

    /// When it goes off if nothing else is seen; and, for whoever can look then, when it comes on.
    pub(crate) fn due(&self, rising: bool) -> Option<Mono> {
        let since = self.changing?;
        if self.on {
            Some(since.plus(self.fall))
        } else {
            rising.then(|| since.plus(self.rise))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use gleaner_model::Time;

    #[test]
    fn it_comes_and_goes_late_and_a_relapse_doubles_the_calm() {
        let mut gate = Gate::doubling(Span::seconds(1), Span::seconds(3));
        let mut clock = Clock::new(Time { ms: 0 }, Span::seconds(60));
        let mut look = |ms: u64, seen: Seen, fresh: bool| {
            clock.advance(Time { ms });
            gate.see(seen, clock.mono, fresh);
            gate.on()
        };
        use Seen::{Between, Gone, There};
        for (ms, seen, fresh, on) in [
            (0, There, true, false),
            (900, Between, true, false),
            (1_000, There, true, false),
            (2_000, There, false, false),
            (2_100, There, true, true),
            (2_200, Gone, true, true),
            (5_100, Between, true, true),
            (5_200, Gone, true, true),
            (8_200, Gone, false, false),
            (9_000, There, true, false),
            (10_000, There, true, true),
            (11_000, Gone, true, true),
            (16_900, Gone, true, true),
            (17_000, Gone, true, false),
        ] {
            assert_eq!(look(ms, seen, fresh), on, "at {ms} ms");
        }
    }
}
