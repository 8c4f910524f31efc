//! An owner made of fits: a calendar of log-ins, sessions with and without input, processor load
//! by state, power, and what whole rooms do at once.

use crate::agenda::Pc;
use crate::chance::{Chance, fixed, mix};
use crate::habits as of;
use crate::usage::{Usage, permille};

const HOUR_MS: u64 = 3_600_000;

/// Power and session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Free,
    Session { until: u64 },
}

/// What ends a time in which nobody is logged in.
#[derive(Debug, Clone, Copy)]
enum Coming {
    LogIn,
    TurnOff,
    Restart,
}

/// An owner.
#[derive(Debug)]
pub(crate) struct Generator {
    state: State,
    coming: Option<(u64, Coming)>,
    /// Ends of the present time off, of the time with or without input, of the load, and of a
    /// burst of it.
    off_until: u64,
    touching: bool,
    run_until: u64,
    level: u16,
    level_until: u64,
    burst_until: u64,
    kind: &'static of::Kind,
    /// How much more or less than the table the PC is used.
    persona: f64,
    /// Shift of the calendar: not everybody gets up at the same time.
    phase: u64,
    room: u64,
    /// The last hour of which the room's plans were carried out.
    planned: u64,
}

/// Share of an hour of the table, with the next hour's for the slope.
fn share(of_hour: impl Fn(&of::Day) -> &[u16; 24], hour: u64) -> (f64, f64) {
    let at = |hour: u64| {
        let hour = hour % 168;
        let day = of_hour(of::day(hour / 24));
        let index = usize::try_from(hour % 24).unwrap_or(0);
        f64::from(day.get(index).copied().unwrap_or(0)) / 1000.0
    };
    (at(hour), at(hour + 1))
}

impl Generator {
    pub(crate) fn new(pc: Pc, seed: u64, now: u64) -> Self {
        let draw = |what: u64| fixed(seed, u64::from(pc), what + 100);
        let mut chance = Chance::new(mix(seed ^ mix(u64::from(pc) + (1 << 40))));
        let sigma = of::PERSONA_SIGMA;
        // Its mean over all PCs is 1.
        let persona = (sigma * chance.normal().clamp(-2.5, 2.5) - sigma * sigma / 2.0).exp();
        let kind = match draw(1) {
            x if x < 0.5 => &of::LABORATORY,
            x if x < 0.8 => &of::OFFICE,
            _ => &of::DEVELOPER,
        };
        let mut generator = Self {
            state: State::Free,
            coming: None,
            off_until: 0,
            touching: false,
            run_until: 0,
            level: 0,
            level_until: 0,
            burst_until: 0,
            kind,
            persona,
            phase: crate::chance::whole(draw(2) * 0.5 * 3_600_000.0),
            room: mix(seed ^ mix(u64::from(pc / of::ROOM) + (1 << 50))),
            planned: 0,
        };
        let hour = generator.hour(now);
        generator.planned = hour.1;
        let used = share(|day| &day.used, hour.0).0 * persona;
        let off = share(|day| &day.off, hour.0).0;
        match draw(3) {
            x if x < off => generator.turn_off(now, &mut chance),
            x if x < off + used => generator.log_in(now, &mut chance),
            _ => {}
        }
        generator
    }

    /// Hour of the week, and of all time.
    const fn hour(&self, now: u64) -> (u64, u64) {
        let hours = (now + self.phase) / HOUR_MS;
        ((hours + 3 * 24) % 168, hours)
    }

    fn log_in(&mut self, now: u64, chance: &mut Chance) {
        let (shape, scale_s) = of::SESSION;
        let until = now + chance.weibull_ms(shape, scale_s);
        self.state = State::Session { until };
        self.touching = true;
        self.run_until = now + chance.lognormal_ms(of::TOUCHING.0, of::TOUCHING.1);
        self.level_until = now;
    }

    fn turn_off(&mut self, now: u64, chance: &mut Chance) {
        self.state = State::Off;
        // The calendar brings it back; this is the longest it stays without it.
        self.off_until = now + chance.wait_ms(of::OFF_MEAN_H * 3600.0);
    }

