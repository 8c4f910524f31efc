//! The brain: takes events, keeps what it needs to know of the past, and decides.

use crate::clock::{Clock, Mono};
use crate::effort::{Effort, Share};
use crate::policy::{Rule, rule};
use crate::presence::Presence;
use crate::senses::Senses;
use crate::settings::next_edge;
use crate::thresholds as at;
use crate::vetoes::Vetoes;
use crate::{Cause, Decision, Event, OwnerWish, Relief, Resource, Settings, Verdict};
use gleaner_model::{Bytes, Cpus, Sample, Span, Time};

/// Judges one PC.
#[derive(Debug, Clone)]
pub struct Brain {
    pub(crate) processors: Cpus,
    pub(crate) settings: Settings,
    pub(crate) rule: Rule,
    pub(crate) clock: Clock,
    pub(crate) senses: Senses,
    pub(crate) presence: Presence,
    pub(crate) vetoes: Vetoes,
    pub(crate) effort: Effort,
    pub(crate) share: Share,
    pub(crate) pause: Option<Pause>,
    /// When tasks were last let run after a pause.
    pub(crate) resumed: Option<Mono>,
    /// How long they have been frozen, sleep of the PC not counted.
    frozen: Span,
    /// When an attempt was last asked back.
    shed: Option<Mono>,
    decision: Decision,
}

/// The owner's pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) until: Option<Time>,
    /// The same in time that passes: a clock that is set back must not prolong the pause.
    pub(crate) over: Option<Mono>,
}

impl Brain {
    /// A brain for a PC of so many processors. It lets nothing run before the first sample.
    #[must_use]
    pub fn new(processors: Cpus, settings: Settings, now: Time) -> Self {
        let clock = Clock::new(now, at::BEAT);
        let begin = clock.mono;
        Self {
            processors,
            rule: rule(settings.policy),
            settings,
            clock,
            senses: Senses::new(),
            presence: Presence::new(),
            vetoes: Vetoes::new(),
            effort: Effort::new(processors.milli, begin),
            share: Share::new(begin),
            pause: None,
            resumed: None,
            frozen: Span { ms: 0 },
            shed: None,
            decision: Decision {
                verdict: Verdict::Pause,
                allowance: processors,
                io: 1000,
                transfers: false,
                room: Bytes(0),
                admits: false,
                relief: Relief::None,
                cause: Cause::Silent,
                since: now,
            },
        }
    }

    /// Promises a sample at least this often; 10 s otherwise. A source, or the driver, that is
    /// silent for three times as long counts as failed, and a longer step of the clock as a jump.
    #[must_use]
    pub const fn sampled_every(mut self, beat: Span) -> Self {
        self.clock.set_beat(beat);
        self
    }

    /// Takes an event; says whether there is something new to carry out.
    pub fn step(&mut self, now: Time, event: Event) -> bool {
        let passed = self.clock.advance(now);
        let fresh = matches!(event, Event::Sampled(_));
        self.take(event);
        self.presence.look(&self.senses, &self.clock, fresh);
        self.vetoes
            .look(&self.senses, &self.settings, &self.clock, fresh);
        self.vetoes
            .look_at_hours(&self.senses, &self.settings, &self.rule, &self.clock);
        self.effort.grow(self.clock.mono);
        self.share.grow(self.clock.mono);
        if fresh {
            self.feel();
        }
        if self.decision.verdict != Verdict::Run && !self.vetoes.sleeping.on() {
            self.frozen.ms = self.frozen.ms.saturating_add(passed.ms);
        }
        self.decide()
    }

    fn take(&mut self, event: Event) {
        let now = self.clock.mono;
        match event {
            Event::Sampled(sample) => self.sampled(&sample),
            Event::Input => self.presence.touch(now),
            Event::Pressed(Resource::Memory) => self.vetoes.memory.force(now),
            Event::Pressed(Resource::Disk) => {
                let pressure = self.senses.pressure.value(now).map_or(0, |p| p.io);
                self.share.pressed(pressure.max(at::IO_ON), now);
            }
            Event::Sleeping(sleeping) => self.vetoes.sleep(sleeping, now),
            Event::Owner(wish) => self.wished(wish),
            Event::Settings(settings) => {
                self.rule = rule(settings.policy);
                self.settings = settings;
            }
            Event::Tick => {}
        }
    }

    fn sampled(&mut self, sample: &Sample) {
        self.senses.take(sample, &self.clock);
        if let Some(sleeping) = sample.sleeping.value() {
            self.vetoes.sleep(*sleeping, self.clock.mono);
        }
    }

    fn wished(&mut self, wish: OwnerWish) {
        self.pause = match wish {
            OwnerWish::Resume => None,
            OwnerWish::Pause { until } => Some(Pause {
                until,
                over: until.map(|until| self.clock.mono.plus(until.since(self.clock.wall))),
            }),
        };
    }

    /// Lets the owner's delay set the pace.
    fn feel(&mut self) {
        let now = self.clock.mono;
        let load = self.senses.load.value(now);
        let ours = load.is_none_or(|load| load.tasks > at::TASKS_NEGLIGIBLE);
        if let Some(delay) = self.senses.delay.value(now).filter(|_| ours) {
            self.effort.delayed(delay, now);
        }
        let somebody = self
            .presence
            .away(now)
            .is_some_and(|away| away < at::IDLE_AFTER)
            || load.is_none_or(|load| load.owner >= at::IO_OWNER_LOAD);
        let waited = self.senses.pressure.value(now).map_or(0, |p| p.io);
        if waited > at::IO_ON && somebody {
            self.share.pressed(waited, now);
        }
    }

