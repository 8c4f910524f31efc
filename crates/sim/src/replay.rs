//! An owner out of a recording.

use crate::agenda::Pc;
use crate::chance::Chance;
use crate::habits as of;
use crate::trace::{Done, Recorded, Step, Trace};
use crate::usage::{Usage, permille};
use gleaner_model::{Gaps, Span, UsageHistogram};
use std::sync::Arc;

/// Shorter idle gaps and busy runs of an export are left to the scheduler: they would cost an
/// event each and change nothing.
const SHORTEST_MS: u64 = 1000;

/// A week, in hours.
const WEEK_H: u64 = 168;

/// An owner out of a recording.
#[derive(Debug)]
pub(crate) struct Replay {
    trace: Arc<Trace>,
    /// Which machine of the recording.
    machine: usize,
    /// When the replay began.
    began: u64,
    /// The step that is being replayed.
    step: usize,
    session: Session,
    /// Of an export: whether the PC is busy, and until when; until when it is used.
    busy: bool,
    used_until: u64,
    rested_until: u64,
}

/// What happens within a session of which no more is known: fits.
#[derive(Debug, Default)]
struct Session {
    touching: bool,
    run_until: u64,
    load: u16,
}

impl Session {
    fn next(&mut self, now: u64, chance: &mut Chance) -> (Usage, u64) {
        if self.run_until <= now {
            self.touching = !self.touching;
            self.run_until = now + of::spell_ms(self.touching, chance);
            let idle = of::idle(self.touching, chance);
            self.load = permille((1.0 - idle) * of::LABORATORY.load);
        }
        let usage = Usage {
            on: true,
            logged_in: true,
            touching: self.touching,
            load: self.load,
        };
        (usage, self.run_until)
    }
}

impl Replay {
    pub(crate) fn new(trace: Arc<Trace>, pc: Pc, now: u64) -> Self {
        let machine = pc as usize % trace.machines().max(1);
        Self {
            trace,
            machine,
            began: now,
            step: 0,
            session: Session::default(),
            busy: false,
            used_until: 0,
            rested_until: 0,
        }
    }

    /// Local time of the recording, in milliseconds since 1970.
    pub(crate) fn local(&self, now: u64) -> u64 {
        match &self.trace.recorded {
            Recorded::Histogram(_) => now,
            Recorded::Machines(machines) => machines
                .get(self.machine)
                .map_or(now, |machine| machine.from * 1000 + (now - self.began)),
        }
    }

    pub(crate) fn next(&mut self, now: u64, chance: &mut Chance) -> (Usage, u64) {
        let trace = Arc::clone(&self.trace);
        match &trace.recorded {
            Recorded::Histogram(usage) => self.next_of_export(usage, now, chance),
            Recorded::Machines(machines) => {
                let Some(machine) = machines.get(self.machine) else {
                    return (Usage::OFF, u64::MAX);
                };
                // After its end a recording begins again.
                let length = (machine.to - machine.from).max(1) * 1000;
                let round = (now - self.began) / length;
                let at = machine.from * 1000 + (now - self.began) % length;
                let round_ends = self.began + (round + 1) * length;
                let (done, ends) = self.find(&machine.steps, at);
                let until = ends.map_or(round_ends, |ends| round_ends.min(now + (ends - at)));
                self.do_it(done, now, until, chance)
            }
        }
    }

    /// What was done at a local time in milliseconds, and until when.
    fn find(&mut self, steps: &[Step], at: u64) -> (Done, Option<u64>) {
        let begins = |step: usize| steps.get(step).map(|step| step.at * 1000);
        if begins(self.step).is_none_or(|begins| begins > at) {
            self.step = steps.partition_point(|step| step.at * 1000 <= at);
            self.step = self.step.saturating_sub(1);
        }
        while begins(self.step + 1).is_some_and(|begins| begins <= at) {
            self.step += 1;
        }
        match steps.get(self.step) {
            Some(step) if step.at * 1000 <= at => (step.done, begins(self.step + 1)),
            _ => (Done::Off, begins(self.step)),
        }
    }

