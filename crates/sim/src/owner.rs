//! The person at the PC: away, there and typing, or there and needing all of it; by day more than
//! by night.

use crate::agenda::{Due, Pc};
use crate::report::Policy;
use crate::world::World;
use gleaner_attempt::{Event, Verdict};

const HOUR_MS: u64 = 3_600_000;

/// What the owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Not there.
    Away,
    /// There; their programs need next to nothing.
    Light,
    /// There; their programs need the whole PC.
    Heavy,
}

/// An owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) doing: Doing,
    /// When the session at the PC ends.
    until: u64,
    /// When somebody was last there.
    last: u64,
    /// Shift of the day, in milliseconds: not everybody gets up at the same time.
    phase: u64,
}

impl Owner {
    pub(crate) const fn new(phase: u64) -> Self {
        Self {
            doing: Doing::Away,
            until: 0,
            last: 0,
            phase,
        }
    }

    const fn hour(&self, now: u64) -> u64 {
        (now + self.phase) / HOUR_MS % 24
    }

    /// What the policy makes of it.
    pub(crate) const fn verdict(&self, policy: Policy, now: u64) -> Verdict {
        let hour = self.hour(now);
        match (policy, self.doing) {
            (Policy::Continuous | Policy::Screensaver, Doing::Away)
            | (Policy::Continuous, Doing::Light) => Verdict::Run,
            (Policy::Continuous, Doing::Heavy)
            | (Policy::Screensaver, Doing::Light | Doing::Heavy) => Verdict::Pause,
            (Policy::IdleAfter, Doing::Away) => {
                if now < self.last + HOUR_MS / 4 {
                    Verdict::Pause
                } else {
                    Verdict::Run
                }
            }
            (Policy::Night, Doing::Away) => {
                if hour >= 20 || hour < 6 {
                    Verdict::Run
                } else {
                    Verdict::Evict
                }
            }
            (Policy::IdleAfter | Policy::Night, Doing::Light | Doing::Heavy) => Verdict::Evict,
        }
    }
}

impl World {
    /// The owner does something else, or a policy's hour has come.
    pub(crate) fn owner_acts(&mut self, pc: Pc) {
        let (now, draining) = (self.now, self.draining);
        self.account(pc);
        let chance = &mut self.chance;
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let owner = &mut node.owner;
        if owner.doing != Doing::Away {
            owner.last = now;
        }
        let day = (8..20).contains(&owner.hour(now));
        let wait = if draining {
            owner.doing = Doing::Away;
            chance.wait_ms(3600.0).max(HOUR_MS / 2)
        } else if owner.doing == Doing::Away && owner.until <= now {
            // Somebody comes: for an hour or so, at night rarely.
            if chance.likely(if day { 0.5 } else { 0.04 }) {
                owner.doing = Doing::Light;
                owner.until = now + chance.wait_ms(3600.0);
                chance.wait_ms(240.0)
            } else {
                chance.wait_ms(1200.0)
            }
        } else if owner.until <= now {
            owner.doing = Doing::Away;
            chance.wait_ms(1800.0)
        } else {
            owner.doing = if owner.doing == Doing::Light && chance.likely(0.4) {
                Doing::Heavy
            } else {
                Doing::Light
            };
            chance.wait_ms(if owner.doing == Doing::Heavy {
                45.0
            } else {
                240.0
            })
        };
        self.agenda.note(now + wait, Due::Owner(pc));
        self.judge(pc);
    }

    /// Tells the book what the policy makes of the owner, and the server at the next beat.
    pub(crate) fn judge(&mut self, pc: Pc) {
        let (now, draining, policy) = (self.now, self.draining, self.options.policy);
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let verdict = if draining {
            Verdict::Run
        } else {
            node.owner.verdict(policy, now)
        };
        if node.verdict != verdict {
            node.verdict = verdict;
            self.feed(pc, Event::Judged(verdict));
            self.beat_now(pc);
        }
    }
}