    fn restart(&mut self, now: u64, chance: &mut Chance) {
        self.state = State::Off;
        self.off_until = now + chance.lognormal_ms(of::RESTART.0, of::RESTART.1);
    }

    /// What the owner does from now on, and until when.
    pub(crate) fn next(&mut self, now: u64, chance: &mut Chance) -> (Usage, u64) {
        let (week_hour, hour) = self.hour(now);
        let hour_ends = (hour + 1) * HOUR_MS - self.phase;
        if hour != self.planned {
            self.planned = hour;
            self.follow_room(now, week_hour, hour, chance);
        }
        self.settle(now, chance);
        let until = match self.state {
            State::Off => self.while_off(now, week_hour, chance),
            State::Free => self.while_free(now, hour_ends, week_hour, chance),
            State::Session { until } => until.min(self.while_working(now, chance)),
        };
        let usage = match self.state {
            State::Off => Usage::OFF,
            State::Free => Usage {
                load: permille(1.0 - of::IDLE_FREE),
                ..Usage::ALONE
            },
            State::Session { .. } => Usage {
                on: true,
                logged_in: true,
                touching: self.touching,
                load: if now < self.burst_until {
                    1000
                } else {
                    self.level
                },
            },
        };
        (usage, until.min(hour_ends).max(now + 1))
    }

    /// What the whole room does in this hour.
    fn follow_room(&mut self, now: u64, week_hour: u64, hour: u64, chance: &mut Chance) {
        let plan = mix(self.room ^ hour);
        let (day, of_day) = (week_hour / 24, week_hour % 24);
        let class = day < 5 && (8..18).contains(&of_day) && plan.is_multiple_of(of::CLASS_HOURS);
        if class && self.state == State::Free && chance.likely(of::CLASS_SHARE) {
            self.log_in(now, chance);
        }
        if week_hour == of::UPDATE_HOUR && self.state != State::Off {
            // From a tenth to eight tenths of the room.
            let part = 0.1 + 0.7 * fixed(plan, 1, 2);
            if chance.likely(part) {
                self.restart(now, chance);
            }
        }
    }

    /// Ends what is over.
    fn settle(&mut self, now: u64, chance: &mut Chance) {
        let over = match self.state {
            State::Off => self.off_until <= now,
            State::Session { until } => until <= now,
            State::Free => false,
        };
        if over {
            self.state = State::Free;
        }
        if self.state == State::Free
            && let Some((_, coming)) = self.coming.take_if(|(at, _)| *at <= now)
        {
            match coming {
                Coming::LogIn => self.log_in(now, chance),
                Coming::TurnOff => self.turn_off(now, chance),
                Coming::Restart => self.restart(now, chance),
            }
        }
        if self.state != State::Free {
            self.coming = None;
        }
    }

    fn while_off(&mut self, now: u64, week_hour: u64, chance: &mut Chance) -> u64 {
        // Where more PCs come back in this hour than would by themselves, they come sooner.
        let (off, then) = share(|day| &day.off, week_hour);
        let extra = (off - then) / off.max(0.01) - 1.0 / of::OFF_MEAN_H;
        if extra > 0.0 {
            let at = now + chance.wait_ms(3600.0 / extra);
            if at < now + HOUR_MS {
                self.off_until = self.off_until.min(at);
            }
        }
        self.off_until
    }

    fn while_free(&mut self, now: u64, hour_ends: u64, week_hour: u64, chance: &mut Chance) -> u64 {
        let (used, used_then) = share(|day| &day.used, week_hour);
        let (off, off_then) = share(|day| &day.off, week_hour);
        let free = (1.0 - used - off).max(0.1);
        // Flows that keep the shares of the table while sessions and times off end by themselves.
        let log_in = (used_then - used + used / of::SESSION_MEAN_H).max(0.0) / free * self.persona;
        let turn_off = (off_then - off + off / of::OFF_MEAN_H).max(0.0) / free;
        let all = log_in + turn_off + of::RESTARTS_PER_H;
        let at = now + chance.wait_ms(3600.0 / all);
        let which = chance.unit() * all;
        let coming = if which < log_in {
            Coming::LogIn
        } else if which < log_in + turn_off {
            Coming::TurnOff
        } else {
            Coming::Restart
        };
        // Rates change with the hour; what would come later is drawn anew then.
        self.coming = (at < hour_ends).then_some((at, coming));
        at.min(hour_ends)
    }

