//! Rules one by one, and what holds for all streams of events.

mod failing;
mod flapping;
mod places;
mod properties;
mod rules;

use crate::{Brain, Decision, Event, Settings, Verdict};
use gleaner_model::{
    Attention, Bytes, Cpus, Heat, Load, Memory, Policy, Power, Pressure, Sample, Sessions, Signal,
    Span, Time,
};
use std::boxed::Box;

/// Monday 2026-01-05, 00:00 UTC; local time is the same.
const MONDAY: u64 = 1_767_571_200_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A PC of so many processors, its owner, and a clock.
struct Desk {
    brain: Brain,
    now: u64,
    /// What the sensors see, apart from times.
    sees: Sees,
}

/// What the sensors see; absent where none.
#[derive(Clone, Copy)]
struct Sees {
    touched: Option<u64>,
    sessions: Option<Sessions>,
    attention: Option<Attention>,
    load: Option<Load>,
    delay: Option<u16>,
    pressure: Option<Pressure>,
    memory: Option<Memory>,
    power: Option<Power>,
    heat: Option<Heat>,
    metered: Option<bool>,
    disk_free: Option<Bytes>,
    sleeping: Option<bool>,
}

/// A PC with everything, at which nobody has ever been.
const CALM: Sees = Sees {
    touched: Some(MONDAY - 24 * HOUR),
    sessions: Some(Sessions {
        people: 1,
        active: 1,
        remote: 0,
        locked: false,
        idle_inhibited: false,
    }),
    attention: Some(Attention {
        full_screen: false,
        presenting: false,
        game: false,
    }),
    load: Some(Load {
        owner: 20,
        tasks: 900,
        stolen: 0,
        busiest: 50,
    }),
    delay: Some(0),
    pressure: Some(Pressure {
        cpu: Some(0),
        memory: 0,
        io: 0,
    }),
    memory: Some(Memory {
        total: Bytes(8 << 30),
        available: Bytes(4 << 30),
        tasks: Bytes(0),
        major_faults: 0,
    }),
    power: Some(Power {
        mains: true,
        charge: Some(90),
    }),
    heat: Some(Heat {
        celsius: 50,
        critical: Some(100),
        throttled: false,
    }),
    metered: Some(false),
    disk_free: Some(Bytes(50 << 30)),
    sleeping: Some(false),
};

impl Sees {
    fn sample(&self, now: u64) -> Sample {
        fn seen<T>(value: Option<T>, now: u64) -> Signal<T> {
            value.map_or(Signal::Absent, |value| Signal::Seen {
                value,
                at: Time { ms: now },
            })
        }
        let touched = self.touched.map(|ms| Time { ms });
        Sample {
            at: Time { ms: now },
            input: seen(touched, now),
            terminal: Signal::Absent,
            desktop: Signal::Absent,
            sessions: seen(self.sessions, now),
            attention: seen(self.attention, now),
            load: seen(self.load, now),
            delay: seen(self.delay, now),
            pressure: seen(self.pressure, now),
            memory: seen(self.memory, now),
            power: seen(self.power, now),
            heat: seen(self.heat, now),
            metered: seen(self.metered, now),
            disk_free: seen(self.disk_free, now),
            sleeping: seen(self.sleeping, now),
            minute_of_week: u16::try_from(now.saturating_sub(MONDAY) / MINUTE % 10_080).unwrap(),
        }
    }
}

fn battery(charge: Option<u8>) -> Option<Power> {
    Some(Power {
        mains: false,
        charge,
    })
}

fn degrees(celsius: i16) -> Option<Heat> {
    Some(Heat {
        celsius,
        critical: Some(100),
        throttled: false,
    })
}

fn pressed(memory: u16, io: u16) -> Option<Pressure> {
    Some(Pressure {
        cpu: None,
        memory,
        io,
    })
}

fn cpus(n: u32) -> Cpus {
    Cpus { milli: n * 1000 }
}

fn policy(policy: Policy) -> Settings {
    Settings {
        policy,
        ..Settings::default()
    }
}

impl Desk {
    /// A PC with a calm owner, at noon of a Monday; the first sample was taken.
    fn new(processors: u32, settings: Settings) -> Self {
        let now = MONDAY + 12 * HOUR;
        let mut desk = Self {
            brain: Brain::new(cpus(processors), settings, Time { ms: now }),
            now,
            sees: CALM,
        };
        desk.look();
        desk
    }

    fn step(&mut self, event: Event) -> bool {
        let changed = self.brain.step(Time { ms: self.now }, event);
        let wake = self.brain.wake_at();
        assert!(
            wake.is_none_or(|wake| wake.ms > self.now),
            "a wake in the past: {wake:?}, now {}",
            self.now
        );
        changed
    }

    /// A sample of what there is to see.
    fn look(&mut self) -> bool {
        let sample = self.sees.sample(self.now);
        self.step(Event::Sampled(Box::new(sample)))
    }

    /// Time passes, with samples every 500 ms.
    fn pass(&mut self, span: Span) {
        let end = self.now + span.ms;
        while self.now < end {
            self.now = end.min(self.now + 500);
            self.look();
        }
    }

    fn input(&mut self) -> bool {
        self.sees.touched = Some(self.now);
        self.step(Event::Input)
    }

    fn see(&mut self, change: impl FnOnce(&mut Sees)) {
        change(&mut self.sees);
        self.look();
    }

    fn owner_uses(&mut self, permille: u16) {
        if let Some(load) = &mut self.sees.load {
            load.owner = permille;
        }
    }

    fn decision(&self) -> &Decision {
        self.brain.decision()
    }

    fn verdict(&self) -> Verdict {
        self.decision().verdict
    }

    fn milli(&self) -> u32 {
        self.decision().allowance.milli
    }

    fn says(&self) -> std::string::String {
        std::format!("{}", self.decision())
    }
}
