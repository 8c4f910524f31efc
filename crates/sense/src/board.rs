//! All last words together, and the way out for events.

use crate::event::{EventSink, SenseEvent};
use crate::moment::Moment;
use crate::slot::{Slot, SourceReport};
use gleaner_model::{
    Attention, Bytes, Heat, Load, Memory, Power, Pressure, Sample, Sessions, Signal, Time,
};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// What the session manager says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Logins {
    pub(crate) sessions: Sessions,
    /// Sessions with a desktop of X11 or Wayland, which only a process inside can sense.
    pub(crate) graphical: u32,
}

/// What the processes in the owners' desktops say, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Desktops {
    /// Last activity in any of them.
    pub(crate) active: Moment,
    /// How many people they belong to.
    pub(crate) people: u32,
    /// All of them are locked.
    pub(crate) locked: bool,
    /// A program in one of them asks that the PC count as in use.
    pub(crate) inhibited: bool,
}

/// The last word of every source.
pub(crate) struct Board {
    pub(crate) input: Slot<Moment>,
    pub(crate) terminal: Slot<Moment>,
    pub(crate) desktops: Slot<Desktops>,
    pub(crate) attention: Slot<Attention>,
    pub(crate) logins: Slot<Logins>,
    pub(crate) load: Slot<Load>,
    pub(crate) delay: Slot<u16>,
    pub(crate) pressure: Slot<Pressure>,
    pub(crate) memory: Slot<Memory>,
    pub(crate) power: Slot<Power>,
    pub(crate) heat: Slot<Heat>,
    pub(crate) metered: Slot<bool>,
    pub(crate) disk_free: Slot<Bytes>,
    pub(crate) sleeping: Slot<bool>,
    pub(crate) minute_of_week: AtomicU16,
    /// The session manager said that the PC is about to sleep.
    pub(crate) asleep: AtomicBool,
    /// Tasks are frozen: it may.
    pub(crate) ready_to_sleep: AtomicBool,
    sink: EventSink,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    pub(crate) fn new(sink: EventSink) -> Self {
        Self {
            input: Slot::new("input"),
            terminal: Slot::new("terminals"),
            desktops: Slot::new("desktop"),
            attention: Slot::new("attention"),
            logins: Slot::new("sessions"),
            load: Slot::new("load"),
            delay: Slot::new("delay"),
            pressure: Slot::new("pressure"),
            memory: Slot::new("memory"),
            power: Slot::new("power"),
            heat: Slot::new("heat"),
            metered: Slot::new("network"),
            disk_free: Slot::new("disk"),
            sleeping: Slot::new("sleep"),
            minute_of_week: AtomicU16::new(0),
            asleep: AtomicBool::new(false),
            ready_to_sleep: AtomicBool::new(false),
            sink,
        }
    }

    pub(crate) fn emit(&self, event: SenseEvent) {
        (self.sink)(event);
    }

    /// Tells that a slow word changed, if it did.
    pub(crate) fn changed(&self, changed: bool) {
        if changed {
            self.emit(SenseEvent::Changed);
        }
    }

    pub(crate) fn sample(&self, now: Time) -> Sample {
        let here = Moment::now();
        Sample {
            at: now,
            input: self.input.time_signal(here, now),
            terminal: self.terminal.time_signal(here, now),
            desktop: map(self.desktops.signal(here, now), |desk| {
                here.on_clock(now, desk.active)
            }),
            sessions: self.sessions(here, now),
            attention: self.attention.signal(here, now),
            load: self.load.signal(here, now),
            delay: self.delay.signal(here, now),
            pressure: self.pressure.signal(here, now),
            memory: self.memory.signal(here, now),
            power: self.power.signal(here, now),
            heat: self.heat.signal(here, now),
            metered: self.metered.signal(here, now),
            disk_free: self.disk_free.signal(here, now),
            sleeping: self.sleeping.signal(here, now),
            minute_of_week: self.minute_of_week.load(Ordering::Relaxed),
        }
    }

    /// The session manager's word, and where a desktop knows better (some never tell the session
    /// manager that they are locked, and most inhibitors stay inside the desktop) the desktops'.
    fn sessions(&self, here: Moment, now: Time) -> Signal<Sessions> {
        let desks = self.desktops.signal(here, now);
        match (self.logins.signal(here, now), desks) {
            (Signal::Seen { value, at }, desks) => {
                let mut sessions = value.sessions;
                if let Some(desks) = desks.value() {
                    sessions.locked |= desks.locked && desks.people >= sessions.active;
                    sessions.idle_inhibited |= desks.inhibited;
                }
                Signal::Seen {
                    value: sessions,
                    at,
                }
            }
            // No session manager, or none that answers: whoever runs a desktop is there.
            (Signal::Absent, Signal::Seen { value, at }) => Signal::Seen {
                value: Sessions {
                    people: value.people,
                    active: value.people,
                    remote: 0,
                    locked: value.locked,
                    idle_inhibited: value.inhibited,
                },
                at,
            },
            (logins, _) => map(logins, |logins| logins.sessions),
        }
    }

    /// Whether every source has said something.
    pub(crate) fn all_spoke(&self) -> bool {
        self.reports().iter().all(SourceReport::spoke)
    }

    pub(crate) fn reports(&self) -> Vec<SourceReport> {
        let here = Moment::now();
        vec![
            self.input.report(here),
            self.terminal.report(here),
            self.desktops.report(here),
            self.attention.report(here),
            self.logins.report(here),
            self.load.report(here),
            self.delay.report(here),
            self.pressure.report(here),
            self.memory.report(here),
            self.power.report(here),
            self.heat.report(here),
            self.metered.report(here),
            self.disk_free.report(here),
            self.sleeping.report(here),
        ]
    }
}

fn map<T, U>(signal: Signal<T>, with: impl FnOnce(T) -> U) -> Signal<U> {
    match signal {
        Signal::Absent => Signal::Absent,
        Signal::Failed { since } => Signal::Failed { since },
        Signal::Seen { value, at } => Signal::Seen {
            value: with(value),
            at,
        },
    }
}
