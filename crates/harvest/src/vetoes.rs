//! What speaks against work whatever the policy, each with its hysteresis.

use crate::clock::{Clock, Mono};
use crate::gate::{Gate, Seen};
use crate::mean::Mean;
use crate::policy::Rule;
use crate::senses::Senses;
use crate::settings::{Settings, allows};
use crate::thresholds as at;
use gleaner_model::{Bytes, Memory, Span};

const NO_TIME: Span = Span { ms: 0 };

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Vetoes {
    pub(crate) busy: Gate,
    /// The owner's programs do not rest: counts where a policy asks for quiet.
    pub(crate) noisy: Gate,
    pub(crate) memory: Gate,
    pub(crate) hot: Gate,
    pub(crate) warm: Gate,
    pub(crate) disk: Gate,
    pub(crate) battery: Gate,
    pub(crate) drained: Gate,
    pub(crate) schedule: Gate,
    pub(crate) day: Gate,
    pub(crate) sleeping: Gate,
    /// Since when the PC says that it goes to sleep.
    sleepy: Option<Mono>,
    /// The owner's load.
    load: Mean,
    /// No sample with it has come yet.
    first_load: bool,
}

impl Vetoes {
    pub(crate) const fn new() -> Self {
        Self {
            busy: Gate::doubling(at::BUSY_FOR, at::BUSY_CALM),
            noisy: Gate::new(at::QUIET_FOR, at::QUIET_CALM),
            memory: Gate::doubling(NO_TIME, at::MEMORY_CALM),
            hot: Gate::new(NO_TIME, at::HEAT_CALM),
            warm: Gate::new(NO_TIME, at::HEAT_CALM),
            disk: Gate::new(NO_TIME, at::DISK_CALM),
            battery: Gate::new(NO_TIME, at::POWER_CALM),
            drained: Gate::new(NO_TIME, at::POWER_CALM),
            schedule: Gate::new(NO_TIME, at::HOLD),
            day: Gate::new(NO_TIME, at::HOLD),
            sleeping: Gate::new(NO_TIME, at::HOLD),
            sleepy: None,
            load: Mean::new(),
            first_load: true,
        }
    }

    /// The PC says that it goes to sleep, or that it does not.
    pub(crate) fn sleep(&mut self, sleeping: bool, now: Mono) {
        self.sleepy = match (sleeping, self.sleepy) {
            (true, None) => Some(now),
            (true, since) => since,
            (false, _) => None,
        };
    }

    /// Looks at the sources again.
    pub(crate) fn look(&mut self, seen: &Senses, settings: &Settings, clock: &Clock, fresh: bool) {
        let now = clock.mono;
        self.look_at_load(seen, now, fresh);
        self.look_at_memory(seen, now, fresh);
        self.look_at_heat(seen, settings, now, fresh);
        self.look_at_power(seen, now, fresh);
        let disk = match seen.disk_free.value(now) {
            Some(free) if free < at::DISK_LOW => Seen::There,
            Some(free) if free < at::DISK_ENOUGH => Seen::Between,
            None if seen.disk_free.failed(now) => Seen::Between,
            Some(_) | None => Seen::Gone,
        };
        self.disk.see(disk, now, fresh);
        let sleepy = self
            .sleepy
            .is_some_and(|since| now.since(since) < at::SLEEP_MAX);
        self.sleeping.see(Seen::plain(sleepy), now, fresh);
    }

    /// Looks at the calendar.
    pub(crate) fn look_at_hours(
        &mut self,
        seen: &Senses,
        settings: &Settings,
        rule: &Rule,
        clock: &Clock,
    ) {
        let minute = seen.minute(clock);
        let closed = !settings.lenient && !allows(&settings.schedule, minute);
        self.schedule.see(Seen::plain(closed), clock.mono, true);
        let day = !allows(rule.hours, minute);
        self.day.see(Seen::plain(day), clock.mono, true);
    }