    fn while_working(&mut self, now: u64, chance: &mut Chance) -> u64 {
        if self.run_until <= now {
            self.touching = !self.touching;
            self.run_until = now + of::spell_ms(self.touching, chance);
            self.level_until = now;
        }
        if self.level_until <= now {
            let idle = of::idle(self.touching, chance);
            self.level = permille((1.0 - idle) * self.kind.load);
            self.level_until = now + chance.wait_ms(of::LEVEL_S);
            if self.burst_until <= now && self.touching {
                let rate = self.kind.bursts_per_h * of::LEVEL_S / 3600.0;
                if chance.likely(rate.min(1.0)) {
                    self.burst_until = now + chance.wait_ms(self.kind.burst_s);
                }
            }
        }
        let until = self.run_until.min(self.level_until);
        if now < self.burst_until {
            until.min(self.burst_until)
        } else {
            until
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday 2026-01-05.
    const MONDAY: u64 = 1_767_571_200_000;

    /// Used and off shares by hour of the week, of so many owners over three weeks, the first left
    /// out.
    fn shares(owners: u32) -> Vec<(f64, f64)> {
        let mut sums = vec![(0_u64, 0_u64, 0_u64); 168];
        for pc in 0..owners {
            let mut generator = Generator::new(pc, 5, MONDAY);
            generator.phase = 0;
            let mut chance = Chance::new(u64::from(pc));
            let mut now = MONDAY;
            while now < MONDAY + 21 * 24 * HOUR_MS {
                let (usage, until) = generator.next(now, &mut chance);
                assert!(until > now && until <= now + HOUR_MS);
                let hours = (now - MONDAY) / HOUR_MS;
                let length = until - now;
                if hours >= 168
                    && let Some(sum) = sums.get_mut(usize::try_from(hours % 168).unwrap())
                {
                    sum.0 += length * u64::from(usage.logged_in);
                    sum.1 += length * u64::from(!usage.on);
                    sum.2 += length;
                }
                now = until;
            }
        }
        let share = |(used, off, all): (u64, u64, u64)| {
            let of = |part: u64| f64::from(u32::try_from(part * 10_000 / all).unwrap()) / 1e4;
            (of(used), of(off))
        };
        sums.into_iter().map(share).collect()
    }

    #[test]
    fn hours_are_used_and_off_as_the_table_says() {
        let found = shares(2000);
        let mut worst: (f64, f64) = (0.0, 0.0);
        let (mut all_used, mut all_off) = (0.0, 0.0);
        for (found, hour) in found.iter().zip(0_u64..) {
            let (used, _) = share(|day| &day.used, hour);
            let (off, _) = share(|day| &day.off, hour);
            worst.0 = worst.0.max((found.0 - used).abs());
            worst.1 = worst.1.max((found.1 - off).abs());
            all_used += (found.0 - used) / 168.0;
            all_off += (found.1 - off) / 168.0;
        }
        assert!(
            all_used.abs() < 0.01 && all_off.abs() < 0.01,
            "{all_used} {all_off}"
        );
        assert!(worst.0 < 0.06 && worst.1 < 0.09, "{worst:?}");
    }

    #[test]
    fn whole_rooms_restart_on_sunday_morning() {
        let mut most = 0;
        for room in 0..20 {
            let mut off = 0;
            for pc in room * of::ROOM..(room + 1) * of::ROOM {
                let mut generator = Generator::new(pc, 9, MONDAY);
                generator.phase = 0;
                let mut chance = Chance::new(u64::from(pc));
                let (mut now, mut restarts) = (MONDAY, 0);
                while now < MONDAY + (of::UPDATE_HOUR + 1) * HOUR_MS {
                    let (usage, until) = generator.next(now, &mut chance);
                    let at_seven = now >= MONDAY + of::UPDATE_HOUR * HOUR_MS;
                    restarts += u32::from(at_seven && !usage.on && until < now + 10 * 60_000);
                    now = until;
                }
                off += u32::from(restarts > 0);
            }
            most = most.max(off);
        }
        assert!(most > of::ROOM / 3, "{most} of {}", of::ROOM);
    }
}