    /// Decides anew; says whether there is something new to carry out.
    fn decide(&mut self) -> bool {
        let now = self.clock.mono;
        if self.pause.as_ref().is_some_and(|pause| self.is_over(pause)) {
            self.pause = None;
        }
        let stop = self.stop();
        let verdict = match stop {
            None => Verdict::Run,
            Some(_) if self.frozen >= self.settings.frozen_max => Verdict::Evict,
            Some(_) => Verdict::Pause,
        };
        let before = self.decision.verdict;
        if verdict == Verdict::Run {
            self.frozen = Span { ms: 0 };
            // A start, of the agent or its sensors, resumes nothing.
            if before != Verdict::Run && self.decision.cause != Cause::Silent {
                self.resumed = Some(now);
            }
        }
        let (allowance, slowed) = self.limit();
        let relief = self.relief();
        let mut next = Decision {
            verdict,
            allowance,
            io: self.io(),
            transfers: self.transfers(),
            room: self.room(),
            admits: self.admits(verdict, relief),
            relief,
            cause: stop.or(slowed).unwrap_or(Cause::Free),
            since: self.decision.since,
        };
        if stop.is_none() && slowed.is_none() {
            next.cause = self.nuisance(next.io, next.transfers);
        }
        if verdict != before {
            next.since = self.clock.wall;
        }
        let ask_again =
            relief == Relief::Shed && self.shed.is_none_or(|at| now.since(at) >= at::SHED_EVERY);
        if ask_again {
            self.shed = Some(now);
        }
        let changed = ask_again || differs(&self.decision, &next);
        self.decision = next;
        changed
    }

    /// The owner's pause ends at its wall time or after its length, whichever comes first.
    fn is_over(&self, pause: &Pause) -> bool {
        pause.until.is_some_and(|until| until <= self.clock.wall)
            || pause.over.is_some_and(|over| over <= self.clock.mono)
    }

    /// What to do now.
    #[must_use]
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When the next [`Event::Tick`] is due; always later than the last step.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        self.due(false)
    }

    /// When the next sample is due for a driver that samples only on change, such as a simulator:
    /// until then the same sample would change nothing.
    #[must_use]
    pub fn sample_at(&self) -> Option<Time> {
        self.due(true)
    }

    fn due(&self, rising: bool) -> Option<Time> {
        let now = self.clock.mono;
        let away = if self.rule.or_locked && self.presence.locked() {
            Some(at::LOCKED_AFTER)
        } else {
            self.rule.away
        };
        let present = self
            .presence
            .due([at::ACTIVE_FOR, at::IO_PRESENT_FOR], away);
        let edges = [&self.settings.schedule[..], self.rule.hours]
            .into_iter()
            .filter(|hours| !hours.is_empty())
            .filter_map(|hours| {
                let edge = next_edge(hours, self.senses.minute(&self.clock));
                self.senses.minutes_ahead(&self.clock, edge)
            });
        let first = self
            .senses
            .expires(&self.clock)
            .chain(present.into_iter().flatten())
            .chain(self.vetoes.due(rising))
            .chain(edges)
            .chain(self.effort.due())
            .chain(self.share.due())
            .chain(self.own_due())
            .filter(|at| *at > now)
            .min()?;
        Some(self.clock.wall_at(first))
    }

    /// What is due by the verdict itself.
    fn own_due(&self) -> impl Iterator<Item = Mono> {
        let now = self.clock.mono;
        let running = self.decision.verdict == Verdict::Run;
        let resuming = self.resumed.filter(|_| running).and_then(|resumed| {
            let steps = now.since(resumed).ms / at::GROW_EVERY.ms + 1;
            let ramped = self.ramp(resumed) >= self.processors.milli;
            (!ramped).then(|| {
                resumed.plus(Span {
                    ms: steps * at::GROW_EVERY.ms,
                })
            })
        });
        let paused = self.decision.verdict == Verdict::Pause && !self.vetoes.sleeping.on();
        let left = self.settings.frozen_max.ms.saturating_sub(self.frozen.ms);
        let evict = paused.then(|| now.plus(Span { ms: left }));
        let pause = self.pause.and_then(|pause| {
            let wall = pause.until?.since(self.clock.wall);
            Some(pause.over?.min(now.plus(wall)))
        });
        let relieving = self.decision.relief != Relief::None;
        let shed = relieving.then(|| self.shed_due(now)).flatten();
        [resuming, evict, pause, shed].into_iter().flatten()
    }

    fn shed_due(&self, now: Mono) -> Option<Mono> {
        let pressing = self.vetoes.memory.pressing_for(now)?;
        let first = now.plus(Span {
            ms: at::SHED_AFTER.ms.saturating_sub(pressing.ms),
        });
        Some(
            self.shed
                .map_or(first, |at| first.max(at.plus(at::SHED_EVERY))),
        )
    }
}

/// Whether two decisions differ in something to carry out, figures of the cause apart.
fn differs(one: &Decision, other: &Decision) -> bool {
    use core::mem::discriminant;
    one.verdict != other.verdict
        || one.allowance != other.allowance
        || one.io != other.io
        || one.transfers != other.transfers
        || one.room != other.room
        || one.admits != other.admits
        || one.relief != other.relief
        || discriminant(&one.cause) != discriminant(&other.cause)
}
