//! The rules: what stops tasks, what limits them, and what else they must respect. Each is a
//! function of what the brain knows; the first that stops, and the one that limits most, give the
//! decision its cause.

use crate::brain::Brain;
use crate::cause::{Focus, Sense};
use crate::clock::Mono;
use crate::settings::{allows, opens_in};
use crate::thresholds as at;
use crate::vetoes::{heat_limit, reserve};
use crate::{Cause, Relief, Verdict};
use gleaner_model::{Attention, Bytes, Cpus, Span};

impl Brain {
    /// The first reason for which tasks must not run.
    pub(crate) fn stop(&self) -> Option<Cause> {
        self.stop_by_wish()
            .or_else(|| self.stop_by_hour())
            .or_else(|| self.stop_by_machine())
            .or_else(|| self.stop_by_need())
            .or_else(|| self.stop_by_policy())
    }

    fn stop_by_wish(&self) -> Option<Cause> {
        if let Some(pause) = &self.pause {
            let left = pause.until.map(|until| until.since(self.clock.wall));
            let until = pause.until;
            return Some(Cause::OwnerPause { until, left });
        }
        if self.vetoes.sleeping.on() {
            return Some(Cause::Sleeping);
        }
        self.senses.silent(&self.clock).then_some(Cause::Silent)
    }

    fn stop_by_hour(&self) -> Option<Cause> {
        let minute = self.senses.minute(&self.clock);
        let wait = |hours| {
            let minutes = opens_in(hours, minute)?;
            let moment = self.senses.minutes_ahead(&self.clock, minutes)?;
            let left = moment.since(self.clock.mono);
            Some(if allows(hours, minute) {
                at::HOLD
            } else {
                left
            })
        };
        if self.vetoes.schedule.on() {
            let left = wait(&self.settings.schedule);
            return Some(Cause::Schedule { left });
        }
        self.vetoes.day.on().then(|| Cause::Day {
            left: wait(self.rule.hours),
        })
    }

    /// The PC itself: power, heat, disk.
    fn stop_by_machine(&self) -> Option<Cause> {
        let now = self.clock.mono;
        let settings = &self.settings;
        if !settings.lenient {
            let power = self.senses.power.value(now);
            let drained = self.vetoes.drained.on();
            if drained || (self.vetoes.battery.on() && !settings.on_battery) {
                return Some(match power {
                    None if self.senses.power.exists() => Cause::Unseen {
                        sense: Sense::Power,
                    },
                    power => Cause::Battery {
                        charge: power.and_then(|power| power.charge),
                    },
                });
            }
            if self.vetoes.hot.on() {
                let heat = self.senses.heat.value(now).unwrap_or_default();
                return Some(Cause::Hot {
                    celsius: heat.celsius,
                    limit: heat_limit(settings, heat.critical),
                });
            }
        }
        self.vetoes.disk.on().then(|| Cause::DiskLow {
            free: self.senses.disk_free.value(now).unwrap_or_default(),
            enough: at::DISK_ENOUGH,
        })
    }

    /// The owner's programs.
    fn stop_by_need(&self) -> Option<Cause> {
        let now = self.clock.mono;
        if self.vetoes.memory.on() {
            let waited = self.senses.pressure.value(now).map_or(0, |p| p.memory);
            let memory = self
                .senses
                .memory
                .value(now)
                .filter(|memory| waited <= at::MEMORY_ON && memory.available < reserve(memory));
            return Some(match memory {
                Some(memory) => Cause::MemoryLow {
                    available: memory.available,
                    reserve: reserve(&memory),
                },
                None => Cause::MemoryPressure {
                    permille: waited.max(at::MEMORY_ON),
                },
            });
        }
        let busy = self.vetoes.busy.on() || (self.rule.quiet && self.vetoes.noisy.on());
        busy.then(|| Cause::Busy {
            permille: self.vetoes.load(),
        })
    }

    fn stop_by_policy(&self) -> Option<Cause> {
        let (now, rule) = (self.clock.mono, &self.rule);
        if rule.quiet && self.senses.load.failed(now) {
            return Some(Cause::Unseen { sense: Sense::Load });
        }
        let needs = rule.away?;
        if self.presence.blind() {
            return Some(Cause::Blind);
        }
        if rule.logged_out && self.presence.logged_in() {
            return Some(Cause::LoggedIn);
        }
        let ago = self.presence.away(now)?;
        let locked = rule.or_locked && self.presence.locked();
        let needs = if locked { at::LOCKED_AFTER } else { needs };
        (ago < needs).then(|| Cause::InUse {
            ago,
            left: Span {
                ms: needs.ms - ago.ms,
            },
        })
    }

    /// Whether the owner uses the PC at this moment.
    fn active(&self) -> bool {
        let touched = self.presence.untouched(self.clock.mono);
        self.presence.blind() || touched.is_some_and(|ago| ago < at::ACTIVE_FOR)
    }