    fn look_at_load(&mut self, seen: &Senses, now: Mono, fresh: bool) {
        let known = seen.load.value(now);
        if let Some(load) = known.filter(|_| fresh) {
            self.load.take(load.owner, now);
        }
        let mean = self.load.value().filter(|_| known.is_some());
        let band = |on: u16, off: u16| match mean {
            Some(load) if load > on => Seen::There,
            Some(load) if load < off => Seen::Gone,
            None if !seen.load.exists() => Seen::Gone,
            Some(_) | None => Seen::Between,
        };
        self.busy.see(band(at::BUSY_ON, at::BUSY_OFF), now, fresh);
        let noise = band(at::QUIET_ON, at::QUIET_OFF);
        self.noisy.see(noise, now, fresh);
        if self.first_load && known.is_some() {
            // It must be quiet before the first start, too.
            self.first_load = false;
            if noise != Seen::Gone {
                self.noisy.force(now);
            }
        }
    }

    fn look_at_memory(&mut self, seen: &Senses, now: Mono, fresh: bool) {
        let waited = seen.pressure.value(now).map_or(0, |p| p.memory);
        let unsure = seen.pressure.failed(now) || seen.memory.failed(now);
        let (low, enough) = seen.memory.value(now).map_or((false, true), |memory| {
            let reserve = reserve(&memory).0;
            let left = memory.available.0;
            (left < reserve / 2, left >= reserve / 4 * 3)
        });
        let state = if low || waited > at::MEMORY_ON {
            Seen::There
        } else if enough && waited < at::MEMORY_OFF && !unsure {
            Seen::Gone
        } else {
            Seen::Between
        };
        self.memory.see(state, now, fresh);
    }

    fn look_at_heat(&mut self, seen: &Senses, settings: &Settings, now: Mono, fresh: bool) {
        let Some(heat) = seen.heat.value(now) else {
            let state = if seen.heat.exists() {
                Seen::Between
            } else {
                Seen::Gone
            };
            self.hot.see(state, now, fresh);
            self.warm.see(state, now, fresh);
            return;
        };
        let limit = heat_limit(settings, heat.critical);
        let band = |on: i16, off: i16| match heat.celsius {
            celsius if celsius >= on => Seen::There,
            celsius if celsius < off => Seen::Gone,
            _ => Seen::Between,
        };
        let off = limit.saturating_sub(at::HEAT_OFF_BELOW);
        self.hot.see(band(limit, off), now, fresh);
        let warm = match heat.throttled {
            true => Seen::There,
            false => band(limit.saturating_sub(at::WARM_BELOW), off),
        };
        self.warm.see(warm, now, fresh);
    }

    fn look_at_power(&mut self, seen: &Senses, now: Mono, fresh: bool) {
        let power = seen.power.value(now);
        let unseen = seen.power.failed(now);
        let battery = unseen || power.is_some_and(|power| !power.mains);
        self.battery.see(Seen::plain(battery), now, fresh);
        let charge = power.filter(|p| !p.mains).and_then(|p| p.charge);
        let drained = match charge {
            Some(charge) if charge < at::CHARGE_MIN => Seen::There,
            Some(charge) if charge < at::CHARGE_MIN + 5 => Seen::Between,
            Some(_) | None => Seen::Gone,
        };
        self.drained.see(drained, now, fresh);
    }

    /// The owner's load over the last second, in thousandths of all processors.
    pub(crate) fn load(&self) -> u16 {
        self.load.value().unwrap_or(0)
    }

    /// When time alone changes one of them.
    pub(crate) fn due(&self, rising: bool) -> impl Iterator<Item = Mono> {
        let gates = [
            &self.busy,
            &self.noisy,
            &self.memory,
            &self.hot,
            &self.warm,
            &self.disk,
            &self.battery,
            &self.drained,
            &self.schedule,
            &self.day,
            &self.sleeping,
        ];
        let awake = self.sleepy.map(|since| since.plus(at::SLEEP_MAX));
        gates
            .into_iter()
            .filter_map(move |gate| gate.due(rising))
            .chain(awake)
    }
}

/// Memory that is kept for the owner's programs.
pub(crate) fn reserve(memory: &Memory) -> Bytes {
    let part = Bytes(memory.total.0 / at::RESERVE_PART);
    part.clamp(at::RESERVE_MIN, at::RESERVE_MAX)
}

/// From where on it is too hot, in degrees Celsius.
pub(crate) fn heat_limit(settings: &Settings, critical: Option<i16>) -> i16 {
    let own = critical.map_or(i16::MAX, |critical| {
        critical.saturating_sub(at::HEAT_BELOW_CRITICAL)
    });
    settings.celsius_max.map_or(own, |set| set.min(own))
}