    fn do_it(&mut self, done: Done, now: u64, until: u64, chance: &mut Chance) -> (Usage, u64) {
        match done {
            Done::Off => (Usage::OFF, until),
            Done::Free => {
                let load = permille(1.0 - of::IDLE_FREE);
                (
                    Usage {
                        load,
                        ..Usage::ALONE
                    },
                    until,
                )
            }
            Done::Session => {
                let (usage, ends) = self.session.next(now, chance);
                (usage, until.min(ends))
            }
            Done::Measured { load, touching } => {
                let usage = Usage {
                    on: true,
                    logged_in: true,
                    touching,
                    load,
                };
                (usage, until)
            }
        }
    }

    /// The calendar says how likely each hour is to be on and used, the gaps how long the PC
    /// rests and works in between.
    fn next_of_export(
        &mut self,
        of: &UsageHistogram,
        now: u64,
        chance: &mut Chance,
    ) -> (Usage, u64) {
        const HOUR_MS: u64 = 3_600_000;
        let hour_ends = (now / HOUR_MS + 1) * HOUR_MS;
        let index = usize::try_from((now / HOUR_MS + 3 * 24) % WEEK_H).unwrap_or(0);
        let most = of.hours.iter().map(|hour| hour.on_seconds).max();
        let Some(hour) = of.hours.get(index).filter(|hour| hour.on_seconds > 0) else {
            return (Usage::OFF, hour_ends);
        };
        let part = |part: u64, of: u64| ratio(part, of.max(1));
        // Drawn once an hour, from the hour itself: a PC does not come and go with each gap.
        let draw = crate::chance::fixed(now / HOUR_MS, 7, u64::from(of.processors));
        if draw >= part(hour.on_seconds, most.unwrap_or(1)) {
            return (Usage::OFF, hour_ends);
        }
        if self.used_until <= now && self.rested_until <= now {
            if chance.likely(part(hour.used_seconds, hour.on_seconds)) {
                self.used_until = now + chance.lognormal_ms(of::TOUCHING.0, of::TOUCHING.1);
            } else {
                self.rested_until = now + chance.lognormal_ms(of::TOUCHING.0, of::TOUCHING.1);
            }
        }
        let touching = self.used_until > now;
        let (idle, busy) = (mean_ms(&of.idle_gaps), mean_ms(&of.busy_runs));
        self.busy = !self.busy && of.busy_runs.total() > 0;
        let length = draw_gap(
            if self.busy {
                &of.busy_runs
            } else {
                &of.idle_gaps
            },
            chance,
        );
        // The load while busy that gives the hour its mean.
        let mean = 1.0 - part(hour.idle_permille_seconds, hour.on_seconds * 1000);
        let load = if self.busy {
            mean * (idle + busy) / busy.max(1.0)
        } else {
            0.0
        };
        let usage = Usage {
            on: true,
            logged_in: true,
            touching,
            load: permille(load),
        };
        let ends = if touching {
            self.used_until
        } else {
            self.rested_until
        };
        (usage, hour_ends.min(ends).min(now + length).max(now + 1))
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares of seconds")]
fn ratio(part: u64, of: u64) -> f64 {
    part as f64 / of as f64
}

/// The bins that are long enough to matter, with their bounds.
fn bins(gaps: &Gaps) -> impl Iterator<Item = (u64, Span, Span)> {
    let counted = gaps.counts.iter().zip(0..);
    counted.filter_map(|(count, bin)| {
        let (from, to) = Gaps::bounds(bin);
        (*count > 0 && to.ms > SHORTEST_MS).then_some((*count, from, to))
    })
}

/// Mean length, in milliseconds: bins count with their middle.
fn mean_ms(gaps: &Gaps) -> f64 {
    let total: u64 = bins(gaps).map(|bin| bin.0).sum();
    let sum: f64 = bins(gaps)
        .map(|(count, from, to)| ratio(count, 1) * ratio(from.ms + to.ms, 2))
        .sum();
    sum / ratio(total.max(1), 1)
}

/// A length out of a histogram, in milliseconds.
fn draw_gap(gaps: &Gaps, chance: &mut Chance) -> u64 {
    let total: u64 = bins(gaps).map(|bin| bin.0).sum();
    if total == 0 {
        return 3_600_000;
    }
    let mut left = chance.between(1, total);
    for (count, from, to) in bins(gaps) {
        if left <= count {
            return chance.between(from.ms.max(SHORTEST_MS), to.ms);
        }
        left -= count;
    }
    SHORTEST_MS
}
