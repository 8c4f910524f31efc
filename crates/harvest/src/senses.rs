//! What the sensors said last, and whether it can still be believed.

use crate::clock::{Clock, Mono};
use crate::thresholds::FUTURE_MAX;
use gleaner_model::{
    Attention, Bytes, Heat, Load, Memory, Power, Pressure, Sample, Sessions, Signal, Time,
};

/// One source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading<T> {
    /// There is no such thing.
    Absent,
    /// It cannot be read, and its last word is too old.
    Failed,
    /// Its last word, and until when that holds. A source that fails has this long to recover.
    Good { value: T, until: Mono },
}

impl<T: Copy> Reading<T> {
    fn take(&mut self, signal: Signal<T>, clock: &Clock) {
        match signal {
            Signal::Absent => *self = Self::Absent,
            Signal::Seen { value, at } if at <= clock.wall + FUTURE_MAX => {
                let age = clock.wall.since(at);
                let until = clock.mono.plus(clock.patience()).minus(age);
                *self = Self::Good { value, until };
            }
            Signal::Seen { .. } | Signal::Failed { .. } => {
                if matches!(self, Self::Absent) {
                    *self = Self::Failed;
                }
            }
        }
    }

    /// What it said, if that still holds.
    pub(crate) fn value(&self, now: Mono) -> Option<T> {
        match self {
            Self::Good { value, until } if now < *until => Some(*value),
            Self::Good { .. } | Self::Absent | Self::Failed => None,
        }
    }

    /// Whether it exists and cannot be believed.
    pub(crate) fn failed(&self, now: Mono) -> bool {
        self.exists() && self.value(now).is_none()
    }

    pub(crate) const fn exists(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    fn expires(&self) -> Option<Mono> {
        match self {
            Self::Good { until, .. } => Some(*until),
            Self::Absent | Self::Failed => None,
        }
    }
}

/// All sources.
#[derive(Debug, Clone)]
pub(crate) struct Senses {
    pub(crate) input: Reading<Time>,
    pub(crate) terminal: Reading<Time>,
    pub(crate) desktop: Reading<Time>,
    pub(crate) sessions: Reading<Sessions>,
    pub(crate) attention: Reading<Attention>,
    pub(crate) load: Reading<Load>,
    pub(crate) delay: Reading<u16>,
    pub(crate) pressure: Reading<Pressure>,
    pub(crate) memory: Reading<Memory>,
    pub(crate) power: Reading<Power>,
    pub(crate) heat: Reading<Heat>,
    pub(crate) metered: Reading<bool>,
    pub(crate) disk_free: Reading<Bytes>,
    /// When the last sample came, its wall time, and its minute of the week.
    sampled: Option<(Mono, Time, u16)>,
}

impl Senses {
    pub(crate) const fn new() -> Self {
        Self {
            input: Reading::Absent,
            terminal: Reading::Absent,
            desktop: Reading::Absent,
            sessions: Reading::Absent,
            attention: Reading::Absent,
            load: Reading::Absent,
            delay: Reading::Absent,
            pressure: Reading::Absent,
            memory: Reading::Absent,
            power: Reading::Absent,
            heat: Reading::Absent,
            metered: Reading::Absent,
            disk_free: Reading::Absent,
            sampled: None,
        }
    }

    pub(crate) fn take(&mut self, sample: &Sample, clock: &Clock) {
        self.input.take(sample.input, clock);
        self.terminal.take(sample.terminal, clock);
        self.desktop.take(sample.desktop, clock);
        self.sessions.take(sample.sessions, clock);
        self.attention.take(sample.attention, clock);
        self.load.take(sample.load, clock);
        self.delay.take(sample.delay, clock);
        self.pressure.take(sample.pressure, clock);
        self.memory.take(sample.memory, clock);
        self.power.take(sample.power, clock);
        self.heat.take(sample.heat, clock);
        self.metered.take(sample.metered, clock);
        self.disk_free.take(sample.disk_free, clock);
        self.sampled = Some((clock.mono, clock.wall, sample.minute_of_week));
    }

    /// Whether no sample came for too long, or none at all.
    pub(crate) fn silent(&self, clock: &Clock) -> bool {
        self.sampled
            .is_none_or(|(at, ..)| clock.mono.since(at) >= clock.patience())
    }

    /// The minute of the week now. Minutes begin at the same moment in all time zones.
    pub(crate) fn minute(&self, clock: &Clock) -> u16 {
        let Some((at, wall, minute)) = self.sampled else {
            return 0;
        };
        let passed = (clock.mono.since(at).ms + wall.ms % 60_000) / 60_000;
        let week = u64::from(crate::settings::WEEK_MINUTES);
        u16::try_from((u64::from(minute) + passed) % week).unwrap_or(0)
    }

    /// When a minute of the week begins that lies so many minutes ahead of the present one.
    pub(crate) fn minutes_ahead(&self, clock: &Clock, minutes: u16) -> Option<Mono> {
        let (at, wall, _) = self.sampled?;
        let into = (clock.mono.since(at).ms + wall.ms % 60_000) % 60_000;
        let ahead = (u64::from(minutes) * 60_000).saturating_sub(into);
        Some(clock.mono.plus(gleaner_model::Span { ms: ahead }))
    }

    /// When the first source, or all of them, can no longer be believed.
    pub(crate) fn expires(&self, clock: &Clock) -> impl Iterator<Item = Mono> {
        let all = self.sampled.map(|(at, ..)| at.plus(clock.patience()));
        [
            all,
            self.input.expires(),
            self.terminal.expires(),
            self.desktop.expires(),
            self.sessions.expires(),
            self.attention.expires(),
            self.load.expires(),
            self.delay.expires(),
            self.pressure.expires(),
            self.memory.expires(),
            self.power.expires(),
            self.heat.expires(),
            self.metered.expires(),
            self.disk_free.expires(),
        ]
        .into_iter()
        .flatten()
    }
}