    /// Processors that tasks may use, and the rule that leaves them no more.
    pub(crate) fn limit(&self) -> (Cpus, Option<Cause>) {
        let now = self.clock.mono;
        let all = self.processors.milli;
        let half = (all / 2).max(at::ALLOWANCE_MIN_MILLI);
        let mut least = (all, None);
        let mut limit = |milli: u32, cause: &dyn Fn(Cpus) -> Cause| {
            if milli < least.0 {
                least = (milli, Some(cause(Cpus { milli })));
            }
        };
        if let Some(cpus) = self.settings.cpus_max {
            limit(cpus.milli, &|cpus| Cause::Limit { cpus });
        }
        if let Some(focus) = self.senses.attention.value(now).and_then(focus) {
            limit(half, &|_| Cause::Attending { focus });
        }
        let warm = self.vetoes.warm.on() && !self.settings.lenient;
        if let Some(heat) = self.senses.heat.value(now).filter(|_| warm) {
            let celsius = heat.celsius;
            limit(half, &|_| Cause::Warm { celsius });
        }
        if let Some(sense) = self.unsure() {
            limit(half, &|_| Cause::Unsure { sense });
        }
        if self.active() {
            let measured = self.senses.delay.value(now).is_some();
            let proven = measured && self.effort.proven(now);
            if all >= at::FREE_CORE_FROM_MILLI && !proven {
                limit(all - 1000, &|cpus| Cause::Active { cpus });
            }
            if let Some(cpus) = self.settings.active_cpus {
                limit(cpus.milli, &|cpus| Cause::Active { cpus });
            }
        }
        let permille = self.effort.cause();
        limit(self.effort.milli(), &|_| Cause::Delay { permille });
        if let Some(resumed) = self.resumed {
            limit(self.ramp(resumed), &|cpus| Cause::Resuming { cpus });
        }
        let (milli, cause) = least;
        (Cpus { milli }, cause)
    }

    /// Thousandths of a processor that tasks may use so long after they were resumed.
    pub(crate) fn ramp(&self, resumed: Mono) -> u32 {
        let all = self.processors.milli;
        let steps = self.clock.mono.since(resumed).ms / at::GROW_EVERY.ms;
        let more = u32::try_from(steps)
            .unwrap_or(u32::MAX)
            .saturating_mul(1000);
        (all / 2)
            .max(at::ALLOWANCE_MIN_MILLI)
            .saturating_add(more)
            .min(all)
    }

    /// A sensor without which half of the PC must do.
    fn unsure(&self) -> Option<Sense> {
        let now = self.clock.mono;
        let senses = &self.senses;
        let sense = [
            (senses.attention.failed(now), Sense::Attention),
            (senses.load.failed(now), Sense::Load),
            (senses.delay.failed(now) && self.active(), Sense::Delay),
            (
                senses.heat.failed(now) && !self.settings.lenient,
                Sense::Heat,
            ),
        ];
        let first = sense.into_iter().find(|(failed, _)| *failed);
        first.map(|(_, sense)| sense)
    }

    /// Share of disk and network rates for tasks, in thousandths.
    pub(crate) fn io(&self) -> u16 {
        let near = if self.near() { at::IO_PRESENT } else { 1000 };
        self.share.permille().min(near)
    }

    /// Whether somebody is likely to need the disk next.
    fn near(&self) -> bool {
        let now = self.clock.mono;
        let touched = self.presence.untouched(now);
        touched.is_some_and(|ago| ago < at::IO_PRESENT_FOR)
            || self.presence.blind()
            || self.senses.pressure.failed(now)
    }

    pub(crate) fn transfers(&self) -> bool {
        let now = self.clock.mono;
        let metered = &self.senses.metered;
        !metered.value(now).unwrap_or_else(|| metered.exists())
    }

    /// The cause where only disk and network are cut.
    pub(crate) fn nuisance(&self, io: u16, transfers: bool) -> Cause {
        if !transfers {
            return Cause::Metered;
        }
        let permille = self.share.cause();
        match io {
            1000 => Cause::Free,
            io if io < at::IO_PRESENT || !self.near() => Cause::DiskPressure { permille },
            permille => Cause::Near { permille },
        }
    }

    /// What tasks must give back.
    pub(crate) fn relief(&self) -> Relief {
        let now = self.clock.mono;
        if self.vetoes.memory.on() {
            let pressing = self.vetoes.memory.pressing_for(now);
            return if pressing.is_some_and(|long| long >= at::SHED_AFTER) {
                Relief::Shed
            } else {
                Relief::Reclaim
            };
        }
        match self.senses.memory.value(now) {
            Some(memory) if memory.available < reserve(&memory) => Relief::Reclaim,
            Some(_) | None => Relief::None,
        }
    }

    /// Memory that attempts may hold.
    pub(crate) fn room(&self) -> Bytes {
        let memory = self.senses.memory.value(self.clock.mono);
        memory.map_or(Bytes(u64::MAX), |memory| {
            let both = memory.tasks.0.saturating_add(memory.available.0);
            let room = both.saturating_sub(reserve(&memory).0);
            Bytes(room / at::ROOM_STEP.0 * at::ROOM_STEP.0)
        })
    }

    /// Whether attempts may start: not while tasks give memory back, nor where memory or disk
    /// might be short.
    pub(crate) fn admits(&self, verdict: Verdict, relief: Relief) -> bool {
        let now = self.clock.mono;
        let senses = &self.senses;
        let disk = senses.disk_free.value(now);
        let cramped = disk.is_some_and(|free| free < at::DISK_ENOUGH);
        verdict != Verdict::Evict
            && relief == Relief::None
            && !cramped
            && !senses.disk_free.failed(now)
            && !senses.memory.failed(now)
    }
}

/// What the owner attends to.
const fn focus(attention: Attention) -> Option<Focus> {
    if attention.game {
        Some(Focus::Game)
    } else if attention.presenting {
        Some(Focus::Presentation)
    } else if attention.full_screen {
        Some(Focus::FullScreen)
    } else {
        None
    }
}
